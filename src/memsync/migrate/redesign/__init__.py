"""Phase redesign: the new tables of the settings, beside the old places and in sync with them."""

from memsync.migrate.redesign.owners import require_owners
from memsync.migrate.redesign.phase import REDESIGN
from memsync.migrate.redesign.prospect import Prospect, Quarantine, prospect, require_met

__all__ = [
    "REDESIGN",
    "Prospect",
    "Quarantine",
    "prospect",
    "require_met",
    "require_owners",
]
