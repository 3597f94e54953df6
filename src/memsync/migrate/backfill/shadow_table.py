"""The copy of the history: made aside, corrected by a log of touched rows, put in its place.

Decides what the shadow table is made of and how each step is done in one transaction, so that a
crash leaves what the catalog tells. The shadow table stands in the schema `memsync_shadow` under
the names of the history's own objects; the history retires to `memsync_retired`. The cut-over is a
change of schemas, and both schemas go when it is done. Must not know when a step is due.
"""

from typing import Any

from memsync.errors import GateClosed
from memsync.model.wording import listed
from memsync.stores.history.catalog import PERSONA_INDEXES, TABLE, USER_INDEX
from memsync.stores.postgres import ForeignKeyViolation, Session, sql
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl
from memsync.stores.postgres.statements import statement

COPY = "memsync_shadow.conversation_history"
OLD = "memsync_retired.conversation_history"
TRIGGER = "memsync_log_change"

_OBSTACLES = (
    "obstacle_kind",
    "obstacle_columns",
    "obstacle_constraints",
    "obstacle_dependents",
    "obstacle_extensions",
    "obstacle_replication",
    "obstacle_event_triggers",
    "obstacle_privileges",
)
# Before the first row, on an empty table.
_WITH_THE_TABLE = (
    "grant_shadow_schemas",
    "carry_table",
    "carry_owner",
    "carry_columns",
    "clear_default_grants",
    "carry_grants",
)
# In the exchange: what would act on the copy while it is being filled, or names the history.
_WITH_THE_EXCHANGE = (
    "carry_options",
    "carry_statistics",
    "carry_triggers",
    "carry_policies",
    "carry_references",
    "carry_publications",
    "carry_late_comments",
)
_REST_MAX = 256

_SCHEMAS = (
    "CREATE SCHEMA IF NOT EXISTS memsync_shadow",
    "CREATE SCHEMA IF NOT EXISTS memsync_retired",
)
_LOG = (
    """CREATE TABLE memsync_shadow.checkpoint (
        source oid NOT NULL,
        filenode oid NOT NULL,
        definition text NOT NULL,
        next_block bigint NOT NULL,
        end_block bigint NOT NULL)""",
    """CREATE TABLE memsync_shadow.change_log (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id uuid NOT NULL)""",
    # A copy that was paused for a night meets a long log with every slice.
    "CREATE INDEX change_log_id_idx ON memsync_shadow.change_log (id)",
    # With its owner's rights: clients have none in our schemas.
    """CREATE FUNCTION memsync_shadow.log_change()
    RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO memsync_shadow.change_log (id) VALUES (OLD.id);
        END IF;
        IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
            INSERT INTO memsync_shadow.change_log (id) VALUES (NEW.id);
        END IF;
        RETURN NULL;
    END $$""",
    "REVOKE ALL ON FUNCTION memsync_shadow.log_change() FROM PUBLIC",
    f"""CREATE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON conversation_history
    FOR EACH ROW EXECUTE FUNCTION memsync_shadow.log_change()""",
    # Always: a session that replays changes of elsewhere fires no other triggers.
    f"ALTER TABLE conversation_history ENABLE ALWAYS TRIGGER {TRIGGER}",
)


class Moved(Exception):
    """The history is no longer what the copy was made from; it says in which way."""


def range_of_blocks(start: int, stop: int) -> dict[str, str]:
    """The first places of rows in these blocks of the history, as a statement takes them."""
    return {"start": f"({start},0)", "stop": f"({stop},0)"}


def obstacles(session: Session) -> list[str]:
    """Why the history cannot be replaced by a copy; empty when it can."""
    # Ours are built anew where they are INVALID.
    ours = {"obstacle_constraints": {"but": [USER_INDEX, *PERSONA_INDEXES]}}
    return [row.reason for name in _OBSTACLES for row in session.rows(name, **ours.get(name, {}))]


def require_no_obstacles(session: Session) -> None:
    """Stop when a copy would lose something.

    Raises: GateClosed naming what.
    """
    if in_the_way := obstacles(session):
        raise GateClosed(
            f"{TABLE} cannot be replaced by a copy: {listed(in_the_way, separator='; ')}. Take "
            "that away and run again, or run with --method in-place; no message was changed",
            obstacles=in_the_way,
        )


def begin(ddl: OnlineDdl) -> None:
    """Make the empty copy, the log and its trigger: all of it, or nothing.

    Locks: SHARE ROW EXCLUSIVE on the history, for a moment. Whoever wrote before has ended by then,
    and every later write is in the log.
    """
    session = ddl.session

    def make() -> None:
        definition = session.row("history_definition").digest
        _execute(session, *_SCHEMAS)
        for name in _WITH_THE_TABLE:
            _execute(session, *_carried(session, name))
        session.run("rewind_fill", fill="personas")
        _execute(session, *_LOG)
        session.run("start_shadow", definition=definition)

    ddl.do(make, table=TABLE)


def require_unmoved(session: Session) -> Any:
    """The copy's checkpoint, if the history is still the one that it was made from.

    Raises: Moved.
    """
    progress = session.row("shadow_checkpoint")
    if progress is None or not progress.stands:
        raise Moved("the history was truncated or rewritten, or its trigger was removed")
    return progress


class Rows:
    """Copies rows, each with the persona that is decided for it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        names = [row.name for row in session.rows("shadow_columns")]
        persona = sql.SQL("coalesce(h.persona_id, k.persona_id, m.persona_id)")
        given = [
            persona if name == "persona_id" else sql.SQL("h.{}").format(sql.Identifier(name))
            for name in names
        ]
        self._insert = sql.SQL("INSERT INTO {} ({}) SELECT {} {} ").format(
            sql.SQL(COPY),
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(given),
            sql.SQL(statement("shadow_rows")),
        )

    def copy(self, start: int, stop: int) -> int:
        """Copy a range of blocks; how many rows it had. Runs in the caller's transaction.

        Raises: Moved.
        """
        rows = self._run("unchanged_slice", **range_of_blocks(start, stop))
        # Asked after the rows were read, under the lock that reading them took.
        require_unmoved(self._session)
        self._session.run("save_shadow", next_block=stop)
        return rows

    def replay(self, limit: int) -> int:
        """Correct the rows that the log's oldest entries name; how many entries these were.

        Runs in the caller's transaction. Raises: LockNotHad when a user was deleted just then.
        """
        taken = self._session.rows("take_changes", limit=limit)
        if ids := list({row.id for row in taken}):
            self._session.run("remove_from_shadow", ids=ids)
            try:
                self._run("changed_rows", ids=ids)
            except ForeignKeyViolation as error:
                raise LockNotHad from error
        return len(taken)

    def _run(self, which: str, **params: Any) -> int:
        query = self._insert + sql.SQL(statement(which))
        return self._session.connection.execute(query, params).rowcount


def require_alone(ddl: OnlineDdl) -> None:
    """Wait for whoever still works on the copy for a run that was cut short.

    Raises: StoreBusy, naming it, after the deadline.
    """
    # lint: allow STRONG-LOCK nobody but memsync writes the copy, but for deletions by its keys
    ddl.run(f"LOCK TABLE {COPY} IN SHARE ROW EXCLUSIVE MODE", table=COPY)


def indexes_to_build(session: Session) -> list[tuple[str, sql.SQL]]:
    """The names of the indexes that the copy does not have yet, and how to build them.

    Nobody uses the copy: built plainly, at once and in parallel. Those of most columns come first:
    they take longest.
    """
    missing = session.rows("carry_indexes", but=list(PERSONA_INDEXES))
    there = {row.name for row in session.rows("indexes", relation=COPY)}
    builds = [(row.columns, row.name, sql.SQL(row.statement)) for row in missing]
    builds += [
        # lint: allow UNREADABLE the columns are the catalog's own text
        (columns.count(",") + 1, name, sql.SQL(f"CREATE INDEX {name} ON {COPY} {columns}"))
        for name, columns in PERSONA_INDEXES.items()
        if name not in there
    ]
    return [(name, build) for _, name, build in sorted(builds, key=lambda each: -each[0])]


def add_keys(ddl: OnlineDdl) -> None:
    """Give the copy its primary key, settings of indexes, and foreign keys that are not validated.

    Locks: SHARE ROW EXCLUSIVE on each table that is referred to, one after another, for a moment.
    From then on a deletion there reaches the copy too.
    """
    session = ddl.session
    for name in ("carry_primary_key", "carry_index_settings"):
        ddl.run(*_carried(session, name), table=COPY)
    for key in session.rows("carry_keys"):
        ddl.run(sql.SQL(key.statement), table=key.refers_to)
    ddl.run(*_carried(session, "carry_comments"), table=COPY)


def validate_keys(ddl: OnlineDdl) -> None:
    """Validate the copy's foreign keys; readers and writers pass."""
    for each in _carried(ddl.session, "shadow_unvalidated_keys"):
        ddl.run_long(each)


def exchange(session: Session, rows: Rows, since: Any) -> None:
    """Put the copy in the history's place, with all that hangs on it; the history retires.

    Runs in the caller's brief transaction. Locks: ACCESS EXCLUSIVE on the history and on the tables
    that refer to it. `since` is when the copy was complete: to a snapshot from before, the copy's
    rows would not be there.

    Raises: LockNotHad, also when it would take too long or be too early; Moved; GateClosed when
    something hangs on the history by now that the copy would lose.
    """
    session.run("halve_lock_timeout")
    # lint: allow STRONG-LOCK half of lock_timeout at most: it is what the exchange needs
    _execute(session, f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
    session.run("halve_lock_timeout")
    _execute(session, *_carried(session, "referring_tables"))
    rows.replay(_REST_MAX)
    if session.row("changes_left").found or older_snapshots(session, since):
        raise LockNotHad
    if require_unmoved(session).definition != session.row("history_definition").digest:
        raise Moved("columns, indexes, constraints, rights or comments were changed")
    require_no_obstacles(session)
    late = [each for name in _WITH_THE_EXCHANGE for each in _carried(session, name)]
    schema = sql.Identifier(session.row("history_schema").name)
    _execute(
        session,
        f"DROP TRIGGER {TRIGGER} ON {TABLE}",
        # A user who is deleted before it is dropped is still deleted there as well.
        f"ALTER TABLE {TABLE} DISABLE TRIGGER USER",
        f"ALTER TABLE {TABLE} SET SCHEMA memsync_retired",
        sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(sql.SQL(COPY), schema),
        *late,
    )


def older_snapshots(session: Session, since: Any) -> list[Any]:
    """Sessions that may read as of a time before `since`."""
    return session.rows("older_snapshots", at=since.at, xact=since.xact)


def finish(ddl: OnlineDdl) -> None:
    """After the exchange: validate the keys that refer to the history, drop what it replaced."""
    for each in _carried(ddl.session, "references_to_validate"):
        ddl.run_long(each)
    if ddl.session.row("has_extended_statistics").found:
        ddl.session.run("analyze_after_cutover")
    clear(ddl)


def clear(ddl: OnlineDdl) -> None:
    """Drop the copy, the retired history, and what was made for them, whatever is there.

    Locks: ACCESS EXCLUSIVE on each table that they refer to, one after another, for a moment.
    """
    session = ddl.session
    if TRIGGER in {row.name for row in session.rows("triggers", relation=TABLE)}:
        ddl.run(f"DROP TRIGGER {TRIGGER} ON {TABLE}", table=TABLE)
    for relation in (COPY, OLD):
        for key in session.rows("keys_of", relation=relation):
            ddl.run(sql.SQL(key.statement), table=key.refers_to)
    state = session.row("shadow_state")
    counted = state.begun and session.rows("relations", names=["memsync.backfill"])

    def drop() -> None:
        if counted:
            # Rows of a copy that nobody will use are not done.
            session.run("rewind_fill", fill="personas")
        _execute(
            session,
            f"DROP TABLE IF EXISTS {COPY}, {OLD}",
            "DROP TABLE IF EXISTS memsync_shadow.change_log, memsync_shadow.checkpoint",
            "DROP FUNCTION IF EXISTS memsync_shadow.log_change()",
            "DROP SCHEMA IF EXISTS memsync_shadow, memsync_retired",
        )

    ddl.do(drop, table=OLD if state.cut_over else COPY)


def _carried(session: Session, name: str) -> list[sql.SQL]:
    # Made by the server from its catalog, names quoted.
    return [sql.SQL(row.statement) for row in session.rows(name)]


def _execute(session: Session, *statements: Any) -> None:
    for each in statements:
        session.connection.execute(each)
