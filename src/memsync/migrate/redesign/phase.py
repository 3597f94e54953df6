"""Phase redesign: the new tables of the settings, beside the old places and in sync with them.

The new tables say which persona a user has by default and which config a personality has. Nothing
old is dropped here, because both versions of the app run until contract.
`user_personality_settings` is renamed, and a view keeps the old name. Locks: each statement takes
them for a moment and within lock_timeout; rows are copied in batches. The indexes come last,
because an index that exists tells later runs that the data is there.
"""

from memsync.migrate.redesign import choices, settings_copy, sync_triggers, tables
from memsync.migrate.redesign.changes import BEGUN, noted, unnoted
from memsync.migrate.redesign.owners import restore_orphans, settle_owners
from memsync.migrate.run import Run
from memsync.stores.history.phases import Phase
from memsync.stores.history.settings_tables import CONFIGS, DEFAULTS


class _Redesign:
    phase = Phase.REDESIGN
    steps = (
        "Create the new tables of the settings; triggers keep them and the old columns in sync.",
    )

    def forward(self, run: Run) -> None:
        """Create what is missing, copy the settings, and keep both sides in sync."""
        ddl, settings = run.ddl, run.catalog().settings
        # A rollback removes this note last, so one that was cut short is recognised and goes on.
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
        # Not earlier: a config that gets its window would change personalities not copied yet.
        sync_triggers.build_triggers(ddl, settings, "llm_configs")
        settle_owners(ddl, run.options)
        tables.rename_prompts_index(ddl)
        tables.build_indexes(ddl, settings)

    def back(self, run: Run) -> None:
        """Drop what memsync made. Objects that belong together go in one transaction, so that no
        value is lost.
        """
        ddl, settings = run.ddl, run.catalog().settings
        if DEFAULTS in settings.created:
            tables.drop_defaults(ddl)
        tables.remove_configs(ddl, settings)
        choices.rename_choices_back(ddl, settings)
        tables.drop_indexes(ddl, settings)
        tables.rename_prompts_index_back(ddl, settings)
        restore_orphans(ddl)
        sync_triggers.remove(ddl, unnoted(BEGUN))


REDESIGN = _Redesign()
