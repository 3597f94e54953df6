"""Adds the column persona_id, and the sync triggers between it and user_id.

See `memsync/migrate/expand/`.
"""

from memsync.migrate.expand import EXPAND
from memsync.migrate.revisions import current_run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go forward."""
    EXPAND.forward(current_run())


def downgrade() -> None:
    """Go back."""
    EXPAND.back(current_run())
