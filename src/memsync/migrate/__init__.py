"""The migration of the history from user_id to persona_id, its proof, and the way back."""

from memsync.migrate.backup import Backup, backup
from memsync.migrate.checklist import verify
from memsync.migrate.checks import Check, State
from memsync.migrate.control import Runner, Wanted, ask
from memsync.migrate.engine import Archive, archive, finalize, rollback, run
from memsync.migrate.evidence import Disagreement, EvidenceReport, memories_of
from memsync.migrate.items import Item, Mark
from memsync.migrate.method import Choice, choose_method
from memsync.migrate.options import RunOptions
from memsync.migrate.outlook import Outlook, Status, Step, outlook, status
from memsync.migrate.proof import Verification
from memsync.migrate.scripts import psql_script

__all__ = [
    "Archive",
    "Backup",
    "Check",
    "Choice",
    "Disagreement",
    "EvidenceReport",
    "Item",
    "Mark",
    "Outlook",
    "RunOptions",
    "Runner",
    "State",
    "Status",
    "Step",
    "Verification",
    "Wanted",
    "archive",
    "ask",
    "backup",
    "choose_method",
    "finalize",
    "memories_of",
    "outlook",
    "psql_script",
    "rollback",
    "run",
    "status",
    "verify",
]
