"""Brings collections that were retired back from the quarantine: the way back of `retirement`.

It decides which points come back: all that the quarantine has whole, that a store takes, and whose
memories no repair has removed since. Nothing is written before all of them were compared with the
digests of what was put there. The statements are in retirement.sql.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from memsync.errors import GateClosed
from memsync.model.ids import PointId, point_id_of
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Place, Point
from memsync.model.wording import count, listed
from memsync.reconcile.copying import sources_of, try_to_write
from memsync.reconcile.quarantine import whole, why_not_written
from memsync.reconcile.removals import Removals
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Session

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restoration. `incomplete` are collections of which the quarantine no longer
    has every point, or has one that no store takes back. `removed` counts points that stay away,
    because a repair has removed their memories since.
    """

    collections: int = 0
    points: int = 0
    incomplete: tuple[str, ...] = ()
    removed: int = 0


def restore(
    session: Session, ltm: LongTermMemory, settings: Settings, tell: Tell = silent
) -> Restored:
    """Make the retired collections anew, with the points that they had.

    A collection that exists again keeps what was written to it since. Of a point that no store
    takes back, the copy in the shared collection is brought instead. One whose memory a
    repair has removed since stays in the quarantine.

    Raises: GateClosed, before any write, where the quarantine has something else than what was put
    there; StalePlan when a point does not read back as it was. Effects: both stores.
    """
    rows = session.rows("retired_collections")
    return _Restoring(session, ltm, settings, rows).run(tell) if rows else Restored()


class _Restoring:
    """The restoration of the collections in these `rows`."""

    def __init__(
        self, session: Session, ltm: LongTermMemory, settings: Settings, rows: Sequence[Any]
    ) -> None:
        self._session, self._ltm, self._rows = session, ltm, rows
        begun = min(row.begun_at for row in rows)
        self._removals = Removals.since(sources_of(session, ltm, settings), begun)
        self._points = self._removed = self._refused = 0

    def run(self, tell: Tell) -> Restored:
        """Look at all points, then write them."""
        self._look()
        incomplete = []
        for number, row in enumerate(self._rows):
            tell(Progress(Kind.STEP, "restoring collections", number, len(self._rows)))
            self._ltm.repairs.restore(row.collection, row.dims, row.indexes)
            refused = self._refused
            self._restore_points(row.run_id, row.collection, row.begun_at)
            if row.in_quarantine < row.points or self._refused > refused:
                incomplete.append(row.collection)
            self._session.run("end_restoration", run_id=row.run_id, collection=row.collection)
        return Restored(len(self._rows), self._points, tuple(incomplete), self._removed)

    def _look(self) -> None:
        """Compare all points with their digests, and learn which copies have been removed since.

        Raises: GateClosed naming the points that do not fit their digests.
        """
        damaged: list[Place] = []
        for row in self._rows:
            for page in _pages(self._session, row.run_id, row.collection):
                damaged += _damaged_of(row.collection, page)
                whole_ones = [(row.collection, point) for point in page.values() if point]
                self._removals.of(whole_ones, row.begun_at)
        if damaged:
            raise _damaged(damaged)

    def _restore_points(self, run_id: UUID, name: str, begun_at: datetime) -> None:
        for page in _pages(self._session, run_id, name):
            if damaged := _damaged_of(name, page):
                raise _damaged(damaged)
            points = [point for point in page.values() if point]
            standing = self._ltm.points(name, [each.id for each in points])
            lacking = [each for each in points if each.id not in standing]
            removed = self._removals.of([(name, each) for each in lacking], begun_at)
            wanted = [each for each in lacking if Place(name, each.id) not in removed]
            # A store would take an empty vector, but no memory without one is brought anywhere.
            new = [each for each in wanted if each.vector and why_not_written(each.vector) is None]
            refused = try_to_write(self._ltm, name, new, {})
            self._points += len(new) - len(refused)
            self._removed += len(removed)
            self._refused += len(wanted) - len(new) + len(refused)


def _pages(session: Session, run_id: UUID, name: str) -> Iterator[dict[PointId, Point | None]]:
    """The points of a collection that was removed, page by page; None for a damaged one."""
    after = ""
    while page := session.rows(
        "retired_page", run_id=run_id, collection=name, after=after, limit=_BATCH
    ):
        after = page[-1].point_id
        ids = [point_id_of(row.point_id) for row in page]
        yield {each: whole(each, row) for each, row in zip(ids, page, strict=True)}


def _damaged_of(name: str, page: dict[PointId, Point | None]) -> list[Place]:
    """The points of this page that do not fit their digests."""
    return [Place(name, each) for each, point in page.items() if not point]


def _damaged(places: Sequence[Place]) -> GateClosed:
    return GateClosed(
        f"memsync.quarantine has {count(len(places), 'point')} that no longer "
        f"{'fits its digest' if len(places) == 1 else 'fit their digests'}: "
        f"{listed(map(str, places), 3)}. Nothing of this was restored. Restore that table from a "
        "backup, or delete these rows of it: then the copies in the shared collection are brought "
        "back instead",
        points=[str(each) for each in places],
    )
