"""Tests apply: it does exactly what the plan says, can be resumed, and refuses changed stores.

Most tests start from `spoil`, which causes every kind of action. Quarantine must then hold each
point that was removed or overwritten.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from uuid import uuid4

import pytest

from memsync.errors import IncompleteAudit, InvalidInput, StalePlan, StoreBusy, StoreUnreachable
from memsync.model.records import Point, to_ms
from memsync.reconcile.findings import Finding
from memsync.reconcile.plans import Action, ActionKind, Plan
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.postgres.locks import LockKey, exclusive
from support.failing import Crash, Failing
from support.lab import ADA, DIMS, LONG_AGO, NOBODY, A, B, C, Lab, embed

OLD_MS = to_ms(LONG_AGO) - 86_400_000


def spoil(lab: Lab) -> list[tuple[str, str]]:
    """Cause every kind of action; returns collection and id of each point to be quarantined."""
    said = lab.settled(6)
    gone: list[tuple[str, str]] = []

    def goes(collection: str, point_id: object) -> None:
        gone.append((collection, str(point_id)))

    for each in said[:2]:
        lab.vectors.delete(lab.home, [each.anchor_id])
        goes(f"persona-{A}", lab.deploy(each).id)
    goes(f"persona-{A}", lab.deploy(said[2]).id)
    goes(f"persona-{A}", lab.deploy(said[2], createdAt=OLD_MS).id)
    goes(f"persona-{A}", lab.deploy(said[0], createdAt=OLD_MS, point_id=7).id)
    goes(f"persona-{B}", lab.deploy(said[3], collection=f"persona-{B}", personaId=str(B)).id)
    unknown = f"persona-{NOBODY}"
    text = "User (N): x\nAda: y"
    goes(unknown, lab.deploy(said[0], collection=unknown, personaId=str(NOBODY), content=text).id)
    lab.vectors.delete(lab.home, [said[4].anchor_id])
    goes(lab.home, lab.respell(said[5].anchor_id, user_text="x").id)
    goes(lab.home, lab.respell(said[6].anchor_id, persona_id=str(B)).id)
    goes(lab.home, lab.put(lab.new_id(), lab.point(said[7].anchor_id).payload).id)
    goes(lab.home, said[8].anchor_id)
    lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=said[8].anchor_id)
    return sorted(gone)


def restore(lab: Lab, kept: dict[str, list[tuple[object, object, object]]]) -> None:
    """Put the points back as they were, and empty the quarantine."""
    for name in lab.vectors.collections():
        lab.vectors.drop(name)
    for name, points in kept.items():
        indexes = lab.ltm.codec.indexes if name == lab.home else {}
        lab.vectors.create(name, DIMS, indexes)
        lab.vectors.upsert(name, [Point(*each) for each in points])  # type: ignore[arg-type]  # as they came
    lab.sql("DELETE FROM memsync.quarantine")


def test_every_kind_of_action_in_its_order(any_lab: Lab) -> None:
    """Writes come before removals, and dropping collections comes last; then both stores agree."""
    lab = any_lab
    gone = spoil(lab)
    plan = lab.plan()
    kinds = [each.kind for each in plan.actions]
    order = [ActionKind.PUT, ActionKind.MOVE, ActionKind.REMOVE, ActionKind.RETIRE]
    assert order == list(dict.fromkeys(kinds))
    done = lab.apply(plan)
    assert (len(plan.actions), 0) == (done.done, done.done_before)
    assert lab.check().ok
    assert [lab.home] == [each for each in lab.vectors.collections() if each in lab.points()]
    assert gone == lab.quarantined()
    again = lab.apply(plan)
    assert (0, len(plan.actions)) == (again.done, again.done_before)
    assert gone == lab.quarantined()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_is_finished_by_the_next_apply(lab: Lab, *, after: bool) -> None:
    """An apply that is killed at any store call and repeated ends like an undisturbed one."""
    gone = spoil(lab)
    kept = lab.points()
    plan = lab.plan()
    watched = Failing(lab.vectors)
    lab.apply(plan, watched)
    expected = lab.memories()
    assert len(watched.calls) > 20
    for at in range(1, len(watched.calls) + 1):
        restore(lab, kept)  # type: ignore[arg-type]  # tuples of what they hold
        with pytest.raises(Crash):
            lab.apply(plan, Failing(lab.vectors, at=at, after=after, error=Crash))
        lab.apply(plan)
        assert expected == lab.memories(), watched.calls[at - 1]
        assert gone == lab.quarantined(), watched.calls[at - 1]
    assert lab.check().ok


def test_points_that_vanish_at_any_call_are_done_or_the_plan_is_stale(lab: Lab) -> None:
    """Points that a client deletes while they are moved cause no other error than a stale plan."""
    said = lab.settled()
    lab.deploy(said[0], createdAt=OLD_MS)
    lab.deploy(said[1], createdAt=OLD_MS)
    kept = lab.points()
    plan = lab.plan()
    moving = [each for each in plan.actions if each.kind is ActionKind.MOVE]
    watched = Failing(lab.vectors)
    lab.apply(plan, watched)
    for gone in (moving, moving[:1]):
        for at in range(1, len(watched.calls) + 1):
            restore(lab, kept)  # type: ignore[arg-type]  # tuples of what they hold
            store = Failing(lab.vectors)
            store.meanwhile = partial(_delete_at, store, at, gone, lab)
            with contextlib.suppress(StalePlan):
                lab.apply(plan, store)
    assert 2 == len(moving)


def _delete_at(store: Failing, at: int, gone: list[Action], lab: Lab, _call: str) -> None:
    collection = gone[0].collection
    if len(store.calls) == at and lab.vectors.describe(collection):
        lab.vectors.delete(collection, [each.point_id for each in gone if each.point_id])


def test_a_store_that_goes_away_is_said_and_finished_later(lab: Lab) -> None:
    """StoreUnreachable reaches the caller, and the same plan later finishes the rest."""
    gone = spoil(lab)
    plan = lab.plan()
    with pytest.raises(StoreUnreachable):
        lab.apply(plan, Failing(lab.vectors, at=30))
    lab.apply(plan)
    assert lab.check().ok
    assert gone == lab.quarantined()


def _change_point(lab: Lab, plan: Plan) -> None:
    last = [each for each in plan.actions if each.kind is ActionKind.REMOVE][-1]
    assert last.point_id is not None
    lab.put(last.point_id, {"content": "changed"}, last.collection)


def _change_row(lab: Lab, plan: Plan) -> None:
    last = [each for each in plan.actions if each.kind is ActionKind.PUT][-1]
    lab.sql("UPDATE conversation_history SET content = 'new' WHERE id = %(i)s", i=last.point_id)


def _delete_row(lab: Lab, plan: Plan) -> None:
    last = [each for each in plan.actions if each.kind is ActionKind.PUT][-1]
    lab.sql("DELETE FROM conversation_history WHERE id = %(i)s", i=last.point_id)


def _occupy(lab: Lab, plan: Plan) -> None:
    last = [e for e in plan.actions if e.kind is ActionKind.PUT and e.point_state is None][-1]
    assert last.point_id is not None
    lab.put(last.point_id, {"content": "somebody else's"})


@pytest.mark.parametrize("change", [_change_point, _change_row, _delete_row, _occupy])
def test_a_store_that_moved_on_is_refused_before_any_write(
    change: Callable[[Lab, Plan], None], lab: Lab
) -> None:
    """A change since the plan was made raises StalePlan, status 13, before anything is written."""
    spoil(lab)
    plan = lab.plan()
    change(lab, plan)
    before = lab.points(), lab.tables()
    with pytest.raises(StalePlan) as caught:
        lab.apply(plan)
    assert 13 == caught.value.exit_status
    assert before == (lab.points(), lab.tables())


def test_a_collection_that_filled_again_is_not_dropped(lab: Lab) -> None:
    """A deployed collection that got a point after the plan was made is not dropped."""
    spoil(lab)
    plan = lab.plan()
    late = lab.deploy(lab.said[0], collection=f"persona-{C}")
    other = lab.deploy(lab.said[1])
    with pytest.raises(StalePlan):
        lab.apply(plan)
    assert late.payload == lab.point(late.id, f"persona-{C}").payload
    assert other.payload == lab.point(other.id, f"persona-{A}").payload


@pytest.fixture
def saved(lab: Lab) -> str:
    """The text of a plan with actions."""
    spoil(lab)
    return lab.plan().to_json()


def test_a_plan_reads_back_as_it_was(lab: Lab) -> None:
    """A plan that is saved and read back is equal to the first."""
    spoil(lab)
    plan = lab.plan()
    assert plan == Plan.from_json(plan.to_json(), "x")


def test_a_truncated_plan_is_refused(saved: str) -> None:
    """A plan file that is cut short is refused, wherever it is cut."""
    for at in range(0, len(saved) - 1, 97):
        with pytest.raises(InvalidInput):
            Plan.from_json(saved[:at], "cut")


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body["actions"].pop(),
        lambda body: body["actions"].reverse(),
        lambda body: body["actions"][0].update(point_id=str(uuid4())),
        lambda body: body.update(collection="other"),
        lambda body: body.update(instance_id=str(uuid4())),
        lambda body: body.update(left={"x": 1}),
        lambda body: body.update(schema_version=2),
        lambda body: body.pop("checksum"),
        lambda body: body.update(checksum="0"),
    ],
)
def test_a_plan_edited_by_hand_is_refused(saved: str, edit: Callable[[object], object]) -> None:
    """A change anywhere in a plan file, or a missing checksum, raises InvalidInput."""
    body = json.loads(saved)
    edit(body)
    with pytest.raises(InvalidInput):
        Plan.from_json(json.dumps(body), "edited")


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "1", '"x"', "[" * 100_000, "\ufeff{}"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    """A text that is not a plan raises InvalidInput."""
    with pytest.raises(InvalidInput):
        Plan.from_json(text, "x")


@pytest.mark.parametrize(
    "other", [{"instance_id": uuid4()}, {"collection": "x"}, {"embedder": "x"}]
)
def test_a_plan_of_elsewhere_is_refused(lab: Lab, other: dict[str, object]) -> None:
    """A plan for another database, collection or embedder raises StalePlan and changes nothing."""
    spoil(lab)
    plan = replace(lab.plan(), **other)  # type: ignore[arg-type]  # by name
    before = lab.points(), lab.tables()
    with pytest.raises(StalePlan):
        lab.apply(plan)
    assert before == (lab.points(), lab.tables())


def test_two_applies_at_once(lab: Lab) -> None:
    """A second apply raises StoreBusy and changes nothing."""
    spoil(lab)
    plan = lab.plan()
    before = lab.points()
    with (
        exclusive(lab.postgres, LockKey.REPAIR, "repair"),
        pytest.raises(StoreBusy, match="another repair is running"),
    ):
        lab.apply(plan)
    assert before == lab.points()
    lab.apply(plan)
    assert lab.check().ok


def test_an_empty_plan_does_nothing(lab: Lab) -> None:
    """An apply of an empty plan succeeds and changes nothing."""
    lab.settled()
    before = lab.points()
    done = lab.apply(lab.plan())
    assert (0, 0) == (done.done, done.done_before)
    assert before == lab.points()


def test_a_plan_of_several_batches(open_lab: "partial[Lab]") -> None:
    """A plan with more actions than fit in one batch is carried out whole."""
    lab = open_lab("edge")
    said = lab.say(150)
    lab.sync()
    for each in said:
        lab.vectors.delete(lab.home, [each.anchor_id])
        lab.deploy(each)
        lab.deploy(each, createdAt=OLD_MS)
    plan = lab.plan()
    kinds = Counter(each.kind for each in plan.actions)
    assert {"put": 150, "move": 150, "remove": 150, "retire": 1} == dict(kinds)
    lab.apply(plan)
    assert lab.check().ok
    assert 300 == len(set(lab.quarantined()))


def test_an_archived_memory_keeps_its_text_and_more(lab: Lab) -> None:
    """A moved memory keeps text, time, persona and the keys that memsync does not know."""
    said = lab.settled()
    old = lab.deploy(said[0], createdAt=OLD_MS)
    lab.apply(lab.plan())
    moved = lab.point(old.id).payload
    assert old.payload["content"] == moved["content"]
    assert (OLD_MS, str(A), str(ADA)) == (
        moved["created_at"],
        moved["persona_id"],
        moved["personality_id"],
    )
    assert (["1"], "Ada") == (moved["senders"], moved["personalityName"])
    best = lab.memory.recall(str(old.payload["content"]), persona_id=A, limit=1)
    assert [old.id] == [each.id for each in best]
    assert () == lab.plan().actions


def test_two_archived_memories_with_one_id_both_stay(lab: Lab) -> None:
    """Archived memories with one id in two collections both stay, or the plan is refused."""
    said = lab.settled()
    point_id = lab.new_id()
    for persona in (A, C):
        text = f"User (x): of {persona}\nAda: y"
        changes = {"createdAt": OLD_MS, "personaId": str(persona), "content": text}
        lab.deploy(said[0], collection=f"persona-{persona}", point_id=point_id, **changes)
    try:
        lab.apply(lab.plan())
    except StalePlan:
        return
    recalled = [lab.memory.recall("x", persona_id=each, limit=50) for each in (A, C)]
    assert [5, 5] == [len(each) for each in recalled]


def test_a_mismatch_beside_a_memory_of_another_embedder(lab: Lab) -> None:
    """A memory of another embedder, which the audit accepts, does not make the plan stale."""
    said = lab.settled()
    lab.respell(said[0].anchor_id, embedder="older/8")
    assert lab.audit().ok
    lab.deploy(said[0], collection=f"persona-{C}", personaId=str(C))
    lab.apply(lab.plan())
    assert lab.check().ok


def test_an_archived_memory_without_words_does_not_stop_the_rest(lab: Lab) -> None:
    """An archived memory that cannot be embedded does not stop the rest of the plan."""

    def picky(texts: object) -> list[list[float]]:
        return [[0.0] * DIMS if not each else embed([each])[0] for each in texts]  # type: ignore[attr-defined]  # strings

    said = lab.settled()
    lab.ltm = LongTermMemory(lab.vectors, lab.settings, Embedder("test", picky))
    lab.deploy(said[0], createdAt=OLD_MS, content="")
    lab.deploy(said[1], createdAt=OLD_MS)
    try:
        lab.apply(lab.plan())
    except InvalidInput as error:
        pytest.fail(error.message)


def test_planning_takes_time_in_proportion(lab: Lab) -> None:
    """Planning compares each finding at most once, so its time is proportional to their number."""
    said = lab.settled()
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    audit = lab.audit()
    looks = 0

    class Counting(Finding):
        __hash__ = None  # type: ignore[assignment]  # as the dataclass has it

        def __eq__(self, other: object) -> bool:
            nonlocal looks
            looks += 1
            return self is other

    found = audit.findings[0]
    values = {name: getattr(found, name) for name in Finding.__dataclass_fields__}
    many = [Counting(**values) for _ in range(100)]
    lab.plan(replace(audit, findings=tuple(many)))
    assert looks <= 100


def test_a_plan_of_an_incomplete_audit(lab: Lab) -> None:
    """An incomplete audit gives no plan, as a plan could drop a collection that was not read."""
    said = lab.settled()
    lab.deploy(said[0])
    found = lab.audit(Failing(lab.vectors, at=2))
    assert not found.complete
    with pytest.raises(IncompleteAudit):
        lab.plan(found)
