"""Fills persona_id of every message, then adds its indexes and its foreign key.

See `memsync/migrate/backfill/`: `fill.sql` fills in place, `shadow_table.sql` by a shadow table.
"""

from memsync.migrate.backfill import BACKFILL
from memsync.migrate.revisions import current_run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go forward."""
    BACKFILL.forward(current_run())


def downgrade() -> None:
    """Go back."""
    BACKFILL.back(current_run())
