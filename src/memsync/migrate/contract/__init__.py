"""Phase contract: the gates, then the old places of the settings and user_id go."""

from memsync.migrate.contract.phase import CONTRACT
from memsync.migrate.contract.proof import Verification, prove

__all__ = ["CONTRACT", "Verification", "prove"]
