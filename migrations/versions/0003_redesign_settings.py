"""The redesign of the settings: new tables beside the old columns, kept in step by a mirror.

Who uses which persona and config gets tables of its own. Nothing old is dropped here: both versions
of the app run on until contract. `user_personality_settings` is renamed, and a view bears the old
name. Locks: each statement for a moment and by lock_timeout; rows are copied in batches. The
indexes come last: that they stand says that the data is there.
"""

from alembic import context

from memsync.errors import SchemaMismatch
from memsync.migrate.redesign import sync_triggers as mirror
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import (
    CHOICES,
    CONFIG_OWNER_KEY,
    CONFIGS,
    DEFAULTS,
    INDEXES,
    MIRROR,
    NEW_COLUMNS,
    OLD_CHOICES,
    SIZED,
    noted,
    unnoted,
)
from memsync.stores.postgres import grants as rights
from memsync.stores.postgres import sql, translated
from memsync.stores.postgres.statements import statement

revision = "0003"
down_revision = "0002"

_TABLES = {
    DEFAULTS: """
        CREATE TABLE {schema}.user_default_personas (
            user_id uuid NOT NULL,
            persona_id uuid NOT NULL,
            updated_at timestamp(3) NOT NULL,
            CONSTRAINT user_default_personas_pkey PRIMARY KEY (user_id),
            CONSTRAINT user_default_personas_user_id_fkey FOREIGN KEY (user_id)
                REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
            CONSTRAINT user_default_personas_persona_id_fkey FOREIGN KEY (persona_id)
                REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE)""",
    CONFIGS: """
        CREATE TABLE {schema}.personality_default_configs (
            personality_id uuid NOT NULL,
            llm_config_id uuid NOT NULL,
            updated_at timestamp(3) NOT NULL,
            CONSTRAINT personality_default_configs_pkey PRIMARY KEY (personality_id),
            CONSTRAINT personality_default_configs_personality_id_fkey FOREIGN KEY (personality_id)
                REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
            CONSTRAINT personality_default_configs_llm_config_id_fkey FOREIGN KEY (llm_config_id)
                REFERENCES llm_configs (id) ON DELETE CASCADE ON UPDATE CASCADE)""",
}
_REPLACED = {DEFAULTS: ("users", "global_persona_id"), CONFIGS: ("personalities", "llm_config_id")}
_UNIQUE = {
    DEFAULTS: "CREATE UNIQUE INDEX user_default_personas_user_id_key"
    " ON user_default_personas (user_id)",
    CONFIGS: "CREATE UNIQUE INDEX personality_default_configs_personality_id_key"
    " ON personality_default_configs (personality_id)",
}
_COLUMNS = {
    "owner_id": "ALTER TABLE llm_configs ADD COLUMN owner_id uuid",
    "is_global": "ALTER TABLE llm_configs ADD COLUMN is_global boolean NOT NULL DEFAULT false",
    "context_window_size": "ALTER TABLE llm_configs"
    " ADD COLUMN context_window_size integer NOT NULL DEFAULT 20",
}
# What a new column says at first: what the way back kept of it, else what the old ones say.
_SAID = {
    "owner_id": "UPDATE llm_configs c SET owner_id = u.id FROM memsync.column_archive a"
    " JOIN users u ON u.id = (a.value #>> '{}')::uuid"
    " WHERE a.column_name = 'llm_configs.owner_id' AND a.row_id = c.id",
    "is_global": "UPDATE llm_configs c SET is_global = a.value::boolean"
    " FROM memsync.column_archive a"
    " WHERE a.column_name = 'llm_configs.is_global' AND a.row_id = c.id",
    "context_window_size": "UPDATE llm_configs c SET context_window_size = a.value::int"
    " FROM memsync.column_archive a"
    " WHERE a.column_name = 'llm_configs.context_window_size' AND a.row_id = c.id",
}


def upgrade() -> None:
    """Make what is missing, copy, and keep both sides in step."""
    ddl = context.config.attributes["ddl"]
    steps = context.config.attributes["steps"]
    redesign = Catalog.read(ddl.session).redesign
    if redesign.missing_tables:
        raise SchemaMismatch(
            f"{ddl.session.label} has no table {', '.join(redesign.missing_tables)}: the redesign "
            "of the settings needs it. Check postgres_url",
            missing=list(redesign.missing_tables),
        )
    # Stands until the way back has ended: nothing of it is forgotten when that is cut short.
    ddl.run(noted(MIRROR, "made"), table="users")
    for table, create in _TABLES.items():
        if not redesign.has_table(table):
            like, column = _REPLACED[table]
            schema = sql.Identifier(ddl.session.row("schema_of", relation=like).name)
            ddl.run(
                sql.SQL(create).format(schema=schema),
                _UNIQUE[table],
                *rights.like(ddl, table, like, replaced=column),
                noted(table, "made"),
                table=like,
            )
    _add_columns(ddl, redesign)
    _rename_choices(ddl, redesign)
    mirror.build_functions(ddl, redesign)
    redesign = Catalog.read(ddl.session).redesign
    steps["restore_forks"](ddl)
    steps["size_configs"](ddl)
    mirror.build_triggers(ddl, redesign, "users", "personas", DEFAULTS, "personalities", CONFIGS)
    steps["copy_settings"](ddl)
    # Not before: giving a config its size would have changed personalities that are not placed yet.
    mirror.build_triggers(ddl, redesign, "llm_configs")
    steps["settle_owners"](ddl)
    for table, name, column in INDEXES:
        if not redesign.has_index(table, name):
            ddl.run(noted(name, "made"), table=table)
        ddl.index(name, f"CREATE INDEX CONCURRENTLY {name} ON {table} ({column})", table=table)


def downgrade() -> None:
    """Take away what memsync made; each pair in one transaction, so that nothing said is lost."""
    ddl = context.config.attributes["ddl"]
    redesign = Catalog.read(ddl.session).redesign
    if DEFAULTS in redesign.made:
        ddl.run(
            mirror.drop_trigger("users", "memsync_sync_default"),
            mirror.drop_trigger("personas", "memsync_sync_default"),
            "DROP TABLE IF EXISTS user_default_personas",
            unnoted(DEFAULTS),
            table="users",
        )
    _remove_configs(ddl, redesign)
    for choices in ("renamed", "merged"):
        if choices in redesign.made:
            _rename_choices_back(ddl, choices)
    for _, name, _ in INDEXES:
        if name in redesign.made:
            # The others went with what they were built on.
            ddl.run_long(
                sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name))
            )
            ddl.run(unnoted(name), table="users")
    context.config.attributes["steps"]["restore_orphans"](ddl)
    ddl.run(*mirror.drop_functions(), unnoted(MIRROR), table="users")


def _add_columns(ddl, redesign) -> None:
    for column in NEW_COLUMNS:
        if redesign.has_column("llm_configs", column):
            continue
        said = [_SAID[column]]
        if column == "is_global" and redesign.has_column("llm_configs", "is_default"):
            said.insert(0, "UPDATE llm_configs SET is_global = true WHERE is_default")
        ddl.run(
            _COLUMNS[column], *said, noted(f"llm_configs.{column}", "made"), table="llm_configs"
        )
    if not redesign.has_constraint("llm_configs", CONFIG_OWNER_KEY):
        ddl.run(noted(CONFIG_OWNER_KEY, "made"), table="llm_configs")
    ddl.foreign_key("llm_configs", "owner_id", "users")
    ddl.run(statement("clear_config_owners"), table="llm_configs")
    ddl.validate("llm_configs", CONFIG_OWNER_KEY)


def _remove_configs(ddl, redesign) -> None:
    made = [name for name in NEW_COLUMNS if f"llm_configs.{name}" in redesign.made]
    # Forks are made after the table of choices has its new name, and gone before it loses it.
    has_choices = redesign.has_table(CHOICES)
    forks = ["remember_chosen_forks", "leave_chosen_forks"] if has_choices else []
    if redesign.has_column("personalities", "llm_config_id"):
        forks += ["remember_forked", "leave_forks"]
    drops = [statement("leave_placed_forks")] if redesign.has_table(CONFIGS) else []
    drops += [statement("keep_forks"), statement("remove_forks")]
    if CONFIGS in redesign.made:
        drops += ["DROP TABLE IF EXISTS personality_default_configs"]
    if CONFIG_OWNER_KEY in redesign.made:
        drops += [f"ALTER TABLE llm_configs DROP CONSTRAINT IF EXISTS {CONFIG_OWNER_KEY}"]
    for name in made:
        drops += _column_away(name)
    pieces = (CONFIGS, CONFIG_OWNER_KEY, SIZED, *(f"llm_configs.{name}" for name in made))
    # lint: allow STRONG-LOCK for a moment, by lock_timeout: dropping needs it, archives before
    ddl.run(
        "LOCK TABLE llm_configs, personalities IN ACCESS EXCLUSIVE MODE",
        *(
            mirror.drop_trigger(table, name)
            for table, name in sorted(redesign.mirrors)
            if table in {"personalities", "llm_configs", CONFIGS} and redesign.has_table(table)
        ),
        *map(statement, forks),
        *drops,
        *map(unnoted, pieces),
        table="llm_configs",
    )


def _column_away(name: str) -> list[sql.Composed]:
    """The statements that keep what a new column says, and drop it."""
    piece, column = sql.Literal(f"llm_configs.{name}"), sql.Identifier(name)
    return [
        sql.SQL("DELETE FROM memsync.column_archive WHERE column_name = {}").format(piece),
        sql.SQL(
            "INSERT INTO memsync.column_archive (column_name, row_id, value)"
            " SELECT {}, id, to_jsonb({}) FROM llm_configs WHERE {} IS NOT NULL"
        ).format(piece, column, column),
        sql.SQL("ALTER TABLE llm_configs DROP COLUMN IF EXISTS {}").format(column),
    ]


def _rename_choices(ddl, redesign) -> None:
    """Give the table its new name, and leave a view that bears the old one."""
    if not redesign.has_table(OLD_CHOICES):
        return
    if not redesign.has_table(CHOICES):
        move = [
            "ALTER TABLE user_personality_settings RENAME TO user_personality_configs",
            *_renamed(ddl, OLD_CHOICES, CHOICES, standing=OLD_CHOICES),
        ]
        how = "renamed"
    else:
        merge = _merge_choices(ddl)
        with translated(ddl.session.label):
            ddl.session.connection.execute(merge)
        move = [
            # lint: allow STRONG-LOCK for a moment, by lock_timeout: the last rows move under it
            "LOCK TABLE user_personality_settings IN ACCESS EXCLUSIVE MODE",
            merge,
            "ALTER TABLE user_personality_settings SET SCHEMA memsync",
        ]
        how = "merged"
    ddl.run(
        *move,
        mirror.choices_view(ddl, OLD_CHOICES),
        *rights.like(ddl, OLD_CHOICES, OLD_CHOICES),
        noted(how, "made"),
        table=OLD_CHOICES,
    )


def _merge_choices(ddl) -> sql.Composed:
    """The statement that copies what only the old table of choices holds."""
    old = {column.name for column in ddl.session.rows("columns", relation=OLD_CHOICES)}
    names = [c.name for c in ddl.session.rows("insertable", relation=CHOICES) if c.name in old]
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    return sql.SQL(
        "INSERT INTO user_personality_configs ({}) SELECT {} FROM user_personality_settings"
        " ON CONFLICT DO NOTHING"
    ).format(columns, columns)


def _rename_choices_back(ddl, how: str) -> None:
    schema = ddl.session.row("schema_of", relation=CHOICES).name
    back = {
        "renamed": [
            *_renamed(ddl, CHOICES, OLD_CHOICES, standing=CHOICES),
            "ALTER TABLE user_personality_configs RENAME TO user_personality_settings",
        ],
        "merged": [
            statement("forget_removed_choices"),
            sql.SQL("ALTER TABLE memsync.user_personality_settings SET SCHEMA {}").format(
                sql.Identifier(schema)
            ),
        ],
    }
    ddl.run(
        "DROP VIEW IF EXISTS user_personality_settings",
        *back[how],
        unnoted(how),
        table=CHOICES,
    )


def _renamed(ddl, old: str, new: str, *, standing: str) -> list[sql.Composed]:
    """The statements that give what hangs on the table the names that go with its own.

    They run while the table bears the new one of its two names.
    """
    found = ddl.session.rows("named_after", relation=standing, prefix=f"{old}_")
    return [
        sql.SQL(
            "ALTER INDEX {} RENAME TO {}"
            if each.kind == "index"
            else "ALTER TABLE {owner} RENAME CONSTRAINT {} TO {}"
        ).format(
            sql.Identifier(each.name),
            sql.Identifier(new + each.name.removeprefix(old)),
            owner=sql.Identifier(CHOICES),
        )
        for each in found
    ]
