"""Reconcile the stores: `audit` only reads, `make_plan` makes a plan, `apply` carries it out.

`undo` takes a run of `apply` back, `runs` lists those that are kept, and `kept` says which of them
an undo would take back. `adopt` writes the memories
that exist now in the ledger. `acknowledge` lets findings be that an operator knows of.
`keep_replaced` and `why_not_kept` are for the relay.
"""

from memsync.reconcile.adopt import Adopted, Part, adopt
from memsync.reconcile.apply import Applied, apply
from memsync.reconcile.audit import audit, check
from memsync.reconcile.baseline import Accepted, acknowledge
from memsync.reconcile.findings import Audit, Finding
from memsync.reconcile.journal import Run, runs
from memsync.reconcile.plan import make_plan
from memsync.reconcile.quarantine import keep_replaced, why_not_kept
from memsync.reconcile.rules import RULES, Rule
from memsync.reconcile.undo import Undone, undo
from memsync.reconcile.undoable import Kept, kept

__all__ = [
    "RULES",
    "Accepted",
    "Adopted",
    "Applied",
    "Audit",
    "Finding",
    "Kept",
    "Part",
    "Rule",
    "Run",
    "Undone",
    "acknowledge",
    "adopt",
    "apply",
    "audit",
    "check",
    "keep_replaced",
    "kept",
    "make_plan",
    "runs",
    "undo",
    "why_not_kept",
]
