"""Finds the persona of each old message: by evidence, by the user's choice, or by default."""

from memsync.migrate.attribution.choice import (
    OpenMemories,
    awaited,
    check,
    is_due,
    read_for_run,
    report_of,
)
from memsync.migrate.attribution.compare import compare
from memsync.migrate.attribution.evidence import Evidence, EvidenceReport
from memsync.migrate.attribution.settings import (
    QUARANTINE,
    UnresolvedUser,
    fragments,
    messages_by_rule,
    places,
    unresolved_users,
)

__all__ = [
    "QUARANTINE",
    "Evidence",
    "EvidenceReport",
    "OpenMemories",
    "UnresolvedUser",
    "awaited",
    "check",
    "compare",
    "fragments",
    "is_due",
    "messages_by_rule",
    "places",
    "read_for_run",
    "report_of",
    "unresolved_users",
]
