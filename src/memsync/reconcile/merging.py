"""Merges the shared collection with the exchanges: two streams in the order of their ids.

Either both whole, or those that were located. Those that were not are counted, and not read. Where
both are read whole for an audit, exchanges come as digests, and only pairs in which something is
odd are read once more and judged.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

from memsync.model.ids import PointId, point_order
from memsync.model.records import Exchange, Place, Point
from memsync.model.sequences import batched
from memsync.reconcile.cases import Found
from memsync.reconcile.locating import Located
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import Spool, Tape
from memsync.stores.history.exchanges import (
    exchange_digests,
    exchanges_by_anchor,
    exchanges_in_order,
)
from memsync.stores.history.owners import personas_of_owners
from memsync.stores.ltm.exact import Exact
from memsync.stores.ltm.fingerprints import Key, LedgerPrints
from memsync.stores.ltm.ledger import Ledger, State

_BATCH = 1000

_ID_BYTES, _DIGEST_BYTES = 16, 32

Pair = tuple[Exchange | None, Found | None]
A = TypeVar("A")
B = TypeVar("B")


def merge_shared(
    sources: Sources, located: Located | None, waiting: Spool[Found], *, exact_too: bool
) -> Iterator[Pair]:
    """The exchanges and the points of the shared collection, as a pair where they have one id.

    `waiting` are the points of other collections, by owner. Without `exact_too` the pairs are left
    out in which the memory is exactly what memsync writes.
    """
    counts = sources.counts
    if located is not None:
        only = _to_be_read(sources, located, waiting)
        before = counts.points
        yield from _merged(sources, _exchanges_among(sources, only), only)
        counts.rows = located.exchanges
        counts.trusted = located.points - (counts.points - before)
        counts.points += counts.trusted
    elif exact_too or next(waiting.keys(), None) is not None:
        # What is waiting may be the copy of any memory, and only a memory tells of what.
        yield from _merged(sources, exchanges_in_order(sources.session), None)
    else:
        yield from _inexact(sources)


def _inexact(sources: Sources) -> Iterator[Pair]:
    """The pairs that must be judged. All digests of the history are read first, in one pass."""
    home, exact = sources.ltm.collection, Exact(sources.ltm.codec)
    digests = exchange_digests(sources.session)
    tape = Tape(_ID_BYTES + _DIGEST_BYTES, (anchor.bytes + digest for anchor, digest in digests))

    def unclear() -> Iterator[tuple[UUID | None, Point | None]]:
        points = sources.points(home) if sources.ltm.stands(home) else iter(())
        for row, point in side_by_side(tape, points, _anchor_of, lambda each: each.id):
            sources.counts.rows += row is not None
            if not row or not point or not exact.holds(point.id, point.payload, row[_ID_BYTES:]):
                yield None if row is None else _anchor_of(row), point

    with contextlib.closing(tape):
        for some in batched(unclear(), _BATCH):
            yield from _read_anew(sources, some)


def _anchor_of(row: bytes) -> UUID:
    return UUID(bytes=row[:_ID_BYTES])


def _read_anew(
    sources: Sources, some: Sequence[tuple[UUID | None, Point | None]]
) -> Iterator[Pair]:
    """These pairs, each with its exchange as it is by now."""
    ids = [point.id if point else anchor for anchor, point in some]
    rows = exchanges_by_anchor(sources.session, [each for each in ids if isinstance(each, UUID)])
    points = [point for _, point in some if point]
    founds = sources.found(sources.ltm.collection, points, home=True)
    by_id = {each.point.id: each for each in founds}
    for each in ids:
        exchange = rows.get(each) if isinstance(each, UUID) else None
        found = None if each is None else by_id.get(each)
        if exchange or found:
            yield exchange, found


def _to_be_read(sources: Sources, located: Located, waiting: Spool[Found]) -> list[PointId]:
    """The ids to be read, in order: those located, and all memories of the owners of what is
    waiting, because that may be their copies.
    """
    owners = [UUID(bytes=key) for key in waiting.keys() if key]  # noqa: SIM118  no mapping
    personas = personas_of_owners(sources.session, owners).values()
    home = sources.ltm.collection
    theirs: set[PointId] = set()
    for some in batched((str(each) for of_one in personas for each in of_one), _BATCH):
        prints = LedgerPrints(sources.session, home).where({Key.PERSONA: some})
        theirs.update(each.point_id for each in prints)
    ids = sorted(located.ids | theirs, key=point_order)
    noted = Ledger(sources.session).at(Place(home, each) for each in ids).values()
    # An archived memory that is read is counted when it is judged.
    read = sum(each.state is State.ARCHIVED and not each.has_rows for each in noted)
    sources.counts.archived += located.archived - read
    return ids


def _exchanges_among(sources: Sources, ids: Sequence[PointId]) -> Iterator[Exchange]:
    for some in batched((each for each in ids if isinstance(each, UUID)), _BATCH):
        yield from exchanges_by_anchor(sources.session, some).values()


def _merged(
    sources: Sources, exchanges: Iterator[Exchange], only: Sequence[PointId] | None
) -> Iterator[Pair]:
    home = sources.ltm.collection
    points: Iterator[Found] = iter(())
    if sources.ltm.stands(home):
        points = sources.read(home, home=True, only=only)
    for exchange, found in side_by_side(
        exchanges, points, lambda each: each.anchor_id, lambda each: each.point.id
    ):
        sources.counts.rows += exchange is not None
        yield exchange, found


def side_by_side(
    first: Iterable[A],
    second: Iterable[B],
    id_of_first: Callable[[A], PointId],
    id_of_second: Callable[[B], PointId],
) -> Iterator[tuple[A | None, B | None]]:
    """Merge two streams that are ordered by id: items of the same id come as a pair."""
    lefts, rights = iter(first), iter(second)
    left, right = next(lefts, None), next(rights, None)
    while left is not None or right is not None:
        # False sorts before True, so a stream that is exhausted counts as the larger one.
        one = (left is None, () if left is None else point_order(id_of_first(left)))
        other = (right is None, () if right is None else point_order(id_of_second(right)))
        yield (left if one <= other else None), (right if other <= one else None)
        if one <= other:
            left = next(lefts, None)
        if other <= one:
            right = next(rights, None)
