"""Creates the new tables of the settings beside the old ones, and the sync triggers between them.

See `memsync/migrate/redesign/`: `tables.sql` has the tables, `sync_triggers.sql` the triggers,
`settings_copy.sql` the statements that copy.
"""

from memsync.migrate.redesign import REDESIGN
from memsync.migrate.revisions import current_run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go forward."""
    REDESIGN.forward(current_run())


def downgrade() -> None:
    """Go back."""
    REDESIGN.back(current_run())
