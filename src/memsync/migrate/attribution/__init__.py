"""Who the persona of an old message is: by evidence, by choice, by default."""

from memsync.migrate.attribution.evidence import Evidence, EvidenceReport, awaited
from memsync.migrate.attribution.settings import (
    UnresolvedUser,
    fragments,
    messages_by_rule,
    places,
    unresolved_users,
)

__all__ = [
    "Evidence",
    "EvidenceReport",
    "UnresolvedUser",
    "awaited",
    "fragments",
    "messages_by_rule",
    "places",
    "unresolved_users",
]
