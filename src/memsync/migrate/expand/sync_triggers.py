"""The sync triggers of the history, which keep user_id and persona_id in sync.

They exist from expand to contract, and again during a rollback of contract. This module decides in
which order functions and triggers are created and dropped; sync_triggers.sql says what they do.
"""

from collections.abc import Iterator

from memsync.migrate.attribution import places
from memsync.stores.history.catalog import IDENTITY_TRIGGER, TABLE, USER_WRITE_TRIGGER, Catalog
from memsync.stores.postgres import Statement, composed, relations, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl

_SET_DEFAULT = {
    "default_old": statement("set_default_old"),
    "default_new": statement("set_default_new"),
    "default_both": statement("set_default_both"),
}
"""The statement that makes a persona the user's default, by where the schema keeps defaults."""


def build(ddl: OnlineDdl, catalog: Catalog, *with_it: Statement) -> None:
    """Create the sync triggers, and replace the functions of those that exist.

    `with_it` are statements of the same transaction that make the columns. It is one transaction
    because a run that is cut short must leave all of it or nothing.
    Locks: SHARE ROW EXCLUSIVE on the history, for a moment, or the lock of `with_it`.
    """
    # The functions come first, because they wait for no lock.
    ddl.run(*_functions(ddl, catalog), *with_it, *_triggers(catalog), table=TABLE)


def _functions(ddl: OnlineDdl, catalog: Catalog) -> tuple[Statement, ...]:
    """The views and functions of the triggers, for the settings as they stand."""
    path = pinned_search_path(ddl)
    stand_in = places(catalog.settings)
    set_default = sql.SQL(_SET_DEFAULT[stand_in["default"]])
    return (
        statement("define_persona_override", override=stand_in["override"]),
        statement("define_persona_default", default=stand_in["default"]),
        composed("define_create_default_persona", set_default=set_default, search_path=path),
        composed("define_sync_identity", search_path=path),
        statement("define_record_user_write"),
        statement("revoke_sync_functions"),
    )


def _triggers(catalog: Catalog) -> Iterator[Statement]:
    """The triggers that are missing."""
    if USER_WRITE_TRIGGER not in catalog.triggers:
        yield statement("create_user_write_trigger")
        # Under the lock of the statement above, so that no writer comes between them.
        yield statement("watch_user_writes")
    if IDENTITY_TRIGGER not in catalog.triggers:
        yield statement("create_identity_trigger")


def pinned_search_path(ddl: OnlineDdl) -> sql.Composed:
    """The search_path of memsync's functions: where they find the app's tables for any caller.

    Temporary tables come last, so that no client can substitute one of its own. See
    https://www.postgresql.org/docs/current/sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY
    """
    schemas = relations.search_path(ddl.session)
    return sql.SQL(", ").join([*map(sql.Identifier, schemas), sql.SQL("pg_temp")])


def remove(ddl: OnlineDdl, *with_it: Statement) -> None:
    """Drop the sync triggers; `with_it` are statements of the same transaction.

    It is one transaction because, after the triggers and before the column are dropped, rows of one
    version of the app would be refused.
    """
    ddl.run(
        statement("drop_identity_trigger"),
        statement("drop_user_write_trigger"),
        *with_it,
        statement("drop_record_user_write"),
        statement("drop_sync_identity"),
        statement("drop_create_default_persona"),
        statement("drop_persona_views"),
        table=TABLE,
    )
