"""Reconcile the stores: `audit` only reads, `make_plan` makes a plan, `apply` carries it out.

`undo` takes a run of `apply` back, and `runs` lists those that can be.
"""

from memsync.reconcile.apply import Applied, apply
from memsync.reconcile.audit import audit, check
from memsync.reconcile.findings import Audit, Finding
from memsync.reconcile.journal import Run, runs
from memsync.reconcile.plan import make_plan
from memsync.reconcile.rules import RULES, Rule
from memsync.reconcile.undo import Undone, undo

__all__ = [
    "RULES",
    "Applied",
    "Audit",
    "Finding",
    "Rule",
    "Run",
    "Undone",
    "apply",
    "audit",
    "check",
    "make_plan",
    "runs",
    "undo",
]
