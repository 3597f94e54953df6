"""Prints a saved plan of `memsync reconcile`: as text a summary, as JSON every action.

A plan holds ids, digests and names that memsync gives, and nobody's words.
"""

from collections import Counter
from typing import Any

from memsync.cli.output import print_facts, print_table, say
from memsync.model.wording import count
from memsync.reconcile.plans import Plan, counted

_SHOWN_MAX = 20


def plan_fields(plan: Plan) -> dict[str, Any]:
    """The plan for a program: its summary, and every action."""
    return {
        "plan_id": plan.plan_id,
        "target": plan.target.fields(),
        "counts": counted(plan.actions),
        "collections": _of_collections(plan),
        "personas": len(_personas(plan)),
        "only_copies": sum(each.is_only_copy for each in plan.actions),
        "left": dict(plan.left),
        "spared": dict(plan.spared),
        "actions": [each.fields() for each in plan.actions],
    }


def print_plan(plan: Plan) -> None:
    """Print for which stores the plan is, and what it would do."""
    target = plan.target
    say(f"plan {plan.plan_id}")
    print_facts(
        [
            ("database", target.instance_id),
            ("vector store", target.vectors),
            ("layout", target.layout.value),
            ("shared collection", target.collection),
            ("payload style", target.payload_style),
            *([("embedder", target.embedder)] if target.embedder else []),
        ]
    )
    print_table(
        [
            (kind.value, f"{number:,}", reason)
            for kind, reasons in counted(plan.actions).items()
            for reason, number in reasons.items()
        ],
        head=("action", "points", "because of"),
        right=(1,),
    )
    collections = _of_collections(plan)
    say(
        f"{count(len(plan.actions), 'action')} in {count(len(collections), 'collection')}, for "
        f"{count(len(_personas(plan)), 'persona')}"
    )
    print_table(
        [
            (
                f"{sum(kinds.values()):,}",
                name,
                ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()),
            )
            for name, kinds in list(collections.items())[:_SHOWN_MAX]
        ],
        right=(0,),
    )
    if len(collections) > _SHOWN_MAX:
        say(f"  and {len(collections) - _SHOWN_MAX:,} more; all with --json")
    if only := sum(each.is_only_copy for each in plan.actions):
        copies = "removals are" if only > 1 else "removal is"
        say(f"{only:,} {copies} of memories that stand nowhere else: the quarantine keeps them")
    print_left(plan)


def print_left(plan: Plan) -> None:
    """Print which findings the plan does not repair, and why it leaves points that are spared."""
    for name, number in plan.left.items():
        say(f"  not repaired: {number:,} {name}")
    if plan.spared:
        said = ", ".join(f"{number:,} {name}" for name, number in plan.spared.items())
        say(
            f"  spared, because another finding of the same point is acknowledged: {said}. To have "
            "them repaired, drop that one: `memsync reconcile baseline list` has its id"
        )


def _of_collections(plan: Plan) -> dict[str, Counter[str]]:
    """How many actions of each kind there are in each collection; the most touched first."""
    found: dict[str, Counter[str]] = {}
    for each in plan.actions:
        found.setdefault(each.place.collection, Counter())[each.kind.value] += 1
    most = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
    return dict(most)


def _personas(plan: Plan) -> set[object]:
    return {each.persona_id for each in plan.actions if each.persona_id}
