"""The journal says what a run does to each point, and the quarantine gets the point that was there.

Both are in Postgres. An intent is committed, with the copy of the point, before the vector store is
written, and settled afterwards. So at whatever moment a run ends, the journal names every point
that it may have changed, its state before, and the state that it was to have. The statements are in
journal.sql.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from uuid import UUID

from memsync.model.ids import PointId, point_id_of
from memsync.model.records import Place, Point
from memsync.reconcile.plans import ActionKind, Plan, Target
from memsync.reconcile.quarantine import quarantined, whole
from memsync.stores.postgres import Session, json_value

CREATE = "create"
"""The action of a run that makes a collection."""
_COLLECTION = ""
"""What stands in place of a point's id then."""
_LAST_ROW = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to happen to a point, and the copy of it that is kept; None if there is none.

    `after` is the state that it will have, `source` the point that it is made a copy of. It
    `is_replaced` where it goes because another point has its memory.
    """

    place: Place
    action: ActionKind
    reason: str
    before: str | None
    after: str | None
    copy: Point | None
    source: Place | None = None
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """What the journal says of a point. Before `is_done` it may have happened or not."""

    before: str | None
    after: str | None
    is_done: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the journal that is not undone. `place` is None where a collection was made.

    `at` is when the run was about to act, `source` the point that it made a copy of. Before
    `is_done` it may have happened, be still to come, or never happen. `knows_ledger`: the row keeps
    what the ledger said before.
    """

    id: int
    collection: str
    place: Place | None
    action: str
    reason: str
    before: str | None
    after: str | None
    at: datetime
    is_done: bool
    source: Place | None = None
    knows_ledger: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A run of `reconcile apply`, and the stores that it was for.

    Of its `actions` it carried out `done`, of which `undone` are undone. Of `done_before` the
    result stood already, by other hands. `set_aside` could not be done. `to_undo` counts the points
    that it changed, or was about to change when it ended, and that are not undone.
    """

    run_id: UUID
    target: Target
    who: str
    memsync_version: str
    begun_at: datetime
    last_at: datetime
    actions: int
    done: int
    undone: int
    done_before: int
    set_aside: int
    to_undo: int

    @property
    def unsettled(self) -> int:
        """How many actions may be done, because it ended before it read the points back."""
        return self.to_undo - (self.done - self.undone)

    @property
    def left(self) -> int:
        """How many actions it has not come to: of a limit, or because it was cut short."""
        return max(0, self.actions - self.done - self.unsettled - self.done_before - self.set_aside)


class Journal:
    """The journal of one run."""

    def __init__(self, session: Session, run_id: UUID) -> None:
        self._session = session
        self._run_id = run_id

    @property
    def run_id(self) -> UUID:
        """The id of the run, which is that of its plan."""
        return self._run_id

    def begin(self, plan: Plan) -> None:
        """Note the run, and the stores that it is for."""
        self._session.run(
            "begin_repair",
            run_id=self._run_id,
            target=json_value(plan.target.fields()),
            actions=len(plan.actions),
            version=version("memsync"),
        )

    def note_mark(self, mark: str | None) -> None:
        """Note by which mark the store is known by now, where it had none. Needs no run."""
        if mark is not None:
            self._session.run("note_mark_of_repair", run_id=self._run_id, mark=mark)

    def count(self, *, done_before: int, set_aside: int) -> None:
        """Note what became of the actions that the journal does not have. Needs no run."""
        self._session.run(
            "count_repair", run_id=self._run_id, done_before=done_before, set_aside=set_aside
        )

    def target(self) -> Target | None:
        """The stores that the run was for; None where no such run is known."""
        row = self._session.row("repair_run", run_id=self._run_id)
        return None if row is None else Target.read(row.target)

    def began_at(self) -> datetime:
        """When the run began, which is known."""
        found: datetime = self._session.row("repair_run", run_id=self._run_id).begun_at
        return found

    def intend(self, intents: Sequence[Intent], *, new_collection: str | None = None) -> None:
        """Commit what is about to happen, and the copies of the points, in one transaction."""
        kept = [
            quarantined(self._run_id, each.place.collection, each.copy, each.reason)
            for each in intents
            if each.copy
        ]
        rows = [self._created(new_collection)] if new_collection else []
        rows += [self._row(each) for each in intents]
        with self._session.transaction():
            if kept:
                self._session.run_many("quarantine_point", kept)
            self._session.run_many("intend", rows)

    def _created(self, collection: str) -> dict[str, object]:
        return {
            "run_id": self._run_id,
            "collection": collection,
            "point_id": _COLLECTION,
            "action": CREATE,
            "reason": "collection-missing",
            "source_collection": None,
            "source_id": None,
            "is_replaced": False,
            "state_before": None,
            "state_after": None,
        }

    def _row(self, intent: Intent) -> dict[str, object]:
        return {
            "run_id": self._run_id,
            "collection": intent.place.collection,
            "point_id": str(intent.place.point_id),
            "action": intent.action.value,
            "reason": intent.reason,
            "source_collection": intent.source and intent.source.collection,
            "source_id": intent.source and str(intent.source.point_id),
            "is_replaced": intent.is_replaced,
            "state_before": intent.before,
            "state_after": intent.after,
        }

    def settle(
        self,
        collection: str,
        done: Collection[PointId],
        not_done: Collection[PointId] = (),
        *,
        created: bool = False,
    ) -> None:
        """Note which intents were carried out, and forget the others."""
        settled = [*map(str, done), *([_COLLECTION] if created else [])]
        withdrawn = list(map(str, not_done))
        with self._session.transaction():
            self._session.run(
                "settle_intents", run_id=self._run_id, collection=collection, point_ids=settled
            )
            self._session.run(
                "withdraw_intents", run_id=self._run_id, collection=collection, point_ids=withdrawn
            )

    def of(self, collection: str, ids: Iterable[PointId]) -> dict[PointId, Noted]:
        """What the run did to these points, or was about to do, and is not undone."""
        asked = {str(each): each for each in ids}
        rows = self._session.rows(
            "journal_of", run_id=self._run_id, collection=collection, point_ids=list(asked)
        )
        return {
            asked[row.point_id]: Noted(row.state_before, row.state_after, row.is_done)
            for row in rows
        }

    def backwards(self, before: int | None, limit: int) -> list[Row]:
        """The rows before that one that are not undone, the newest first; None: all rows."""
        rows = self._session.rows(
            "journal_backwards",
            run_id=self._run_id,
            before=_LAST_ROW if before is None else before,
            limit=limit,
        )
        return [
            Row(
                id=row.id,
                collection=row.collection,
                place=_place(row.collection, row.point_id),
                action=row.action,
                reason=row.reason,
                before=row.state_before,
                after=row.state_after,
                at=row.intended_at,
                is_done=row.is_done,
                source=_place(row.source_collection, row.source_id),
                knows_ledger=row.knows_ledger,
            )
            for row in rows
        ]

    def require_session(self) -> None:
        """Fail where the session, and with it its locks, is lost. Raises: StoreUnreachable."""
        self._session.run("require_session")

    def left(self) -> int:
        """How many rows are not undone."""
        found: int = self._session.row("journal_left", run_id=self._run_id).rows
        return found

    def settle_undone(self, rows: Sequence[Row]) -> None:
        """Note that rows are undone."""
        self._session.run("settle_undone", ids=[each.id for each in rows])

    def copies(self, collection: str, states: Mapping[PointId, str]) -> dict[PointId, Point | None]:
        """The copies of points as they were in these states; None for one that is damaged.

        A copy is absent where there is none.
        """
        asked = {str(each): each for each in states}
        rows = self._session.rows(
            "quarantined_points",
            run_id=self._run_id,
            collection=collection,
            point_ids=list(asked),
            states=list(states.values()),
        )
        return {asked[row.point_id]: whole(asked[row.point_id], row) for row in rows}


def _place(collection: str | None, point_id: str | None) -> Place | None:
    if collection is None or not point_id:
        return None
    return Place(collection, point_id_of(point_id))


def runs(session: Session) -> list[Run]:
    """The runs that are kept, the newest first."""
    return [
        Run(
            run_id=row.run_id,
            target=Target.read(row.target),
            who=row.who,
            memsync_version=row.memsync_version,
            begun_at=row.begun_at,
            last_at=row.last_at,
            actions=row.actions,
            done=row.done,
            undone=row.undone,
            done_before=row.done_before,
            set_aside=row.set_aside,
            to_undo=row.to_undo,
        )
        for row in session.rows("repair_runs")
    ]


def purge(session: Session, days: int) -> int:
    """Forget the runs that were last at work so many days ago, and the points kept for them.

    Returns how many points were forgotten. A run is kept whole or not at all, so that it can be
    undone whole.
    """
    with session.transaction():
        session.run("purge_repairs", days=days)
        return session.run("purge_quarantine", days=days)
