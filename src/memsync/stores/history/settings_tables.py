"""The redesign of the app's settings: which of its pieces stand, and what memsync did to them.

Before it, users and personas point at each other and a personality holds its model's config; after
it, who uses what is in tables of its own. Decides the pieces' names and reads them from the
catalog. What memsync itself made or dropped is noted in `memsync.redesign`, in the transaction that
does it: the way back must not undo what the app did.
"""

from dataclasses import dataclass
from typing import Literal, Self
from uuid import UUID

from memsync.stores.postgres import Session, sql, translated
from memsync.stores.postgres.statements import statement

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
"""What the redesign drops. Contract does it: until then old versions of the app read them."""

OLD_INDEXES = (
    ("personas", "is_global", "idx_personas_global"),
    ("llm_configs", "is_default", "idx_llm_configs_default"),
)
"""Table, column and name of the app's indexes that go with them, and come again with them."""

NEW_COLUMNS = ("owner_id", "is_global", "context_window_size")
"""What `llm_configs` gains."""

INDEXES = (
    (DEFAULTS, "user_default_personas_persona_id_idx", "persona_id"),
    (CONFIGS, "personality_default_configs_llm_config_id_idx", "llm_config_id"),
    ("llm_configs", "llm_configs_owner_id_idx", "owner_id"),
    ("llm_configs", "llm_configs_is_global_idx", "is_global"),
)
"""Table, name and column. Built last: that they stand says that the data was copied."""

MIRROR, SIZED = "mirror", "sized"
"""Notes of their own: memsync began the redesign; it gave the configs their windows."""

OWNER_CHECK = "memsync_owner_id_present"
CONFIG_OWNER_KEY = "llm_configs_owner_id_fkey"

# Which trigger keeps which old column in step with the new table, by the table it hangs on.
MIRRORS = {
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

_TABLES = ("users", "personas", "personalities", "llm_configs")
Did = Literal["made", "dropped"]


@dataclass(frozen=True, slots=True)
class Redesign:
    """What is there. `objects` are (relation, kind, name) of whatever stands and is valid; a
    column that is NOT NULL is there as `not null` too. `made` and `dropped` are memsync's notes.
    """

    objects: frozenset[tuple[str, str, str]]
    made: frozenset[str]
    dropped: frozenset[str]

    @classmethod
    def read(cls, session: Session, *, has_notes: bool) -> Self:
        """Read it from the catalog."""
        names = [*_TABLES, DEFAULTS, CONFIGS, CHOICES, OLD_CHOICES]
        found = session.rows("objects_of", names=names)
        notes = session.rows("redesign_notes") if has_notes else []
        return cls(
            objects=frozenset((each.relation, each.kind, each.name) for each in found),
            made=frozenset(each.object for each in notes if each.change == "made"),
            dropped=frozenset(each.object for each in notes if each.change == "dropped"),
        )

    def has_table(self, name: str) -> bool:
        """Whether it is there as a table, not as a view in its place."""
        return (name, "relation", "r") in self.objects

    def has_view(self, name: str) -> bool:
        """Whether it is there as a view."""
        return (name, "relation", "v") in self.objects

    def has_column(self, table: str, column: str) -> bool:
        """Whether the table has the column."""
        return (table, "column", column) in self.objects

    def has_trigger(self, table: str, name: str) -> bool:
        """Whether the table has the trigger."""
        return (table, "trigger", name) in self.objects

    def has_index(self, table: str, name: str) -> bool:
        """Whether the table has the index, valid."""
        return (table, "index", name) in self.objects

    def has_constraint(self, table: str, name: str) -> bool:
        """Whether the table has the constraint."""
        return (table, "constraint", name) in self.objects

    @property
    def missing_tables(self) -> tuple[str, ...]:
        """Tables of the app without which there is nothing to redesign."""
        return tuple(name for name in _TABLES if not self.has_table(name))

    @property
    def old_columns(self) -> tuple[tuple[str, str], ...]:
        """Those of `OLD_COLUMNS` that still stand."""
        return tuple(each for each in OLD_COLUMNS if self.has_column(*each))

    @property
    def mirrors(self) -> frozenset[tuple[str, str]]:
        """The triggers, by table, that must stand while the old columns do."""
        wanted = (MIRRORS.get(each, ()) for each in self.old_columns)
        return frozenset(trigger for pair in wanted for trigger in pair)

    @property
    def stands(self) -> bool:
        """Whether everything new is there and filled, and in step with what is left of the old."""
        return (
            all(self.has_table(name) for name in (DEFAULTS, CONFIGS, CHOICES))
            and not self.has_table(OLD_CHOICES)
            and all(self.has_column("llm_configs", name) for name in NEW_COLUMNS)
            and all(self.has_index(table, name) for table, name, _ in INDEXES)
            and self.has_constraint("llm_configs", CONFIG_OWNER_KEY)
            and all(self.has_trigger(*each) for each in self.mirrors)
        )

    @property
    def owners_required(self) -> bool:
        """Whether every persona must have an owner."""
        return ("personas", "not null", "owner_id") in self.objects

    @property
    def old_is_gone(self) -> bool:
        """Whether nothing is left of what it replaces."""
        return (
            not self.old_columns
            and not self.has_view(OLD_CHOICES)
            and not self.has_table(OLD_CHOICES)
            and self.owners_required
        )

    @property
    def is_halfway_out(self) -> bool:
        """Whether contract, or the way back from it, was cut short among the old pieces."""
        return (
            bool(self.dropped)
            or self.has_constraint("personas", OWNER_CHECK)
            or (self.owners_required and "personas.owner_id" in self.made)
        )


def noted(piece: str, did: Did) -> sql.Composed:
    """The statement that notes what is done to a piece, for the transaction that does it."""
    return sql.SQL(
        "INSERT INTO memsync.redesign_change (object, change) VALUES ({}, {})"
        " ON CONFLICT DO NOTHING"
    ).format(sql.Literal(piece), sql.Literal(did))


def unnoted(piece: str) -> sql.Composed:
    """The statement that forgets it again, once it is undone."""
    return sql.SQL("DELETE FROM memsync.redesign_change WHERE object = {}").format(
        sql.Literal(piece)
    )


def bring_back(session: Session, table: str, kept: str) -> None:
    """Insert again the rows that the named statement says were kept, unless they are there.

    Columns that the table gained since take their defaults; those that fill themselves do so.
    """
    rows = session.rows(kept)
    if not rows:
        return
    kept_columns = set.intersection(*(set(row.kept) for row in rows))
    names = [c.name for c in session.rows("insertable", relation=table) if c.name in kept_columns]
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    insert = sql.SQL(
        # lint: allow UNREADABLE the rows come from a statement of queries/
        "INSERT INTO {target} ({columns}) SELECT {columns} FROM"
        " (SELECT (jsonb_populate_record(NULL::{target}, k.kept)).* FROM ({kept}) k) AS again"
        " ON CONFLICT (id) DO NOTHING"
    ).format(target=sql.Identifier(table), columns=columns, kept=sql.SQL(statement(kept)))
    with translated(session.label):
        session.connection.execute(insert)


def references_to(session: Session, persona_id: UUID) -> dict[str, int]:
    """How many rows of other tables of the app's refer to a persona, by table and column.

    Those that say who uses it are known, and are not among them.
    """
    known = ["users", DEFAULTS, CHOICES, OLD_CHOICES]
    found = {}
    history = session.rows("columns", relation="conversation_history")
    if "persona_id" in {column.name for column in history}:
        found["messages"] = session.row("messages_of_persona", persona_id=persona_id)
    for each in session.rows("referrers_of_personas", known=[*known, "conversation_history"]):
        count = sql.SQL("SELECT count(*) AS total FROM {} WHERE {} = %s").format(
            sql.SQL(each.relation), sql.Identifier(each.column)
        )
        found[f"{each.relation}.{each.column}"] = session.connection.execute(
            count, (persona_id,)
        ).fetchone()
    return {name: row.total for name, row in found.items() if row.total}
