"""Undoes a run of apply: the inverse of each action, the newest first, from the journal.

It decides when an action may be undone: only while the point is in the state in which the run left
it. A point that is in its former state already is done, and one that somebody has written since is
left as it is, and told; so is one whose memory another run has removed since. An undo that ended
early is finished by the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from memsync.errors import InvalidInput, PartlyDone, SchemaMismatch, StalePlan
from memsync.model.digests import point_state
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Point
from memsync.model.wording import count
from memsync.reconcile.copying import sources_of
from memsync.reconcile.fence import repairing
from memsync.reconcile.journal import CREATE, Journal, Row, why_not_written
from memsync.reconcile.looking import read_points
from memsync.reconcile.noting import Noting
from memsync.reconcile.plans import ActionKind
from memsync.reconcile.removals import Removals
from memsync.reconcile.undoable import BROUGHT_BACK_BY, retired
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.postgres import Postgres, Session

_BATCH = 128


@dataclass(frozen=True, slots=True)
class Undone:
    """The result of an undo: how many points are as they were before the run.

    `kept` are the collections that the run made and that others use by now, `reasons` the names of
    the findings that it had repaired.
    """

    done: int
    kept: tuple[str, ...] = ()
    reasons: frozenset[str] = frozenset()


def undo(
    run_id: UUID,
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
) -> Undone:
    """Undo the run of the plan with this id, also one that ended early.

    A store that was moved, with its mark, is the same one.

    Raises: InvalidInput when no such run is known; StalePlan when it was made on another vector
    store or in another layout; StoreBusy; StoreUnreachable: what was undone stays so. PartlyDone at
    the end, when points were left as they are. Effects: both stores.
    """
    with repairing(postgres) as session:
        journal = Journal(session, run_id)
        _require_same_stores(session, journal, run_id, ltm)
        ltm.mark.watch(session)
        sources = sources_of(session, ltm, settings)
        removals = Removals.since(sources, journal.began_at(), besides=run_id)
        undoer = _Undoer(session, journal, ltm, removals, tell)
        undoer.undo()
        ltm.mark.publish(session)
        return undoer.undone()


def _require_same_stores(
    session: Session, journal: Journal, run_id: UUID, ltm: LongTermMemory
) -> None:
    target = journal.target()
    if target is None:
        raise InvalidInput(
            f"there is no run {run_id} to undo: `memsync reconcile runs` lists those that are kept"
        )
    if target.layout is not ltm.layout:
        raise StalePlan(
            f"the run {run_id} was made while memories lay in the {target.layout} layout, and they "
            f"lie in the {ltm.layout} layout now, which does not read what it changed. Nothing was "
            f"changed; go back first with `memsync reconcile layout set {target.layout}`",
            layout=target.layout.value,
        )
    if target.vectors != ltm.label and not ltm.mark.is_of(session):
        raise StalePlan(
            f"the run {run_id} was made on the vector store {target.vectors}, this is {ltm.label}. "
            "Check the settings",
            vectors=target.vectors,
        )


class _Undoer:
    def __init__(
        self,
        session: Session,
        journal: Journal,
        ltm: LongTermMemory,
        removals: Removals,
        tell: Tell,
    ) -> None:
        self._session = session
        self._journal = journal
        self._noting = Noting(Ledger(session), ltm)
        self._ltm = ltm
        self._removals = removals
        self._tell = tell
        self._done = 0
        self._kept: list[str] = []
        self._reasons: set[str] = set()
        self._aside: list[tuple[Row, str]] = []
        self._retired = retired(session, ltm, journal.run_id)

    def undo(self) -> None:
        """Go through the journal backwards."""
        total, seen = self._journal.left(), 0
        before: int | None = None
        while rows := self._journal.backwards(before, _BATCH):
            before = rows[-1].id
            self._reasons.update(row.reason for row in rows)
            for (action, collection), some in groupby(rows, lambda r: (r.action, r.collection)):
                if action == CREATE:
                    self._drop_empty(collection, list(some))
                else:
                    self._take_back(ActionKind(action), collection, list(some))
            seen += len(rows)
            self._tell(Progress(Kind.STEP, "undo", seen, total))

    def _drop_empty(self, collection: str, rows: list[Row]) -> None:
        """Drop a collection that the run made, if nothing is in it.

        What another writer than memsync puts there at this very moment goes along.
        """
        if self._ltm.stands(collection):
            if self._ltm.count(collection):
                self._kept.append(collection)
                return
            self._journal.require_session()
            self._ltm.repairs.drop(collection)
        self._journal.settle_undone(rows)

    def _take_back(self, kind: ActionKind, collection: str, rows: list[Row]) -> None:
        if collection in self._retired:
            said = f"undo is not possible: its collection was retired; {BROUGHT_BACK_BY}"
            self._aside += [(row, said) for row in rows]
            return
        by_id = {row.place.point_id: row for row in rows if row.place}
        read = read_points(self._ltm, collection, list(by_id))
        done, restore = [], {}
        for point_id, row in by_id.items():
            state = point_state(read.points.get(point_id))
            if why := read.unread.get(point_id):
                self._aside.append((row, why))
            elif state == row.after:
                restore[point_id] = row
            elif state == row.before:
                done.append(row)
            else:
                self._aside.append((row, "somebody has written the point since"))
        copies = self._copies(collection, kind, restore)
        # Also where none is: a session that is lost ends here, before the next write.
        self._settle(collection, done)
        if wanted := {each: row for each, row in restore.items() if each in copies}:
            self._restore(kind, collection, wanted, copies, read.points)

    def _copies(
        self, collection: str, kind: ActionKind, rows: Mapping[PointId, Row]
    ) -> dict[PointId, Point | None]:
        """The points as they were; None: there was none. Those without a copy are set aside."""
        states = {each: row.before for each, row in rows.items() if row.before is not None}
        kept = self._journal.copies(collection, states) if states else {}
        found: dict[PointId, Point | None] = {}
        for point_id, row in rows.items():
            copy = kept.get(point_id)
            if row.before is None:
                found[point_id] = None
            elif copy is None:
                what = "damaged" if point_id in kept else "not in the quarantine"
                self._aside.append((row, f"undo is not possible: the copy of the point is {what}"))
            elif why := None if kind is ActionKind.PATCH else why_not_written(copy.vector):
                self._aside.append((row, f"undo is not possible: {why}"))
            else:
                found[point_id] = copy
        return self._without_removed(collection, rows, found)

    def _without_removed(
        self,
        collection: str,
        rows: Mapping[PointId, Row],
        copies: Mapping[PointId, Point | None],
    ) -> dict[PointId, Point | None]:
        """Those whose memory no other run has removed since. The others are set aside."""
        if not rows:
            return {}
        points = [(collection, each) for each in copies.values() if each]
        removed = self._removals.of(points, min(row.at for row in rows.values()))
        for place, run_id in removed.items():
            said = f"the run {run_id} has removed this memory since; undo that one first"
            self._aside.append((rows[place.point_id], said))
        gone = {place.point_id for place in removed}
        return {each: copy for each, copy in copies.items() if each not in gone}

    def _restore(
        self,
        kind: ActionKind,
        collection: str,
        rows: Mapping[PointId, Row],
        copies: Mapping[PointId, Point | None],
        standing: Mapping[PointId, Point],
    ) -> None:
        """Bring points back into their former states, and read them back."""
        whole = [each for each in copies.values() if each]
        made = [each for each, copy in copies.items() if copy is None]
        gone = self._leaving(collection, made, may_be_last=kind is ActionKind.PUT)
        going = {each.id for each in gone}
        refused: dict[PointId, str] = {}
        try:
            if kind is ActionKind.PATCH:
                payloads = {each.id: each.payload for each in whole}
                failed = self._ltm.repairs.overwrite(collection, payloads, standing)
            else:
                failed = self._ltm.repairs.put(collection, whole, standing)
            refused = {point_id: error.message for point_id, error in failed.items()}
            self._ltm.repairs.remove(collection, gone)
        except SchemaMismatch as error:
            refused = dict.fromkeys(rows, error.message)
        read = read_points(self._ltm, collection, list(rows))
        done = []
        for point_id, row in rows.items():
            if point_state(read.points.get(point_id)) == row.before and point_id not in refused:
                done.append(row)
            else:
                why = refused.get(point_id, "another writer changed it at the same moment")
                if row.before is None and point_id not in going:
                    why = "its rows are gone by now, so it is the only trace of what was said"
                self._aside.append((row, why))
        self._settle(collection, done)
        undone = {row.place.point_id for row in done if row.place}
        self._noting.staying(collection, [each for each in rows if each not in undone])

    def _leaving(
        self, collection: str, ids: Sequence[PointId], *, may_be_last: bool
    ) -> list[Point]:
        """Those of the points that the run made which may go, once they are in the quarantine.

        `may_be_last`: they were made from rows, and those may be gone by now. Of a copy there is
        the point that was copied.
        """
        archived = self._noting.archived(collection, ids) if may_be_last else set()
        read = read_points(
            self._ltm, collection, [each for each in ids if each not in archived], vectors=True
        )
        going = list(read.points.values())
        with self._session.transaction():
            self._journal.keep(collection, going, "undone")
            self._noting.leaving(collection, [each.id for each in going])
        return going

    def _settle(self, collection: str, done: Sequence[Row]) -> None:
        """Note that rows are undone."""
        with self._session.transaction():
            self._journal.settle_undone(done)
            ids = {row.place.point_id: row.before for row in done if row.place}
            # Nothing else that the ledger says changes: what the run found is not made the truth.
            self._noting.staying(collection, [each for each, before in ids.items() if before])
            self._noting.gone(collection, [each for each, before in ids.items() if not before])
            if done:
                self._ltm.mark.count(self._session)
        self._done += len(done)

    def undone(self) -> Undone:
        """The result. Raises: PartlyDone when points were left as they are."""
        if self._aside:
            first, why = self._aside[0]
            raise PartlyDone(
                f"{count(self._done, 'point')} undone, {len(self._aside):,} left as they are, the "
                f"first is {first.place}, to which the run did a {first.action}: {why}",
                done=self._done,
                set_aside=len(self._aside),
                kept=self._kept,
                actions=[
                    {
                        "action": row.action,
                        "collection": row.collection,
                        "point_id": row.place and row.place.point_id,
                        "why": why,
                    }
                    for row, why in self._aside
                ],
            )
        return Undone(self._done, tuple(self._kept), frozenset(self._reasons))
