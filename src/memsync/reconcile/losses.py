"""Finds the memories without rows that the ledger has and that stand nowhere.

Nothing else tells of them: neither a row nor a point is there. The store is asked for those alone
that the audit has not read. A repair writes a removal down before it happens, so what it removes at
this very moment is not taken for a loss.
"""

from collections.abc import Iterator, Sequence

from memsync.reconcile.cases import Case, Role
from memsync.reconcile.sources import Sources
from memsync.stores.ltm.ledger import Entry, Ledger


def losses(sources: Sources) -> Iterator[Case]:
    """A case for each memory that is lost from a collection which was read."""
    ledger = Ledger(sources.session)
    for page in ledger.without_rows():
        by_collection: dict[str, list[Entry]] = {}
        for entry in page:
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
    for entry in ledger.at(missing).values():
        if not entry.leaving:
            yield sources.case(Role.LOST, None, entry=entry)
