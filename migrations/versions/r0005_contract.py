"""Drops user_id and the old objects of the settings, and makes persona_id NOT NULL.

See `memsync/migrate/contract/`; for the old objects of the settings, see
`memsync/migrate/redesign/old_places.sql`.
"""

from memsync.migrate.contract import CONTRACT
from memsync.migrate.revisions import current_run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Go forward."""
    CONTRACT.forward(current_run())


def downgrade() -> None:
    """Go back."""
    CONTRACT.back(current_run())
