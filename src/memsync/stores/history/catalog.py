"""Reads from Postgres' catalog which schema a database has and how far its migration has come.

The stage follows from the objects that exist, so it is right after a crash, too. memsync's own
records answer only what the catalog cannot: which objects memsync created, and whether contract is
being taken back. This module also decides the names of the migration's objects (Prisma's
convention, cut to 63 bytes). It changes nothing.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args
from uuid import UUID

from memsync.errors import SchemaMismatch
from memsync.stores.history.phases import Phase, Stage, stage_of
from memsync.stores.history.settings_tables import SettingsTables
from memsync.stores.postgres import Session, relations

TABLE = "conversation_history"
USER_INDEX = "conversation_history_channel_id_personality_id_user_id_crea_idx"
PERSONA_INDEX = "conversation_history_persona_id_idx"
RETRIEVAL_INDEX = "conversation_history_channel_id_personality_id_persona_id_c_idx"
USER_ID_INDEX = "conversation_history_user_id_idx"
USER_KEY = "conversation_history_user_id_fkey"
PERSONA_KEY = "conversation_history_persona_id_fkey"
IDENTITY_TRIGGER = "memsync_sync_identity"
USER_WRITE_TRIGGER = "memsync_record_user_write"
"""This trigger must fire before IDENTITY_TRIGGER, which fills in the id that a client left out.
Postgres fires triggers in the order of their names
(https://www.postgresql.org/docs/current/trigger-definition.html)."""
PERSONA_COLUMN = "persona_id"
PERSONA_REQUIRED = "persona_id NOT NULL"
"""The notes of memsync.history_change about the column persona_id, and about its NOT NULL."""
PERSONA_CHECK = "memsync_persona_id_present"
USER_CHECK = "memsync_user_id_present"

APP_TABLES = ("conversation_history", "personalities", "personas", "users")
SERVER_VERSION_MIN = 150000

_COUNTED_BYTES = 64 * 2**20
"""A table up to this size is counted, which takes a fraction of a second."""

_OBJECTS = {
    Phase.ISOLATE: frozenset((USER_INDEX,)),
    Phase.BACKFILL: frozenset((PERSONA_INDEX, RETRIEVAL_INDEX, PERSONA_KEY)),
}
"""The objects of the history that a phase creates unless they exist."""

OwnTable = Literal[
    "runs",
    "outbox",
    "persona_map",
    "backfill",
    "redesign_change",
    "history_change",
    "persona_default",
]
"""The tables and views in the schema memsync for which the catalog is asked."""


@dataclass(frozen=True, slots=True)
class HistorySize:
    """How large the history is; `size_bytes` has the indexes.

    `rows` is counted where that is quick, or the planner has no estimate: then it `is_exact`.
    """

    rows: int
    is_exact: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog's facts about the history.

    `columns` maps a name to whether the column is NOT NULL, `indexes` and `constraints` to whether
    the object is valid. `users_return` is true while contract is being taken back: user_id exists
    again, and is not filled yet. `created` and `dropped` are memsync's own notes of the history's
    objects, because the app may have made some of them itself.
    """

    columns: Mapping[str, bool]
    indexes: Mapping[str, bool]
    constraints: Mapping[str, bool]
    triggers: frozenset[str]
    own_tables: frozenset[str]
    settings: SettingsTables
    has_null_persona: bool
    users_return: bool
    created: frozenset[str]
    dropped: frozenset[str]

    @classmethod
    def read(cls, session: Session, *, notes: bool = True) -> Self:
        """Read the catalog, and with `notes` memsync's tables, which the app's role may not read.

        Where persona_id may be NULL this also asks the history for a message without a persona.

        Raises: SchemaMismatch when this is not the app's database, naming what is missing.
        """
        require_app(session)
        columns = relations.columns(session, TABLE)
        own_tables = relations.existing(session, [f"memsync.{name}" for name in get_args(OwnTable)])
        has_notes = notes and "memsync.redesign_change" in own_tables
        settings = SettingsTables.read(session, has_notes=has_notes)
        _require_places(settings)
        ours = notes and "memsync.history_change" in own_tables
        changes = session.rows("history_notes") if ours else []
        return cls(
            columns=columns,
            indexes=relations.indexes(session, TABLE),
            constraints=relations.constraints(session, TABLE),
            triggers=relations.triggers(session, TABLE),
            own_tables=own_tables,
            settings=settings,
            has_null_persona=(
                "persona_id" in columns
                and not columns["persona_id"]
                and history_has_null_persona(session)
            ),
            # A nullable user_id alone proves nothing, because the app may have made it so.
            users_return=(
                notes
                and columns.get("user_id") is False
                and "memsync.runs" in own_tables
                and way_back_is_open(session)
            ),
            created=frozenset(each.object for each in changes if each.change == "created"),
            dropped=frozenset(each.object for each in changes if each.change == "dropped"),
        )

    @property
    def done(self) -> frozenset[Phase]:
        """The phases whose result is in place."""
        by_persona_only = not self.has_users
        expanded = self._in_step or by_persona_only
        holds = {
            # A run that goes on to backfill does not build this index; then expand counts in its
            # place.
            Phase.ISOLATE: self.indexes.get(USER_INDEX, expanded),
            Phase.REDESIGN: self.settings.stands,
            Phase.EXPAND: expanded,
            Phase.BACKFILL: (self._filled and self._in_step) or by_persona_only,
            Phase.CONTRACT: self._filled
            and by_persona_only
            and self.columns["persona_id"]
            and self.settings.stands
            and self.settings.old_is_gone,
        }
        return frozenset(phase for phase, held in holds.items() if held)

    @property
    def _in_step(self) -> bool:
        return "persona_id" in self.columns and IDENTITY_TRIGGER in self.triggers

    @property
    def _filled(self) -> bool:
        return (
            "persona_id" in self.columns
            and not self.has_null_persona
            and self.indexes.get(PERSONA_INDEX, False)
            and self.indexes.get(RETRIEVAL_INDEX, False)
            and self.constraints.get(PERSONA_KEY, False)
            and self.has_own_table("outbox")
        )

    @property
    def stage(self) -> Stage:
        """How far the migration of this database has come."""
        return stage_of(self.done)

    def is_ours(self, phase: Phase) -> bool:
        """Whether memsync made the phase's objects; the app may have made them itself."""
        if phase is Phase.REDESIGN:
            return bool(self.settings.created)
        made = _OBJECTS.get(phase)
        return made is None or not made.isdisjoint(self.created)

    def has_own_table(self, name: OwnTable) -> bool:
        """Whether this table or view of memsync's own stands."""
        return f"memsync.{name}" in self.own_tables

    @property
    def has_users(self) -> bool:
        """Whether messages name their user: user_id exists and is filled."""
        return "user_id" in self.columns and not self.users_return

    @property
    def halfway(self) -> frozenset[Phase]:
        """The phases that were started, forward or back, and did not finish."""
        cut = {
            Phase.ISOLATE: self.indexes.get(USER_INDEX) is False,
            Phase.REDESIGN: bool(self.settings.created) and not self.settings.stands,
            # Made with the column and the triggers, and dropped with them; one of them is missing.
            Phase.EXPAND: self.has_own_table("persona_default"),
            Phase.BACKFILL: self.is_ours(Phase.BACKFILL),
            Phase.CONTRACT: self._contract_is_halfway or self.settings.is_halfway_out,
        }
        return frozenset(phase for phase, short in cut.items() if short and phase not in self.done)

    @property
    def _contract_is_halfway(self) -> bool:
        """Whether user_id exists, but not as backfill leaves it."""
        checks = {PERSONA_CHECK, USER_CHECK}
        return {"user_id", "persona_id"} <= self.columns.keys() and (
            not self.has_users
            or (self.columns["persona_id"] and PERSONA_REQUIRED in self.created)
            or not checks.isdisjoint(self.constraints)
            or (USER_KEY in self.dropped and USER_KEY not in self.constraints)
        )

    @property
    def knows_personas(self) -> bool:
        """Whether all messages, new ones too, have a persona, so that reading by it misses none."""
        if "user_id" not in self.columns:
            return "persona_id" in self.columns
        return self._filled and (self._in_step or self.columns["persona_id"])


def history_size(session: Session) -> HistorySize:
    """How large the history is. Only a small table, or one never analyzed, is scanned."""
    row = session.row("history_size", small_bytes=_COUNTED_BYTES)
    rows = history_rows(session) if row.countable else row.rows
    return HistorySize(rows, row.countable, row.bytes_total)


def history_rows(session: Session) -> int:
    """How many messages there are, counted."""
    return int(session.row("count_messages").total)


def history_blocks(session: Session) -> int:
    """How many blocks the history has now."""
    return int(session.row("history_blocks").blocks)


@contextlib.contextmanager
def reading(session: Session) -> Iterator[None]:
    """A snapshot for a report on the history: figures agree, and no column goes meanwhile.

    The lock keeps DDL off the history until the end. It comes before the snapshot, which so has
    whatever DDL was committed before it.

    Raises: SchemaMismatch when this is not the app's database.
    """
    require_app(session)
    may_read = session.row("may_read_history").yes
    with session.snapshot():
        if may_read:
            session.run("hold_history")
        yield


def history_has_null_persona(session: Session) -> bool:
    """Whether any message has no persona. Without an index, this reads the whole table."""
    return bool(session.row("history_has_null_persona").found)


def way_back_is_open(session: Session) -> bool:
    """Whether memsync dropped user_id and kept what is needed to fill it again."""
    return bool(session.row("way_back_is_open").open)


def instance_id(session: Session) -> UUID:
    """The database's own id. A plan carries it, so that another database refuses the plan.

    Raises: SchemaMismatch when memsync's schema does not exist yet.
    """
    found: UUID = session.row("instance_id").id
    return found


def own_schema_stands(session: Session) -> bool:
    """Whether memsync's schema exists."""
    return bool(session.row("own_schema").there)


def require_server_version(session: Session) -> None:
    """Refuse a server that is too old.

    Raises: SchemaMismatch.
    """
    if (number := relations.server_version(session)) < SERVER_VERSION_MIN:
        raise SchemaMismatch(
            f"{session.label} is PostgreSQL {number // 10000}; memsync needs 15 or newer"
        )


def require_app(session: Session) -> None:
    """Refuse a database that is not the app's. Raises: SchemaMismatch naming what is missing."""
    there = relations.existing(session, APP_TABLES)
    if missing := [name for name in APP_TABLES if name not in there]:
        raise SchemaMismatch(
            f"{session.label} is not the app's database: it has no table "
            f"{', '.join(missing)} on its search path. Check postgres_url; in a new database "
            "`memsync init` makes them",
            missing=missing,
        )
    require_server_version(session)


def _require_places(settings: SettingsTables) -> None:
    if settings.choices_in is None or settings.defaults_in is None:
        raise SchemaMismatch(
            "the database does not say which persona a user chose (user_personality_settings or "
            "user_personality_configs) or has by default (users.global_persona_id or "
            "user_default_personas). Check postgres_url"
        )
