"""The history against the ledger: which memories were noted when the rows were as they are now.

It decides how all exchanges are compared at once: two sessions take a half of the threads each, in
one snapshot, because computing the digests takes most of the time and Postgres does not share it
out by itself. The statements are in against_history.sql.
"""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from memsync.model.ids import PointId, point_id_of
from memsync.stores.postgres import Postgres, Session

_HALVES = ("threads_of_first_half", "threads_of_second_half")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The history against the ledger.

    `apart` is how many exchanges and memories the two do not agree about, and `ids` those of the
    points concerned, of some of them where they are many.
    """

    exchanges: int
    archived: int
    apart: int
    ids: frozenset[PointId]


def compare_with_history(
    postgres: Postgres, session: Session, collection: str, without: Collection[UUID], limit: int
) -> Comparison:
    """Compare all exchanges with the ledger, in one snapshot of `session`.

    Personalities that are `without` memory need none. Not many more than `limit` exchanges and
    memories are named. A second session is used where one can be had.
    """
    most = limit + 1
    with session.snapshot():
        size = session.row("ledger_size", collection=collection)
        halves = _halves(postgres, session, partial(_half, collection, list(without), most))
        noted = sum(half.noted for half in halves)
        without_rows = size.noted - size.never_had - noted
        apart = sum(half.apart for half in halves)
        anchors = [each for half in halves for each in half.anchor_ids]
        ids = [each for half in halves for each in half.point_ids]
        if without_rows or size.never_had:
            # A count of points cannot tell words that were written again.
            gone = session.row("ledger_without_rows", collection=collection, limit=most)
            apart += gone.apart + len(gone.again_ids)
            ids += [*gone.apart_ids, *gone.again_ids]
            without_rows -= gone.apart
        # Nor can it tell owners that are gone.
        nobodys = session.rows("ledger_of_nobody", collection=collection, limit=most)
    return Comparison(
        exchanges=noted + sum(half.without_memory for half in halves),
        archived=without_rows + size.never_had,
        apart=apart + len(nobodys),
        ids=frozenset((*anchors, *map(point_id_of, (*ids, *(each.point_id for each in nobodys))))),
    )


def _halves(
    postgres: Postgres, session: Session, compare: Callable[[Session, str], Any]
) -> list[Any]:
    """Both halves of the threads: at the same time, or one after the other by one session."""
    with postgres.seeing_the_same(session) as other:
        if other is None:
            return [compare(session, threads) for threads in _HALVES]
        with ThreadPoolExecutor(1) as beside:
            second = beside.submit(compare, other, _HALVES[1])
            try:
                return [compare(session, _HALVES[0]), second.result()]
            except BaseException:
                other.cancel()
                raise


def _half(collection: str, without: list[UUID], limit: int, session: Session, threads: str) -> Any:
    (row,) = session.rows_with(
        {"threads": threads},
        "half_against_ledger",
        collection=collection,
        without=without,
        limit=limit,
    )
    return row
