"""Tells which runs of apply can no longer be undone whole, while they should be.

A run is looked at while `quarantine_days` keep it. Copies are read page by page, each against its
digest, so that damage is seen before somebody needs the undo. The module decides what an undo
needs: a whole copy of each point that there was, and a collection that takes it. Whether a point
has been written since is not asked: an undo leaves that one as it is, by design. The statements are
in undoable.sql.
"""

from dataclasses import dataclass
from uuid import UUID

from memsync.errors import SchemaMismatch
from memsync.model.ids import point_id_of
from memsync.model.wording import count
from memsync.reconcile.journal import whole
from memsync.reconcile.plans import Target
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Session

_PAGE = 200
_COPIES_MAX = 5000
"""So many copies take a check some ten seconds, where vectors have 1536 numbers."""


@dataclass(frozen=True, slots=True)
class NotWhole:
    """A run of which an undo could not bring back everything.

    `points` counts those that it changed and that are not undone; `missing` and `damaged` the
    copies, `without_collection` the points whose collection is gone or has another size.
    """

    run_id: UUID
    points: int
    missing: int
    damaged: int
    without_collection: int


@dataclass(frozen=True, slots=True)
class Undoable:
    """The runs that cannot be undone whole, the newest first, and what was not looked at."""

    lost: tuple[NotWhole, ...] = ()
    left_out: tuple[str, ...] = ()


def undoable(session: Session, ltm: LongTermMemory, days: int) -> Undoable:
    """Look at the runs of the last `days` days.

    A run that was made on another vector store is judged by its copies alone. The copies of the
    newest runs are compared with their digests, _COPIES_MAX at most; that all are there is asked of
    every run. Memory is bounded by a page of copies.
    """
    may_see = session.row("may_see_repairs")
    if not may_see.stand:
        return Undoable()
    if not may_see.may:
        why = "whether an undo would work: the role may not read memsync.quarantine"
        return Undoable(left_out=(why,))
    lost: list[NotWhole] = []
    budget, unread = _COPIES_MAX, 0
    for run in session.rows("kept_runs", days=days):
        read, damaged = _damaged(session, run.run_id, budget)
        budget -= read
        unread += max(0, run.copies - read)
        of_this_store = Target.read(run.target).vectors == ltm.label
        without = _without_collection(session, ltm, run.run_id) if of_this_store else 0
        if run.missing or damaged or without:
            lost.append(NotWhole(run.run_id, run.points, run.missing, damaged, without))
    if not unread:
        return Undoable(tuple(lost))
    return Undoable(
        tuple(lost),
        (f"the digests of {count(unread, 'older copy', 'older copies')} in memsync.quarantine",),
    )


def _damaged(session: Session, run_id: UUID, limit: int) -> tuple[int, int]:
    """How many copies of the run were read, `limit` at most, and how many of them are damaged."""
    read, damaged, after = 0, 0, ("", "", "")
    while rows := session.rows(
        "kept_copies",
        run_id=run_id,
        collection=after[0],
        point_id=after[1],
        state=after[2],
        limit=min(_PAGE, limit - read),
    ):
        read += len(rows)
        damaged += sum(whole(point_id_of(row.point_id), row) is None for row in rows)
        after = (rows[-1].collection, rows[-1].point_id, rows[-1].state)
    return read, damaged


def _without_collection(session: Session, ltm: LongTermMemory, run_id: UUID) -> int:
    """How many old points have no collection that takes them."""
    number = 0
    for row in session.rows("kept_collections", run_id=run_id):
        dims = _dims(ltm, row.collection)
        if dims is None or row.size not in {0, dims}:
            number += row.points
    return number


def _dims(ltm: LongTermMemory, collection: str) -> int | None:
    """The size of the collection's vectors; None where none stands that memsync could write to."""
    try:
        info = ltm.describe(collection)
    except SchemaMismatch:
        return None
    return None if info is None else info.dims
