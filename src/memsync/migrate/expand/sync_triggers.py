"""The sync triggers of the history, which keep user_id and persona_id in step.

Decides in which order functions and triggers come and go. They stand from expand to contract, and
on the way back. What they do is written in sync_triggers.sql.
"""

from memsync.migrate.attribution import places
from memsync.stores.history.catalog import IDENTITY_TRIGGER, TABLE, USER_WRITE_TRIGGER, Catalog
from memsync.stores.postgres import Statement, composed, relations, sql, statement
from memsync.stores.postgres.ddl import OnlineDdl

_SET_DEFAULT = {
    "default_old": statement("set_default_old"),
    "default_new": statement("set_default_new"),
    "default_both": statement("set_default_both"),
}
"""How a persona is made the user's default, by where defaults stand."""


def build(ddl: OnlineDdl, catalog: Catalog) -> None:
    """Build the sync triggers, or make those that stand as they are today.

    Locks: SHARE ROW EXCLUSIVE on the history, for a moment.
    """
    path = pinned_search_path(ddl)
    stand_in = places(catalog.settings)
    set_default = sql.SQL(_SET_DEFAULT[stand_in["default"]])
    ddl.run(
        statement("define_persona_override", override=stand_in["override"]),
        statement("define_persona_default", default=stand_in["default"]),
        composed("define_create_default_persona", set_default=set_default, search_path=path),
        composed("define_sync_identity", search_path=path),
        statement("define_record_user_write"),
        statement("revoke_sync_functions"),
        table="users",
    )
    if USER_WRITE_TRIGGER not in catalog.triggers:
        ddl.run(
            statement("create_user_write_trigger"),
            # Under the lock of the statement above: no writer slips in between.
            statement("watch_user_writes"),
            table=TABLE,
        )
    if IDENTITY_TRIGGER not in catalog.triggers:
        ddl.run(statement("create_identity_trigger"), table=TABLE)


def pinned_search_path(ddl: OnlineDdl) -> sql.Composed:
    """Where functions of memsync's find the app's tables, whoever calls them.

    Temporary tables come last, so that no client can slip in one of its own. See
    https://www.postgresql.org/docs/current/sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY
    """
    schemas = relations.search_path(ddl.session)
    return sql.SQL(", ").join([*map(sql.Identifier, schemas), sql.SQL("pg_temp")])


def remove(ddl: OnlineDdl, *with_it: Statement) -> None:
    """Take the sync triggers down; `with_it` are statements of the same transaction.

    Everything goes in one transaction because, between trigger and column, rows of either version
    of the app would be refused.
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
