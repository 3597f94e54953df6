"""Tests of making a plan from findings, and of the files in which plans are saved."""

import json
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from memsync.errors import IncompleteAudit, InvalidInput
from memsync.model.digests import json_digest
from memsync.model.records import Place
from memsync.reconcile.findings import Grade, Repair, Severity
from memsync.reconcile.plans import Action, ActionKind, Plan, Target
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout
from support.lab import A, C, Lab
from support.repairs import Faults, audit_of, settled, spoiled

LAYOUTS = ("shared", "per-persona")


@pytest.fixture(params=LAYOUTS)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each layout."""
    return open_lab(layout=request.param)


def shape(plan: Plan) -> list[tuple[ActionKind, Place, Place | None]]:
    """What the plan does, without its states."""
    return [(each.kind, each.place, each.replaced_by) for each in plan.actions]


# ---------------------------------------------------------------------- from findings to actions


def test_what_replaces_a_point_comes_before_its_removal(lab: Lab) -> None:
    """Copies, puts and patches come first; each point has one action."""
    plan = spoiled(lab).plan()
    kinds = [each.kind for each in plan.actions]
    assert kinds == sorted(kinds, key=list(ActionKind).index)
    places = [each.place for each in plan.actions]
    assert len(places) == len(set(places))
    assert {} == plan.left
    for at, action in enumerate(plan.actions):
        if action.replaced_by in places:
            assert places.index(action.replaced_by) < at


def test_a_plan_does_not_depend_on_the_order_of_findings(lab: Lab) -> None:
    """The same findings give the same actions."""
    faults = spoiled(lab)
    expected = faults.plan().actions
    for seed in range(10):
        random.Random(seed).shuffle(faults.found)
        assert expected == faults.plan().actions


def test_what_is_not_repaired_is_counted(lab: Lab) -> None:
    """Findings that the plan leaves are counted by name; those of severity info are not."""
    faults = spoiled(lab)
    faults.add(Repair.NONE, "left-alone", grade=Grade.REPORT_ONLY)
    faults.add(Repair.NONE, "left-alone")
    faults.add(Repair.NONE, "by-the-way", severity=Severity.INFO)
    faults.add(Repair.MAKE, "without-a-row")
    left = {"left-alone": 2, "without-a-row": 1}
    assert left | {"orphan-point": 1} == faults.plan(unsafe=False).left
    assert left == faults.plan().left


def test_info_never_enters_a_plan(lab: Lab) -> None:
    """Not even where its finding says how it could be repaired."""
    [said, *_] = settled(lab)
    faults = Faults(lab)
    place = Place(lab.ltm.home_of(said.persona_id), said.anchor_id)
    faults.add(Repair.MAKE, row=said, place=place, target=place, severity=Severity.INFO)
    assert ((), {}) == (faults.plan().actions, faults.plan().left)


def test_a_plan_for_one_persona(lab: Lab) -> None:
    """It has that persona's findings alone, and counts no other's."""
    faults = spoiled(lab)
    faults.add(Repair.NONE, "left-alone", persona=C)
    everyones = faults.plan()
    of_a, of_c = faults.plan(persona=A), faults.plan(persona=C)
    assert ({}, {"left-alone": 1}) == (of_a.left, of_c.left)
    for persona, plan in ((A, of_a), (C, of_c)):
        expected = [each for each in everyones.actions if each.persona_id == persona]
        assert expected == list(plan.actions)
    assert of_a.actions


def test_the_embedder_is_named_only_where_a_vector_is_made(open_lab: partial[Lab]) -> None:
    """A plan without a memory to make needs no embedder."""
    lab = open_lab(layout="per-persona")
    faults = spoiled(lab)
    assert "test/8" == faults.plan().target.embedder
    faults.found = [each for each in faults.found if each.repair is not Repair.MAKE]
    lab.ltm = LongTermMemory(
        lab.vectors,
        lab.settings.model_copy(update={"embedder": "no.such:embedder"}),
        layout=lab.ltm.layout,
    )
    plan = faults.plan()
    assert plan.target.embedder is None
    assert len(plan.actions) > 3
    lab.apply(plan)
    lab.undo(plan)


def test_an_incomplete_audit_gives_no_plan(lab: Lab) -> None:
    """What was not read could be the exchange of a point that would be removed."""
    with pytest.raises(IncompleteAudit, match="persona-x"):
        lab.plan(audit_of([], "persona-x: no answer"))


@pytest.fixture
def faults(lab: Lab) -> Faults:
    """An app without a fault, and five points more in one collection."""
    said = settled(lab)
    faults = Faults(lab)
    for point_id in range(1, 6):
        lab.deploy(said[0], point_id=point_id)
    return faults


def at(point_id: int) -> Place:
    return Place(f"persona-{A}", point_id)


def test_making_a_memory_dominates_patching_it(faults: Faults) -> None:
    """Several findings on one point are one action, the strongest."""
    row = faults.lab.said[0]
    for order in (0, 1):
        faults.found.clear()
        repairs = [Repair.PATCH, Repair.MAKE, Repair.PATCH]
        for repair in repairs[order:] + repairs[:order]:
            target = at(1) if repair is Repair.MAKE else None
            faults.add(repair, row=row, place=at(1), target=target)
        assert [(ActionKind.PUT, at(1), None)] == shape(faults.plan())
        assert {} == faults.plan().left


def test_removing_a_point_dominates_patching_it(faults: Faults) -> None:
    """A point that goes is not mended before, unless it stays for want of --unsafe."""
    faults.add(Repair.PATCH, place=at(1))
    faults.add(Repair.REMOVE, place=at(1), grade=Grade.UNSAFE)
    assert [(ActionKind.REMOVE, at(1), None)] == shape(faults.plan())
    assert [(ActionKind.PATCH, at(1), None)] == shape(faults.plan(unsafe=False))


def test_a_point_that_is_written_is_not_removed(faults: Faults) -> None:
    """Where a memory takes the place of a point that should go, one action does both."""
    row = faults.lab.said[0]
    faults.add(Repair.REMOVE, place=at(1))
    faults.add(Repair.MAKE, row=row, place=at(2), target=at(1))
    expected = [(ActionKind.PUT, at(1), None), (ActionKind.REMOVE, at(2), at(1))]
    assert expected == shape(faults.plan())


def test_a_removal_rests_on_what_stays(faults: Faults) -> None:
    """Where what replaces a point goes as well, the point is replaced by what replaces that."""
    row = faults.lab.said[0]
    faults.add(Repair.REMOVE, place=at(1), target=at(2))
    faults.add(Repair.REMOVE, place=at(2), target=at(3))
    faults.add(Repair.MAKE, row=row, place=at(3), target=at(4))
    plan = faults.plan()
    assert [
        (ActionKind.PUT, at(4), None),
        *((ActionKind.REMOVE, at(each), at(4)) for each in (1, 2, 3)),
    ] == shape(plan)
    assert [None] * 3 == [each.replaced_state for each in plan.actions[1:]]


def test_points_that_replace_one_another_stay(faults: Faults) -> None:
    """A plan never removes all of a memory's points, whatever the findings say."""
    faults.add(Repair.REMOVE, "a", place=at(1), target=at(2))
    faults.add(Repair.REMOVE, "b", place=at(2), target=at(1))
    faults.add(Repair.REMOVE, "c", place=at(3), target=at(1))
    faults.add(Repair.REMOVE, "d", place=at(4), target=at(99))
    assert () == faults.plan().actions
    assert dict.fromkeys("abcd", 1) == faults.plan().left


def test_an_orphan_belongs_where_it_is(faults: Faults) -> None:
    """A point whose own place is where it would belong has nothing that replaces it."""
    faults.add(Repair.REMOVE, place=at(5), target=at(5), grade=Grade.UNSAFE)
    plan = faults.plan()
    assert [(ActionKind.REMOVE, at(5), None)] == shape(plan)
    assert plan.actions[0].is_only_copy
    assert plan.actions[0].replaced_state is None


def test_a_memory_that_a_copy_brings_is_not_made_beside(faults: Faults) -> None:
    """Of an exchange whose memory another persona has, one memory is left, and not two."""
    row = faults.lab.said[0]
    theirs = Place(f"persona-{C}", faults.lab.deploy(row, collection=f"persona-{C}").id)
    target = Place(at(1).collection, theirs.point_id)
    new = Place(at(1).collection, row.anchor_id)
    faults.lab.vectors.delete(new.collection, [new.point_id])
    faults.add(Repair.MAKE, "missing-point", row=row, target=new)
    faults.add(
        Repair.MOVE, "persona-mismatch", row=row, place=theirs, target=target, grade=Grade.UNSAFE
    )
    faults.add(Repair.REMOVE, "duplicate-point", row=row, place=at(1), target=new)
    plan = faults.plan()
    assert [
        (ActionKind.COPY, target, None),
        (ActionKind.REMOVE, at(1), target),
        (ActionKind.REMOVE, theirs, target),
    ] == shape(plan)
    assert {} == plan.left
    assert ActionKind.PUT in {each.kind for each in faults.plan(unsafe=False).actions}


def test_no_point_is_removed_for_the_sake_of_one_that_nothing_replaces(faults: Faults) -> None:
    """The duplicate of an orphan stays, since the orphan goes."""
    faults.add(Repair.REMOVE, "orphan-point", place=at(1))
    faults.add(Repair.REMOVE, "duplicate-point", place=at(2), target=at(1))
    plan = faults.plan()
    assert [(ActionKind.REMOVE, at(1), None)] == shape(plan)
    assert {"duplicate-point": 1} == plan.left


def test_a_point_with_two_reasons_to_go_rests_on_a_memory(faults: Faults) -> None:
    """That something replaces it is the stronger ground, whichever comes first."""
    for _ in range(2):
        faults.found.reverse()
        faults.add(Repair.REMOVE, place=at(1))
        faults.add(Repair.REMOVE, place=at(1), target=at(2))
        assert [(ActionKind.REMOVE, at(1), at(2))] == shape(faults.plan())


def test_a_copy_whose_id_is_taken_gets_another(faults: Faults) -> None:
    """Of copies with one id each gets its own, the same in every plan."""
    home, other = at(1).collection, "personality-x"
    lab = faults.lab
    lab.deploy(lab.said[0], point_id=1, collection=other)
    lab.deploy(lab.said[0], point_id=8, collection=other)
    lab.deploy(lab.said[0], point_id=8, collection=f"persona-{C}")
    faults.add(Repair.MOVE, place=Place(other, 1), target=at(1))
    faults.add(Repair.MOVE, place=Place(other, 8), target=at(8))
    faults.add(Repair.COPY, place=Place(f"persona-{C}", 8), target=at(8))
    plan = faults.plan()
    copies = [each for each in plan.actions if each.kind is ActionKind.COPY]
    assert {home} == {each.place.collection for each in copies}
    assert 3 == len({each.place for each in copies})
    by_source = {each.source: each.place.point_id for each in copies}
    assert 8 == by_source[Place(f"persona-{C}", 8)]
    assert UUID("508158fe-fe26-573b-b94d-3757298c7360") == by_source[Place(other, 1)]
    removals = {each.place: each.replaced_by for each in plan.actions if each not in copies}
    assert removals == {
        place: Place(home, by_source[place]) for place in (Place(other, 1), Place(other, 8))
    }
    again = {each.source: each.place.point_id for each in faults.plan().actions if each.source}
    assert by_source == again


def test_two_exchanges_that_want_one_place(faults: Faults) -> None:
    """One of them gets it; the other one is left for the next audit."""
    first, second = faults.lab.said[:2]
    faults.add(Repair.MAKE, "a", row=first, place=at(1), target=at(1))
    faults.add(Repair.MAKE, "b", row=second, place=at(2), target=at(1))
    plan = faults.plan()
    assert [(ActionKind.PUT, at(1), None)] == shape(plan)
    assert first.anchor_id == plan.actions[0].anchor_id
    assert {"b": 1} == plan.left


# ---------------------------------------------------------------------- files


DIGEST = "0123456789abcdef" * 4
ROW = {"anchor_id": uuid4(), "row_digest": DIGEST}
KEPT = at(1)
PLAN = Plan(
    plan_id=uuid4(),
    target=Target(uuid4(), "Qdrant in memory", Layout.SHARED, "memories", "snake", "test/8"),
    actions=(
        Action(ActionKind.COPY, KEPT, "x", source=at(2), source_state=DIGEST, persona_id=A),
        Action(ActionKind.PUT, Place("memories", uuid4()), "x", **ROW),  # type: ignore[arg-type]  # by name
        Action(ActionKind.PUT, at(2**64 - 1), "x", DIGEST, **ROW),  # type: ignore[arg-type]  # by name
        Action(ActionKind.PATCH, at(0), "x", DIGEST, **ROW),  # type: ignore[arg-type]  # by name
        Action(ActionKind.PATCH, at(3), "x", DIGEST),
        Action(ActionKind.REMOVE, at(2), "x", DIGEST, replaced_by=KEPT),
        Action(ActionKind.REMOVE, at(4), "x", DIGEST, replaced_by=at(5), replaced_state=DIGEST),
        Action(ActionKind.REMOVE, at(6), "x", DIGEST),
    ),
    left={"x": 1},
)


@pytest.fixture
def saved() -> str:
    """The text of a plan with actions of every kind."""
    return PLAN.to_json()


def test_a_plan_reads_back_as_it_was(lab: Lab) -> None:
    """A plan that is saved and read back is equal to the first."""
    for plan in (PLAN, spoiled(lab).plan()):
        assert plan == Plan.from_json(plan.to_json(), "x")
        assert {each.kind for each in plan.actions} == set(ActionKind)


def test_reading_a_plan_holds_its_actions_alone() -> None:
    """The objects of the file would take more than twice as much beside them."""
    [one, *_] = [each for each in PLAN.actions if each.kind is ActionKind.PATCH]
    many = tuple(replace(one, place=Place("c", UUID(int=each))) for each in range(1000))
    text = replace(PLAN, actions=many).to_json()
    tracemalloc.start()
    read = Plan.from_json(text, "plan.json")
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert many == read.actions
    assert most < 1.5 * kept


def test_a_plan_holds_nobodys_words(lab: Lab) -> None:
    """Neither texts nor names of people are in the file."""
    text = spoiled(lab).plan().to_json()
    for word in ("question", "answer", "Al", "of old", "persona a", "user 1"):
        assert word not in text


def test_a_truncated_plan_is_refused(saved: str) -> None:
    """A plan file that is cut short is refused, wherever it is cut."""
    for length in range(0, len(saved) - 1, 97):
        with pytest.raises(InvalidInput):
            Plan.from_json(saved[:length], "cut")


EDITS: list[Callable[[dict[str, Any]], object]] = [
    lambda body: body["actions"].pop(),
    lambda body: body["actions"].reverse(),
    lambda body: body["actions"][0].update(point_id=str(uuid4())),
    lambda body: body["target"].update(collection="other"),
    lambda body: body["target"].update(instance_id=str(uuid4())),
    lambda body: body.update(left={"x": 2}),
    lambda body: body.pop("checksum"),
    lambda body: body.update(checksum="0"),
    lambda body: body.update(checksum=None),
]


@pytest.mark.parametrize("edit", EDITS)
def test_a_plan_edited_by_hand_is_refused(saved: str, edit: Callable[[object], object]) -> None:
    """A change anywhere in a plan file, or a missing checksum, raises InvalidInput."""
    body = json.loads(saved)
    edit(body)
    with pytest.raises(InvalidInput):
        Plan.from_json(json.dumps(body), "edited")


@pytest.mark.parametrize("version", [1, 3, 0, "2", 2.5, True, None, 10**30, -1])
def test_a_plan_of_another_version_is_refused(saved: str, version: object) -> None:
    """The message says which version this is, and what to do."""
    body = json.loads(saved) | {"schema_version": version}
    with pytest.raises(InvalidInput, match="this memsync reads 2"):
        Plan.from_json(json.dumps(body), "other")


def first(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """The first action of a kind."""
    found: dict[str, Any] = next(each for each in body["actions"] if each["kind"] == kind)
    return found


HOSTILE: list[Callable[[dict[str, Any]], object]] = [
    lambda body: body.update(actions={}),
    lambda body: body.update(actions=[[]]),
    lambda body: body.update(actions=None),
    lambda body: body["actions"].append(body["actions"][0]),
    lambda body: body["actions"][0].update(kind="retire"),
    lambda body: body["actions"][0].update(kind=["put"]),
    lambda body: body["actions"][0].update(point_id=-1),
    lambda body: body["actions"][0].update(point_id=2**64),
    lambda body: body["actions"][0].update(point_id=10**4000),
    lambda body: body["actions"][0].update(point_id=True),
    lambda body: body["actions"][0].update(point_id=1.0),
    lambda body: body["actions"][0].update(point_id="x"),
    lambda body: body["actions"][0].update(point_id=uuid4().hex),
    lambda body: body["actions"][0].update(collection=""),
    lambda body: body["actions"][0].update(collection="x" * 5000),
    lambda body: body["actions"][0].update(collection=7),
    lambda body: body["actions"][0].update(reason="what people said"),
    lambda body: body["actions"][0].update(reason="\x1b[31m"),
    lambda body: body["actions"][0].update(persona_id="x"),
    lambda body: body["actions"][0].pop("collection"),
    lambda body: first(body, "put").pop("anchor_id"),
    lambda body: first(body, "put").pop("row_digest"),
    lambda body: first(body, "put").update(row_digest="x"),
    lambda body: first(body, "put").update(source=first(body, "copy")["source"]),
    lambda body: first(body, "patch").pop("state"),
    lambda body: first(body, "patch").pop("row_digest"),
    lambda body: first(body, "copy").pop("source"),
    lambda body: first(body, "copy")["source"].pop("state"),
    lambda body: first(body, "copy").update(source="persona-x/7"),
    lambda body: first(body, "copy").update(state="0" * 64),
    lambda body: first(body, "remove").pop("state"),
    lambda body: first(body, "remove").update(state="0" * 63),
    lambda body: first(body, "remove").update(
        replaced_by={name: first(body, "remove")[name] for name in ("collection", "point_id")}
    ),
    lambda body: first(body, "remove").update(replaced_by={"collection": "x", "point_id": 1}),
    lambda body: body["actions"][-1].update(
        replaced_by={
            name: body["actions"][-2][name] for name in ("collection", "point_id", "state")
        }
    ),
    lambda body: body["target"].update(layout="other"),
    lambda body: body["target"].update(vectors=None),
    lambda body: body["target"].update(embedder=8),
    lambda body: body.update(target=[]),
    lambda body: body.pop("target"),
    lambda body: body.update(left=[]),
    lambda body: body.update(left={"x": -1}),
    lambda body: body.update(left={"x": 1.5}),
    lambda body: body.update(left={"x": 10**400}),
    lambda body: body.update(left={"what people said": 1}),
    lambda body: body.update(plan_id=7),
]


def test_a_file_without_a_key_is_told_in_words() -> None:
    """An object that is no plan is refused by what it lacks, and not by an exception's name."""
    with pytest.raises(InvalidInput, match="it has no schema_version"):
        Plan.from_json("{}", "some.json")


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_plan_is_refused(saved: str, number: int) -> None:
    """A file whose checksum was computed anew is judged by its values, each by its type."""
    body = json.loads(saved)
    HOSTILE[number](body)
    body.pop("checksum")
    text = json.dumps({**body, "checksum": json_digest(body)})
    with pytest.raises(InvalidInput, match="hostile is no plan"):
        Plan.from_json(text, "hostile")


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "{}", "1", '"x"', "[" * 100_000, "\ufeff{}", "9" * 5000, "Infinity"),
        '{"schema_version": 2}',
        '{"schema_version": 2, "checksum": "\\ud800"}',
        '{"schema_version": 2, "x": "\\ud800", "checksum": ""}',
    ],
    ids=range(13),
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    """A text that is not a plan raises InvalidInput."""
    with pytest.raises(InvalidInput):
        Plan.from_json(text, "x")


def test_planning_takes_time_in_proportion(lab: Lab) -> None:
    """A long chain of points that replace one another is resolved, and takes no stack."""
    said = settled(lab)
    faults = Faults(lab)
    place = at(1)
    lab.deploy(said[0], point_id=1)
    found = faults.add(Repair.REMOVE, place=place, target=at(2))
    many = [
        replace(
            found,
            key=str(number),
            witness=replace(
                found.witness,
                place=at(number),
                state="0" * 64,
                target=at(number + 1),
                target_state="0" * 64,
            ),
        )
        for number in range(1, 1001)
    ]
    plan = lab.plan(audit_of(many))
    assert {at(1001)} == {each.replaced_by for each in plan.actions}
    assert 1000 == len(plan.actions)
    assert isinstance(plan.actions[0], Action)
