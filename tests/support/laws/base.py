"""A law: a fault planted in a clean app, and the findings that `memsync check` must then report.

Only findings beyond those reported before count: their name, number, key and evidence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from memsync.model.records import Exchange, to_ms
from support.lab import LONG_AGO, Lab

OLD_MS = to_ms(LONG_AGO) - 86_400_000


@dataclass(frozen=True)
class Planted:
    """The findings to expect: evidence by key, and the numbers of other findings it causes."""

    evidence: Mapping[str, Mapping[str, object]]
    others: Mapping[str, int] | None = None
    next_command: str = "memsync reconcile plan"
    left: Mapping[str, int] | None = None


Law = Callable[[Lab, list[Exchange]], Planted]
LAWS: list[tuple[str, str, Law]] = []


def law(code: str, where: str) -> Callable[[Law], Law]:
    """Register a law for a code."""

    def register(plant: Law) -> Law:
        LAWS.append((code, where, plant))
        return plant

    return register


def one(key: object, **evidence: object) -> dict[str, dict[str, object]]:
    """The evidence of one finding."""
    return {str(key): evidence}
