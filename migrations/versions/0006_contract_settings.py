"""The end of the redesign: every persona has an owner, and the old places of the settings go.

What a dropped column alone said is archived in the transaction that drops it; the rest stands in
the new tables. A column and the triggers that keep it in step go together. That is the way back:
each column comes again with its triggers, filled from the new tables and the archive.
"""

from alembic import context

from memsync.migrate.redesign import sync_triggers as mirror
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import (
    CHOICES,
    CONFIGS,
    DEFAULTS,
    OLD_CHOICES,
    OLD_COLUMNS,
    OLD_INDEXES,
    OWNER_CHECK,
    noted,
    unnoted,
)
from memsync.stores.postgres import grants as rights
from memsync.stores.postgres import sql
from memsync.stores.postgres.statements import statement

revision = "0006"
down_revision = "0005"

# What only the old column says, so what must be kept of it.
_KEPT = {
    "personalities.context_window_size": "llm_config_id IS NULL",
    "personas.is_global": "is_global",
    "llm_configs.is_default": "is_default",
}
_AGAIN = {
    "users.global_persona_id": "ALTER TABLE users ADD COLUMN global_persona_id uuid",
    "personalities.llm_config_id": "ALTER TABLE personalities ADD COLUMN llm_config_id uuid",
    "personalities.context_window_size": "ALTER TABLE personalities"
    " ADD COLUMN context_window_size integer NOT NULL DEFAULT 20",
    "personas.is_global": "ALTER TABLE personas"
    " ADD COLUMN is_global boolean NOT NULL DEFAULT false",
    "llm_configs.is_default": "ALTER TABLE llm_configs"
    " ADD COLUMN is_default boolean NOT NULL DEFAULT false",
}
_FILL = {
    "personas.is_global": "UPDATE personas p SET is_global = true FROM memsync.column_archive a"
    " WHERE a.column_name = 'personas.is_global' AND a.row_id = p.id",
    "llm_configs.is_default": "UPDATE llm_configs c SET is_default = true"
    " FROM memsync.column_archive a"
    " WHERE a.column_name = 'llm_configs.is_default' AND a.row_id = c.id",
}
# Columns that go and come together, with the table whose lock is hardest to get.
_GROUPS = (
    ("users", ("users.global_persona_id",)),
    ("personalities", ("personalities.llm_config_id", "personalities.context_window_size")),
    ("personas", ("personas.is_global",)),
    ("llm_configs", ("llm_configs.is_default",)),
)


def upgrade() -> None:
    """Ask for owners, archive what the old columns alone say, drop them."""
    ddl = context.config.attributes["ddl"]
    redesign = Catalog.read(ddl.session).redesign
    if not redesign.owners_required:
        context.config.attributes["steps"]["settle_owners"](ddl)
        ddl.session.connection.execute(noted("personas.owner_id", "made"))
    ddl.require_not_null("personas", "owner_id", OWNER_CHECK)
    context.config.attributes["steps"]["settle_sync"](ddl)
    standing = {".".join(each) for each in redesign.old_columns}
    for table, pieces in _GROUPS:
        if going := [piece for piece in pieces if piece in standing]:
            _drop(ddl, table, going)
    if redesign.has_view(OLD_CHOICES):
        ddl.run(
            "DROP VIEW user_personality_settings",
            noted(OLD_CHOICES, "dropped"),
            table=CHOICES,
        )
    ddl.run(*mirror.drop_functions(), table="users")


def downgrade() -> None:
    """Bring back what memsync dropped, filled, and the mirror with it."""
    ddl = context.config.attributes["ddl"]
    redesign = Catalog.read(ddl.session).redesign
    if OLD_CHOICES in redesign.dropped:
        _view_again(ddl, redesign)
    for table, pieces in _GROUPS:
        gone = [
            piece
            for piece in pieces
            if piece in redesign.dropped and not redesign.has_column(*piece.split("."))
        ]
        if gone:
            _add(ddl, table, gone)
    redesign = Catalog.read(ddl.session).redesign
    mirror.build_functions(ddl, redesign)
    mirror.build_triggers(
        ddl, redesign, "users", "personas", DEFAULTS, "personalities", CONFIGS, "llm_configs"
    )
    if "users.global_persona_id" in redesign.dropped:
        context.config.attributes["steps"]["copy_settings_back"](ddl)
        ddl.foreign_key("users", "global_persona_id", "personas", sets_null=True)
        ddl.validate("users", "users_global_persona_id_fkey")
    if "personalities.llm_config_id" in redesign.dropped:
        copy = ["take_placed"]
        if redesign.has_column("personalities", "context_window_size"):
            copy = ["copy_configs_back", "restore_windows"]
        ddl.run(*map(statement, copy), table="personalities")
        ddl.foreign_key("personalities", "llm_config_id", "llm_configs", sets_null=True)
        ddl.validate("personalities", "personalities_llm_config_id_fkey")
    for table, column, name in OLD_INDEXES:
        if f"{table}.{column}" in redesign.dropped:
            ddl.index(name, f"CREATE INDEX CONCURRENTLY {name} ON {table} ({column})", table=table)
    if "personas.owner_id" in redesign.made:
        ddl.run(
            "ALTER TABLE personas ALTER owner_id DROP NOT NULL",
            sql.SQL("ALTER TABLE personas DROP CONSTRAINT IF EXISTS {}").format(
                sql.Identifier(OWNER_CHECK)
            ),
            unnoted("personas.owner_id"),
            table="personas",
        )
    # All is there again: from here on it is no longer a way back that was cut short.
    pieces = [".".join(each) for each in OLD_COLUMNS]
    ddl.run(*map(unnoted, [*pieces, OLD_CHOICES]), *map(_forget, _KEPT), table="users")


def _drop(ddl, table: str, pieces: list[str]) -> None:
    names = [piece.split(".") for piece in pieces]
    triggers = {t for name in names for t in mirror.triggers_of(*name)}
    # lint: allow STRONG-LOCK for a moment, by lock_timeout: dropping needs it, archives before
    ddl.run(
        sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)),
        *(_keep(piece) for piece in pieces if piece in _KEPT),
        *(mirror.drop_trigger(*each) for each in sorted(triggers)),
        *(
            sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(*map(sql.Identifier, name))
            for name in names
        ),
        *(noted(piece, "dropped") for piece in pieces),
        table=table,
    )


def _add(ddl, table: str, pieces: list[str]) -> None:
    fills = [_FILL[piece] for piece in pieces if piece in _FILL]
    ddl.run(*(_AGAIN[piece] for piece in pieces), *fills, table=table)


def _keep(piece: str) -> sql.Composed:
    table, column = piece.split(".")
    return sql.SQL(
        "INSERT INTO memsync.column_archive (column_name, row_id, value)"
        " SELECT {}, id, to_jsonb({}) FROM {} WHERE {}"
        " ON CONFLICT (column_name, row_id) DO UPDATE SET value = excluded.value"
    ).format(
        sql.Literal(piece), sql.Identifier(column), sql.Identifier(table), sql.SQL(_KEPT[piece])
    )


def _forget(piece: str) -> sql.Composed:
    return sql.SQL("DELETE FROM memsync.column_archive WHERE column_name = {}").format(
        sql.Literal(piece)
    )


def _view_again(ddl, redesign) -> None:
    if not redesign.has_view(OLD_CHOICES):
        ddl.run(
            mirror.choices_view(ddl, CHOICES),
            *rights.like(ddl, OLD_CHOICES, CHOICES),
            table=CHOICES,
        )
