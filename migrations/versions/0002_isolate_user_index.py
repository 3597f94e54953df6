"""The index that serves reading one user's thread, until threads are read by persona.

Locks: SHARE UPDATE EXCLUSIVE; readers and writers pass.
"""

from alembic import context

from memsync.stores.catalog import BUILD_USER_INDEX, TABLE, USER_INDEX, Catalog

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Build the index where there is a user_id to index."""
    ddl = context.config.attributes["ddl"]
    if not Catalog.read(ddl.session).has_users:
        return
    ddl.index(USER_INDEX, BUILD_USER_INDEX, table=TABLE)


def downgrade() -> None:
    """Drop the index."""
    context.config.attributes["ddl"].run_long(f"DROP INDEX CONCURRENTLY IF EXISTS {USER_INDEX}")
