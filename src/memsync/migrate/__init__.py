"""The migration of the history from user_id to persona_id: plan, run, status, verify."""

from memsync.migrate.engine import run
from memsync.migrate.outlook import Outlook, Status, Step, outlook, status
from memsync.migrate.proof import Verification, verify

__all__ = ["Outlook", "Status", "Step", "Verification", "outlook", "run", "status", "verify"]
