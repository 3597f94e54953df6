"""Looks whether the actions of a plan are still to be done, are done, or have lost their ground.

It decides what each kind of action rests on, and which point it leaves. It writes nothing. An
action that cannot be judged costs itself: a collection that cannot be read, or a point in it, is
the reason of its own actions alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from uuid import UUID

from memsync.model.digests import exchange_digest, point_state
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point, Vector, ids_by_collection
from memsync.model.sequences import batched
from memsync.model.vectors import vector_state
from memsync.reconcile.cases import Case, Found, Role, is_made_from
from memsync.reconcile.findings import Repair
from memsync.reconcile.journal import Journal, Noted
from memsync.reconcile.lookups import exchanges_for, founds_of, memories_of, standing_alone
from memsync.reconcile.plans import Action, ActionKind, in_batches
from memsync.reconcile.quarantine import why_not_kept_whole
from memsync.reconcile.reading import Read, read_points
from memsync.reconcile.rules import CASE_RULES
from memsync.reconcile.sources import Sources
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.exchanges import exchanges_by_anchor, message_times
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout, persona_of_collection
from memsync.stores.ltm.ledger import Entry, Ledger, State
from memsync.stores.ltm.made import Made
from memsync.stores.postgres import Session

_DIGEST_SHOWN = 12
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Looked:
    """An action, what was found, and the point that it leaves; None: no point.

    It is done, or set aside because of `why`, or else open. `found` and `source` have vectors where
    these were asked for. `made` is the memory to be written, `row` its exchange. `after` is the
    state that the action left, where it is done. `ours`: this run has done it. `unsettled`: so it
    is, and the journal does not say so yet.
    """

    action: Action
    found: Point | None = None
    source: Point | None = None
    wanted: Point | None = None
    made: Made | None = None
    row: Exchange | None = None
    done: bool = False
    after: str | None = None
    ours: bool = False
    unsettled: bool = False
    why: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done, and can be."""
        return not self.done and self.why is None

    @property
    def point_id(self) -> PointId:
        """The id of the point that the action changes."""
        return self.action.place.point_id

    @property
    def source_vector(self) -> Vector:
        """The vector of the point that is copied; empty where it was not read."""
        return (self.source and self.source.vector) or ()


class Looker:
    """Looks at the actions of one plan. `removed` are the points that it removes."""

    def __init__(
        self,
        session: Session,
        ltm: LongTermMemory,
        journal: Journal,
        *,
        tolerance_s: float,
        removed: Iterable[Place],
    ) -> None:
        self._session = session
        self._ltm = ltm
        self._journal = journal
        self._tolerance_s = tolerance_s
        self._removed = frozenset(removed)
        self._catalog: Catalog | None = None

    def in_batches(self, actions: Sequence[Action], most: int) -> Iterator[list[Action]]:
        """The actions in the order of the plan, as `plans.in_batches` parts them.

        New memories of a collection come in the order of their exchanges' times, so that what may
        be one of a batch lies together in the collection.
        """
        ordered = actions
        if self._ltm.layout is Layout.PER_PERSONA:
            ordered = self._by_time(actions)
        yield from in_batches(ordered, most)

    def _by_time(self, actions: Sequence[Action]) -> list[Action]:
        puts = [each.anchor_id for each in actions if each.kind is ActionKind.PUT]
        times: dict[UUID, int] = {}
        for some in batched(filter(None, puts), _PAGE):
            times |= message_times(self._session, some)

        def at(action: Action) -> int:
            return times.get(action.anchor_id, 0) if action.anchor_id else 0

        runs = groupby(actions, key=lambda each: (each.kind, each.place.collection))
        return [
            each
            for (kind, _), run in runs
            for each in (sorted(run, key=at) if kind is ActionKind.PUT else run)
        ]

    def look(self, actions: Sequence[Action], *, vectors: bool = False) -> list[Looked]:
        """How each action stands. All of them have one kind and one collection.

        With `vectors` the points are read with theirs where the action needs them.
        """
        kind, collection = actions[0].kind, actions[0].place.collection
        ids = [each.place.point_id for each in actions]
        whole = vectors and kind in {ActionKind.PUT, ActionKind.REMOVE}
        whole = whole or any(each.vector is not None for each in actions)
        read = read_points(self._ltm, collection, ids, vectors=whole)
        noted = self._journal.of(collection, ids)
        looked = [Looked(each, read.points.get(each.place.point_id)) for each in actions]
        if kind is ActionKind.PUT:
            looked = self._with_made(looked)
        elif kind is ActionKind.PATCH:
            looked = self._with_patches(looked)
        elif kind is ActionKind.COPY:
            looked = self._with_copies(looked, vectors=vectors)
        else:
            looked = self._with_rows_as_planned(looked)
        judged = [
            _judged(each, noted.get(each.point_id), read.unread.get(each.point_id))
            for each in looked
        ]
        if kind in {ActionKind.PUT, ActionKind.COPY}:
            return self._without_doubles(judged)
        if kind is ActionKind.REMOVE:
            return self._without_rows(judged)
        return judged

    # ------------------------------------------------------------------ what an action leaves

    def _rows(self, looked: Sequence[Looked]) -> dict[UUID, Exchange]:
        anchors = [each.action.anchor_id for each in looked if each.action.anchor_id]
        return exchanges_by_anchor(self._session, anchors) if anchors else {}

    def _with_made(self, looked: Sequence[Looked]) -> list[Looked]:
        rows = self._rows(looked)
        ids = {each.action.anchor_id: each.point_id for each in looked if each.action.anchor_id}
        over = {each.action.place: each.found for each in looked if each.found}
        memories = self._ltm.make(self._session, [*rows.values()], ids, over=over)
        made = {each.anchor_id: each for each in memories}
        found = []
        for each in looked:
            anchor = each.action.anchor_id
            memory = made.get(anchor) if anchor else None
            why = _stale_row(each.action, rows)
            if why is None and memory and memory.place != each.action.place:
                why = f"the memory belongs at {memory.place} by now"
            if why is None and memory is None:
                why = "its persona or its personality is gone, so that no memory of it can be made"
            if memory and anchor and each.found and self._keeps_its_text(each, rows[anchor]):
                memory = self._ltm.repairs.kept(memory, each.found, rows[anchor])
            wanted = None if memory is None else Point(each.point_id, memory.payload)
            row = memory.exchange if memory else None
            found.append(replace(each, made=memory, wanted=wanted, row=row, why=why))
        return found

    def _keeps_its_text(self, looked: Looked, row: Exchange) -> bool:
        """Whether only the vector is made anew, or the app's text is right still."""
        if looked.found is None or looked.action.vector is not None:
            return True
        return self._ltm.repairs.has_apps_text(looked.action.place.collection, looked.found, row)

    def _with_patches(self, looked: Sequence[Looked]) -> list[Looked]:
        rows = self._rows(looked)
        patched = []
        for each in looked:
            why = _stale_row(each.action, rows)
            if why is None and each.found is not None:
                row = rows.get(each.action.anchor_id) if each.action.anchor_id else None
                payload = self._ltm.repairs.patched(each.action.place.collection, each.found, row)
                patched.append(replace(each, wanted=Point(each.point_id, payload), row=row))
            else:
                patched.append(replace(each, why=why))
        return patched

    def _with_copies(self, looked: Sequence[Looked], *, vectors: bool) -> list[Looked]:
        sources = (each.action.source for each in looked)
        by_source = ids_by_collection(each for each in sources if each)
        read = {
            name: read_points(self._ltm, name, ids, vectors=vectors)
            for name, ids in by_source.items()
        }
        rows = self._rows(looked)
        noted = Ledger(self._session).at(each.action.place for each in looked)
        with_rows = [
            replace(
                each,
                row=rows.get(each.action.anchor_id) if each.action.anchor_id else None,
                why=_stale_row(each.action, rows),
            )
            for each in looked
        ]
        return [
            each
            if each.why
            else self._with_copy(each, read, noted.get(each.action.place), vectors=vectors)
            for each in with_rows
        ]

    def _with_copy(
        self, looked: Looked, read: Mapping[str, Read], noted: Entry | None, *, vectors: bool
    ) -> Looked:
        action, source = looked.action, looked.action.source
        if source is None:
            return looked
        of_source = read[source.collection]
        if why := of_source.unread.get(source.point_id):
            return replace(looked, why=why)
        point = of_source.points.get(source.point_id)
        state = point_state(point)
        if point is None or state != action.source_state:
            return replace(looked, why=_stale(f"the point {source}", action.source_state, state))
        if vectors and not point.vector:
            return replace(looked, why=f"the point {source} has no vector")
        payload = self._ltm.repairs.copied(
            point, source.collection, action.place, action.persona_id, looked.row, noted
        )
        return replace(looked, source=point, wanted=Point(looked.point_id, payload))

    def _with_rows_as_planned(self, looked: Sequence[Looked]) -> list[Looked]:
        """Removals for another memory's sake: once its row is another, that one may be wrong."""
        rows = self._rows(looked)
        return [
            each if each.action.is_only_copy else replace(each, why=_stale_row(each.action, rows))
            for each in looked
        ]

    # ------------------------------------------------------------------ more that it rests on

    def _without_doubles(self, looked: Sequence[Looked]) -> list[Looked]:
        """Memories for the app's collections that the app has not written there meanwhile."""
        new = [each for each in looked if each.is_open and each.found is None]
        if self._ltm.layout is Layout.SHARED or not new:
            return list(looked)
        doubles = self._doubles(new[0].action.place.collection, new)
        return [
            replace(each, why=f"the app has written this memory meanwhile, as {double}: plan again")
            if each.is_open
            and each.found is None
            and (double := each.action.anchor_id and doubles.get(each.action.anchor_id)) is not None
            else each
            for each in looked
        ]

    def _doubles(self, collection: str, new: Iterable[Looked]) -> dict[UUID, PointId]:
        """The points of a persona's collection that are memories of these exchanges."""
        persona = persona_of_collection(collection)
        if persona is None or not self._ltm.stands(collection):
            return {}
        rows = [each.row for each in new if each.row]
        tolerance_ms = round(self._tolerance_s * 1000)
        found = memories_of(
            self._session, self._ltm, persona, rows, tolerance_ms, besides=self._removed
        )
        return {anchor: each.point.id for anchor, each in found.items()}

    def _without_rows(self, looked: Sequence[Looked]) -> list[Looked]:
        """Removals that nothing replaces, if what they were found for is still so."""
        alone = [
            (each.action.place.collection, each.found)
            for each in looked
            if each.is_open and each.action.is_only_copy and each.found
        ]
        if not alone:
            return list(looked)
        catalog = self._catalog = self._catalog or Catalog.read(self._session)
        # Anew each time, because it keeps which personas there are.
        sources = Sources.of(self._session, self._ltm, catalog, self._tolerance_s)
        cases = {each.place: each for each in _cases_now(sources, founds_of(sources, alone))}
        return [
            _without_ground(each, case) if (case := cases.get(each.action.place)) else each
            for each in looked
        ]


# ---------------------------------------------------------------------- verdicts


def _cases_now(sources: Sources, founds: Sequence[Found]) -> Iterator[Case]:
    """What these points are by now, as far as rows, personas and the ledger tell.

    How old the other exchanges of a thread are is not asked: no row that comes back makes an older
    point an archived one.
    """
    rows = exchanges_for(sources, founds)
    noted = Ledger(sources.session).at(each.place for each in founds)
    alone = standing_alone(sources.session, founds, sources.tolerance_ms)
    for found in founds:
        row, entry = rows.get(found.place), noted.get(found.place)
        if row is not None and is_made_from(found, row):
            yield sources.case(Role.MEMORY, row, found)
        elif entry is not None:
            role = Role.ARCHIVED if entry.state is State.ARCHIVED else Role.VANISHED
            yield sources.case(role, None, found)
        else:
            is_archived = found.place in alone and found.tells_enough
            yield sources.case(Role.ARCHIVED if is_archived else Role.ORPHAN, None, found)


def _without_ground(looked: Looked, case: Case) -> Looked:
    """The removal of an only copy; set aside unless the rule that found it finds it again."""
    if case.exchange is not None:
        why = f"its exchange {case.exchange.anchor_id} is in Postgres: plan again"
        return replace(looked, why=why)
    reason = looked.action.reason
    found = next((rule.judge(case) for rule in CASE_RULES if rule.name == reason), None)
    if found is not None and found.repair is Repair.REMOVE:
        return looked
    return replace(looked, why=f"{reason} does not hold of it any more: plan again")


def _judged(looked: Looked, noted: Noted | None, unread: str | None) -> Looked:
    """The action with its verdict, from the point that stands there and the journal."""
    action, state = looked.action, point_state(looked.found)
    if unread is not None:
        return replace(looked, why=unread)
    if noted and noted.is_done and (state != action.state or noted.before == noted.after):
        # What happened to the point since is not this plan's.
        return replace(looked, done=True, ours=True, after=noted.after, why=None)
    if noted and state == noted.after and state != action.state:
        return replace(looked, done=True, ours=True, after=state, unsettled=True, why=None)
    if looked.why is None and looked.found is not None:
        looked = replace(looked, why=why_not_kept_whole(looked.found))
    if looked.why is not None:
        return looked
    is_gone = state is None and action.state is not None and action.kind is not ActionKind.REMOVE
    if is_gone or state not in {action.state, point_state(looked.wanted)}:
        return replace(looked, why=_stale("the point", action.state, state))
    if noted is None and state == action.state and action.vector is not None:
        # With an intent, another vector is this plan's own.
        vector = vector_state(looked.found.vector if looked.found else None)
        if vector != action.vector:
            return replace(looked, why=_stale("the vector of the point", action.vector, vector))
    if state == point_state(looked.wanted):
        # A PUT may make another vector for the same payload.
        done = state != action.state or action.kind is ActionKind.PATCH
        return replace(looked, done=done, after=state if done else None)
    return looked


def _stale_row(action: Action, rows: Mapping[UUID, Exchange]) -> str | None:
    """Why the exchange is not the one that the action rests on; None if it is, or there is none."""
    if action.anchor_id is None:
        return None
    row = rows.get(action.anchor_id)
    digest = exchange_digest(row) if row else None
    if digest == action.row_digest:
        return None
    return _stale(f"the exchange {action.anchor_id}", action.row_digest, digest)


def _stale(what: str, planned: str | None, found: str | None) -> str:
    return f"{what} is {_shown(found)}, and the plan rests on {_shown(planned)}: plan again"


def _shown(state: str | None) -> str:
    return "not there" if state is None else f"{state[:_DIGEST_SHOWN]}…"
