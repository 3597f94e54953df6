"""Turns the findings of an audit into a plan: actions, their order, and the states they rely on.

It decides the order. Memories are written before the points that they replace are removed, because
a killed apply must not lose a memory. A collection is retired only when the plan removes every
point in it. The module reads and writes no store.
"""

from collections import Counter
from collections.abc import Iterable
from uuid import UUID, uuid4

from memsync.errors import IncompleteAudit
from memsync.model.ids import point_order
from memsync.reconcile.findings import Audit, Finding, Grade, Repair, counted
from memsync.reconcile.plans import Action, ActionKind, Plan


def make_plan(
    audit: Audit, *, instance_id: UUID, home: str, embedder: str, unsafe: bool = False
) -> Plan:
    """The plan that repairs the audit's findings; those of grade unsafe only if `unsafe`.

    Raises: IncompleteAudit, because a repair could remove a point whose exchange was not read.
    """
    if not audit.complete:
        raise IncompleteAudit(
            "the audit is incomplete, so no plan is made: " + "; ".join(audit.not_checked)
        )
    grades = {Grade.SAFE, Grade.UNSAFE} if unsafe else {Grade.SAFE}
    chosen = [each for each in audit.findings if each.grade in grades]
    point_actions: dict[tuple[ActionKind, str, object], Action] = {}
    puts: dict[UUID, Action] = {}
    for finding in chosen:
        if finding.repair is Repair.MEND:
            _mend(finding, home, puts, point_actions)
        elif finding.repair in {Repair.REMOVE, Repair.MOVE}:
            kind = ActionKind.MOVE if finding.repair is Repair.MOVE else ActionKind.REMOVE
            _add_point_action(kind, finding, point_actions)
    retired = _retirements(chosen, point_actions.values())
    left = [each for each in audit.findings if each.grade not in grades]
    left += [f for f in chosen if f.repair is Repair.RETIRE and f.key not in retired]
    return Plan(
        plan_id=uuid4(),
        instance_id=instance_id,
        collection=home,
        embedder=embedder,
        actions=tuple(
            sorted(puts.values(), key=_place)
            + sorted(point_actions.values(), key=lambda each: (each.kind, *_place(each)))
            + [Action(ActionKind.RETIRE, name, "legacy-layout") for name in sorted(retired)]
        ),
        left=counted(left),
    )


def _mend(
    finding: Finding,
    home: str,
    puts: dict[UUID, Action],
    point_actions: dict[tuple[ActionKind, str, object], Action],
) -> None:
    """Plan to write the exchange's memory, and to remove the point if it is under another id.

    When another point already has the memory's id, only the point is removed.
    """
    seen = finding.witness
    if seen.anchor_id is None:
        return
    in_place = seen.collection in {None, home} and seen.point_id in {None, seen.anchor_id}
    standing = seen.point_state if in_place else None
    put = Action(ActionKind.PUT, home, finding.name, seen.anchor_id, standing, seen.row_digest)
    if not seen.memory_stands and (in_place or seen.anchor_id not in puts):
        puts[seen.anchor_id] = put
    if not in_place:
        _add_point_action(ActionKind.REMOVE, finding, point_actions, replaced_by=seen.anchor_id)


def _add_point_action(
    kind: ActionKind,
    finding: Finding,
    point_actions: dict[tuple[ActionKind, str, object], Action],
    replaced_by: UUID | None = None,
) -> None:
    seen = finding.witness
    if seen.collection is not None:
        action = Action(
            kind,
            seen.collection,
            finding.name,
            seen.point_id,
            seen.point_state,
            replaced_by=replaced_by,
        )
        point_actions.setdefault((kind, seen.collection, seen.point_id), action)


def _retirements(chosen: Iterable[Finding], point_actions: Iterable[Action]) -> set[str]:
    """The deployed collections that are empty once the actions are done."""
    leaving = Counter(action.collection for action in point_actions)
    return {
        each.key
        for each in chosen
        if each.repair is Repair.RETIRE and each.evidence["points"] == leaving[each.key]
    }


def _place(action: Action) -> tuple[str, tuple[bool, bytes]]:
    return action.collection, point_order(action.point_id if action.point_id is not None else 0)
