"""Tells which runs of apply can no longer be undone whole, and why.

A run is looked at while `quarantine_days` keep it. Copies are read page by page, each against its
digest, so that damage is seen before somebody needs the undo. The module decides what an undo
needs: a whole copy of each point that there was, a collection that takes it, and the collection
that points were copied from. Whether a point, or the original of a copy, has been written since is
not asked: an undo leaves that one as it is, by design. Nor are memories whose rows went by design a
fault, so `kept` alone counts them. The statements are in undoable.sql.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from memsync.errors import SchemaMismatch
from memsync.model.ids import point_id_of
from memsync.model.wording import count
from memsync.reconcile.journal import Run, runs
from memsync.reconcile.older import why_older
from memsync.reconcile.plans import Target
from memsync.reconcile.quarantine import whole
from memsync.stores.history.catalog import instance_id
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import Ledger, standing_digest
from memsync.stores.ltm.record import recorded
from memsync.stores.postgres import Session

_PAGE = 200
_COPIES_MAX = 5000
"""So many copies take a check some ten seconds, where vectors have 1536 numbers."""

BROUGHT_BACK_BY = (
    "`memsync reconcile layout set per-persona` brings them back, and after `memsync reconcile "
    "layout set shared --app-stopped` the run can be undone"
)
"""The way back of a collection that was retired after a run of the shared layout."""

_ALL_DAYS = 36_500
"""A run that is kept longer than it need be is whole still: its copies go with it."""


@dataclass(frozen=True, slots=True)
class NotWhole:
    """A run of which an undo could not bring back everything.

    `points` counts those that it changed and that are not undone; `missing` and `damaged` the
    copies, `without_collection` the points whose collection, or whose original's, is gone or has
    another size.
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


@dataclass(frozen=True, slots=True)
class Kept:
    """A run that is kept, and how much of it an undo would take back now.

    `why_not` says briefly why that is not all of it; None where it is.
    """

    run: Run
    undo: Literal["whole", "in part", "no"]
    why_not: str | None = None


def kept(session: Session, ltm: LongTermMemory | None) -> tuple[list[Kept], tuple[str, ...]]:
    """The runs that are kept, the newest first, and what was not looked at.

    Without the vector store they are judged by what Postgres says.
    """
    seen = undoable(session, ltm, _ALL_DAYS)
    lost = {each.run_id: each for each in seen.lost}
    layout = ltm.layout if ltm else recorded(session)
    mark = ltm.mark.store_of(instance_id(session)) if ltm else None
    older = why_older(session)
    may_see = session.row("may_see_repairs").may and not older
    found = []
    for run in runs(session):
        if not run.to_undo:
            found.append(Kept(run, "no", "it is undone" if run.done else "it changed nothing"))
        elif older:
            found.append(Kept(run, "no", older))
        elif layout not in {None, run.target.layout}:
            there = run.target.layout
            why = f"it was made in the {there} layout, which is not in force"
            found.append(Kept(run, "no", why))
        elif ltm and is_other_store(run.target, session, ltm, mark):
            found.append(Kept(run, "no", f"it was made on {made_on(run.target, ltm)}"))
        elif left := _left(session, ltm, run.run_id) if may_see else None:
            points, why = left
            found.append(Kept(run, "no" if points == run.to_undo else "in part", why))
        elif what := lost.get(run.run_id):
            found.append(Kept(run, "in part", _told(what)))
        else:
            found.append(Kept(run, "whole"))
    return found, seen.left_out


def is_other_store(target: Target, session: Session, ltm: LongTermMemory, mark: str | None) -> bool:
    """Whether this vector store, which has this mark, is another one than the target's.

    One that was moved, with the mark that the target names, is the same. A target of before the
    first mark names none, and its store is known by its URL alone.
    """
    if None not in {mark, target.mark}:
        is_other = mark != target.mark
        return is_other or (target.vectors != ltm.label and not ltm.mark.is_of(session))
    return target.vectors != ltm.label


def made_on(target: Target, ltm: LongTermMemory) -> str:
    """How to name the vector store of a target that is another one than this, by `is_other_store`.

    Where both answer under one URL, they are told apart by their marks.
    """
    if target.vectors != ltm.label:
        return target.vectors
    return (
        f"{target.vectors} before it got another mark: its collection memsync-meta was lost, or it "
        "is another store by now"
    )


def retired(session: Session, ltm: LongTermMemory | None, run_id: UUID) -> dict[str, int]:
    """The collections that an undo of the run needs and that a retirement has removed, each with
    the number of its points. One that somebody made anew takes them.
    """
    return {
        row.collection: row.points
        for row in session.rows("retired_of_run", run_id=run_id)
        if ltm is None or _dims(ltm, row.collection) is None
    }


def _left(session: Session, ltm: LongTermMemory | None, run_id: UUID) -> tuple[int, str] | None:
    """How many points of the run an undo leaves by design, and why; None where it leaves none."""
    if away := sum(retired(session, ltm, run_id).values()):
        points = count(away, "point is", "points are")
        return away, f"{points} of collections that were retired: {BROUGHT_BACK_BY}"
    if unknown := session.row("copies_of_unknown_points", run_id=run_id).points:
        points = count(unknown, "point is a copy", "points are copies")
        return unknown, f"{points}, and an earlier memsync did not note of what"
    if traces := _traces(session, ltm, run_id):
        points = count(traces, "memory is", "memories are")
        why = f"{points} the only trace of what was said, because the rows are gone"
        return traces, why
    return None


def _traces(session: Session, ltm: LongTermMemory | None, run_id: UUID) -> int:
    """How many memories of the run an undo leaves, because their rows are gone.

    Without the vector store one counts also where it says what it said before.
    """
    if not Ledger(session).stands:
        return 0
    found, after = 0, 0
    while rows := session.rows("traces_of_run", run_id=run_id, after=after, limit=_PAGE):
        found += sum(not (ltm and _said_the_same(ltm, row)) for row in rows)
        after = rows[-1].id
    return found


def _said_the_same(ltm: LongTermMemory, row: Any) -> bool:
    """Whether the memory said before the run what it says by now."""
    if row.payload is None:
        return False
    memory = ltm.codec_of(row.collection).decode(json.loads(row.payload)).memory
    stored: str = row.stored
    return standing_digest(point_id_of(row.point_id), memory) == stored


def _told(lost: NotWhole) -> str:
    """What of the run is lost, such as `2 copies are missing`."""
    said = []
    if lost.missing:
        said.append(f"{count(lost.missing, 'copy is', 'copies are')} missing")
    if lost.damaged:
        said.append(f"{count(lost.damaged, 'copy is', 'copies are')} damaged")
    if lost.without_collection:
        points = count(lost.without_collection, "point")
        said.append(f"the collection of {points} is gone, or of another size")
    return ", ".join(said)


def undoable(session: Session, ltm: LongTermMemory | None, days: int) -> Undoable:
    """Look at the runs of the last `days` days.

    A run that was made on another vector store, and each without a vector store, is judged by its
    copies alone. The copies of the
    newest runs are compared with their digests, _COPIES_MAX at most; that all are there is asked of
    every run. Memory is bounded by a page of copies.
    """
    may_see = session.row("may_see_repairs")
    if not may_see.stand:
        return Undoable()
    if not may_see.may:
        why = "whether an undo would work: the role may not read memsync.quarantine"
        return Undoable(left_out=(why,))
    if older := why_older(session):
        return Undoable(left_out=(f"whether an undo would work: {older}",))
    lost: list[NotWhole] = []
    budget, unread = _COPIES_MAX, 0
    for run in session.rows("kept_runs", days=days):
        read, damaged = _damaged(session, run.run_id, budget)
        budget -= read
        unread += max(0, run.copies - read)
        without = 0
        if ltm and Target.read(run.target).vectors == ltm.label:
            without = _without_collection(session, ltm, run.run_id)
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
    """How many old points have no collection that takes them, or copies none of the original."""
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
