"""The index that serves reading one user's thread, until threads are read by persona.

Locks: SHARE UPDATE EXCLUSIVE; readers and writers pass. A run that goes on to fill leaves it to
the indexes that are built after the fill, which would pay for it with every row.
"""

from alembic import context

from memsync.stores.catalog import USER_INDEX, Catalog

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Build the index where there is a user_id to index."""
    ddl = context.config.attributes["ddl"]
    if Catalog.read(ddl.session).has_users:
        context.config.attributes["steps"]["index_users"](ddl)


def downgrade() -> None:
    """Drop the index."""
    context.config.attributes["ddl"].run_long(f"DROP INDEX CONCURRENTLY IF EXISTS {USER_INDEX}")
