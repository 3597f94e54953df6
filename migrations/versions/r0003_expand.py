"""The column persona_id, and the triggers that keep it in step with user_id.

Written in `memsync/migrate/expand/`.
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
