"""The old places of the settings and user_id go; persona_id must hold a value.

Written in `memsync/migrate/contract/`; the old places of the settings are in
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
