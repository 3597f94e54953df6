"""What the database's catalog says: which schema this is, and how far its migration has come.

Decides the names of the objects that the migration leaves (Prisma's convention, cut to 63 bytes)
and reads the stage from what is there, never from a note of what was done. Changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from memsync.errors import SchemaMismatch
from memsync.stores.history.phases import Phase, Stage, stage_of
from memsync.stores.history.settings_tables import CHOICES, DEFAULTS, OLD_CHOICES, Redesign
from memsync.stores.postgres import Session

TABLE = "conversation_history"
USER_INDEX = "conversation_history_channel_id_personality_id_user_id_crea_idx"
PERSONA_INDEX = "conversation_history_persona_id_idx"
RETRIEVAL_INDEX = "conversation_history_channel_id_personality_id_persona_id_c_idx"
PERSONA_INDEXES = {
    PERSONA_INDEX: "(persona_id)",
    RETRIEVAL_INDEX: "(channel_id, personality_id, persona_id, created_at DESC, id DESC)",
}
"""What each indexes; built after the fill, or on the copy."""
USER_INDEX_COLUMNS = "(channel_id, personality_id, user_id, created_at DESC, id DESC)"
BUILD_USER_INDEX = (
    # lint: allow UNREADABLE the columns are those of the line above
    f"CREATE INDEX CONCURRENTLY {USER_INDEX} ON conversation_history {USER_INDEX_COLUMNS}"
)
"""Run where somebody may read by user from then on: where a run ends before there are personas, and
by the way back."""
USER_ID_INDEX = "conversation_history_user_id_idx"
USER_KEY = "conversation_history_user_id_fkey"
PERSONA_KEY = "conversation_history_persona_id_fkey"
IDENTITY_TRIGGER = "memsync_sync_identity"
WATCH_TRIGGER = "memsync_record_user_write"
"""Fires before the other, which fills in what the client left out: triggers go by their names."""
PERSONA_CHECK = "memsync_persona_id_present"
USER_CHECK = "memsync_user_id_present"

_APP_TABLES = ("conversation_history", "personalities", "personas", "users")
SERVER_VERSION_MIN = 150000


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalog's facts about the history.

    Mappings: columns to whether they are NOT NULL, indexes and constraints to whether they are
    valid, the holes of queries/ to the fragments that fit this schema. `users_return` says that
    contract is being taken back: user_id is there again, and not filled yet.
    """

    columns: Mapping[str, bool]
    indexes: Mapping[str, bool]
    constraints: Mapping[str, bool]
    triggers: frozenset[str]
    own_tables: frozenset[str]
    settings: Mapping[str, str]
    redesign: Redesign
    has_null_persona: bool
    users_return: bool

    @classmethod
    def read(cls, session: Session, *, notes: bool = True) -> Self:
        """Read it; `notes` includes what memsync noted, which a role of the app may not read.

        Raises: SchemaMismatch when this is not the app's database, naming what is missing.
        """
        there = {row.name for row in session.rows("relations", names=list(_APP_TABLES))}
        if missing := [name for name in _APP_TABLES if name not in there]:
            raise SchemaMismatch(
                f"{session.label} is not the app's database: it has no table "
                f"{', '.join(missing)} on its search path. Check postgres_url",
                missing=missing,
            )
        if (number := session.row("server_version").number) < SERVER_VERSION_MIN:
            raise SchemaMismatch(
                f"{session.label} is PostgreSQL {number // 10000}; memsync needs 15 or newer"
            )
        columns = {c.name: c.not_null for c in session.rows("columns", relation=TABLE)}
        own = [
            f"memsync.{name}"
            for name in ("runs", "outbox", "persona_map", "backfill", "redesign_change")
        ]
        own_tables = frozenset(row.name for row in session.rows("relations", names=own))
        redesign = Redesign.read(
            session, has_notes=notes and "memsync.redesign_change" in own_tables
        )
        return cls(
            columns=columns,
            indexes={i.name: i.valid for i in session.rows("indexes", relation=TABLE)},
            constraints={c.name: c.valid for c in session.rows("constraints", relation=TABLE)},
            triggers=frozenset(t.name for t in session.rows("triggers", relation=TABLE)),
            own_tables=own_tables,
            settings=_settings(columns, own_tables, redesign),
            redesign=redesign,
            has_null_persona=(
                "persona_id" in columns
                and not columns["persona_id"]
                and session.row("history_has_null_persona").found
            ),
            # That it may be NULL would not tell: an app may allow that, or have come to.
            users_return=(
                notes
                and columns.get("user_id") is False
                and "memsync.runs" in own_tables
                and session.row("way_back_is_open").open
            ),
        )

    @property
    def done(self) -> frozenset[Phase]:
        """The phases whose result stands."""
        by_persona_only = not self.has_users
        expanded = self._bridged or by_persona_only
        holds = {
            # Who goes on to the personas at once needs no index to read by user until then.
            Phase.ISOLATE: self.indexes.get(USER_INDEX, expanded),
            Phase.REDESIGN: self.redesign.stands,
            Phase.EXPAND: expanded,
            Phase.BACKFILL: (self._filled and self._bridged) or by_persona_only,
            Phase.CONTRACT: self._filled
            and by_persona_only
            and self.columns["persona_id"]
            and self.redesign.stands
            and self.redesign.old_is_gone,
        }
        return frozenset(phase for phase, held in holds.items() if held)

    @property
    def _bridged(self) -> bool:
        return "persona_id" in self.columns and IDENTITY_TRIGGER in self.triggers

    @property
    def _filled(self) -> bool:
        return (
            "persona_id" in self.columns
            and not self.has_null_persona
            and self.indexes.get(PERSONA_INDEX, False)
            and self.indexes.get(RETRIEVAL_INDEX, False)
            and self.constraints.get(PERSONA_KEY, False)
            and "memsync.outbox" in self.own_tables
        )

    @property
    def stage(self) -> Stage:
        """Where the migration of this database stands."""
        return stage_of(self.done)

    def is_ours(self, phase: Phase) -> bool:
        """Whether anything of the phase is memsync's to take back: the app may have redesigned."""
        return phase is not Phase.REDESIGN or bool(self.redesign.made)

    @property
    def has_users(self) -> bool:
        """Whether messages say their user, in a column of their own."""
        return "user_id" in self.columns and not self.users_return

    @property
    def halfway(self) -> frozenset[Phase]:
        """The phases that were begun, forward or back, and cut short."""
        cut = {
            Phase.ISOLATE: self.indexes.get(USER_INDEX) is False,
            Phase.REDESIGN: bool(self.redesign.made) and not self.redesign.stands,
            Phase.CONTRACT: self._contract_is_halfway or self.redesign.is_halfway_out,
        }
        return frozenset(phase for phase, short in cut.items() if short and phase not in self.done)

    @property
    def _contract_is_halfway(self) -> bool:
        """Whether user_id is there, but not as backfill leaves it."""
        checks = {PERSONA_CHECK, USER_CHECK}
        return {"user_id", "persona_id"} <= self.columns.keys() and (
            not self.has_users
            or self.columns.get("persona_id", False)
            or not checks.isdisjoint(self.constraints)
            or USER_KEY not in self.constraints
        )

    @property
    def knows_personas(self) -> bool:
        """Whether every message has a persona and will have, so that reading by it is right."""
        if "user_id" not in self.columns:
            return "persona_id" in self.columns
        return self._filled and (self._bridged or self.columns["persona_id"])


def _settings(
    columns: Mapping[str, bool], own_tables: frozenset[str], redesign: Redesign
) -> dict[str, str]:
    """Which fragments of queries/ say what is open and what the settings are, in this schema."""
    override = _variant(redesign.has_table(OLD_CHOICES), redesign.has_table(CHOICES))
    default = _variant(
        # In step with one another, either will do; the new one does not go with contract.
        redesign.has_column("users", "global_persona_id") and not redesign.stands,
        redesign.has_table(DEFAULTS),
    )
    if override is None or default is None:
        raise SchemaMismatch(
            "the database says nowhere which persona a user chose (user_personality_settings or "
            "user_personality_configs) or has by default (users.global_persona_id or "
            "user_default_personas). Check postgres_url"
        )
    undecided = "undecided" if "memsync.persona_map" in own_tables else "unfilled"
    return {
        "open": f"open_{undecided}" if "persona_id" in columns else "open_all",
        "by_evidence": "by_evidence_unread",
        "override": f"override_{override}",
        "default": f"default_{default}",
    }


def _variant(legacy: bool, redesigned: bool) -> str | None:  # noqa: FBT001  a truth table
    if legacy and redesigned:
        return "both"
    return "legacy" if legacy else "redesigned" if redesigned else None
