"""Phase redesign: the new tables of the settings, beside the old places and in sync with them."""

from memsync.migrate.redesign.owners import Orphan, require_owners
from memsync.migrate.redesign.phase import REDESIGN
from memsync.migrate.redesign.prospect import Fork, Prospect, prospect, require_met

__all__ = [
    "REDESIGN",
    "Fork",
    "Orphan",
    "Prospect",
    "prospect",
    "require_met",
    "require_owners",
]
