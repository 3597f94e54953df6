"""The last step: persona_id must be there, user_id goes; and the way back from it.

SET NOT NULL scans the table under ACCESS EXCLUSIVE unless a validated check already proves the
same; the check is dropped in a statement of its own, or the proof would not be used. Users of rows
whose persona is another's are archived first: the owner of its persona says the user of any other
row. That is the way back, for rows written since as well.
"""

from alembic import context

from memsync.errors import GateClosed
from memsync.stores import bridge
from memsync.stores.catalog import (
    BUILD_USER_INDEX,
    PERSONA_CHECK,
    TABLE,
    USER_CHECK,
    USER_ID_INDEX,
    USER_INDEX,
    USER_KEY,
    Catalog,
)
from memsync.stores.queries import statement

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make persona_id mandatory, archive what user_id alone says, drop user_id."""
    ddl = context.config.attributes["ddl"]
    require(ddl, "persona_id", PERSONA_CHECK)
    catalog = Catalog.read(ddl.session)
    if "user_id" in catalog.columns:
        ddl.run_long(statement("archive_exceptions"))
        if USER_KEY in catalog.constraints:
            # On its own: this one also locks users.
            ddl.run(f"ALTER TABLE conversation_history DROP CONSTRAINT {USER_KEY}", table="users")
        bridge.remove(
            ddl,
            "ALTER TABLE conversation_history DROP COLUMN user_id",
            statement("note_user_id_dropped"),
        )


def downgrade() -> None:
    """Give every row its user again, then indexes, key and NOT NULL; online as well."""
    ddl = context.config.attributes["ddl"]
    if "user_id" not in Catalog.read(ddl.session).columns:
        ddl.run("ALTER TABLE conversation_history ADD COLUMN user_id uuid", table=TABLE)
        ddl.session.run("forget_fill", fill="users")
    catalog = Catalog.read(ddl.session)
    bridge.build(ddl, catalog)
    context.config.attributes["refill_users"](ddl)
    ddl.index(
        USER_ID_INDEX,
        f"CREATE INDEX CONCURRENTLY {USER_ID_INDEX} ON conversation_history (user_id)",
        table=TABLE,
    )
    ddl.index(USER_INDEX, BUILD_USER_INDEX, table=TABLE)
    if USER_KEY not in catalog.constraints:
        ddl.run(
            f"ALTER TABLE conversation_history ADD CONSTRAINT {USER_KEY}"
            " FOREIGN KEY (user_id) REFERENCES users (id)"
            " ON UPDATE CASCADE ON DELETE CASCADE NOT VALID",
            table=TABLE,
        )
    if not catalog.constraints.get(USER_KEY):
        ddl.run_long(f"ALTER TABLE conversation_history VALIDATE CONSTRAINT {USER_KEY}")
    require(ddl, "user_id", USER_CHECK)
    catalog = Catalog.read(ddl.session)
    if PERSONA_CHECK in catalog.constraints:
        ddl.run(f"ALTER TABLE conversation_history DROP CONSTRAINT {PERSONA_CHECK}", table=TABLE)
    if catalog.columns["persona_id"]:
        ddl.run("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL", table=TABLE)


def require(ddl, column: str, check: str) -> None:
    """Make the column NOT NULL, proven by a check that is validated while clients go on."""
    catalog = Catalog.read(ddl.session)
    if not catalog.columns[column]:
        if check not in catalog.constraints:
            ddl.run(
                f"ALTER TABLE conversation_history ADD CONSTRAINT {check}"
                f" CHECK ({column} IS NOT NULL) NOT VALID",
                table=TABLE,
            )
        try:
            ddl.run_long(f"ALTER TABLE conversation_history VALIDATE CONSTRAINT {check}")
        except GateClosed:
            # Clients must not be refused for a step that did not happen.
            ddl.run(f"ALTER TABLE conversation_history DROP CONSTRAINT {check}", table=TABLE)
            raise
        ddl.run(f"ALTER TABLE conversation_history ALTER {column} SET NOT NULL", table=TABLE)
        ddl.run(f"ALTER TABLE conversation_history DROP CONSTRAINT {check}", table=TABLE)
    elif check in catalog.constraints:
        ddl.run(f"ALTER TABLE conversation_history DROP CONSTRAINT {check}", table=TABLE)
