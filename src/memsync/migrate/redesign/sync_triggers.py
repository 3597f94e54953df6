"""The sync triggers of the settings, which keep the old places and the new tables in sync.

While both versions of the app run, one writes `users.global_persona_id`, the other
`user_default_personas`; one writes `personalities.llm_config_id` and `context_window_size`, the
other `personality_default_configs` and `llm_configs`. Each trigger writes only what differs, so the
two of a pair do not fire each other for ever. They exist from redesign to contract, and again
during a rollback of contract. This module creates and drops functions and triggers;
sync_triggers.sql says what they do.
"""

from memsync.migrate.expand import pinned_search_path
from memsync.stores.history.settings_tables import (
    CONFIGS,
    DEFAULTS,
    SYNC_TRIGGERS,
    SettingsTables,
)
from memsync.stores.postgres import composed, relations, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl

_NOTHING = sql.SQL("")
CREATE_TRIGGER = {
    ("users", "memsync_sync_default"): statement("create_default_trigger_on_users"),
    (DEFAULTS, "memsync_sync_default"): statement("create_default_trigger_on_defaults"),
    ("personas", "memsync_sync_default"): statement("create_default_trigger_on_personas"),
    (CONFIGS, "memsync_sync_config"): statement("create_config_trigger_on_configs"),
    ("llm_configs", "memsync_sync_config"): statement("create_config_trigger_on_llm_configs"),
    ("llm_configs", "memsync_sync_window"): statement("create_window_trigger"),
    ("llm_configs", "memsync_sync_is_default"): statement("create_is_default_trigger"),
}
"""The statement that creates each trigger, by table and name. The trigger on personalities is not
among them, because its statement depends on the table's columns.
"""
ON_PERSONALITIES = ("personalities", "memsync_sync_config")


def build_functions(ddl: OnlineDdl, settings: SettingsTables) -> None:
    """Create or replace the functions, for the old columns that exist."""
    path = pinned_search_path(ddl)
    columns = map(sql.Identifier, relations.insertable_columns(ddl.session, "llm_configs"))
    windows = settings.has_column("personalities", "context_window_size")
    ddl.run(
        statement("is_waited_for"),
        composed(
            "sync_place",
            search_path=path,
            window=sql.SQL("NEW.context_window_size" if windows else "NULL"),
        ),
        composed("sync_lock_new_place", search_path=path),
        composed("sync_default", search_path=path),
        composed("sync_default_chosen", search_path=path),
        composed(
            "config_with_window", search_path=path, config_columns=sql.SQL(", ").join(columns)
        ),
        composed("sync_config", search_path=path),
        composed(
            "sync_config_chosen",
            search_path=path,
            take_window=sql.SQL(", context_window_size = size") if windows else _NOTHING,
            other_window=sql.SQL(" OR context_window_size <> size") if windows else _NOTHING,
        ),
        composed("sync_window_of_config", search_path=path),
        composed("sync_default_is_global", search_path=path),
        statement("revoke_settings_functions"),
        table="users",
    )


def build_triggers(ddl: OnlineDdl, settings: SettingsTables, *tables: str) -> None:
    """Create the triggers that are wanted and missing on these tables.

    Locks: SHARE ROW EXCLUSIVE on each, for a moment.
    """
    for table, name in sorted(settings.sync_triggers):
        if table not in tables or settings.has_trigger(table, name):
            continue
        if (table, name) == ON_PERSONALITIES:
            windows = settings.has_column("personalities", "context_window_size")
            column = sql.SQL(", context_window_size") if windows else _NOTHING
            create = composed("create_config_trigger_on_personalities", window_column=column)
            ddl.run(create, table=table)
        else:
            ddl.run(CREATE_TRIGGER[table, name], table=table)


def triggers_of(table: str, column: str) -> tuple[tuple[str, str], ...]:
    """The triggers, each as (table, name), that keep one old column in sync."""
    return SYNC_TRIGGERS.get((table, column), ())


def drop_trigger(table: str, name: str) -> sql.Composed:
    """The statement that drops one trigger."""
    return composed("drop_sync_trigger", trigger=sql.Identifier(name), table=sql.Identifier(table))


def remove(ddl: OnlineDdl, *with_it: sql.Composed) -> None:
    """Drop every trigger and function that still exists, in one transaction."""
    ddl.run(
        *(drop_trigger(*each) for each in (*CREATE_TRIGGER, ON_PERSONALITIES)),
        statement("drop_settings_functions"),
        *with_it,
        table="users",
    )
