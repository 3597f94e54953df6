"""Finds what an audit must read, by the fingerprints of all memories.

It decides what may be trusted. The history is compared with the ledger, and the ledger with the
shared collection; where both agree, a memory is as it was when it was written down, without a
fault. All others are named, so that the audit reads only those. Nothing here judges a memory.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from memsync.model.ids import PointId, point_order
from memsync.model.wording import count
from memsync.stores.history.owners import without_memory
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.fingerprints import (
    Fingerprint,
    Key,
    LedgerPrints,
    Prints,
    Value,
    compare_with_history,
)
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Session

_WORTH_IT = 5000
"""A store of fewer points is read whole in a second or two, and then nothing needs trust."""
_LOCATED_MAX = 100_000
"""So many memories are looked at one by one at most: their ids wait in memory."""
_SHARE_MAX = 0.25
"""Reading more of the points than this by their ids takes longer than reading all in order."""


@dataclass(frozen=True, slots=True)
class Located:
    """The memories that must be read, in order; the others are right.

    `exchanges` and `points` are how many there are in all, `archived` how many memories of the
    ledger have no rows by design. `are_all_read`: each point was read, and no digest was trusted.
    """

    ids: Iterable[PointId]
    exchanges: int
    points: int
    archived: int
    are_all_read: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything must be read. `why` is None where that is the usual way."""

    why: str | None = None


def locate(
    session: Session, ltm: LongTermMemory, known: Collection[PointId], *, small_too: bool
) -> Located | Whole:
    """What must be read, in the shared layout. `known` are memories that are read in any case.

    A small store is read whole, but with `small_too`. Raises: StoreUnreachable.
    """
    points = ltm.fingerprints
    if ltm.layout is not Layout.SHARED:
        return Whole()
    if why := points.why_not():
        return Whole(why)
    total = points.count()
    if total < _WORTH_IT and not small_too:
        return Whole()
    most = max(_SHARE_MAX * total, 100) if not small_too else _LOCATED_MAX
    most = round(min(most, _LOCATED_MAX))
    without = without_memory(session)
    history = compare_with_history(session, ltm.collection, without, most)
    if history.apart > most:
        return Whole(
            f"{count(history.apart, 'exchange is', 'exchanges are')} not in the ledger as the rows "
            "are now; `memsync reconcile adopt` writes them down"
        )
    ids = differing(points, LedgerPrints(session, ltm.collection), most)
    if ids is None:
        return Whole(f"more than {count(most, 'memory', 'memories')} may differ from the ledger")
    located = sorted(history.ids | ids | frozenset(known), key=point_order)
    return Located(tuple(located), history.exchanges, total, history.archived)


def differing(points: Prints, ledger: Prints, most: int) -> frozenset[PointId] | None:
    """The ids of memories of which the two stores do not say the same.

    Only memories with values that the stores count differently are read: first those of which both
    buckets are, and then those that explain what is left. None where that is more than `most`.
    """
    left = _Left(points, ledger)
    found: set[PointId] = set()
    for keys in ((Key.FP1, Key.FP2), (Key.FP1,), (Key.FP2,), (Key.PERSONA,)):
        where = {key: left.unequal(key) for key in keys}
        if not all(where.values()):
            continue
        if left.expected(where) > most:
            return None
        apart = _apart(points.where(where), ledger.where(where)) - found
        found |= apart
        if len(found) > most:
            return None
        left.explain(points.of(apart), ledger.of(apart))
    return frozenset(found)


class _Left:
    """How many memories more the collection has than the ledger, of each value, unexplained."""

    def __init__(self, points: Prints, ledger: Prints) -> None:
        self._of_points = {key: points.histogram(key) for key in Key}
        self._left: dict[Key, Counter[Value]] = {}
        for key, of_points in self._of_points.items():
            left = self._left[key] = Counter(of_points)
            left.subtract(ledger.histogram(key))

    def unequal(self, key: Key) -> frozenset[Value]:
        """The values that the two stores count differently."""
        return frozenset(value for value, more in self._left[key].items() if more)

    def expected(self, where: Mapping[Key, Collection[Value]]) -> float:
        """About how many points have these values: buckets are as good as random numbers."""
        number: float | None = None
        for key, values in where.items():
            counted = self._of_points[key]
            some, total = sum(counted[value] for value in values), counted.total()
            number = some if number is None else number * some / max(total, 1)
        return number or 0

    def explain(self, points: Iterator[Fingerprint], ledger: Iterator[Fingerprint]) -> None:
        """Take what is known by now out of the counts."""
        for prints, sign in ((points, -1), (ledger, 1)):
            for each in prints:
                for key in Key:
                    if (value := each.value(key)) is not None:
                        self._left[key][value] += sign


def _apart(points: Iterator[Fingerprint], ledger: Iterator[Fingerprint]) -> set[PointId]:
    """The ids of which the two do not have the same fingerprint."""
    noted = {each.point_id: each for each in ledger}
    apart = {each.point_id for each in points if noted.pop(each.point_id, None) != each}
    return apart | noted.keys()
