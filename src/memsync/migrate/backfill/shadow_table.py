"""The shadow table: a copy of the history, corrected by a change log, that takes its place.

This module decides what the shadow table is made of. It does each step in one transaction, so that
the catalog shows after a crash how far the work came. The shadow table stands in the schema
`memsync_shadow`, and its objects have the names of the history's own. The cut-over changes schemas:
the history moves to `memsync_retired`, and the shadow table takes its place. Both schemas are
dropped at the end. cutover.py decides when a step is due.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from memsync.errors import GateClosed
from memsync.migrate.backfill.blocks import range_of_blocks
from memsync.migrate.backfill.checkpoint import rewind_fill
from memsync.model.wording import listed
from memsync.stores.history.catalog import PERSONA_INDEX, RETRIEVAL_INDEX, TABLE, USER_INDEX
from memsync.stores.postgres import (
    ForeignKeyViolation,
    Session,
    Statement,
    composed,
    relations,
    sql,
    statement,
)
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl
from memsync.stores.postgres.relations import Blocker

SHADOW = "memsync_shadow.conversation_history"
RETIRED = "memsync_retired.conversation_history"
LOG_TRIGGER = "memsync_log_change"

_WITH_THE_TABLE = (
    "grant_shadow_schemas",
    "carry_table",
    "carry_owner",
    "carry_columns",
    "clear_default_grants",
    "carry_grants",
)
"""Queries whose statements run on the empty shadow table."""
_WITH_THE_CUTOVER = (
    "carry_options",
    "carry_statistics",
    "carry_triggers",
    "carry_policies",
    "carry_references",
    "carry_publications",
    "carry_late_comments",
)
"""Queries whose statements run in the cut-over. Earlier, they would act on the rows that are copied
(triggers), or statements that name the history would change the old table.
"""
_REST_MAX = 256


class Moved(Exception):
    """The history changed since the shadow table was made from it; the message says how."""


@dataclass(frozen=True, slots=True)
class ShadowState:
    """The parts of a copy that exist: a shadow table (`begun`), a retired history (`cut_over`), or
    a schema of either (`found`).
    """

    begun: bool
    cut_over: bool
    found: bool


@dataclass(frozen=True, slots=True)
class ShadowCheckpoint:
    """How far the copy came. `definition` is a digest of the history's definition at its start."""

    next_block: int
    end_block: int
    definition: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment on the server: its clock, and a transaction id taken then."""

    at: datetime
    xact: str


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """An index that the shadow table does not have yet, and how to build it."""

    name: str
    columns: int
    build: Statement


def shadow_state(session: Session) -> ShadowState:
    """Read from the catalog which parts of a shadow table exist."""
    row = session.row("shadow_state")
    return ShadowState(row.begun, row.cut_over, row.found)


def obstacles(session: Session) -> list[str]:
    """The reasons why no shadow table can replace the history; empty if one can."""
    # memsync's own indexes may be INVALID, because it builds them anew.
    ours = [USER_INDEX, PERSONA_INDEX, RETRIEVAL_INDEX]
    found = [
        *session.rows("obstacle_kind"),
        *session.rows("obstacle_columns"),
        *session.rows("obstacle_constraints", but=ours),
        *session.rows("obstacle_dependents"),
        *session.rows("obstacle_extensions"),
        *session.rows("obstacle_replication"),
        *session.rows("obstacle_event_triggers"),
        *session.rows("obstacle_privileges"),
    ]
    return [row.reason for row in found]


def require_no_obstacles(session: Session) -> None:
    """Stop when a shadow table would lose something.

    Raises: GateClosed naming what.
    """
    if in_the_way := obstacles(session):
        raise GateClosed(
            f"{TABLE} cannot be replaced by a copy: {listed(in_the_way, separator='; ')}. Take "
            "that away and run again, or run with --method in-place; no message was changed",
            obstacles=in_the_way,
        )


def begin(ddl: OnlineDdl) -> None:
    """Create the empty shadow table, the change log and its trigger, in one transaction.

    Locks: SHARE ROW EXCLUSIVE on the history, for a moment. The lock waits for every transaction
    that wrote before, and every later write is in the log.
    """
    session = ddl.session

    def make() -> None:
        definition = history_definition(session)
        session.execute(statement("create_shadow_schema"), statement("create_retired_schema"))
        for name in _WITH_THE_TABLE:
            session.execute(*_carried(session.rows(name)))
        rewind_fill(session, "personas")
        session.execute(
            statement("create_shadow_checkpoint"),
            statement("create_change_log"),
            statement("create_change_log_index"),
            statement("define_log_change"),
            statement("revoke_log_change"),
            statement("create_log_change_trigger"),
            statement("always_log_changes"),
        )
        session.run("start_shadow", definition=definition)

    ddl.do(make, table=TABLE)


def history_definition(session: Session) -> str:
    """A digest of the history's definition: columns, indexes, constraints, grants, comments."""
    return str(session.row("history_definition").digest)


def require_unmoved(session: Session) -> ShadowCheckpoint:
    """The checkpoint, if the history is still the table that the shadow table was made from.

    Raises: Moved.
    """
    row = session.row("shadow_checkpoint")
    if row is None or not row.stands:
        raise Moved("the history was truncated or rewritten, or its trigger was removed")
    return ShadowCheckpoint(row.next_block, row.end_block, row.definition)


class Rows:
    """Copies rows into the shadow table, each with the persona that is decided for it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        names = [row.name for row in session.rows("shadow_columns")]
        persona = sql.SQL("coalesce(h.persona_id, k.persona_id, m.persona_id)")
        self._columns = sql.SQL(", ").join(map(sql.Identifier, names))
        self._values = sql.SQL(", ").join(
            persona if name == "persona_id" else sql.SQL("h.{}").format(sql.Identifier(name))
            for name in names
        )

    def copy(self, start: int, stop: int) -> int:
        """Copy a range of blocks; how many rows were copied. Runs in the caller's transaction.

        Raises: Moved.
        """
        first, last = range_of_blocks(start, stop)
        rows = self._insert(statement("of_rows_unchanged"), start=first, stop=last)
        # Only now: the lock that reading took keeps the history from being truncated or rewritten.
        require_unmoved(self._session)
        self._session.run("save_shadow", next_block=stop)
        return rows

    def replay(self, limit: int) -> int:
        """Correct the rows that the log's oldest entries name; how many entries these were.

        Runs in the caller's transaction. Raises: LockNotHad if a row's user was deleted meanwhile.
        """
        taken = self._session.rows("take_changes", limit=limit)
        ids: list[UUID] = list({row.id for row in taken})
        if ids:
            self._session.run("remove_from_shadow", ids=ids)
            try:
                self._insert(statement("of_rows_changed"), ids=ids)
            except ForeignKeyViolation as error:
                raise LockNotHad from error
        return len(taken)

    def _insert(self, of_rows: str, **params: object) -> int:
        query = composed(
            "insert_into_shadow",
            columns=self._columns,
            values=self._values,
            of_rows=sql.SQL(of_rows),
        )
        return self._session.connection.execute(query, params).rowcount


def require_alone(ddl: OnlineDdl) -> None:
    """Wait for sessions of an earlier run that still work on the shadow table.

    Raises: StoreBusy, naming them, after the deadline.
    """
    ddl.run(statement("lock_shadow"), table=SHADOW)


def indexes_to_build(session: Session) -> list[IndexBuild]:
    """The indexes that the shadow table does not have yet, the widest first: they take longest.

    No client uses the table, so they are built without CONCURRENTLY, and in parallel.
    """
    ours = [
        IndexBuild(PERSONA_INDEX, 1, statement("create_shadow_persona_index")),
        IndexBuild(RETRIEVAL_INDEX, 5, statement("create_shadow_retrieval_index")),
    ]
    there = relations.indexes(session, SHADOW)
    carried = session.rows("carry_indexes", but=[each.name for each in ours])
    builds = [IndexBuild(row.name, row.columns, sql.SQL(row.statement)) for row in carried]
    builds += [each for each in ours if each.name not in there]
    return sorted(builds, key=lambda each: -each.columns)


def add_keys(ddl: OnlineDdl) -> None:
    """Add the primary key, the settings of indexes, and foreign keys NOT VALID.

    Locks: SHARE ROW EXCLUSIVE on each table that is referred to, one after another, for a moment.
    From then on a deletion there reaches the shadow table too.
    """
    session = ddl.session
    ddl.run(*_carried(session.rows("carry_primary_key")), table=SHADOW)
    ddl.run(*_carried(session.rows("carry_index_settings")), table=SHADOW)
    for key in session.rows("carry_keys"):
        ddl.run(sql.SQL(key.statement), table=key.refers_to)
    ddl.run(*_carried(session.rows("carry_comments")), table=SHADOW)


def validate_keys(ddl: OnlineDdl) -> None:
    """Validate the shadow table's foreign keys, without blocking readers or writers."""
    for each in _carried(ddl.session.rows("shadow_unvalidated_keys")):
        ddl.run_long(each)


def vacuum_shadow(session: Session) -> int:
    """Mark the shadow table's pages all-visible; how many pages could not be marked."""
    session.run("vacuum_shadow")
    return int(session.row("shadow_hidden").blocks)


def analyze_shadow(session: Session) -> None:
    """Collect statistics, because the planner plans badly without them."""
    session.run("analyze_shadow")


def vacuum_change_log(session: Session) -> None:
    """Remove replayed entries from the primary key of the log, before the cut-over reads it."""
    session.run("vacuum_change_log")


def moment(session: Session) -> Moment:
    """Now. A later snapshot sees everything that was committed by this moment."""
    row = session.row("moment")
    return Moment(row.at, row.xact)


def cut_over(session: Session, rows: Rows, since: Moment) -> None:
    """Put the shadow table in the history's place, with triggers, policies, foreign keys and so on.

    Runs in the caller's brief transaction. Locks: ACCESS EXCLUSIVE on the history and on the tables
    that refer to it. `since` is when the copy was complete; an older snapshot would not see its
    rows.

    Raises: LockNotHad, also if the change log is too long or an older snapshot exists; Moved;
    GateClosed if there is an obstacle by now.
    """
    session.run("halve_lock_timeout")
    session.execute(statement("lock_history"))
    session.run("halve_lock_timeout")
    session.execute(*_carried(session.rows("referring_tables")))
    rows.replay(_REST_MAX)
    if session.row("changes_left").found or older_snapshots(session, since):
        raise LockNotHad
    if require_unmoved(session).definition != history_definition(session):
        raise Moved("columns, indexes, constraints, grants or comments were changed")
    require_no_obstacles(session)
    late = [each for name in _WITH_THE_CUTOVER for each in _carried(session.rows(name))]
    schema = relations.schema_of(session, TABLE)
    session.execute(
        statement("drop_log_change_trigger"),
        statement("disable_user_triggers"),
        statement("retire_history"),
        composed("place_shadow", schema=schema),
        *late,
    )


def older_snapshots(session: Session, since: Moment) -> list[Blocker]:
    """Sessions whose snapshot may be older than `since`."""
    rows = session.rows("older_snapshots", at=since.at, xact=since.xact)
    return [Blocker(row.pid, row.state, row.query, row.open_s) for row in rows]


def finish(ddl: OnlineDdl) -> None:
    """After the cut-over: validate the keys that refer to the history, drop the retired history."""
    for each in _carried(ddl.session.rows("references_to_validate")):
        ddl.run_long(each)
    if ddl.session.row("has_extended_statistics").found:
        ddl.session.run("analyze_after_cutover")
    clear(ddl)


def clear(ddl: OnlineDdl) -> None:
    """Drop the shadow table, the retired history and their helper objects, as far as they exist.

    Locks: ACCESS EXCLUSIVE on each table that they refer to, one after another, for a moment.
    """
    session = ddl.session
    if LOG_TRIGGER in relations.triggers(session, TABLE):
        ddl.run(statement("drop_log_change_trigger"), table=TABLE)
    for relation in (SHADOW, RETIRED):
        for key in session.rows("keys_of", relation=relation):
            ddl.run(sql.SQL(key.statement), table=key.refers_to)
    state = shadow_state(session)
    counted = state.begun and relations.existing(session, ["memsync.backfill"])

    def drop() -> None:
        if counted:
            # The rows of a dropped copy do not count as filled.
            rewind_fill(session, "personas")
        session.execute(
            statement("drop_shadow_tables"),
            statement("drop_shadow_logs"),
            statement("drop_log_change"),
            statement("drop_shadow_schemas"),
        )

    ddl.do(drop, table=RETIRED if state.cut_over else SHADOW)


def _carried(rows: Iterable[Any]) -> list[sql.SQL]:
    """The statements that the server made from its catalog, with quoted names."""
    return [sql.SQL(row.statement) for row in rows]
