"""Phase backfill: fills persona_id of every message, then builds its indexes and foreign key."""

from memsync.migrate.backfill.decide import require_resolved
from memsync.migrate.backfill.existing import refused_existing, require_chosen
from memsync.migrate.backfill.fill import refill_users
from memsync.migrate.backfill.method import Choice, choose_method
from memsync.migrate.backfill.phase import BACKFILL

__all__ = [
    "BACKFILL",
    "Choice",
    "choose_method",
    "refill_users",
    "refused_existing",
    "require_chosen",
    "require_resolved",
]
