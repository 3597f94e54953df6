"""Reconcile the stores: `audit` only reads, `make_plan` makes a plan, `apply` carries it out."""

from memsync.reconcile.apply import Applied, apply
from memsync.reconcile.audit import audit, check
from memsync.reconcile.findings import Audit, Finding
from memsync.reconcile.plan import make_plan
from memsync.reconcile.rules import RULES, Rule

__all__ = [
    "RULES",
    "Applied",
    "Audit",
    "Finding",
    "Rule",
    "apply",
    "audit",
    "check",
    "make_plan",
]
