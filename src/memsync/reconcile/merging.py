"""Merges the shared collection with the exchanges: two streams in the order of their ids.

Either all of them, or those that were located. The others are right, and only counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from memsync.model.ids import PointId, point_order
from memsync.model.records import Exchange, Place
from memsync.model.sequences import batched
from memsync.reconcile.cases import Found
from memsync.reconcile.deep import Deep
from memsync.reconcile.locating import Located
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import Spool
from memsync.stores.history.exchanges import (
    exchanges_by_anchor,
    exchanges_in_order,
)
from memsync.stores.history.owners import personas_of_owners
from memsync.stores.ltm.fingerprints import Key, LedgerPrints
from memsync.stores.ltm.ledger import Ledger, State
from memsync.stores.ltm.parts import side_by_side

_BATCH = 1000

Pair = tuple[Exchange | None, Found | None]


def merge_shared(
    sources: Sources, look: Located | Deep | None, waiting: Spool[Found]
) -> Iterator[Pair]:
    """The exchanges and the points of the shared collection, as a pair where they have one id.

    `waiting` are the points of other collections, by owner. `look` says which are wanted: those
    located, or those that a deep audit finds not to be exactly right; None: all.
    """
    home, has_copies = sources.ltm.collection, next(waiting.keys(), None) is not None
    if isinstance(look, Deep):
        # What is waiting may be the copy of any memory, and only a memory tells of what.
        look = look.locate(sources) if sources.ltm.stands(home) and not has_copies else None
    if look is None:
        yield from _merged(sources, exchanges_in_order(sources.session), None)
        return
    counts, why_unread = sources.counts, sources.unread.get(home)
    before = counts.points
    ids = look.ids if look.are_all_read else _with_copies(sources, look, waiting)
    yield from _merged(sources, _exchanges_among(sources, ids), ids)
    counts.rows = look.exchanges
    counts.trusted = 0 if look.are_all_read else look.points - (counts.points - before)
    counts.points = before + look.points
    if why_unread:
        sources.unread[home] = why_unread


def _with_copies(sources: Sources, located: Located, waiting: Spool[Found]) -> Sequence[PointId]:
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
    ids = sorted(theirs.union(located.ids), key=point_order)
    noted = Ledger(sources.session).at(Place(home, each) for each in ids).values()
    # An archived memory that is read is counted when it is judged.
    read = sum(each.state is State.ARCHIVED and not each.has_rows for each in noted)
    sources.counts.archived += located.archived - read
    return ids


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
