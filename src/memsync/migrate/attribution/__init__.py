"""Finds the persona of each old message: by evidence, by the user's choice, or by default."""

from memsync.migrate.attribution.evidence import Evidence, EvidenceReport, awaited
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
    "UnresolvedUser",
    "awaited",
    "fragments",
    "messages_by_rule",
    "places",
    "unresolved_users",
]
