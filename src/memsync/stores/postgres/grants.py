"""Who may do what with a table: a new one gets the owner and the grants of the one it stands for.

An app's role that may read and write the old place must be able to do so with the new one, or the
new version of the app meets an error that no test of the migrating role would show.
"""

from typing import Any

from psycopg import sql

from memsync.stores.postgres.ddl import OnlineDdl


def like(
    ddl: OnlineDdl, relation: str, model: str, *, replaced: str | None = None
) -> tuple[sql.Composed, ...]:
    """The statements that give `relation`, which memsync just makes, the rights of `model`.

    `replaced` is the model's column whose place it takes: who may set that may write here. Without
    one it has the model's columns, and their own grants too.
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
