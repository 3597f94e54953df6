"""Who may do what with a table: a new one gets the owner and the grants of the one it stands for.

An app's role that may read and write the old place must be able to do so with the new one, or the
new version of the app meets an error that no test of the migrating role would show.
"""

from psycopg import sql

from memsync.stores.ddl import OnlineDdl


def like(ddl: OnlineDdl, relation: str, model: str) -> tuple[sql.Composed, ...]:
    """The statements that give `relation`, which memsync just makes, the rights of `model`."""
    rows = ddl.session.rows("table_rights", relation=model)
    name = sql.Identifier(relation)
    mine = ddl.session.row("current_role").name
    given = [
        sql.SQL(
            "GRANT {} ON {} TO {} WITH GRANT OPTION"
            if each.is_grantable
            else "GRANT {} ON {} TO {}"
        ).format(
            sql.SQL(each.privilege),
            name,
            sql.Identifier(each.grantee) if each.grantee else sql.SQL("PUBLIC"),
        )
        for each in rows
        if each.privilege
    ]
    if rows and rows[0].owner != mine:
        given.append(
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(name, sql.Identifier(rows[0].owner))
        )
    return tuple(given)
