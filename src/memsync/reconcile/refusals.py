"""What is refused before the first write: a plan of other stores, or one that removes much.

It decides, too, what must not be done while the stores may be of two times.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from memsync.errors import GateClosed, InvalidInput, StalePlan
from memsync.model.records import Place
from memsync.model.wording import count, listed
from memsync.reconcile.halfway import HalfDone, noted
from memsync.reconcile.plan import target_of
from memsync.reconcile.plans import Action, Plan
from memsync.stores.history import outbox
from memsync.stores.history.catalog import instance_id
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import CollectionKind
from memsync.stores.ltm.marks import Verdict
from memsync.stores.postgres import Session

_REMOVALS_SHARE = 0.05
_REMOVALS_MIN = 20
"""The brake: so many points of a collection, or of several together, and this share of them."""
_TARGETS = {
    "instance_id": "database",
    "vectors": "vector store",
    "layout": "layout",
    "collection": "shared collection",
    "payload_style": "payload style",
    "embedder": "embedder",
    "mark": "vector store with the mark",
}


def require_same_stores(plan: Plan, session: Session, ltm: LongTermMemory) -> None:
    """Refuse a plan that is for other stores, another layout or embedder, or no memories.

    Raises: StalePlan, InvalidInput.
    """
    planned = plan.target.fields()
    with_embedder = plan.target.embedder is not None
    found = target_of(ltm, instance_id(session), with_embedder=with_embedder).fields()
    if None in {planned["mark"], found["mark"]}:
        # It got its mark since. One that has lost it is told by `require_one_time`.
        found["mark"] = planned["mark"]
    elif ltm.mark.is_of(session):
        # Where the mark is that of the plan, it was moved.
        found["vectors"] = planned["vectors"]
    for name, value in planned.items():
        if value != found[name]:
            raise StalePlan(
                f"the plan was made for the {_TARGETS[name]} {value}, this is {found[name]}. "
                "Check the settings, or make a new plan with `memsync reconcile plan`",
                **{name: value},
            )
    for action in plan.actions:
        if ltm.kind_of(action.place.collection) is CollectionKind.OTHER:
            raise InvalidInput(
                f"the plan would change {action.place.collection!r}, whose name is not that of "
                "a collection of memories. Make a new plan with `memsync reconcile plan`"
            )


def require_one_time(actions: Sequence[Action], session: Session, ltm: LongTermMemory) -> None:
    """Refuse to remove or overwrite points while the stores may be of two times.

    Raises: GateClosed.
    """
    if changed := sum(each.state is not None for each in actions):
        what = f"the plan would remove or overwrite {count(changed, 'point')} of {ltm.label}"
        require_in_step(session, ltm, what)


def require_in_step(session: Session, ltm: LongTermMemory, what: str) -> None:
    """Refuse what would be done, in the words of `what`, while the stores may be of two times.

    Raises: GateClosed.
    """
    verdict = ltm.mark.read(session).verdict
    if verdict is Verdict.IN_STEP:
        return
    seen = (
        f"{session.label} is older than what was written to {ltm.label} from it"
        if verdict is Verdict.REWOUND
        else f"{ltm.label} has no mark of {session.label} any more"
    )
    raise GateClosed(
        f"the stores may be of two times: {seen}, and {what}. Nothing was changed; see what "
        "`memsync check` says of it. To go on with what stands there, type `memsync reconcile "
        "adopt --anew`",
        mark=verdict.value,
    )


def require_change_ended(session: Session, change: HalfDone) -> None:
    """Refuse what would take the place of the change that led to the layout in force, and that did
    not end: nobody would know any more that the ledger lacks memories of this layout.

    Raises: GateClosed.
    """
    if noted(session) is change:
        raise GateClosed(
            f"{change.what} was begun and did not end, so that the ledger may lack memories of the "
            "layout in force, and nothing would tell of a loss there. Nothing was changed; finish "
            f"it with `{change.command}`, then run this again",
            under_way=str(change),
        )


def require_no_memory_waits(
    session: Session, target: LongTermMemory, *, is_copied: bool = False
) -> None:
    """Refuse to change to a layout in which the app writes while the outbox still has entries.

    `is_copied`: the memories that were there before are copied already.

    Raises: GateClosed.
    """
    waiting = outbox.status(session).pending
    if waiting and target.why_app_writes:
        verb = "waits" if waiting == 1 else "wait"
        stays = ", and what was copied stays" if is_copied else ""
        raise GateClosed(
            f"{count(waiting, 'memory', 'memories')} {verb} in the outbox, and in the "
            f"{target.layout} layout nobody would write them: the app writes there, and the "
            f"setting writer is app. The layout was not changed{stays}; stop what calls remember, "
            "write them with `memsync sync run`, then run this again",
            pending=waiting,
        )


def require_few_removals(
    removals: Sequence[Action], gone: Iterable[Place], ltm: LongTermMemory
) -> None:
    """Refuse to remove many points: of a collection, or of all that the removals are in.

    `gone` are those that are removed already.

    Raises: GateClosed.
    """
    done = Counter(place.collection for place in gone)
    going = Counter(each.place.collection for each in removals)
    if going.total() < _REMOVALS_MIN:
        return
    for name in [each for each in going if not ltm.stands(each)]:
        del going[name]  # somebody has dropped it, and nothing is left there to remove
    points = {name: ltm.count(name) + done[name] for name in going}
    many = [name for name, number in going.items() if _are_many(number, points[name])]
    said = [f"{going[each]:,} of {count(points[each], 'point')} of {each}" for each in many]
    fields = [
        {"collection": each, "removals": going[each], "points": points[each]} for each in many
    ]
    total = sum(points.values())
    if not many and _are_many(going.total(), total):
        where = count(len(going), "collection")
        said = [f"{going.total():,} of {count(total, 'point')} of {where}"]
        fields = [{"collections": len(going), "removals": going.total(), "points": total}]
    if said:
        raise GateClosed(
            f"the plan would remove {listed(said)}, and nothing was changed. See what it does "
            "with `memsync reconcile show`; if that is what you want, give --remove-many",
            removals=fields,
        )


def _are_many(removals: int, points: int) -> bool:
    return removals >= _REMOVALS_MIN and removals > _REMOVALS_SHARE * points
