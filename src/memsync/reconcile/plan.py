"""Turns the findings of an audit into a plan: actions, their order, and the states they rest on.

It decides the order, and which action a point gets that several findings are about. Memories are
written before the points that they replace are removed, because a killed apply must not lose a
memory; and a point is never removed for the sake of one that goes, too. The module writes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID, uuid4

from memsync.errors import IncompleteAudit
from memsync.model.ids import copied_point_id, point_order
from memsync.model.records import Place
from memsync.reconcile.findings import Audit, Finding, Grade, Repair, Severity, counted
from memsync.reconcile.plans import Action, ActionKind, Plan, Target
from memsync.stores.ltm import LongTermMemory

Key = TypeVar("Key")


def make_plan(
    audit: Audit,
    *,
    instance_id: UUID,
    ltm: LongTermMemory,
    unsafe: bool = False,
    persona: UUID | None = None,
) -> Plan:
    """The plan that repairs the audit's findings; those of grade unsafe only if `unsafe`.

    With `persona` only that persona's findings count. The embedder is loaded where the plan has
    memories to make. Reads no point.

    Raises: IncompleteAudit, because a repair could remove a point whose exchange was not read;
    SettingsError or EmbedderUnreachable where there is no embedder.
    """
    if not audit.complete:
        raise IncompleteAudit(
            "the audit is incomplete, so no plan is made: " + "; ".join(audit.not_checked)
        )
    grades = {Grade.SAFE, Grade.UNSAFE} if unsafe else {Grade.SAFE}
    faults = [
        each
        for each in audit.findings
        if each.severity is not Severity.INFO and persona in {None, each.persona_id}
    ]
    draft = _Draft()
    for each in sorted(faults, key=lambda found: (found.code, found.store, found.key)):
        if each.grade in grades:
            draft.add(each)
    actions = draft.actions()
    makes = any(each.kind is ActionKind.PUT for each in actions)
    return Plan(
        plan_id=uuid4(),
        target=target_of(ltm, instance_id, with_embedder=makes),
        actions=tuple(actions),
        left=counted(each for each in faults if id(each) not in draft.repaired),
    )


def target_of(ltm: LongTermMemory, instance_id: UUID, *, with_embedder: bool) -> Target:
    """The stores that a plan made now is for."""
    return Target(
        instance_id=instance_id,
        vectors=ltm.label,
        layout=ltm.layout,
        collection=ltm.collection,
        payload_style=ltm.codec.style,
        embedder=ltm.embedder.name if with_embedder else None,
    )


@dataclass
class _Draft:
    """Actions by the point that they change, and the findings that they repair, by identity."""

    puts: dict[Place, Action] = field(default_factory=dict)
    copies: dict[tuple[Place, str], Action] = field(default_factory=dict)
    patches: dict[Place, Action] = field(default_factory=dict)
    removals: dict[Place, Action] = field(default_factory=dict)
    repaired: set[int] = field(default_factory=set)
    _moves: list[tuple[Finding, tuple[Place, str]]] = field(default_factory=list)
    _wanted: list[tuple[Finding, Place]] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Take the actions of a finding. One that does not say what they rest on gets none."""
        seen = finding.witness
        match finding.repair:
            case Repair.MAKE if seen.target and seen.anchor_id and seen.row_digest:
                self._make(finding, seen.target)
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
                self._take(finding, self.patches, seen.place, action)
            case Repair.COPY | Repair.MOVE if seen.place and seen.state and seen.target:
                self._copy(finding, seen.place, seen.target)
            case Repair.REMOVE if seen.place and seen.state:
                # An orphan's target, where it would belong, is its own place.
                target = None if seen.target == seen.place else seen.target
                self._remove(finding, target, seen.target_state if target else None)

    def _take(
        self, finding: Finding, actions: dict[Key, Action], key: Key, action: Action
    ) -> Action:
        """The action of this key: the first that a finding gave."""
        self.repaired.add(id(finding))
        return actions.setdefault(key, action)

    def _make(self, finding: Finding, target: Place) -> None:
        seen = finding.witness
        action = Action(
            ActionKind.PUT,
            target,
            finding.name,
            seen.target_state,
            anchor_id=seen.anchor_id,
            row_digest=seen.row_digest,
            persona_id=finding.persona_id,
        )
        standing = self.puts.get(target)
        if standing and standing.anchor_id != seen.anchor_id:
            # Two exchanges want one place. The next audit sees what is left.
            return
        self._take(finding, self.puts, target, action)
        if seen.place and seen.place != target:
            self._remove(finding, target, None)

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
            # Kept until the targets of all actions are known: see `_with_free_ids`.
            replaced_state=seen.target_state,
            persona_id=finding.persona_id,
        )
        key = (source, target.collection)
        self._take(finding, self.copies, key, action)
        if finding.repair is Repair.MOVE:
            self._moves.append((finding, key))

    def _remove(self, finding: Finding, target: Place | None, target_state: str | None) -> None:
        seen = finding.witness
        if seen.place is None or seen.state is None:
            return
        action = Action(
            ActionKind.REMOVE,
            seen.place,
            finding.name,
            seen.state,
            anchor_id=seen.anchor_id,
            row_digest=seen.row_digest,
            replaced_by=target,
            replaced_state=target_state,
            persona_id=finding.persona_id,
        )
        standing = self._take(finding, self.removals, seen.place, action)
        if standing.replaced_by is None and target is not None:
            # A point that something replaces is removed for its sake.
            self.removals[seen.place] = action
        self._wanted.append((finding, seen.place))

    # ------------------------------------------------------------------ the whole

    def actions(self) -> list[Action]:
        """One action for each point, in the order of the plan."""
        instead = self._made_by_copies()
        copies = self._with_free_ids()
        for finding, key in self._moves:
            self._remove(finding, copies[key].place, None)
        for place, action in self.removals.items():
            if action.replaced_by in instead:
                by = copies[instead[action.replaced_by]].place
                self.removals[place] = replace(action, replaced_by=by, replaced_state=None)
        written = self.puts.keys() | {each.place for each in copies.values()}
        for place in written & self.removals.keys():
            # What is written there replaces the point, and the point goes to quarantine.
            del self.removals[place]
        removals = self._that_leave_a_memory(written | self.patches.keys())
        dominated = written | removals.keys()
        patches = [each for place, each in self.patches.items() if place not in dominated]
        self.repaired -= {
            id(finding)
            for finding, place in self._wanted
            if place not in removals and place not in written
        }
        return [
            *_in_order(copies.values()),
            *_in_order(self.puts.values()),
            *_in_order(patches),
            *_in_order(removals.values()),
        ]

    def _made_by_copies(self) -> dict[Place, tuple[Place, str]]:
        """Leave out memories that a copy brings: of an exchange that another persona's point has.

        Returns which copy comes instead of each.
        """
        brought = {
            (action.anchor_id, key[1]): key
            for key, action in self.copies.items()
            if action.anchor_id
        }
        instead = {
            place: brought[action.anchor_id, place.collection]
            for place, action in self.puts.items()
            if action.anchor_id
            and action.state is None
            and (action.anchor_id, place.collection) in brought
        }
        for place in instead:
            del self.puts[place]
        return instead

    def _with_free_ids(self) -> dict[tuple[Place, str], Action]:
        """The copies; one whose id another memory has at its target gets another id."""
        taken = set(self.puts)
        copies: dict[tuple[Place, str], Action] = {}
        for key, action in self.copies.items():
            place, (source, collection) = action.place, key
            if action.replaced_state is not None or place in taken:
                place = Place(collection, copied_point_id(source.collection, str(source.point_id)))
            taken.add(place)
            copies[key] = replace(action, place=place, replaced_state=None)
        return copies

    def _that_leave_a_memory(self, written: Iterable[Place]) -> dict[Place, Action]:
        """The removals, each for the sake of a memory that stays. The others are left out."""
        writes = set(written)
        kept: dict[Place, Action] = {}
        for place, action in self.removals.items():
            last = _last_of(action, self.removals)
            if last is None:
                continue
            by = last.replaced_by
            state = None if by is None or by in writes else last.replaced_state
            if by is not None and state is None and by not in writes:
                continue
            kept[place] = replace(action, replaced_by=by, replaced_state=state)
        return kept


def _last_of(action: Action, removals: Mapping[Place, Action]) -> Action | None:
    """The removal at the end of those that replace one another; None if nothing is left then."""
    seen = {action.place}
    last = action
    while (by := last.replaced_by) is not None and (following := removals.get(by)):
        if by in seen or following.replaced_by is None:
            return None
        seen.add(by)
        last = following
    return last


def _in_order(actions: Iterable[Action]) -> list[Action]:
    return sorted(actions, key=lambda each: place_order(each.place))


def place_order(place: Place) -> tuple[str, tuple[bool, bytes]]:
    """The sort key for places: by collection, and there by id."""
    return place.collection, point_order(place.point_id)
