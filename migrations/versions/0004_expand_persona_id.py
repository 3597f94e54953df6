"""The new column, and the bridge that keeps both ids in step while both versions of the app run.

Locks: ACCESS EXCLUSIVE for the column and SHARE ROW EXCLUSIVE for the trigger, each for a moment
and by lock_timeout.
"""

from alembic import context

from memsync.migrate.expand import sync_triggers as bridge
from memsync.stores.history.catalog import TABLE, Catalog
from memsync.stores.postgres.statements import statement

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column and, where user_id still stands, the bridge."""
    ddl = context.config.attributes["ddl"]
    catalog = Catalog.read(ddl.session)
    if "persona_id" not in catalog.columns:
        ddl.run("ALTER TABLE conversation_history ADD COLUMN persona_id uuid", table=TABLE)
    if "user_id" in catalog.columns:
        bridge.build(ddl, catalog)


def downgrade() -> None:
    """Keep every persona that the map does not tell, then drop bridge and column."""
    ddl = context.config.attributes["ddl"]
    if "persona_id" in Catalog.read(ddl.session).columns:
        ddl.run_long(statement("archive_personas"))
        ddl.session.run("forget_fill", fill="personas")
    bridge.remove(ddl, "ALTER TABLE conversation_history DROP COLUMN IF EXISTS persona_id")
