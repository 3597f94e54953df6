"""The migration of the history from user_id to persona_id, its proof, and the way back."""

from memsync.migrate.archive import Archive
from memsync.migrate.attribution.choice import memories_of
from memsync.migrate.attribution.evidence import Disagreement, EvidenceReport
from memsync.migrate.backfill.method import Choice, choose_method
from memsync.migrate.backup import Backup, backup
from memsync.migrate.checks import Check, State
from memsync.migrate.contract.gates import Gate
from memsync.migrate.contract.proof import Verification
from memsync.migrate.engine import archive, finalize, rollback, run
from memsync.migrate.initial import init
from memsync.migrate.options import RunOptions
from memsync.migrate.pacing.control import Runner, Wanted, ask
from memsync.migrate.plan import Plan, Status, plan, status
from memsync.migrate.psql import Script, psql_script, scripts
from memsync.migrate.standing import Step
from memsync.migrate.verify import verify

__all__ = [
    "Archive",
    "Backup",
    "Check",
    "Choice",
    "Disagreement",
    "EvidenceReport",
    "Gate",
    "Plan",
    "RunOptions",
    "Runner",
    "Script",
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
    "init",
    "memories_of",
    "plan",
    "psql_script",
    "rollback",
    "run",
    "scripts",
    "status",
    "verify",
]
