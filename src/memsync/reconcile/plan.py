"""Turns the findings of an audit into a plan: actions, their order, and the states they rest on.

It decides the order, and which action a point gets that several findings are about. A point is
spared of which one finding is acknowledged: a person decided to leave it. Memories are
written before the points that they replace are removed, because a killed apply must not lose a
memory; and a point is never removed for the sake of one that goes, too. What it has so far is on
disk, so memory does not grow with the findings. The module writes to neither store.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from uuid import UUID, uuid4

from memsync.errors import IncompleteAudit
from memsync.model.ids import copied_point_id, point_order
from memsync.model.records import Place
from memsync.reconcile.findings import Audit, Finding, Grade, Kind, Repair, Severity, counted
from memsync.reconcile.plans import Action, ActionKind, Plan, Target
from memsync.reconcile.rules.times import CollectionRecreated, StoreRewound
from memsync.reconcile.spool import Shelf, Spool
from memsync.stores.ltm import LongTermMemory

_OF_TWO_TIMES = frozenset((StoreRewound.name, CollectionRecreated.name))


def make_plan(
    audit: Audit,
    *,
    instance_id: UUID,
    ltm: LongTermMemory,
    unsafe: bool = False,
    persona: UUID | None = None,
) -> Plan:
    """The plan that repairs the audit's findings; those of grade unsafe only if `unsafe`.

    With `persona` only the findings that concern that persona count. Acknowledged findings are left
    out, and so are the others of their points. While the stores may be of two times, nothing that
    stands is changed. The embedder is loaded where the plan has memories to make. Reads no memory.

    Raises: IncompleteAudit, because a repair could remove a point whose exchange was not read;
    SettingsError or EmbedderUnreachable where there is no embedder; StoreUnreachable.
    """
    if not audit.complete:
        raise IncompleteAudit(
            "the audit is incomplete, so no plan is made: " + "; ".join(audit.not_checked)
        )
    grades = {Grade.SAFE, Grade.UNSAFE} if unsafe else {Grade.SAFE}
    of_two_times = not _OF_TWO_TIMES.isdisjoint(audit.counts)
    spared: Counter[Reason] = Counter()
    with contextlib.closing(_Draft()) as draft, contextlib.closing(_known_points(audit)) as known:
        for each in audit.findings.chosen(_is_fault, persona):
            # A newer memory may stand where the rows are of an older time.
            is_left = of_two_times and each.witness.place is not None
            is_wanted = each.grade in grades and not is_left
            if is_wanted and any(_key(place) in known for place in _changed_by(each)):
                spared[_reason(each)] += 1
            else:
                draft.add(each, wanted=is_wanted)
        actions = draft.actions()
    makes = any(each.kind is ActionKind.PUT for each in actions)
    target = target_of(ltm, instance_id, with_embedder=makes)
    return Plan(uuid4(), target, actions, draft.left(), _by_name(spared))


def _known_points(audit: Audit) -> Shelf[None]:
    """The keys of the points of which a finding is acknowledged, looked for or not."""
    known: Shelf[None] = Shelf()
    for each in audit.acknowledged:
        if each.witness.place is not None:
            known[_key(each.witness.place)] = None
    for noted in audit.unseen:
        if place := Place.read(f"{noted.store.removeprefix('qdrant:')}/{noted.key}"):
            known[_key(place)] = None
    return known


def _changed_by(finding: Finding) -> Iterator[Place]:
    """The points that stand and that the repair of this finding writes or removes."""
    seen = finding.witness
    if seen.place is not None and finding.repair is not Repair.COPY:
        yield seen.place
    if seen.target is not None and finding.repair is Repair.MAKE:
        yield seen.target


def _is_fault(kind: Kind) -> bool:
    return kind.severity is not Severity.INFO


def target_of(ltm: LongTermMemory, instance_id: UUID, *, with_embedder: bool) -> Target:
    """The stores that a plan made now is for."""
    return Target(
        instance_id=instance_id,
        vectors=ltm.label,
        layout=ltm.layout,
        collection=ltm.collection,
        payload_style=ltm.codec.style,
        embedder=ltm.embedder.name if with_embedder else None,
        mark=ltm.mark.store_of(instance_id),
    )


Reason = tuple[str, str]
"""Code and name of a finding."""


class _Draft:
    """Actions by the point that they change, on disk, and how many findings they do not repair."""

    def __init__(self) -> None:
        self._puts: Shelf[Action] = Shelf()
        self._copies: Shelf[Action] = Shelf()
        self._patches: Shelf[Action] = Shelf()
        self._removals: Shelf[Action] = Shelf()
        self._brought: Shelf[bytes] = Shelf()
        self._kept: Shelf[Action] = Shelf()
        self._instead: Shelf[bytes] = Shelf()
        self._ends: Shelf[bytes] = Shelf()
        self._written: Shelf[None] = Shelf()
        self._moves: Spool[tuple[Reason, Action]] = Spool()
        self._wanted: Spool[tuple[Reason, Place]] = Spool()
        self._left: Counter[Reason] = Counter()

    def close(self) -> None:
        """Free the disk."""
        with contextlib.ExitStack() as files:
            for each in (
                *(self._puts, self._copies, self._patches, self._removals, self._kept),
                *(self._brought, self._instead, self._ends, self._written),
                *(self._moves, self._wanted),
            ):
                files.enter_context(contextlib.closing(each))

    def left(self) -> dict[str, int]:
        """How many findings no action repairs, by name, in the order of their codes."""
        return _by_name(self._left)

    def add(self, finding: Finding, *, wanted: bool) -> None:
        """Take the actions of a finding. One that does not say what they rest on gets none."""
        if not (wanted and self._taken(finding)):
            self._left[finding.code, finding.name] += 1

    def _taken(self, finding: Finding) -> bool:
        """Whether an action repairs the finding."""
        seen = finding.witness
        match finding.repair:
            case Repair.MAKE if seen.target and seen.anchor_id and seen.row_digest:
                return self._make(finding, seen.target)
            case Repair.PATCH if seen.place and seen.state:
                action = Action(
                    ActionKind.PATCH,
                    seen.place,
                    finding.name,
                    seen.state,
                    anchor_id=seen.anchor_id,
                    row_digest=seen.row_digest,
                    persona_id=finding.persona_id,
                )
                self._patches.setdefault(_key(seen.place), action)
                return True
            case Repair.COPY | Repair.MOVE if seen.place and seen.state and seen.target:
                self._copy(finding, seen.place, seen.target)
                return True
            case Repair.REMOVE if seen.place and seen.state:
                # An orphan's target, where it would belong, is its own place.
                target = None if seen.target == seen.place else seen.target
                removal = _removal(finding, seen.place, target)
                state = seen.target_state if target else None
                self._remove(_reason(finding), replace(removal, replaced_state=state))
                return True
        return False

    def _make(self, finding: Finding, target: Place) -> bool:
        seen = finding.witness
        action = Action(
            ActionKind.PUT,
            target,
            finding.name,
            seen.target_state,
            # Another point than the target's is replaced whole.
            vector=seen.vector if seen.place == target else None,
            anchor_id=seen.anchor_id,
            row_digest=seen.row_digest,
            persona_id=finding.persona_id,
        )
        if self._puts.setdefault(_key(target), action).anchor_id != seen.anchor_id:
            # Two exchanges want one place. The next audit sees what is left.
            return False
        if seen.place and seen.state and seen.place != target:
            self._remove(_reason(finding), _removal(finding, seen.place, target))
        return True

    def _copy(self, finding: Finding, source: Place, target: Place) -> None:
        seen = finding.witness
        action = Action(
            ActionKind.COPY,
            target,
            finding.name,
            anchor_id=seen.anchor_id,
            row_digest=seen.row_digest,
            source=source,
            source_state=seen.state,
            # Kept until the targets of all actions are known: see `_give_free_ids`.
            replaced_state=seen.target_state,
            persona_id=finding.persona_id,
        )
        key = _copy_key(source, target.collection)
        if seen.anchor_id:
            # Of several that others have, one is brought, and the rest goes for its sake.
            key = self._brought.setdefault(_exchange_key(seen.anchor_id, target), key)
        self._copies.setdefault(key, action)
        if finding.repair is Repair.MOVE:
            self._moves.add(key, (_reason(finding), _removal(finding, source, target)))

    def _remove(self, reason: Reason, action: Action) -> None:
        """Remove the point, unless the whole of the plan keeps it: see `actions`."""
        key = _key(action.place)
        standing = self._removals.setdefault(key, action)
        if standing.replaced_by is None and action.replaced_by is not None:
            # A point that something replaces is removed for its sake.
            self._removals[key] = action
        self._wanted.add(b"", (reason, action.place))

    # ------------------------------------------------------------------ the whole

    def actions(self) -> Spool[Action]:
        """One action for each point, in the order of the plan. To be called once."""
        self._leave_to_copies()
        self._give_free_ids()
        for key, action in self._copies.items():
            for reason, removal in self._moves.of(key):
                self._remove(reason, replace(removal, replaced_by=action.place))
        for key, action in self._removals.items():
            if action.replaced_by and (copied := self._instead.get(_key(action.replaced_by))):
                by = self._copies[copied].place
                self._removals[key] = replace(action, replaced_by=by, replaced_state=None)
        for key in self._written:
            # What is written there replaces the point, and the point goes to quarantine.
            self._removals.pop(key, None)
        self._keep_removals_that_leave_a_memory()
        for reason, place in self._wanted:
            if _key(place) not in self._kept and _key(place) not in self._written:
                self._left[reason] += 1
        return self._in_order()

    def _leave_to_copies(self) -> None:
        """Leave out memories that a copy brings: of an exchange that another persona's point has.

        `_instead` has the copy that comes instead of each.
        """
        for key, action in self._puts.items():
            if action.anchor_id and action.state is None:
                copied_by = self._brought.get(_exchange_key(action.anchor_id, action.place))
                if copied_by is not None:
                    self._instead[key] = copied_by
                    del self._puts[key]

    def _give_free_ids(self) -> None:
        """Give a copy whose id another memory has at its target another id."""
        for key in self._puts:
            self._written[key] = None
        for key, action in self._copies.items():
            source, place = action.source, action.place
            if source and (action.replaced_state is not None or _key(place) in self._written):
                point_id = copied_point_id(source.collection, str(source.point_id))
                place = Place(place.collection, point_id)
            self._written[_key(place)] = None
            self._copies[key] = replace(action, place=place, replaced_state=None)

    def _keep_removals_that_leave_a_memory(self) -> None:
        """Keep the removals that are each for the sake of a memory that stays."""
        for key, action in self._removals.items():
            end = self._end_of(key, action)
            if not end:
                continue
            last = self._removals[end]
            by = last.replaced_by
            is_written = by is not None and (_key(by) in self._written or _key(by) in self._patches)
            state = None if by is None or is_written else last.replaced_state
            if by is None or is_written or state is not None:
                self._kept[key] = replace(action, replaced_by=by, replaced_state=state)

    def _end_of(self, key: bytes, action: Action) -> bytes:
        """The last of the removals that replace one another, by key; empty if nothing is left then.

        `_ends` has it for every removal on the way, so a chain is walked once.
        """
        way = {key}
        end = self._ends.get(key)
        while end is None:
            by = _key(action.replaced_by) if action.replaced_by else b""
            following = self._removals.get(by)
            if following is None:
                end = key
            elif by in way or following.replaced_by is None:
                end = b""
            elif (end := self._ends.get(by)) is None:
                way.add(by)
                key, action = by, following
        for each in way:
            self._ends[each] = end
        return end

    def _in_order(self) -> Spool[Action]:
        """All actions, in the order of the plan."""
        ordered: Spool[Action] = Spool()
        order = list(ActionKind)
        for actions in (self._copies, self._puts, self._patches, self._kept):
            for action in actions.values():
                key = _key(action.place)
                is_over = action.kind is ActionKind.PATCH and (
                    key in self._written or key in self._kept
                )
                if not is_over:
                    ordered.add(bytes([order.index(action.kind)]) + key, action)
        return ordered


def _removal(finding: Finding, place: Place, replaced_by: Place | None) -> Action:
    seen = finding.witness
    return Action(
        ActionKind.REMOVE,
        place,
        finding.name,
        seen.state,
        anchor_id=seen.anchor_id,
        row_digest=seen.row_digest,
        replaced_by=replaced_by,
        persona_id=finding.persona_id,
    )


def _key(place: Place) -> bytes:
    """A key that has the order of places: by collection, and there by id."""
    is_uuid, point_id = point_order(place.point_id)
    return _text(place.collection) + bytes([is_uuid]) + point_id


def _copy_key(source: Place, collection: str) -> bytes:
    return _key(source) + _text(collection)


def _exchange_key(anchor: UUID, place: Place) -> bytes:
    return anchor.bytes + _text(place.collection)


def _text(collection: str) -> bytes:
    return f"{collection}\0".encode("utf-8", "surrogatepass")


def _reason(finding: Finding) -> Reason:
    return finding.code, finding.name


def _by_name(numbers: Mapping[Reason, int]) -> dict[str, int]:
    return counted((*reason, number) for reason, number in numbers.items() if number)
