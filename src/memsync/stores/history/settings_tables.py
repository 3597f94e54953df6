"""Finds out which tables of the app's settings exist: the old ones, the redesigned ones, or both.

Before the redesign, users and personas refer to each other, and a personality holds the config of
its model. After it, separate tables say which persona and which config is used. This module decides
the names and reads from the catalog which objects exist. It also reads memsync's notes of what it
created or dropped, because going back must not undo the app's own changes.
"""

from dataclasses import dataclass
from typing import Literal, Self

from memsync.stores.postgres import Session

DEFAULTS = "user_default_personas"
CONFIGS = "personality_default_configs"
CHOICES = "user_personality_configs"
OLD_CHOICES = "user_personality_settings"

OLD_COLUMNS = (
    ("users", "global_persona_id"),
    ("personalities", "llm_config_id"),
    ("personalities", "context_window_size"),
    ("personas", "is_global"),
    ("llm_configs", "is_default"),
)
"""The columns that the redesign replaces. Contract drops them, because old versions of the app read
them until then."""

OLD_INDEXES = (
    ("personas", "is_global", "idx_personas_global"),
    ("llm_configs", "is_default", "idx_llm_configs_default"),
)
"""Table, column and name of the app's indexes that are dropped and restored with those columns."""

PROMPTS = "system_prompts"
PROMPTS_INDEX_OLD, PROMPTS_INDEX = "idx_system_prompts_default", "system_prompts_is_default_idx"
"""The app's redesign renames this index of its prompts, whose table an app may lack."""

NEW_COLUMNS = ("owner_id", "is_global", "context_window_size")
"""The columns that `llm_configs` gains."""

INDEXES = (
    (DEFAULTS, "user_default_personas_persona_id_idx", "persona_id"),
    (CONFIGS, "personality_default_configs_llm_config_id_idx", "llm_config_id"),
    ("llm_configs", "llm_configs_owner_id_idx", "owner_id"),
    ("llm_configs", "llm_configs_is_global_idx", "is_global"),
)
"""Table, name and column. Indexes are built last, so an index that exists proves that the data is
complete."""

OWNER_CHECK = "memsync_owner_id_present"
CONFIG_OWNER_KEY = "llm_configs_owner_id_fkey"

SYNC_TRIGGERS = {
    ("users", "global_persona_id"): (
        ("users", "memsync_sync_default"),
        (DEFAULTS, "memsync_sync_default"),
        ("personas", "memsync_sync_default"),
    ),
    ("personalities", "llm_config_id"): (
        ("personalities", "memsync_sync_config"),
        (CONFIGS, "memsync_sync_config"),
        ("llm_configs", "memsync_sync_config"),
    ),
    ("personalities", "context_window_size"): (("llm_configs", "memsync_sync_window"),),
    ("llm_configs", "is_default"): (("llm_configs", "memsync_sync_is_default"),),
}
"""For each old column its sync triggers as (table, name): they keep it equal to the new tables."""

_REQUIRED = ("users", "personas", "personalities", "llm_configs")
TABLES = (*_REQUIRED, DEFAULTS, CONFIGS, CHOICES, OLD_CHOICES)
"""Every table of the settings, old and new. An app has some of them."""
Place = Literal["old", "new", "both"]


@dataclass(frozen=True, slots=True)
class SettingsTables:
    """The objects of the settings that exist in a database.

    `objects` holds (relation, kind, name) as the statement `objects_of` returns them; a NOT NULL
    column has a second entry of kind `not null`. `created` and `dropped` are memsync's own notes.
    """

    objects: frozenset[tuple[str, str, str]]
    created: frozenset[str]
    dropped: frozenset[str]

    @classmethod
    def read(cls, session: Session, *, has_notes: bool) -> Self:
        """Read the catalog, and memsync's notes if `has_notes`."""
        found = session.rows("objects_of", names=list(TABLES))
        notes = session.rows("redesign_notes") if has_notes else []
        return cls(
            objects=frozenset((each.relation, each.kind, each.name) for each in found),
            created=frozenset(each.object for each in notes if each.change == "created"),
            dropped=frozenset(each.object for each in notes if each.change == "dropped"),
        )

    def has_table(self, name: str) -> bool:
        """Whether a table has this name; a view does not count."""
        return (name, "relation", "r") in self.objects

    def has_view(self, name: str) -> bool:
        """Whether a view has this name."""
        return (name, "relation", "v") in self.objects

    def has_column(self, table: str, column: str) -> bool:
        """Whether the table has the column."""
        return (table, "column", column) in self.objects

    def has_trigger(self, table: str, name: str) -> bool:
        """Whether the table has the trigger."""
        return (table, "trigger", name) in self.objects

    def has_index(self, table: str, name: str) -> bool:
        """Whether the table has the index, and it is valid."""
        return (table, "index", name) in self.objects

    def has_constraint(self, table: str, name: str) -> bool:
        """Whether the table has the constraint."""
        return (table, "constraint", name) in self.objects

    @property
    def missing(self) -> tuple[str, ...]:
        """The app's tables that the redesign needs and the database lacks."""
        return tuple(name for name in _REQUIRED if not self.has_table(name))

    @property
    def choices_in(self) -> Place | None:
        """Which tables say the persona that a user chose for one personality: old, new or both."""
        return _place(old=self.has_table(OLD_CHOICES), new=self.has_table(CHOICES))

    @property
    def defaults_in(self) -> Place | None:
        """Which places say a user's default persona: the old column, the new table or both."""
        return _place(
            # While sync triggers keep the two equal, the new one is read: contract drops the old.
            old=self.has_column("users", "global_persona_id") and not self.stands,
            new=self.has_table(DEFAULTS),
        )

    @property
    def old_columns(self) -> tuple[tuple[str, str], ...]:
        """The old columns that still exist."""
        return tuple(each for each in OLD_COLUMNS if self.has_column(*each))

    @property
    def sync_triggers(self) -> frozenset[tuple[str, str]]:
        """The sync triggers, as (table, name), that the remaining old columns need."""
        wanted = (SYNC_TRIGGERS.get(each, ()) for each in self.old_columns)
        return frozenset(trigger for pair in wanted for trigger in pair)

    @property
    def stands(self) -> bool:
        """Whether all new objects exist, and the sync triggers of the remaining old columns."""
        return (
            all(self.has_table(name) for name in (DEFAULTS, CONFIGS, CHOICES))
            and not self.has_table(OLD_CHOICES)
            and all(self.has_column("llm_configs", name) for name in NEW_COLUMNS)
            and all(self.has_index(table, name) for table, name, _ in INDEXES)
            and self.has_constraint("llm_configs", CONFIG_OWNER_KEY)
            and all(self.has_trigger(*each) for each in self.sync_triggers)
        )

    @property
    def owners_required(self) -> bool:
        """Whether every persona must have an owner."""
        return ("personas", "not null", "owner_id") in self.objects

    @property
    def old_is_gone(self) -> bool:
        """Whether nothing is left of what the redesign replaces."""
        return (
            not self.old_columns
            and not self.has_view(OLD_CHOICES)
            and not self.has_table(OLD_CHOICES)
            and self.owners_required
        )

    @property
    def is_halfway_out(self) -> bool:
        """Whether contract, or going back from it, stopped halfway through the old objects."""
        return (
            bool(self.dropped)
            or self.has_constraint("personas", OWNER_CHECK)
            or (self.owners_required and "personas.owner_id" in self.created)
        )


def _place(*, old: bool, new: bool) -> Place | None:
    if old and new:
        return "both"
    return "old" if old else "new" if new else None
