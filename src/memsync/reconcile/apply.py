"""Carries out exactly the actions of a plan; a run that was killed can be resumed.

It decides when a plan is stale: a store is neither in the state that the audit saw nor in the state
that the action leaves. All actions are checked before the first write, and each is checked again
right before its own. A point is copied to quarantine, in a committed transaction, before it is
removed or overwritten. A memory that the embedder or the store refuses is set aside, with the
actions that rest on it, and the rest goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from memsync.errors import PartlyDone, StalePlan, StoreUnreachable
from memsync.model.digests import exchange_digest, point_state
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Exchange, Point
from memsync.model.sequences import batched
from memsync.reconcile.plans import Action, ActionKind, Plan
from memsync.stores.history.catalog import instance_id
from memsync.stores.history.exchanges import exchanges_by_anchor
from memsync.stores.ltm import LongTermMemory, Written
from memsync.stores.postgres import Postgres, Session, json_value
from memsync.stores.postgres.locks import LockKey, exclusive

_BATCH = 128


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of an apply: how many actions it carried out, and how many were already done."""

    done: int
    done_before: int


def apply(plan: Plan, postgres: Postgres, ltm: LongTermMemory, tell: Tell = silent) -> Applied:
    """Carry out the plan; running it again after a crash finishes the rest.

    Raises: StalePlan when a store changed since the plan was made; StoreBusy when another repair
    runs; StoreUnreachable, also when the embedder is down; PartlyDone at the end, when memories
    were refused. A change from before the apply is noticed before any write. After a
    change during the apply, the actions that are done stay done. Effects: both stores.
    """
    with exclusive(postgres, LockKey.REPAIR, "repair") as session:
        applier = _Applier(plan, session, ltm, tell)
        applier.require_same_stores()
        if plan.actions:
            ltm.prepare()
        open_actions = applier.still_open(plan.actions)
        applier.carry_out(open_actions)
        applier.require_all_done(len(open_actions))
        return Applied(len(open_actions), len(plan.actions) - len(open_actions))


class _Applier:
    def __init__(self, plan: Plan, session: Session, ltm: LongTermMemory, tell: Tell) -> None:
        self._plan = plan
        self._session = session
        self._ltm = ltm
        self._tell = tell
        self._aside: dict[Action, str] = {}

    def require_same_stores(self) -> None:
        """Refuse a plan that was made for another database, collection or embedder."""
        here = {
            "database": (self._plan.instance_id, instance_id(self._session)),
            "collection": (self._plan.collection, self._ltm.collection),
            "embedder": (self._plan.embedder, self._ltm.embedder.name),
        }
        for what, (planned, found) in here.items():
            if planned != found:
                raise StalePlan(
                    f"the plan was made for {what} {planned}, this is {found}. Check the settings, "
                    "or make a new plan with `memsync reconcile plan`"
                )

    def still_open(self, actions: Sequence[Action]) -> list[Action]:
        """The actions that are not done yet. The states of all given actions are checked.

        Raises: StalePlan.
        """
        still: list[Action] = []
        for number, some in enumerate(_batches(actions)):
            self._tell(Progress(Kind.STEP, "looking at the plan", number * _BATCH, len(actions)))
            still += self._not_done(some)
        return still

    def _not_done(self, some: list[Action]) -> list[Action]:
        looked = self._look(some) if some else []
        return [action for action, done in zip(some, looked, strict=True) if not done]

    def carry_out(self, actions: Sequence[Action]) -> None:
        """Carry out the actions batch by batch, and check each again right before."""
        do: dict[ActionKind, Callable[[list[Action]], None]] = {
            ActionKind.PUT: self._put,
            ActionKind.MOVE: self._move,
            ActionKind.REMOVE: self._remove,
            ActionKind.RETIRE: self._retire,
        }
        done = 0
        for some in _batches(actions):
            if still := self._not_done(self._free(some)):
                do[some[0].kind](still)
            done += len(some)
            self._tell(Progress(Kind.STEP, "apply", done, len(actions)))

    def require_all_done(self, actions: int) -> None:
        """Raises: PartlyDone when actions were set aside."""
        if self._aside:
            first, why = next(iter(self._aside.items()))
            raise PartlyDone(
                f"{actions - len(self._aside)} actions carried out, {len(self._aside)} set aside, "
                f"the first is the {first.kind} of {first.point_id} in {first.collection}: {why}. "
                "Mend the cause, then run the same apply again",
                done=actions - len(self._aside),
                set_aside=len(self._aside),
                actions=[
                    {"action": each.kind, "collection": each.collection, "point_id": each.point_id}
                    for each in self._aside
                ],
            )

    def _free(self, actions: list[Action]) -> list[Action]:
        """The actions that rest on none that was set aside; the others are set aside as well."""
        refused = {each.point_id for each in self._aside if each.kind is ActionKind.PUT}
        kept = {each.collection for each in self._aside if each.kind is not ActionKind.PUT}
        free = []
        for action in actions:
            if action.replaced_by is not None and action.replaced_by in refused:
                self._aside[action] = (
                    f"the memory that replaces it, {action.replaced_by}, is refused"
                )
            elif action.kind is ActionKind.RETIRE and action.collection in kept:
                self._aside[action] = "not all of its points could be moved"
            else:
                free.append(action)
        return free

    def _set_aside(self, actions: Sequence[Action], written: Written) -> list[Action]:
        """Set aside the actions whose memories are refused. Returns the other actions.

        Raises: StoreUnreachable when the embedder is down; what it made before is written.
        """
        for action in actions:
            error = written.failed.get(action.point_id) if action.point_id is not None else None
            if isinstance(error, StoreUnreachable):
                raise error
            if error is not None:
                self._aside[action] = error.message
        return [each for each in actions if each not in self._aside]

    # ------------------------------------------------------------------ checking

    def _look(self, actions: list[Action]) -> list[bool]:
        """Whether each action is already done. All of them have one kind and one collection."""
        kind, collection = actions[0].kind, actions[0].collection
        if kind is ActionKind.RETIRE:
            return [not self._ltm.stands(each.collection) for each in actions]
        points = self._points(collection, actions)
        if kind is not ActionKind.PUT:
            return [self._is_gone(each, points) for each in actions]
        anchors = [each.point_id for each in actions if isinstance(each.point_id, UUID)]
        exchanges = exchanges_by_anchor(self._session, anchors)
        return [self._is_put(each, points, exchanges) for each in actions]

    def _points(
        self, collection: str, actions: Sequence[Action], *, vectors: bool = False
    ) -> dict[PointId, Point]:
        ids = [each.point_id for each in actions if each.point_id is not None]
        return self._ltm.points(collection, ids, vectors=vectors)

    def _is_gone(self, action: Action, points: dict[PointId, Point]) -> bool:
        found = points.get(action.point_id) if action.point_id is not None else None
        if found is not None and point_state(found) != action.point_state:
            raise _stale(action, "point", action.point_state, point_state(found))
        return found is None

    def _is_put(
        self,
        action: Action,
        points: dict[PointId, Point],
        exchanges: dict[UUID, Exchange],
    ) -> bool:
        row = exchanges.get(action.point_id) if isinstance(action.point_id, UUID) else None
        digest = exchange_digest(row) if row else None
        if row is None or digest != action.row_digest:
            raise _stale(action, "exchange", action.row_digest, digest)
        found = points.get(row.anchor_id)
        wanted = Point(row.anchor_id, self._ltm.codec.encode(row, self._plan.embedder))
        if point_state(found) == point_state(wanted):
            return True
        if point_state(found) != action.point_state:
            raise _stale(action, "point", action.point_state, point_state(found))
        return False

    # ------------------------------------------------------------------ doing

    def _put(self, actions: list[Action]) -> None:
        anchors = [each.point_id for each in actions if isinstance(each.point_id, UUID)]
        points = self._points(self._plan.collection, actions, vectors=True)
        self._keep(actions, points)
        exchanges = list(exchanges_by_anchor(self._session, anchors).values())
        written = self._ltm.put(exchanges, standing=points)
        if left := self.still_open(self._set_aside(actions, written)):
            raise _stale(left[0], "point", "written", "not there, or as it was before")

    def _move(self, actions: list[Action]) -> None:
        points = self._points(actions[0].collection, actions)
        moved = self._ltm.bring_home(actions[0].collection, list(points.values()))
        done = self._set_aside(actions, moved)
        written = self._points(self._plan.collection, done)
        # A point that a client deleted since the last look is not there to be moved.
        by_id = {each.point_id: each for each in actions}
        for point in moved.points:
            if point_state(written.get(point.id)) != point_state(point):
                raise _stale(by_id[point.id], "point at home", "written", "somebody else's")
        self._remove(done)

    def _remove(self, actions: list[Action]) -> None:
        points = self._points(actions[0].collection, actions, vectors=True)
        self._keep(actions, points)
        self._ltm.delete(actions[0].collection, list(points))

    def _retire(self, actions: list[Action]) -> None:
        for action in actions:
            left = self._ltm.count(action.collection)
            if left:
                raise _stale(action, "collection", "empty", f"{left} points")
            self._ltm.drop(action.collection)

    def _keep(self, actions: Sequence[Action], points: dict[PointId, Point]) -> None:
        """Copy the points that are about to be removed or overwritten into quarantine."""
        kept = [
            {
                "plan_id": self._plan.plan_id,
                "collection": action.collection,
                "point_id": str(point.id),
                "state": point_state(point),
                "payload": json_value(dict(point.payload)),
                "vector": list(point.vector) if point.vector else None,
                "reason": action.reason,
            }
            for action in actions
            if action.point_id is not None and (point := points.get(action.point_id))
        ]
        if kept:
            with self._session.transaction():
                self._session.run_many("quarantine_point", kept)


def _batches(actions: Sequence[Action]) -> list[list[Action]]:
    """The actions in batches of at most _BATCH; each batch has one kind and one collection."""
    return [
        list(some)
        for _, run in groupby(actions, key=lambda each: (each.kind, each.collection))
        for some in batched(run, _BATCH)
    ]


def _stale(action: Action, what: str, planned: object, found: object) -> StalePlan:
    return StalePlan(
        f"{action.kind} of {action.point_id or ''} in {action.collection}: the {what} is "
        f"{found or 'not there'}, the plan expects {planned or 'none'}. Audit and plan again; "
        "what was done stays done",
        action=action.kind.value,
        collection=action.collection,
        point_id=str(action.point_id),
    )
