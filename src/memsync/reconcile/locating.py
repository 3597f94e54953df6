"""Finds what an audit must read, by the fingerprints of all memories.

It decides what may be trusted. The history is compared with the ledger, and the ledger with the
shared collection; where both agree, a memory is as it was when it was written down, without a
fault. All others are named, and those that other rows may concern by now, so that the audit reads
only these. Nothing here judges a memory.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from memsync.errors import InvalidInput
from memsync.model.ids import PointId, point_order
from memsync.model.wording import count
from memsync.stores.history.owners import without_memory
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.against_history import compare_with_history
from memsync.stores.ltm.fingerprints import (
    VALUES_MAX,
    Key,
    LedgerPrints,
    PointPrints,
    Value,
    Where,
    can_compute_digests,
)
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.postgres import Postgres, Session

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
    postgres: Postgres,
    session: Session,
    ltm: LongTermMemory,
    known: Collection[PointId],
    others: Iterable[str],
    *,
    small_too: bool,
) -> Located | Whole:
    """What must be read, in the shared layout. `known` are memories that are read in any case.

    `others` are collections of memories that the layout does not read: while they hold any, each
    may be the copy of a memory, and only the memory tells. A small store is read whole, but with
    `small_too`. Raises: StoreUnreachable.
    """
    if ltm.layout is not Layout.SHARED:
        return Whole("memories lie in the per-persona layout" if small_too else None)
    points = ltm.fingerprints
    try:
        if why := points.why_not() or _why_not(session):
            return Whole(why)
        total = points.count()
        if total < _WORTH_IT and not small_too:
            return Whole()
        if holding := sum(1 for name in others if ltm.count(name)):
            return Whole(f"{count(holding, 'other collection')} may hold copies of its memories")
        most = _LOCATED_MAX if small_too else round(min(_SHARE_MAX * total, _LOCATED_MAX))
        without = without_memory(session)
        history = compare_with_history(postgres, session, ltm.collection, without, most)
        if history.apart > most:
            return Whole(
                f"{count(history.apart, 'exchange is', 'exchanges are')} not in the ledger as the "
                "rows are now; `memsync reconcile adopt` writes them down"
            )
        ids = differing(points, LedgerPrints(session, ltm.collection), most)
    except InvalidInput as error:
        # A strict server refuses some questions, such as one for exact numbers.
        return Whole(error.message)
    if isinstance(ids, Whole):
        return ids
    located = sorted(history.ids | ids | frozenset(known), key=point_order)
    return Located(tuple(located), history.exchanges, total, history.archived)


def _why_not(session: Session) -> str | None:
    """Why Postgres cannot compare; None where it can."""
    if not Ledger(session).stands:
        return "the database has no ledger of memories; `memsync migrate run` makes it"
    if not can_compute_digests(session):
        return "Postgres has no function memsync.memory_digest that this role may call"
    return None


def differing(points: PointPrints, ledger: LedgerPrints, most: int) -> frozenset[PointId] | Whole:
    """The ids of memories of which the two stores do not say the same.

    Where that may be more than `most`, or a point cannot be counted, everything must be read.
    """
    return _Search(points, ledger, most).run()


class _Search:
    """The search for the memories that differ.

    `_left` is how many memories more the collection has than the ledger, of each value, and
    unexplained; `_lacking` how many points at least have no value of a key that is counted, and
    `_may_lack` whether any may have none.
    """

    def __init__(self, points: PointPrints, ledger: LedgerPrints, most: int) -> None:
        self._points, self._ledger, self._most = points, ledger, most
        # Both stores count at the same time.
        with ThreadPoolExecutor(1) as beside:
            of_ledger = beside.submit(lambda: {key: ledger.histogram(key) for key in Key})
            # By an older total, what is written meanwhile lacks nothing, and may make up for what
            # does; by a newer one it may seem to lack something.
            older = points.count()
            self._of_points = {key: points.histogram(key) for key in Key}
            newer = points.count()
            self._of_ledger = of_ledger.result()
        counted = {key: each.total() for key, each in self._of_points.items()}
        self._lacking = {key: older - number for key, number in counted.items()}
        self._may_lack = max(older, newer) > min(counted.values())
        self._left: dict[Key, Counter[Value]] = {}
        for key in Key:
            left = self._left[key] = Counter(self._of_points[key])
            left.subtract(self._of_ledger[key])
        self._found: set[PointId] = set()

    def run(self) -> frozenset[PointId] | Whole:
        """Read what the counts point to, until they are explained.

        First those that lack a value; then those of which both buckets are counted differently; and
        then, value by value, all that have it. So what was written meanwhile is explained, too.
        """
        too_many = Whole(
            f"more than {count(self._most, 'memory', 'memories')} may differ from the ledger"
        )
        if len(self._of_points[Key.PERSONA]) == VALUES_MAX:
            personas = count(VALUES_MAX, "persona")
            return Whole(f"its memories are of {personas} or more, too many to count")
        if max(self._lacking.values()) > self._most:
            return too_many
        # Looking for them reads each payload, so it is done only where the sums show one. One that
        # lacks a value and one that has it as a second are no difference in a sum.
        if self._may_lack:
            self._add({each.point_id for each in islice(self._points.lacking(), self._most + 1)})
        if max(self._lacking.values()) > 0:
            return Whole("some memories have values that the vector store does not count")
        both = {key: self._unequal(key) for key in (Key.FP1, Key.FP2)}
        if all(both.values()) and not self._read(both):
            return too_many
        read: dict[Key, frozenset[Value]] = dict.fromkeys(Key, frozenset())
        while where := {key: v for key in Key if (v := self._unequal(key) - read[key])}:
            key = next(iter(where))
            if not self._read({key: where[key]}):
                return too_many
            read[key] |= where[key]
        return frozenset(self._found)

    def _unequal(self, key: Key) -> frozenset[Value]:
        return frozenset(value for value, more in self._left[key].items() if more)

    def _read(self, where: Where) -> bool:
        """Compare the memories that have these values. False where they are too many."""
        expected = max(_expected(each, where) for each in (self._of_points, self._of_ledger))
        if expected > self._most:
            return False
        noted = {each.point_id: each for each in self._ledger.where(where)}
        apart = {
            each.point_id
            for each in self._points.where(where)
            if noted.pop(each.point_id, None) != each
        }
        self._add((apart | noted.keys()) - self._found)
        return len(self._found) <= self._most

    def _add(self, ids: set[PointId]) -> None:
        """Take these memories out of the counts: it is known by now what each store says."""
        self._found |= ids
        for each in self._points.of(ids):
            for key in Key:
                if (value := each.value(key)) is not None:
                    self._left[key][value] -= 1
                else:
                    self._lacking[key] -= 1
        for each in self._ledger.of(ids):
            for key in Key:
                if (value := each.value(key)) is not None:
                    self._left[key][value] += 1


def _expected(counted: Mapping[Key, Counter[Value]], where: Where) -> float:
    """About how many memories have these values: buckets are as good as random numbers."""
    number, total = 0.0, max((each.total() for each in counted.values()), default=0)
    for at, (key, values) in enumerate(where.items()):
        share = sum(counted[key][value] for value in values) / max(total, 1)
        number = share * (number if at else total)
    return number
