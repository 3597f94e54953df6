"""Undoes a run of apply: the inverse of each action, the newest first, from the journal.

It decides when an action may be undone: only while the point is in the state in which the run left
it. A point that is in its former state already is done, and one that somebody has written since is
left as it is, and told; so is one whose memory another run has removed since, and one that by now
is the only trace of what it says. A point goes to the quarantine before it is removed or
overwritten. An undo that ended early is finished by the next. Where the run ended before it read a
point back, its write may be on its way still, so the store has to catch up before it is read.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID, uuid5

from memsync.errors import InvalidInput, PartlyDone, SchemaMismatch, StalePlan
from memsync.model.digests import point_state
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Point
from memsync.model.wording import count
from memsync.reconcile.copying import sources_of
from memsync.reconcile.fence import repairing
from memsync.reconcile.journal import CREATE, Journal, Row
from memsync.reconcile.noting import Noting
from memsync.reconcile.older import require_columns
from memsync.reconcile.plans import ActionKind
from memsync.reconcile.quarantine import keep, why_not_written
from memsync.reconcile.reading import points_at, read_points
from memsync.reconcile.removals import Removals
from memsync.reconcile.undoable import BROUGHT_BACK_BY, is_other_store, made_on, retired
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import standing_digest
from memsync.stores.ltm.texts import say_the_same
from memsync.stores.postgres import Postgres, Session

_BATCH = 128
_NOTED_SINCE = (
    "the run ended before it noted the point as its own, and the relay, another run or an adoption "
    "has noted it since"
)


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
    store or in another layout; SchemaMismatch when an older memsync made the tables of repairs;
    StoreBusy; StoreUnreachable: what was undone stays so. PartlyDone at
    the end, when points were left as they are. Effects: both stores.
    """
    with repairing(postgres, ltm) as session:
        require_columns(session)
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
    mark = ltm.mark.store_of(target.instance_id)
    if is_other_store(target, session, ltm, mark):
        raise StalePlan(
            f"the run {run_id} was made on the vector store {made_on(target, ltm)}. Its mark is "
            f"{target.mark}; this is {ltm.label}, with the mark {mark}. Nothing was changed; check "
            "the settings, or restore memsync-meta as it was",
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
        self._noting = Noting(session, ltm)
        self._ltm = ltm
        self._removals = removals
        self._tell = tell
        self._done = 0
        self._kept: list[str] = []
        self._reasons: set[str] = set()
        self._aside: list[tuple[Row, str]] = []
        # The run's copy of a point may have the same payload, and it stays. An undo that is run
        # again keeps none twice.
        self._kept_under = uuid5(journal.run_id, "undone")
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
        try:
            points = self._ltm.count(collection) if self._ltm.stands(collection) else None
        except SchemaMismatch as error:
            self._aside += [(row, error.message) for row in rows]
            return
        if points:
            self._kept.append(collection)
            return
        self._journal.require_session()
        if points is not None:
            self._ltm.repairs.drop(collection)
        self._journal.settle_undone(rows)

    def _take_back(self, kind: ActionKind, collection: str, rows: list[Row]) -> None:
        by_id = self._not_retired(rows)
        if not all(row.is_done for row in by_id.values()):
            self._catch_up(collection)
        vectors = kind is not ActionKind.PATCH
        read = read_points(self._ltm, collection, list(by_id), vectors=vectors)
        others = self._noting.written_by_others(self._journal.run_id, collection, by_id)
        done, restore = [], {}
        for point_id, row in by_id.items():
            state = point_state(read.points.get(point_id))
            if why := read.unread.get(point_id):
                self._aside.append((row, why))
            elif state == row.after and point_id in others:
                self._aside.append((row, _NOTED_SINCE))
            elif state == row.after:
                restore[point_id] = row
            elif state == row.before:
                done.append(row)
            else:
                self._aside.append((row, "somebody has written the point since"))
        copies = self._copies(collection, kind, restore)
        copies = self._without_traces(collection, kind, restore, copies, read.points)
        # Also where none is: a session that is lost ends here, before the next write.
        self._settle(collection, done, lost=self._lost(collection, done))
        if wanted := {each: row for each, row in restore.items() if each in copies}:
            self._restore(kind, collection, wanted, copies, read.points)

    def _not_retired(self, rows: Sequence[Row]) -> dict[PointId, Row]:
        """Those by point whose collection was not retired since. The others are set aside."""
        by_id: dict[PointId, Row] = {}
        for row in rows:
            if (row.source or row).collection in self._retired:
                what = "the point that it is a copy of" if row.source else "its collection"
                said = f"undo is not possible: {what} was retired; {BROUGHT_BACK_BY}"
                self._aside.append((row, said))
            elif row.place:
                by_id[row.place.point_id] = row
        return by_id

    def _catch_up(self, collection: str) -> None:
        """Wait for writes of the run that the store may have taken and not done yet."""
        # What the store cannot tell of this collection, the reading of its points tells.
        with contextlib.suppress(SchemaMismatch):
            self._ltm.repairs.catch_up(collection)

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

    def _without_traces(
        self,
        collection: str,
        kind: ActionKind,
        rows: Mapping[PointId, Row],
        copies: Mapping[PointId, Point | None],
        standing: Mapping[PointId, Point],
    ) -> dict[PointId, Point | None]:
        """Those that say only what is said elsewhere too. The others are set aside.

        What the run made or wrote anew says what the rows say, and a copy what its original says,
        while these are there.
        """
        new = [
            each
            for each, copy in copies.items()
            if each in standing and not self._is_same_memory(collection, standing[each], copy)
        ]
        if kind is ActionKind.COPY:
            originals = points_at(self._ltm, [row.source for row in rows.values() if row.source])
            traces = {
                each: f"the point that it is a copy of, {source}, does not say the same by now"
                if source
                else "an earlier memsync did not note what it is a copy of"
                for each in new
                if not (source := rows[each].source)
                or not (original := originals.get(source))
                or not self._say_the_same(source.collection, original, collection, standing[each])
            }
        else:
            archived = self._noting.archived(collection, new)
            traces = dict.fromkeys(archived, "its rows are gone by now")
        for each, why in traces.items():
            self._aside.append((rows[each], f"{why}, so it may be the only trace of what was said"))
        return {each: copy for each, copy in copies.items() if each not in traces}

    def _is_same_memory(self, collection: str, one: Point, other: Point | None) -> bool:
        decode = self._ltm.codec_of(collection).decode
        digests = {standing_digest(p.id, decode(p.payload).memory) for p in (one, other) if p}
        return other is not None and len(digests) == 1

    def _say_the_same(self, where: str, one: Point, there: str, other: Point) -> bool:
        return say_the_same(
            self._ltm.codec_of(where).decode(one.payload).memory,
            self._ltm.codec_of(there).decode(other.payload).memory,
        )

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
        gone = {each: standing[each] for each, copy in copies.items() if copy is None}
        with self._session.transaction():
            kept = [standing[each] for each in copies if each in standing]
            keep(self._session, self._kept_under, collection, kept, "undone")
            self._noting.leaving(collection, list(gone))
        refused: dict[PointId, str] = {}
        try:
            if kind is ActionKind.PATCH:
                failed = self._ltm.repairs.overwrite(collection, whole, standing)
            else:
                failed = self._ltm.repairs.put(collection, whole, standing)
            failed = {**failed, **self._ltm.repairs.remove(collection, gone)}
            refused = {point_id: error.message for point_id, error in failed.items()}
        except SchemaMismatch as error:
            refused = dict.fromkeys(rows, error.message)
        read = read_points(self._ltm, collection, list(rows))
        done = []
        for point_id, row in rows.items():
            if point_state(read.points.get(point_id)) == row.before and point_id not in refused:
                done.append(row)
            else:
                why = refused.get(point_id, "another writer changed it at the same moment")
                self._aside.append((row, why))
        self._settle(collection, done)
        undone = {row.place.point_id for row in done if row.place}
        self._noting.staying(collection, [each for each in rows if each not in undone])

    def _lost(self, collection: str, rows: Sequence[Row]) -> set[PointId]:
        """Those of these points that somebody else has removed and whose rows are gone: a loss."""
        missing = [row.place.point_id for row in rows if row.place and row.before is None]
        return self._noting.archived(collection, missing)

    def _settle(
        self, collection: str, done: Sequence[Row], lost: Collection[PointId] = frozenset()
    ) -> None:
        """Note that rows are undone. The entries of the `lost` points in the ledger stay."""
        with self._session.transaction():
            self._journal.settle_undone(done)
            told = [row for row in done if row.place and row.place.point_id not in lost]
            self._noting.taken_back(collection, told)
            if done:
                self._ltm.mark.count(self._session)
        self._done += len(done)

    def undone(self) -> Undone:
        """The result. Raises: PartlyDone when points were left as they are."""
        if self._aside:
            first, why = self._aside[0]
            where = first.place or first.collection
            raise PartlyDone(
                f"{count(self._done, 'point')} undone, {len(self._aside):,} left as they are, the "
                f"first is {where}, to which the run did a {first.action}: {why}",
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
