"""Finds the memories without rows that the ledger has and that stand nowhere.

Nothing else tells of them: neither a row nor a point is there. The store is asked for those alone
that the audit has not read. A repair writes a removal down before it happens, and again when it is
done, so what it removes is not taken for a loss. Of a repair that ended in between the first note
counts no more: what is missing then is told.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from memsync.model.ids import PointId
from memsync.model.records import Place
from memsync.model.sequences import batched
from memsync.reconcile.cases import Case, Role
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import Spool
from memsync.stores.ltm.ledger import Entry, Ledger
from memsync.stores.postgres.locks import LockKey, holders

_BATCH = 1000


def losses(sources: Sources, only: Iterable[PointId] | None = None) -> Iterator[Case]:
    """A case for each memory that is lost from a collection which was read.

    With `only` these memories of the shared collection are looked at, and no others.
    """
    ledger = Ledger(sources.session)
    with contextlib.closing(Spool[Place]()) as waiting:
        places: Iterable[Place] = waiting
        if only is None:
            for each in ledger.without_rows():
                waiting.add(b"", each)
        else:
            places = (Place(sources.ltm.collection, each) for each in only)
        for some in batched(places, _BATCH):
            by_collection: dict[str, list[Entry]] = {}
            for entry in ledger.at(some).values():
                if not entry.has_rows and not entry.removed:
                    by_collection.setdefault(entry.place.collection, []).append(entry)
            for collection, entries in by_collection.items():
                if _is_read(sources, collection):
                    yield from _lost(sources, ledger, collection, entries)


def _is_read(sources: Sources, collection: str) -> bool:
    """Whether the layout in force has memories there, and the audit could read it.

    The shared collection is missing as a whole, or it is there.
    """
    is_whole = collection != sources.ltm.collection or sources.ltm.stands(collection)
    return sources.keeps(collection) and is_whole and collection not in sources.unread


def _lost(
    sources: Sources, ledger: Ledger, collection: str, entries: Sequence[Entry]
) -> Iterator[Case]:
    asked = [each.place for each in entries if each.place not in sources.stand]
    there = sources.ltm.points(collection, [each.point_id for each in asked]) if asked else {}
    missing = [each for each in asked if each.point_id not in there]
    # The lock is looked at first: a repair that ends between the two has noted by then what it did.
    repairs = bool(missing) and bool(holders(sources.session, LockKey.REPAIR))
    for entry in ledger.at(missing).values():
        if not entry.removed and not (entry.leaving and repairs):
            yield sources.case(Role.LOST, None, entry=entry)
