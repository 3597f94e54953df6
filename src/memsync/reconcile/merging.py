"""Merges the shared collection with the exchanges: two streams in the order of their ids.

Either both whole, or those that were located. Those that were not are counted, and not read.
"""

from collections.abc import Iterator, Sequence
from uuid import UUID

from memsync.model.ids import PointId, point_order
from memsync.model.records import Exchange, Place
from memsync.model.sequences import batched
from memsync.reconcile.cases import Found
from memsync.reconcile.locating import Located
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import Spool
from memsync.stores.history.exchanges import exchanges_by_anchor, exchanges_in_order
from memsync.stores.history.owners import personas_of_owners
from memsync.stores.ltm.fingerprints import LedgerPrints
from memsync.stores.ltm.ledger import Ledger, State

_BATCH = 1000

Pair = tuple[Exchange | None, Found | None]


def merge_shared(
    sources: Sources, located: Located | None, waiting: Spool[Found]
) -> Iterator[Pair]:
    """Every exchange and every point of the shared collection, as a pair where they have one id.

    `waiting` are the points of other collections, by owner.
    """
    if located is None:
        yield from _merged(sources, exchanges_in_order(sources.session), None)
        return
    only = _to_be_read(sources, located, waiting)
    before = sources.counts.points
    yield from _merged(sources, _exchanges_among(sources, only), only)
    counts = sources.counts
    counts.rows = located.exchanges
    counts.trusted = located.points - (counts.points - before)
    counts.points += counts.trusted


def _to_be_read(sources: Sources, located: Located, waiting: Spool[Found]) -> list[PointId]:
    """The ids to be read, in order: those located, and of the owners of what is waiting the
    memories without an exchange, because what is waiting may be their copies.
    """
    owners = [UUID(bytes=key) for key in waiting.keys() if key]  # noqa: SIM118  no mapping
    personas = personas_of_owners(sources.session, owners).values()
    home = sources.ltm.collection
    prints = LedgerPrints(sources.session, home)
    archived = prints.without_exchange([each for some in personas for each in some])
    ids = sorted(located.ids | archived, key=point_order)
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
    for exchange, found in side_by_side(exchanges, points):
        sources.counts.rows += exchange is not None
        yield exchange, found


def side_by_side(exchanges: Iterator[Exchange], points: Iterator[Found]) -> Iterator[Pair]:
    """Merge two streams that are ordered by id: items of the same id come as a pair."""
    exchange, found = next(exchanges, None), next(points, None)
    while exchange or found:
        # False sorts before True, so a stream that is exhausted counts as the larger one.
        left = (exchange is None, point_order(exchange.anchor_id) if exchange else ())
        right = (found is None, point_order(found.point.id) if found else ())
        yield (exchange if left <= right else None), (found if right <= left else None)
        takes_left, takes_right = left <= right, right <= left
        if takes_left:
            exchange = next(exchanges, None)
        if takes_right:
            found = next(points, None)
