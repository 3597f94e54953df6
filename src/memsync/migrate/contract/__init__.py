"""Phase contract: after its gates it drops the old places of the settings, then user_id."""

from memsync.migrate.contract.phase import CONTRACT
from memsync.migrate.contract.proof import Verification, prove

__all__ = ["CONTRACT", "Verification", "prove"]
