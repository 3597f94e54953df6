"""The old places of the settings: contract drops them, and its rollback adds them again.

Values that only a dropped column holds are archived in the transaction that drops it; the new
tables hold the others. A column and its sync triggers are dropped together. On rollback each column
is added again, with its triggers, and filled from the new tables and the archive.
"""

from memsync.migrate.redesign import sync_triggers
from memsync.migrate.redesign.changes import forgotten, noted, unnoted
from memsync.migrate.redesign.choices import choices_view
from memsync.migrate.redesign.owners import settle_owners
from memsync.migrate.redesign.settings_copy import copy_defaults_back, settle_sync
from memsync.migrate.redesign.tables import build_index
from memsync.migrate.run import Run
from memsync.stores.history.settings_tables import (
    CHOICES,
    CONFIGS,
    DEFAULTS,
    OLD_CHOICES,
    OLD_COLUMNS,
    OLD_INDEXES,
    OWNER_CHECK,
    SettingsTables,
)
from memsync.stores.postgres import composed, grants, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl

_KEEP = {
    "personalities.context_window_size": statement("keep_personality_windows"),
    "personas.is_global": statement("keep_global_personas"),
    "llm_configs.is_default": statement("keep_default_configs"),
}
"""How the values that only an old column holds are archived."""
_ADD = {
    "users.global_persona_id": statement("add_global_persona_id"),
    "personalities.llm_config_id": statement("add_llm_config_id"),
    "personalities.context_window_size": statement("add_personality_window"),
    "personas.is_global": statement("add_persona_is_global"),
    "llm_configs.is_default": statement("add_is_default"),
}
_FILL_WITH_COLUMN = {
    "personas.is_global": statement("refill_persona_is_global"),
    "llm_configs.is_default": statement("refill_is_default"),
}
_GROUPS = (
    ("users", ("users.global_persona_id",)),
    ("personalities", ("personalities.llm_config_id", "personalities.context_window_size")),
    ("personas", ("personas.is_global",)),
    ("llm_configs", ("llm_configs.is_default",)),
)
"""Columns that are dropped and added together, by the table whose lock is hardest to get."""


def drop(run: Run) -> None:
    """Give every persona an owner, archive what only the old columns hold, and drop them.

    Raises: GateClosed if the operator must decide the owner of a persona.
    """
    ddl, settings = run.ddl, run.catalog().settings
    if not settings.owners_required:
        settle_owners(ddl, run.options)
        run.session.execute(noted("personas.owner_id", "created"))
    ddl.require_not_null("personas", "owner_id", OWNER_CHECK)
    settle_sync(ddl)
    standing = {".".join(each) for each in settings.old_columns}
    for table, columns in _GROUPS:
        if going := [column for column in columns if column in standing]:
            _drop_columns(ddl, table, going)
    if settings.has_view(OLD_CHOICES):
        ddl.run(statement("drop_old_choices"), noted(OLD_CHOICES, "dropped"), table=CHOICES)
    sync_triggers.remove(ddl)


def bring_back(run: Run) -> None:
    """Add again what memsync dropped, create its triggers, then fill it."""
    ddl, settings = run.ddl, run.catalog().settings
    if OLD_CHOICES in settings.dropped:
        _bring_view_back(ddl, settings)
    for table, columns in _GROUPS:
        gone = [
            column
            for column in columns
            if column in settings.dropped and not settings.has_column(*column.split("."))
        ]
        if gone:
            _add_columns(ddl, table, gone)
    settings = run.catalog().settings
    sync_triggers.build_functions(ddl, settings)
    sync_triggers.build_triggers(
        ddl, settings, "users", "personas", DEFAULTS, "personalities", CONFIGS, "llm_configs"
    )
    _refill(run, settings)
    for table, column, name in OLD_INDEXES:
        if f"{table}.{column}" in settings.dropped:
            build_index(ddl, table, column, name)
    if "personas.owner_id" in settings.created:
        ddl.run(
            statement("allow_no_owner"),
            statement("drop_owner_check"),
            unnoted("personas.owner_id"),
            table="personas",
        )
    # Last, because these notes show that a rollback was cut short.
    names = [".".join(each) for each in OLD_COLUMNS]
    ddl.run(*map(unnoted, [*names, OLD_CHOICES]), *map(forgotten, _KEEP), table="users")


def _refill(run: Run, settings: SettingsTables) -> None:
    """Fill the old places from the new tables, and give them their foreign keys."""
    ddl = run.ddl
    if "users.global_persona_id" in settings.dropped:
        copy_defaults_back(run)
        ddl.foreign_key("users", "global_persona_id", "personas", sets_null=True)
        ddl.validate("users", "users_global_persona_id_fkey")
    if "personalities.llm_config_id" in settings.dropped:
        copy = [statement("take_placed")]
        if settings.has_column("personalities", "context_window_size"):
            copy = [statement("copy_configs_back"), statement("restore_windows")]
        ddl.run(*copy, table="personalities")
        ddl.foreign_key("personalities", "llm_config_id", "llm_configs", sets_null=True)
        ddl.validate("personalities", "personalities_llm_config_id_fkey")


def _drop_columns(ddl: OnlineDdl, table: str, columns: list[str]) -> None:
    """Archive, then drop the columns and their triggers, in one transaction."""
    names = [column.split(".") for column in columns]
    triggers = {each for name in names for each in sync_triggers.triggers_of(*name)}
    ddl.run(
        composed("lock_table", table=sql.Identifier(table)),
        *(_KEEP[column] for column in columns if column in _KEEP),
        *(sync_triggers.drop_trigger(*each) for each in sorted(triggers)),
        *(
            composed("drop_column", table=sql.Identifier(of_table), column=sql.Identifier(name))
            for of_table, name in names
        ),
        *(noted(column, "dropped") for column in columns),
        table=table,
    )


def _add_columns(ddl: OnlineDdl, table: str, columns: list[str]) -> None:
    refills = [_FILL_WITH_COLUMN[column] for column in columns if column in _FILL_WITH_COLUMN]
    ddl.run(*(_ADD[column] for column in columns), *refills, table=table)


def _bring_view_back(ddl: OnlineDdl, settings: SettingsTables) -> None:
    if not settings.has_view(OLD_CHOICES):
        ddl.run(choices_view(ddl, CHOICES), *grants.like(ddl, OLD_CHOICES, CHOICES), table=CHOICES)
