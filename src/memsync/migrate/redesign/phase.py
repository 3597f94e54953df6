"""Phase redesign: the new tables of the settings, beside the old places and in step with them.

Tables of their own say who uses which persona and which config. Nothing old is dropped here,
because both versions of the app run on until contract. `user_personality_settings` is renamed, and
a view bears the old name. Locks: each statement for a moment and by lock_timeout; rows are copied
in batches. The indexes come last: that they stand says that the data is there.
"""

from memsync.errors import SchemaMismatch
from memsync.migrate.redesign import choices, settings_copy, sync_triggers, tables
from memsync.migrate.redesign.changes import BEGUN, noted, unnoted
from memsync.migrate.redesign.owners import restore_orphans, settle_owners
from memsync.migrate.run import Run
from memsync.stores.history.phases import Phase
from memsync.stores.history.settings_tables import CONFIGS, DEFAULTS, SettingsTables


class _Redesign:
    phase = Phase.REDESIGN
    steps = (
        "The redesign of the settings: new tables beside the old columns, in step by triggers.",
    )

    def forward(self, run: Run) -> None:
        """Create what is missing, copy, and keep both sides in step."""
        ddl, settings = run.ddl, run.catalog().settings
        _require_tables(run, settings)
        # Stands until the way back has ended: nothing of it is forgotten when that is cut short.
        ddl.run(noted(BEGUN, "created"), table="users")
        tables.create_tables(ddl, settings)
        tables.add_columns(ddl, settings)
        choices.rename_choices(ddl, settings)
        sync_triggers.build_functions(ddl, settings)
        settings = run.catalog().settings
        settings_copy.restore_forks(ddl)
        settings_copy.size_configs(ddl)
        sync_triggers.build_triggers(
            ddl, settings, "users", "personas", DEFAULTS, "personalities", CONFIGS
        )
        settings_copy.copy_settings(run)
        # Not before: giving a config its size would change personalities that are not placed yet.
        sync_triggers.build_triggers(ddl, settings, "llm_configs")
        settle_owners(ddl, run.options)
        tables.build_indexes(ddl, settings)

    def back(self, run: Run) -> None:
        """Take away what memsync made; each pair in one transaction, so that no value is lost."""
        ddl, settings = run.ddl, run.catalog().settings
        if DEFAULTS in settings.created:
            tables.drop_defaults(ddl)
        tables.remove_configs(ddl, settings)
        choices.rename_choices_back(ddl, settings)
        tables.drop_indexes(ddl, settings)
        restore_orphans(ddl)
        sync_triggers.remove(ddl, unnoted(BEGUN))


REDESIGN = _Redesign()


def _require_tables(run: Run, settings: SettingsTables) -> None:
    if settings.missing:
        raise SchemaMismatch(
            f"{run.session.label} has no table {', '.join(settings.missing)}: the redesign "
            "of the settings needs it. Check postgres_url",
            missing=list(settings.missing),
        )
