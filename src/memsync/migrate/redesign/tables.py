"""The new tables, columns and indexes of the settings: created, and dropped on rollback.

This module decides what goes into one transaction: an object and its note, so that a rollback drops
only what memsync created, and the drop of a column and the archiving of its values.
"""

from memsync.migrate.redesign import sync_triggers
from memsync.migrate.redesign.changes import SIZED, forgotten, noted, unnoted
from memsync.stores.history.settings_tables import (
    CHOICES,
    CONFIG_OWNER_KEY,
    CONFIGS,
    DEFAULTS,
    INDEXES,
    NEW_COLUMNS,
    PROMPTS,
    PROMPTS_INDEX,
    PROMPTS_INDEX_OLD,
    SettingsTables,
)
from memsync.stores.postgres import Statement, composed, grants, relations, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl

_ADD_COLUMN = {
    "owner_id": (statement("add_config_owner"), statement("refill_config_owner")),
    "is_global": (statement("add_config_is_global"), statement("refill_config_is_global")),
    "context_window_size": (statement("add_config_window"), statement("refill_config_window")),
}
"""The statements that add each new column of `llm_configs`, and fill in what a rollback archived.
"""


def create_tables(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Create the new tables that are missing, each with the grants of the place it replaces."""
    if not settings.has_table(DEFAULTS):
        ddl.run(
            composed(
                "create_user_default_personas", schema=relations.schema_of(ddl.session, "users")
            ),
            statement("create_user_default_personas_key"),
            *grants.like(ddl, DEFAULTS, "users", replaced="global_persona_id"),
            noted(DEFAULTS, "created"),
            table="users",
        )
    if not settings.has_table(CONFIGS):
        ddl.run(
            composed(
                "create_personality_default_configs",
                schema=relations.schema_of(ddl.session, "personalities"),
            ),
            statement("create_personality_default_configs_key"),
            *grants.like(ddl, CONFIGS, "personalities", replaced="llm_config_id"),
            noted(CONFIGS, "created"),
            table="personalities",
        )


def drop_defaults(ddl: OnlineDdl) -> None:
    """Drop the table of defaults with its triggers."""
    ddl.run(
        sync_triggers.drop_trigger("users", "memsync_sync_default"),
        sync_triggers.drop_trigger("personas", "memsync_sync_default"),
        statement("drop_user_default_personas"),
        unnoted(DEFAULTS),
        table="users",
    )


def add_columns(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Add the new columns of `llm_configs`, and the foreign key of the owner."""
    for column in NEW_COLUMNS:
        if settings.has_column("llm_configs", column):
            continue
        add, refill = _ADD_COLUMN[column]
        fills = [refill]
        if column == "is_global" and settings.has_column("llm_configs", "is_default"):
            fills.insert(0, statement("open_default_configs"))
        ddl.run(add, *fills, noted(f"llm_configs.{column}", "created"), table="llm_configs")
    if not settings.has_constraint("llm_configs", CONFIG_OWNER_KEY):
        ddl.run(noted(CONFIG_OWNER_KEY, "created"), table="llm_configs")
    ddl.foreign_key("llm_configs", "owner_id", "users")
    ddl.run(statement("clear_config_owners"), table="llm_configs")
    ddl.validate("llm_configs", CONFIG_OWNER_KEY)


def remove_configs(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Drop the table of personalities' configs and the new columns, in one transaction.

    Forks are removed, and their users get the config that each fork was made from. This must run
    before the table of choices loses its new name, because users choose forks there.
    """
    added = [name for name in NEW_COLUMNS if f"llm_configs.{name}" in settings.created]
    notes = (CONFIGS, CONFIG_OWNER_KEY, SIZED, *(f"llm_configs.{name}" for name in added))
    triggers = [
        sync_triggers.drop_trigger(table, name)
        for table, name in sorted(settings.sync_triggers)
        if table in {"personalities", "llm_configs", CONFIGS} and settings.has_table(table)
    ]
    ddl.run(
        statement("lock_configs"),
        *triggers,
        *_leave_forks(settings),
        *_drop_configs(settings, added),
        *map(unnoted, notes),
        table="llm_configs",
    )


def build_indexes(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Build the indexes of the new tables. An index that exists says that the data is there."""
    for table, name, column in INDEXES:
        if not settings.has_index(table, name):
            ddl.run(noted(name, "created"), table=table)
        build_index(ddl, table, column, name)


def build_index(ddl: OnlineDdl, table: str, column: str, name: str) -> None:
    """Build one index of the settings, without blocking readers or writers."""
    build = composed(
        "create_settings_index",
        index=sql.Identifier(name),
        table=sql.Identifier(table),
        column=sql.Identifier(column),
    )
    ddl.index(name, build, table=table)


def drop_indexes(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Drop the indexes that memsync built, as far as they did not go with their tables."""
    for _, name, _ in INDEXES:
        if name in settings.created:
            ddl.run_long(composed("drop_settings_index", index=sql.Identifier(name)))
            ddl.run(unnoted(name), table="users")


def rename_prompts_index(ddl: OnlineDdl) -> None:
    """Give the index of the app's prompts its new name, if it has the old one."""
    standing = relations.indexes(ddl.session, PROMPTS)
    if PROMPTS_INDEX_OLD in standing and PROMPTS_INDEX not in standing:
        renamed = _renamed(PROMPTS_INDEX_OLD, PROMPTS_INDEX)
        ddl.run(renamed, noted(PROMPTS_INDEX, "created"), table=PROMPTS)


def rename_prompts_index_back(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Give the index its old name again, if memsync renamed it."""
    if PROMPTS_INDEX not in settings.created:
        return
    standing = relations.indexes(ddl.session, PROMPTS)
    back: list[Statement] = []
    if PROMPTS_INDEX in standing and PROMPTS_INDEX_OLD not in standing:
        back.append(_renamed(PROMPTS_INDEX, PROMPTS_INDEX_OLD))
    ddl.run(*back, unnoted(PROMPTS_INDEX), table="users")


def _renamed(old: str, new: str) -> sql.Composed:
    return composed("rename_index", old=sql.Identifier(old), new=sql.Identifier(new))


def _leave_forks(settings: SettingsTables) -> list[str]:
    """The statements that archive who has which fork, and remove the forks."""
    steps: list[str] = []
    if settings.has_table(CHOICES):
        steps += [statement("remember_chosen_forks"), statement("leave_chosen_forks")]
    if settings.has_column("personalities", "llm_config_id"):
        steps += [statement("remember_forked"), statement("leave_forks")]
    if settings.has_table(CONFIGS):
        steps.append(statement("leave_placed_forks"))
    return [*steps, statement("keep_forks"), statement("remove_forks")]


def _drop_configs(settings: SettingsTables, added: list[str]) -> list[Statement]:
    drops: list[Statement] = []
    if CONFIGS in settings.created:
        drops.append(statement("drop_personality_default_configs"))
    if CONFIG_OWNER_KEY in settings.created:
        drops.append(statement("drop_config_owner_key"))
    for name in added:
        kept_as, column = f"llm_configs.{name}", sql.Identifier(name)
        drops += [
            forgotten(kept_as),
            composed("keep_config_column", column_name=sql.Literal(kept_as), column=column),
            composed("drop_config_column", column=column),
        ]
    return drops
