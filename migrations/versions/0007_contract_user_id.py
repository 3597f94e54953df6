"""The last step: persona_id must be there, user_id goes; and the way back from it.

Users of rows whose persona is another's are archived first: the owner of its persona says the user
of any other row. That is the way back, for rows written since as well.
"""

from alembic import context

from memsync.migrate.expand import sync_triggers as bridge
from memsync.stores.history.catalog import (
    PERSONA_CHECK,
    TABLE,
    USER_CHECK,
    USER_ID_INDEX,
    USER_KEY,
    Catalog,
)
from memsync.stores.postgres.statements import statement

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make persona_id mandatory, archive what user_id alone says, drop user_id."""
    ddl = context.config.attributes["ddl"]
    ddl.require_not_null(TABLE, "persona_id", PERSONA_CHECK)
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
    context.config.attributes["steps"]["refill_users"](ddl)
    ddl.index(
        USER_ID_INDEX,
        f"CREATE INDEX CONCURRENTLY {USER_ID_INDEX} ON conversation_history (user_id)",
        table=TABLE,
    )
    ddl.foreign_key(TABLE, "user_id", "users")
    ddl.validate(TABLE, USER_KEY)
    ddl.require_not_null(TABLE, "user_id", USER_CHECK)
    catalog = Catalog.read(ddl.session)
    if PERSONA_CHECK in catalog.constraints:
        ddl.run(f"ALTER TABLE conversation_history DROP CONSTRAINT {PERSONA_CHECK}", table=TABLE)
    if catalog.columns["persona_id"]:
        ddl.run("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL", table=TABLE)
