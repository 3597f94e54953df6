"""The index that serves reading one user's thread; a run that goes on to fill leaves it out.

Once the fill is done threads are read by persona, and until then every row would pay for it. Locks:
SHARE UPDATE EXCLUSIVE; readers and writers pass.
"""

from alembic import context

from memsync.stores.history.catalog import USER_INDEX, Catalog

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
