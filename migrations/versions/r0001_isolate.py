"""Creates memsync's tables in a schema of their own, and the index for reading by user.

See `memsync/migrate/isolate/`: `own_schema.sql` has the tables, `user_index.sql` the index.
"""

from memsync.migrate.isolate import ISOLATE
from memsync.migrate.revisions import current_run

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go forward."""
    ISOLATE.forward(current_run())


def downgrade() -> None:
    """Go back."""
    ISOLATE.back(current_run())
