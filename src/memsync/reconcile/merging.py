"""Merges the shared collection with the exchanges: two streams in the order of their ids.

Either all of them, or those that were located. The others are right, and only counted.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar
from uuid import UUID

from memsync.model.ids import PointId, point_order
from memsync.model.records import Exchange, Place
from memsync.model.sequences import batched
from memsync.reconcile.cases import Found
from memsync.reconcile.deep import Deep
from memsync.reconcile.locating import Located
from memsync.reconcile.sources import Sources
from memsync.stores.history.exchanges import (
    exchanges_by_anchor,
    exchanges_in_order,
)
from memsync.stores.ltm.fingerprints import can_compute_digests
from memsync.stores.ltm.ledger import Ledger, State

_BATCH = 1000

A = TypeVar("A")
B = TypeVar("B")

Pair = tuple[Exchange | None, Found | None]


def merge_shared(
    sources: Sources, look: Located | Deep | None, *, has_copies: bool
) -> Iterator[Pair]:
    """The exchanges and the points of the shared collection, as a pair where they have one id.

    `look` says which are wanted: those located, or those that a deep audit finds not to be exactly
    right; None: all. `has_copies`: other collections hold something that may be the copy of any
    memory, and only the memory tells of what, so all are wanted.
    """
    home = sources.ltm.collection
    if isinstance(look, Deep):
        look = _read_in_parts(look, sources, has_copies=has_copies)
    elif has_copies:
        look = None
    if look is None:
        yield from _merged(sources, exchanges_in_order(sources.session), None)
        return
    counts, why_unread = sources.counts, sources.unread.get(home)
    before = counts.points
    if not look.are_all_read:
        counts.archived += look.archived - _archived_among(sources, look.ids)
    yield from _merged(sources, _exchanges_among(sources, look.ids), look.ids)
    counts.rows = look.exchanges
    if not look.are_all_read and home not in sources.unread:
        counts.trusted = max(0, look.points - (counts.points - before))
    counts.points = before + look.points
    if why_unread:
        sources.unread[home] = why_unread


def _read_in_parts(deep: Deep, sources: Sources, *, has_copies: bool) -> Located | None:
    """What a deep audit finds not to be exactly right; None where it cannot tell."""
    if has_copies:
        deep.do_without("other collections may hold copies of these memories")
    elif not can_compute_digests(sources.session):
        deep.do_without("Postgres has no function memsync.memory_digest that this role may call")
    elif sources.ltm.stands(sources.ltm.collection):
        return deep.locate(sources)
    return None


def _archived_among(sources: Sources, ids: Iterable[PointId]) -> int:
    """How many of these the ledger has as archived: those are counted when they are judged."""
    ledger, home, archived = Ledger(sources.session), sources.ltm.collection, 0
    for some in batched(ids, _BATCH):
        noted = ledger.at(Place(home, each) for each in some).values()
        archived += sum(
            each.state is State.ARCHIVED and not each.has_rows and not each.removed
            for each in noted
        )
    return archived


def _exchanges_among(sources: Sources, ids: Iterable[PointId]) -> Iterator[Exchange]:
    for some in batched((each for each in ids if isinstance(each, UUID)), _BATCH):
        yield from exchanges_by_anchor(sources.session, some).values()


def _merged(
    sources: Sources, exchanges: Iterator[Exchange], only: Iterable[PointId] | None
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
