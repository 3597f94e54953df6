"""Carries out exactly the actions of a plan; a run that ended early is finished by the next.

It decides what becomes of an action that cannot be done: it is set aside and told, with those that
rest on it, and the rest goes on. All actions are looked at before the first write, and each again
right before its own. For each batch the journal gets the intents, and the quarantine the points as
they were, in one committed transaction; then the vector store is written, read back, and the
intents are settled.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from memsync.errors import PartlyDone, SchemaMismatch, StoreUnreachable
from memsync.model.digests import point_state
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Place, Point
from memsync.model.wording import count
from memsync.reconcile.fence import repairing
from memsync.reconcile.journal import Intent, Journal, purge
from memsync.reconcile.looking import Looked, Looker
from memsync.reconcile.noting import Noting
from memsync.reconcile.older import require_columns
from memsync.reconcile.plans import Action, ActionKind, Plan, in_batches
from memsync.reconcile.reading import points_at, read_points
from memsync.reconcile.refusals import require_few_removals, require_one_time, require_same_stores
from memsync.reconcile.sizes import Sizes
from memsync.settings import Settings
from memsync.stores.ltm import Failure, LongTermMemory
from memsync.stores.postgres import Postgres, Session

_BATCH = 128
_OVERTAKEN = "another writer changed the point at the same moment; plan again"


@dataclass(frozen=True, slots=True)
class Applied:
    """How many actions an apply carried out, and how many were done before, `by_others` of them.

    `left` counts those that it did not come to, because of a limit.
    """

    done: int
    done_before: int
    left: int = 0
    by_others: int = 0


def apply(
    plan: Plan,
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
    *,
    limit: int | None = None,
    remove_many: bool = False,
) -> Applied:
    """Carry out the plan, or the next `limit` actions of it; running it again finishes the rest.

    A run that removes many of its collections' points needs `remove_many`. Runs that ended
    `quarantine_days` ago are forgotten at the end.

    Raises: StalePlan when the plan is for other stores; SchemaMismatch when an older memsync made
    the tables of repairs; GateClosed when it would remove many points, or change any that stands
    while the stores may be of two times; all before any write. StoreBusy when another repair or a
    relay runs; StoreUnreachable, also when the embedder is down: what was done stays done.
    PartlyDone at the end, when actions were set aside. Effects: both stores.
    """
    with repairing(postgres, ltm) as session:
        require_columns(session)
        applier = _Applier(plan, session, ltm, settings, tell)
        require_same_stores(plan, session, ltm)
        open_actions = applier.look_at_all()
        require_one_time(open_actions, session, ltm)
        if not remove_many:
            applier.require_few_removals(open_actions)
        applier.carry_out(open_actions, limit)
        applier.finish()
        purge(session, settings.quarantine_days)
        return applier.applied()


class _Applier:
    def __init__(
        self,
        plan: Plan,
        session: Session,
        ltm: LongTermMemory,
        settings: Settings,
        tell: Tell,
    ) -> None:
        self._plan = plan
        self._session = session
        self._ltm = ltm
        self._sizes = Sizes(ltm, settings)
        self._tell = tell
        self._journal = Journal(session, plan.plan_id)
        self._noting = Noting(session, ltm)
        self._looker = Looker(
            session,
            ltm,
            self._journal,
            tolerance_s=settings.match_tolerance_s,
            removed=[each.place for each in plan.actions if each.kind is ActionKind.REMOVE],
        )
        self._written = {each.place for each in plan.actions if each.kind is not ActionKind.REMOVE}
        self._after: dict[Place, str | None] = {}
        self._aside: dict[Place, tuple[Action, str]] = {}
        self._unsettled: dict[str, list[Looked]] = {}
        self._began = False
        self._done = self._done_before = self._done_by_others = self._left = 0

    # ------------------------------------------------------------------ before any write

    def look_at_all(self) -> list[Action]:
        """The actions still to be done, in the looker's order. Those that cannot be go aside."""
        still: list[Action] = []
        seen = 0
        for some in self._looker.in_batches(self._plan.actions, _BATCH):
            self._tell(Progress(Kind.STEP, "looking at the plan", seen, len(self._plan.actions)))
            seen += len(some)
            still += [looked.action for looked in self._noted(self._looker.look(some))]
        return still

    def _noted(self, looked: Iterable[Looked]) -> list[Looked]:
        """The open ones among these. What is done or set aside is noted as such."""
        still = []
        for each in looked:
            place = each.action.place
            if each.done:
                self._done_before += 1
                self._done_by_others += not each.ours
                self._after[place] = each.after
                if each.unsettled:
                    self._unsettled.setdefault(place.collection, []).append(each)
            elif each.why is not None:
                self._aside[place] = (each.action, each.why)
            else:
                still.append(each)
        return self._that_rest_on_what_stands(still)

    def _that_rest_on_what_stands(self, looked: Sequence[Looked]) -> list[Looked]:
        """Those whose point may go: the memory that replaces it is there, or is still to come."""
        replacing = (each.action.replaced_by for each in looked)
        found = points_at(self._ltm, [each for each in replacing if each])
        still = []
        for each in looked:
            by = each.action.replaced_by
            why = self._missing(each.action, by, point_state(found.get(by))) if by else None
            if why is None:
                still.append(each)
            else:
                self._aside[each.action.place] = (each.action, why)
        return still

    def _missing(self, action: Action, by: Place, state: str | None) -> str | None:
        """Why the memory that replaces a point is not the one that the plan counts on."""
        if by in self._aside:
            return f"the memory that replaces it, {by}, is set aside"
        if by in self._written and by not in self._after:
            return f"the memory that replaces it, {by}, is not written yet" if self._began else None
        expected = self._after.get(by, action.replaced_state)
        if state is None:
            return f"the memory that replaces it, {by}, is not there: plan again"
        if state != expected:
            return f"the memory that replaces it, {by}, has changed: plan again"
        return None

    def require_few_removals(self, open_actions: Sequence[Action]) -> None:
        """Refuse a plan that removes many of a collection's points, done removals included.

        Raises: GateClosed.
        """
        if any(each.kind is ActionKind.REMOVE for each in open_actions):
            removals = [
                each
                for each in self._plan.actions
                if each.kind is ActionKind.REMOVE and each.place not in self._aside
            ]
            gone = [place for place in self._after if place not in self._written]
            require_few_removals(removals, gone, self._ltm)

    # ------------------------------------------------------------------ carrying out

    def carry_out(self, actions: Sequence[Action], limit: int | None) -> None:
        """Carry out the actions batch by batch, or the first `limit` of them that can be done."""
        if actions or self._unsettled:
            self._begin()
        seen = 0
        for some in in_batches(actions, _BATCH):
            rest = some
            while rest:
                budget = len(rest) if limit is None else limit - self._done
                if budget <= 0:
                    self._left += len(rest)
                    break
                now, rest = rest[:budget], rest[budget:]
                self._carry_out(now)
                seen += len(now)
                self._tell(Progress(Kind.STEP, "apply", seen, len(actions)))

    def _begin(self) -> None:
        """Record the layout and the run, and settle what an earlier one left unsettled.

        A point that others wrote since its intent is theirs, and no undo of this run removes it.
        """
        self._began = True
        self._ltm.record_layout(self._session)
        self._ltm.mark.watch(self._session)
        self._journal.begin(self._plan)
        for name, some in self._unsettled.items():
            ids = [each.point_id for each in some]
            others = self._noting.written_by_others(self._journal.run_id, name, ids)
            ours = [each for each in some if each.point_id not in others]
            with self._session.transaction():
                self._noting.done(name, [(each, each.found) for each in ours])
                self._journal.settle(name, [each.point_id for each in ours], others, created=True)
            self._done_by_others += len(others)
        self._note_counts()

    def _note_counts(self) -> None:
        """Write down how many actions were done by others, and how many are set aside, so far."""
        self._journal.count(done_before=self._done_by_others, set_aside=len(self._aside))

    def finish(self) -> None:
        """Note what became of all actions, and the mark of the store, its first one perhaps."""
        self._note_counts()
        self._journal.note_mark(self._ltm.mark.publish(self._session))

    def _carry_out(self, actions: list[Action]) -> None:
        do: dict[ActionKind, Callable[[list[Looked]], None]] = {
            ActionKind.COPY: self._copy,
            ActionKind.PUT: self._put,
            ActionKind.PATCH: self._patch,
            ActionKind.REMOVE: self._remove,
        }
        still = self._noted(self._looker.look(actions, vectors=True))
        if still:
            do[actions[0].kind](still)

    def _put(self, looked: list[Looked]) -> None:
        embedded = self._ltm.embedded([each.made for each in looked if each.made])
        outage: StoreUnreachable | None = None
        by_anchor = {each.action.anchor_id: each for each in looked}
        for anchor, error in embedded.failed.items():
            if isinstance(error, StoreUnreachable):
                outage = error
            else:
                refused = by_anchor[anchor].action  # type: ignore[index]  # the ids are anchors'
                self._aside[refused.place] = (refused, error.message)
        points = {point.id: (made, point) for made, point in embedded.points}
        tried = [each.action for each in looked if each.point_id in points]
        # Embedding may take its time, so the stores are looked at once more.
        again = self._noted(self._looker.look(tried, vectors=True)) if tried else []
        ready = []
        for each in again:
            made, point = points[each.point_id]
            if made == each.made:
                ready.append((each, point))
            else:
                self._aside[each.action.place] = (each.action, _OVERTAKEN)
        if ready:
            collection, dims = ready[0][0].action.place.collection, self._ltm.embedder.dims
            self._write(ready, _putting(self._ltm, collection, dims), may_create=True)
        if outage:
            raise outage

    def _copy(self, looked: list[Looked]) -> None:
        collection = looked[0].action.place.collection
        sources = {each.action.source.collection for each in looked if each.action.source}
        for dims, some in groupby(looked, key=lambda each: len(each.source_vector)):
            ready = [
                (each, Point(each.point_id, each.wanted.payload, each.source_vector))
                for each in some
                if each.wanted
            ]
            if why := self._sizes.why_not_made(collection, dims, sources):
                self._aside |= {each.action.place: (each.action, why) for each, _ in ready}
            else:
                self._write(ready, _putting(self._ltm, collection, dims), may_create=True)

    def _patch(self, looked: list[Looked]) -> None:
        collection = looked[0].action.place.collection
        overwrite = self._ltm.repairs.overwrite
        wanted = [(each, each.wanted) for each in looked]
        self._write(wanted, lambda points, seen: overwrite(collection, points, seen))

    def _remove(self, looked: list[Looked]) -> None:
        collection = looked[0].action.place.collection
        remove = self._ltm.repairs.remove
        self._write([(each, None) for each in looked], lambda _, seen: remove(collection, seen))

    def _write(
        self,
        ready: Sequence[tuple[Looked, Point | None]],
        send: "Send",
        *,
        may_create: bool = False,
    ) -> None:
        """Bring points of one collection into the states that their actions leave."""
        collection = ready[0][0].action.place.collection
        creates = may_create and not self._ltm.stands(collection)
        intents = [
            Intent(
                each.action.place,
                each.action.kind,
                each.action.reason,
                before=point_state(each.found),
                after=point_state(point),
                copy=each.found,
                source=each.action.source,
                is_replaced=each.action.replaced_by is not None,
            )
            for each, point in ready
        ]
        with self._session.transaction():
            self._journal.intend(intents, new_collection=collection if creates else None)
            self._noting.intended(self._plan.plan_id, collection, ready)
        seen = {each.point_id: each.found for each, _ in ready if each.found}
        try:
            failed = send([point for _, point in ready if point], seen)
            refused = {point_id: error.message for point_id, error in failed.items()}
        except SchemaMismatch as error:
            refused = dict.fromkeys((each.point_id for each, _ in ready), error.message)
        self._settle(collection, ready, refused)

    def _settle(
        self,
        collection: str,
        ready: Sequence[tuple[Looked, Point | None]],
        refused: Mapping[PointId, str],
    ) -> None:
        """Read the points back, and note which actions are done."""
        stands = self._ltm.stands(collection)
        read = read_points(self._ltm, collection, [each.point_id for each, _ in ready])
        done: dict[PointId, Place] = {}
        for each, point in ready:
            state, after = point_state(read.points.get(each.point_id)), point_state(point)
            if state == after and (each.point_id not in refused or state != each.action.state):
                done[each.point_id] = each.action.place
                self._after[each.action.place] = after
            else:
                why = refused.get(each.point_id, _OVERTAKEN)
                self._aside[each.action.place] = (each.action, why)
        not_done = [each for each in ready if each[0].point_id not in done]
        left = [each.point_id for each, _ in not_done]
        with self._session.transaction():
            # An undo takes what the ledger gets after the journal for somebody else's note.
            self._noting.done(collection, [each for each in ready if each[0].point_id in done])
            self._noting.staying(collection, left)
            self._journal.settle(collection, done, left, created=stands)
            self._ltm.mark.count(self._session)
        self._done += len(done)

    # ------------------------------------------------------------------ the result

    def applied(self) -> Applied:
        """The result. Raises: PartlyDone when actions were set aside."""
        if self._aside:
            first, why = next(iter(self._aside.values()))
            raise PartlyDone(
                f"{count(self._done, 'action')} carried out, {len(self._aside):,} set aside, the "
                f"first is the {first.kind} of {first.place}: {why}. Mend the cause and run the "
                "same apply again, or make a new plan",
                done=self._done,
                done_before=self._done_before,
                left=self._left,
                set_aside=len(self._aside),
                actions=[
                    {
                        "action": each.kind,
                        "collection": each.place.collection,
                        "point_id": each.place.point_id,
                        "reason": each.reason,
                        "why": why,
                    }
                    for each, why in self._aside.values()
                ],
            )
        return Applied(self._done, self._done_before, self._left, self._done_by_others)


Send = Callable[[Sequence[Point], Mapping[PointId, Point]], Mapping[PointId, Failure]]
"""Writes points over those that were seen; returns the refusals."""


def _putting(ltm: LongTermMemory, collection: str, dims: int) -> Send:
    """Writes points whole, into a collection that is made if it is missing."""

    def send(points: Sequence[Point], seen: Mapping[PointId, Point]) -> Mapping[PointId, Failure]:
        ltm.ensure(collection, dims)
        return ltm.repairs.put(collection, points, seen)

    return send
