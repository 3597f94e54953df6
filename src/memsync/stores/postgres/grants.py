"""Copies a table's owner and grants to the table that memsync creates in its place.

A role of the app that may read and write the old table must be able to do so with the new one.
Otherwise the app's new version fails, and a test with the migrating role would not show it.
"""

from typing import Any

from psycopg import sql

from memsync.stores.postgres.ddl import OnlineDdl


def like(
    ddl: OnlineDdl, relation: str, model: str, *, replaced: str | None = None
) -> tuple[sql.Composed, ...]:
    """The statements that copy the owner and the grants of `model` to the new table `relation`.

    `replaced` is a column of `model` that the new table replaces: a role that may update the column
    may write to the table. Without it both have the same columns, whose own grants are copied, too.
    """
    rows = ddl.session.rows("table_grants", relation=model, replaced=replaced)
    single = [] if replaced else ddl.session.rows("column_grants", relation=model)
    name = sql.Identifier(relation)
    given = [_grant(each, name, None) for each in rows if each.privilege]
    given += [_grant(each, name, each.column) for each in single]
    if rows and rows[0].owner != ddl.session.row("current_role").name:
        given.append(
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(name, sql.Identifier(rows[0].owner))
        )
    return tuple(given)


def _grant(each: Any, relation: sql.Identifier, column: str | None) -> sql.Composed:
    may: sql.Composable = sql.SQL(each.privilege)
    if column:
        may = sql.SQL("{} ({})").format(may, sql.Identifier(column))
    text = "GRANT {} ON {} TO {}"
    if each.is_grantable:
        text = "GRANT {} ON {} TO {} WITH GRANT OPTION"
    whom = sql.Identifier(each.grantee) if each.grantee else sql.SQL("PUBLIC")
    return sql.SQL(text).format(may, relation, whom)
