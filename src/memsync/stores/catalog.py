"""What the database's catalog says: which schema this is, and how far its migration has come.

Decides the names of the objects that the migration leaves (Prisma's convention, cut to 63 bytes)
and reads the stage from what is there, never from a note of what was done. Changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from memsync.errors import SchemaMismatch
from memsync.model.phases import Stage
from memsync.stores.postgres import Session

TABLE = "conversation_history"
USER_INDEX = "conversation_history_channel_id_personality_id_user_id_crea_idx"
PERSONA_INDEX = "conversation_history_persona_id_idx"
RETRIEVAL_INDEX = "conversation_history_channel_id_personality_id_persona_id_c_idx"
USER_ID_INDEX = "conversation_history_user_id_idx"
USER_KEY = "conversation_history_user_id_fkey"
PERSONA_KEY = "conversation_history_persona_id_fkey"
IDENTITY_TRIGGER = "memsync_keep_identity"
PERSONA_CHECK = "memsync_persona_id_present"
USER_CHECK = "memsync_user_id_present"

_APP_TABLES = ("conversation_history", "personalities", "personas", "users")
_SETTINGS = {
    "user_personality_settings": ("override", "override_legacy"),
    "user_personality_configs": ("override", "override_redesigned"),
    "user_default_personas": ("default", "default_redesigned"),
}


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog's facts about the history.

    Mappings: columns to whether they are NOT NULL, indexes and constraints to whether they are
    valid, the holes of queries.sql to the fragments that fit this schema.
    """

    label: str
    columns: Mapping[str, bool]
    indexes: Mapping[str, bool]
    constraints: Mapping[str, bool]
    triggers: frozenset[str]
    own_tables: frozenset[str]
    settings: Mapping[str, str]
    has_null_persona: bool

    @classmethod
    def read(cls, session: Session, label: str) -> Self:
        """Read it.

        Raises: SchemaMismatch when this is not the app's database, naming what is missing.
        """
        there = {row.name for row in session.rows("relations", names=list(_APP_TABLES))}
        if missing := [name for name in _APP_TABLES if name not in there]:
            raise SchemaMismatch(
                f"the database at {label} is not the app's: it has no table "
                f"{', '.join(missing)} on its search path. Check postgres_url",
                missing=missing,
            )
        columns = {c.name: c.not_null for c in session.rows("columns", relation=TABLE)}
        own = [f"memsync.{name}" for name in ("ledger", "outbox", "persona_map", "backfill")]
        return cls(
            label=label,
            columns=columns,
            indexes={i.name: i.valid for i in session.rows("indexes", relation=TABLE)},
            constraints={c.name: c.valid for c in session.rows("constraints", relation=TABLE)},
            triggers=frozenset(t.name for t in session.rows("triggers", relation=TABLE)),
            own_tables=frozenset(row.name for row in session.rows("relations", names=own)),
            settings=_settings(session),
            has_null_persona=(
                "persona_id" in columns
                and not columns["persona_id"]
                and session.row("history_has_null_persona").found
            ),
        )

    @property
    def stage(self) -> Stage:
        """Where the migration of this database stands."""
        if "persona_id" not in self.columns:
            return Stage.ISOLATED if self.indexes.get(USER_INDEX) else Stage.LEGACY
        filled = (
            not self.has_null_persona
            and self.indexes.get(PERSONA_INDEX, False)
            and self.indexes.get(RETRIEVAL_INDEX, False)
            and self.constraints.get(PERSONA_KEY, False)
            and "memsync.outbox" in self.own_tables
        )
        # A user_id that may be NULL is one that the way back has not filled yet.
        if not self.columns.get("user_id"):
            done = filled and self.columns["persona_id"]
            return Stage.CONTRACTED if done else Stage.BACKFILLED
        if IDENTITY_TRIGGER not in self.triggers:
            return Stage.ISOLATED if self.indexes.get(USER_INDEX) else Stage.LEGACY
        return Stage.BACKFILLED if filled else Stage.EXPANDED

    @property
    def has_users(self) -> bool:
        """Whether every message says its user, in a column of its own."""
        return self.columns.get("user_id", False)

    @property
    def knows_personas(self) -> bool:
        """Whether every message has a persona, so that reading by persona is right."""
        return self.stage in {Stage.BACKFILLED, Stage.CONTRACTED}


def _settings(session: Session) -> dict[str, str]:
    """Which fragments of queries.sql say what the settings are, in the schema that is there."""
    found = {"default": "default_legacy"}
    for row in session.rows("relations", names=list(_SETTINGS)):
        hole, fragment = _SETTINGS[row.name]
        found[hole] = fragment
    if "override" not in found:
        raise SchemaMismatch(
            "the database has neither user_personality_settings nor user_personality_configs, so "
            "nobody's choice of persona can be read. Check postgres_url"
        )
    return found
