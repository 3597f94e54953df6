"""Tests of what an apply does not do: what it refuses, what it sets aside, and what it tells."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from memsync import reconcile
from memsync.errors import (
    GateClosed,
    InvalidInput,
    PartlyDone,
    StalePlan,
)
from memsync.model.records import Place, Point
from memsync.reconcile.findings import Grade, Repair
from memsync.reconcile.plans import ActionKind, Plan
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.marks import META
from support.lab import DIMS, A, C, Lab
from support.raw_vectors import write_raw
from support.repairs import (
    OLD_MS,
    Faults,
    aside,
    missing,
    one,
    settled,
    spoiled,
)

LAYOUTS = ("shared", "per-persona")
Open = partial[Lab]
Change = Callable[[Lab, Plan], Place]


@pytest.fixture(params=LAYOUTS)
def lab(request: pytest.FixtureRequest, open_lab: Open) -> Lab:
    """A lab on the store in memory, in each layout."""
    return open_lab(layout=request.param)


# ---------------------------------------------------------------------- what has changed since


def _change_point(kind: ActionKind) -> Change:
    def change(lab: Lab, plan: Plan) -> Place:
        place = one(plan, kind, lambda each: each.state).place
        lab.put(place.point_id, {"content": "changed"}, place.collection)
        return place

    return change


def _change_row(lab: Lab, plan: Plan) -> Place:
    action = one(plan, ActionKind.PUT)
    lab.sql("UPDATE conversation_history SET content = 'new' WHERE id = %(i)s", i=action.anchor_id)
    return action.place


def _delete_row(lab: Lab, plan: Plan) -> Place:
    action = one(plan, ActionKind.PATCH)
    lab.sql("DELETE FROM conversation_history WHERE id = %(i)s", i=action.anchor_id)
    return action.place


def _delete_point(lab: Lab, plan: Plan) -> Place:
    place = one(plan, ActionKind.PATCH).place
    lab.vectors.delete(place.collection, [place.point_id])
    return place


def _delete_what_is_replaced(lab: Lab, plan: Plan) -> Place:
    place = one(plan, ActionKind.PUT, lambda each: each.state).place
    lab.vectors.delete(place.collection, [place.point_id])
    return place


def _occupy(lab: Lab, plan: Plan) -> Place:
    place = one(
        plan, ActionKind.PUT, lambda each: not each.state and lab.ltm.stands(each.place.collection)
    ).place
    lab.put(place.point_id, {"content": "theirs"}, place.collection)
    return place


def _change_source(lab: Lab, plan: Plan) -> Place:
    action = one(plan, ActionKind.COPY)
    assert action.source is not None
    lab.put(action.source.point_id, {"content": "changed"}, action.source.collection)
    return action.place


def _occupy_copy(lab: Lab, plan: Plan) -> Place:
    place = one(plan, ActionKind.COPY).place
    lab.put(place.point_id, {"content": "theirs"}, place.collection)
    return place


CHANGES: dict[str, Change] = {
    **{f"a point to {kind}": _change_point(kind) for kind in ActionKind if kind != "copy"},
    "a row": _change_row,
    "a row is gone": _delete_row,
    "a point is gone": _delete_point,
    "a point to replace is gone": _delete_what_is_replaced,
    "a place is taken": _occupy,
    "a source": _change_source,
    "the place of a copy is taken": _occupy_copy,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_since_is_set_aside_and_the_rest_goes_on(lab: Lab, name: str) -> None:
    """Status 3 with each action's reason; the point stays as its last writer left it."""
    plan = spoiled(lab).plan()
    place = CHANGES[name](lab, plan)
    left = lab.ltm.points(place.collection, [place.point_id])
    with pytest.raises(PartlyDone, match="plan again") as caught:
        lab.apply(plan)
    told = aside(caught)
    resting = {
        each.place
        for each in plan.actions
        if each.replaced_by == place or (each.source and each.source == place)
    }
    assert {place, *resting} >= set(told)
    assert place in told
    assert "plan again" in told[place]
    assert len(plan.actions) - len(told) == caught.value.fields["done"]
    assert left == lab.ltm.points(place.collection, [place.point_id])
    for each in resting & told.keys():
        assert lab.ltm.points(each.collection, [each.point_id]), "it goes without what replaces it"
    before = lab.points()
    with pytest.raises(PartlyDone):
        lab.apply(plan)
    assert before == lab.points()


def test_what_replaces_a_point_must_stand(lab: Lab) -> None:
    """A duplicate stays where the memory that is kept has gone or changed."""
    said = settled(lab)
    home = lab.ltm.home_of(A)
    kept = Place(home, said[0].anchor_id)
    for change in (
        lambda: lab.vectors.delete(home, [kept.point_id]),
        lambda: lab.put(kept.point_id, {"content": "changed"}, home),
    ):
        faults = Faults(lab)
        double = Place(home, lab.deploy(said[0], collection=home).id)
        faults.add(Repair.REMOVE, row=said[0], place=double, target=kept)
        plan = faults.plan()
        change()
        with pytest.raises(PartlyDone, match="the memory that replaces it") as caught:
            lab.apply(plan)
        assert {double} == aside(caught).keys()
        assert lab.ltm.points(home, [double.point_id])
        lab.put(kept.point_id, lab.point(said[1].anchor_id, home).payload, home)


@pytest.mark.parametrize("is_edited", [False, True])
def test_what_replaces_a_point_must_be_right(lab: Lab, *, is_edited: bool) -> None:
    """A duplicate stays where the exchange is another by now, or none: it may be the right one."""
    [said, *_] = settled(lab)
    place = lab.place(said)
    double = lab.put(lab.new_id(), lab.point(*place[::-1]).payload, place.collection)
    plan = lab.plan()
    [action] = plan.actions
    assert ActionKind.REMOVE is action.kind
    if is_edited:
        lab.sql("UPDATE conversation_history SET content = 'x' WHERE id = %(i)s", i=said.anchor_id)
    else:
        lab.unsay(said)
    with pytest.raises(PartlyDone, match=f"the exchange {said.anchor_id} is .*plan again"):
        lab.apply(plan)
    both = lab.vectors.retrieve(place.collection, [place.point_id, double.id])
    assert 2 == len(both)


def test_a_point_of_which_no_copy_can_be_kept(lab: Lab) -> None:
    """Postgres has no JSON for its payload. It stays, and stops no other one."""
    first = settled(lab)[0]
    place = lab.place(first)
    memory = lab.point(place.point_id, place.collection)
    ids = [UUID(int=2**128 - each) for each in (1, 2)]
    others = [lab.put(each, memory.payload, place.collection) for each in ids]
    odd = replace(others[0], payload={**memory.payload, "score": math.nan})
    write_raw(lab.vectors, place.collection, odd, list(memory.vector or ()))
    with pytest.raises(PartlyDone, match=r"1 action carried out, 1 set aside.* NaN or infinity"):
        lab.apply(lab.plan())
    assert 1 == len(lab.quarantined())
    assert math.isnan(lab.point(ids[0], place.collection).payload["score"])  # type: ignore[arg-type]
    assert {"duplicate-point": 1} == lab.audit().counts


def test_an_orphan_whose_row_has_come_back_stays(open_lab: Open) -> None:
    """What would be removed for want of an exchange is looked for once more, by all that ties it
    to one: its id, a message that it names, its time, its words.
    """
    lab = open_lab(layout="per-persona")
    said, faults = lab.say(6), Faults(lab)
    points = [
        lab.deploy(said[0], point_id=said[0].anchor_id, content="other words"),
        lab.deploy(said[1], messageIds=[str(said[1].anchor_id)], createdAt=OLD_MS),
        lab.deploy(said[2], messageIds=[str(said[2].said_id)], createdAt=OLD_MS),
        lab.deploy(said[3], createdAt=said[3].created_at_ms + 5000),
        lab.deploy(said[4], createdAt=None),
        lab.deploy(said[5], createdAt=OLD_MS),
    ]
    places = [Place(lab.ltm.home_of(A), each.id) for each in points]
    for place in places:
        faults.add(Repair.REMOVE, "orphan-point", place=place, grade=Grade.UNSAFE)
    with pytest.raises(PartlyDone, match="is in Postgres") as caught:
        lab.apply(faults.plan())
    assert set(places[:5]) == aside(caught).keys()
    assert {each.id for each in points[:5]} == {
        id_ for id_, *_ in lab.points()[places[0].collection]
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_removal_was_found_for_must_still_be_so(
    open_lab: Open, own_database: str, layout: str
) -> None:
    """The removal of an only copy rests on what its rule saw in Postgres. A persona, a reply and an
    entry of the ledger that were restored since set it aside.
    """
    lab = open_lab(url=own_database, layout=layout)
    said = lab.settled(5)
    reconcile.adopt(lab.postgres, lab.ltm, lab.settings)
    lab.sql("DELETE FROM memsync.memories WHERE created_at_ms <> %(at)s", at=said[3].created_at_ms)
    tables = ("personas", "conversation_history", "memsync.memories")
    lost = (f"id = '{C}'", f"id = '{said[1].anchor_id}'", "true")
    for number, (table, which) in enumerate(zip(tables, lost, strict=True)):
        lab.sql(f"CREATE TABLE kept{number} AS SELECT * FROM {table} WHERE {which}")  # noqa: S608  ours
    lab.unsay(said[1], said[3])
    lab.sql(f"DELETE FROM personas WHERE {lost[0]}")  # noqa: S608  ours
    lab.sql("TRUNCATE memsync.memories")
    plan, before = lab.plan(), lab.points()
    assert {(ActionKind.REMOVE, True)} == {(each.kind, each.is_only_copy) for each in plan.actions}
    assert 5 + 2 == len(plan.actions)
    for number, table in enumerate(tables):
        lab.sql(f"INSERT INTO {table} SELECT * FROM kept{number}")  # noqa: S608  ours
    with pytest.raises(PartlyDone) as caught:
        lab.apply(plan)
    told = {place: why.split()[0] for place, why in aside(caught).items()}
    assert {each.place: each.reason for each in plan.actions} == told
    assert before == lab.points()


def test_a_memory_that_the_app_has_written_meanwhile(open_lab: Open) -> None:
    """In the app's collections its own memory stays, whatever id it has, and none is added."""
    lab = open_lab(layout="per-persona")
    said = settled(lab, 4)
    home = lab.ltm.home_of(A)
    faults = Faults(lab)
    for each in said[:3]:
        lab.vectors.delete(home, [each.anchor_id])
        faults.add(Repair.MAKE, row=each, target=Place(home, each.anchor_id))
    plan = faults.plan()
    lab.deploy(said[0], createdAt=said[0].created_at_ms + 5000)
    lab.deploy(
        said[1],
        content="enriched",
        createdAt=OLD_MS,
        messageIds=[str(said[1].said_id), str(said[1].anchor_id)],
    )
    lab.deploy(said[2], createdAt=said[2].created_at_ms + 50_000)
    with pytest.raises(PartlyDone, match="the app has written this memory meanwhile") as caught:
        lab.apply(plan)
    assert {Place(home, each.anchor_id) for each in said[:2]} == aside(caught).keys()
    assert lab.ltm.points(home, [said[2].anchor_id])


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "other",
    [
        {"instance_id": UUID(int=7)},
        {"vectors": "another store"},
        {"layout": None},
        {"collection": "x"},
        {"payload_style": "kebab"},
        {"embedder": "x"},
    ],
    ids=str,
)
def test_a_plan_of_elsewhere_is_refused(lab: Lab, other: dict[str, Any]) -> None:
    """A plan for other stores raises StalePlan, status 13, and nothing is written."""
    plan = spoiled(lab).plan()
    lab.sql("DELETE FROM memsync.layout")
    # A store that has the mark is the same one under another URL.
    lab.vectors.drop(META)
    if "layout" in other:
        other = {"layout": next(each for each in Layout if each is not lab.ltm.layout)}
    before = lab.points(), lab.tables()
    with pytest.raises(StalePlan) as caught:
        lab.apply(replace(plan, target=replace(plan.target, **other)))
    assert 13 == caught.value.exit_status
    assert str(next(iter(other.values()))) in caught.value.message
    assert before == (lab.points(), lab.tables())
    assert [] == lab.sql("SELECT 1 FROM memsync.layout")


def test_a_plan_changes_collections_of_memories_only(lab: Lab) -> None:
    """A file that names another program's collection is refused, whoever computed its checksum."""
    faults = spoiled(lab)
    lab.put(1, {"content": "theirs"}, "of_another_program")
    faults.add(Repair.REMOVE, place=Place("of_another_program", 1))
    before = lab.points()
    with pytest.raises(InvalidInput, match="of_another_program"):
        lab.apply(faults.plan())
    assert before == lab.points()


def doubled(lab: Lab, number: int, *personas: UUID, of: int) -> Plan:
    """A plan that removes so many duplicates from each collection of so many points."""
    faults = Faults(lab)
    for persona in personas or (A,):
        home = lab.ltm.home_of(persona)
        [kept] = lab.say(persona=persona)
        lab.sync()
        vector = (1.0, *[0.0] * (DIMS - 1))
        others = [Point(at, {"content": str(at)}, vector) for at in range(of - 1)]
        lab.vectors.upsert(home, others)
        for each in others[:number]:
            place, target = Place(home, each.id), Place(home, kept.anchor_id)
            faults.add(Repair.REMOVE, row=kept, place=place, target=target)
    return faults.plan()


@pytest.mark.parametrize(
    ("number", "of", "closed"), [(19, 25, False), (20, 400, False), (20, 399, True), (25, 40, True)]
)
def test_many_removals_are_asked_for(lab: Lab, number: int, of: int, *, closed: bool) -> None:
    """More than 5 % of a collection's points, and at least 20, go only with --remove-many."""
    plan = doubled(lab, number, of=of)
    home = lab.ltm.home_of(A)
    before = lab.points(), lab.tables()
    if closed:
        for limit in (None, 1):
            with pytest.raises(
                GateClosed, match=rf"{number} of {of} points of {home}.*--remove-many"
            ) as caught:
                lab.apply(plan, remove_many=False, limit=limit)
            assert 14 == caught.value.exit_status
            assert before == (lab.points(), lab.tables())
    assert number == lab.apply(plan, remove_many=closed).done
    assert of - number == lab.vectors.count(home)
    # What is done already is no reason to stop.
    assert number == lab.apply(plan, remove_many=False).done_before


@pytest.mark.parametrize(
    ("number", "of", "closed"), [(12, 13, True), (9, 10, False), (12, 300, False)]
)
def test_many_removals_of_many_collections_are_asked_for(
    open_lab: Open, number: int, of: int, *, closed: bool
) -> None:
    """The brake looks at all collections together, too: an app has many small ones."""
    lab = open_lab(layout="per-persona")
    plan = doubled(lab, number, A, C, of=of)
    if closed:
        lab.apply(plan, limit=5)
        said = rf"{2 * number} of {2 * of} points of 2 collections, .*--remove-many"
        with pytest.raises(GateClosed, match=said) as caught:
            lab.apply(plan, remove_many=False)
        removals = {"collections": 2, "removals": 2 * number, "points": 2 * of}
        assert [removals] == caught.value.fields["removals"]
    else:
        assert 2 * number == lab.apply(plan, remove_many=False).done


def test_the_brake_passes_over_a_collection_that_is_gone(open_lab: Open) -> None:
    """Nothing is left there to remove, and the others are mended."""
    lab = open_lab(layout="per-persona")
    plan = doubled(lab, 12, A, C, of=30)
    lab.vectors.drop(f"persona-{C}")
    applied = lab.apply(plan, remove_many=False)
    assert (12, 12) == (applied.done, applied.done_before)


def test_the_brake_counts_what_was_removed_before(lab: Lab) -> None:
    """A plan cannot be got past it by parts."""
    plan = doubled(lab, 25, of=100)
    lab.apply(plan, limit=10)
    with pytest.raises(GateClosed, match="25 of 100 points"):
        lab.apply(plan, remove_many=False)


def test_a_copy_rests_on_its_row(open_lab: Open) -> None:
    """A memory is not given to another persona whose exchange has changed since."""
    lab = open_lab(layout="per-persona")
    [said, *_] = settled(lab)
    lab.vectors.delete(f"persona-{A}", [said.anchor_id])
    place = Place(f"persona-{C}", lab.deploy(said, collection=f"persona-{C}").id)
    faults = Faults(lab)
    target = Place(f"persona-{A}", place.point_id)
    faults.add(Repair.MOVE, row=said, place=place, target=target)
    plan = faults.plan()
    lab.sql("UPDATE conversation_history SET content = 'new' WHERE id = %(i)s", i=said.anchor_id)
    before = lab.points()
    with pytest.raises(PartlyDone, match="the exchange"):
        lab.apply(plan)
    assert before == lab.points()


# ---------------------------------------------------------------------- records


def test_the_layout_is_recorded_by_the_first_write(lab: Lab) -> None:
    """An apply that writes nothing records nothing."""
    settled(lab)
    lab.sql("DELETE FROM memsync.layout")
    lab.apply(Faults(lab).plan())
    assert [] == lab.sql("SELECT layout FROM memsync.layout")
    lab.apply(missing(lab, 1).plan())
    assert [(lab.ltm.layout.value,)] == lab.sql("SELECT layout FROM memsync.layout")


def test_runs_are_forgotten_whole_and_not_before_their_time(lab: Lab) -> None:
    """An apply forgets the runs that were last at work `quarantine_days` ago, with their points."""
    said = settled(lab)
    home = lab.ltm.home_of(A)
    plans = []
    for each in said[:3]:
        faults = Faults(lab)
        double = Place(home, lab.deploy(each, collection=home).id)
        faults.add(Repair.REMOVE, row=each, place=double, target=Place(home, each.anchor_id))
        plans.append(faults.plan())
        lab.apply(plans[-1])
    aged = "UPDATE memsync.{} SET {} = now() - interval '{} days' WHERE {} = '{}'"
    for plan, days in ((plans[0], 31), (plans[1], 29)):
        for table, column, key in (
            ("repair", "begun_at", "run_id"),
            ("journal", "intended_at", "run_id"),
            ("quarantine", "quarantined_at", "plan_id"),
        ):
            lab.sql(aged.format(table, column, days, key, plan.plan_id))
    # Begun long ago, and at work since.
    lab.sql(aged.format("repair", "begun_at", 99, "run_id", plans[2].plan_id))
    lab.apply(Faults(lab).plan())
    kept = {plan.plan_id for plan in plans[1:]}
    for table, key in (("repair", "run_id"), ("journal", "run_id"), ("quarantine", "plan_id")):
        assert kept == {run for (run,) in lab.sql(f"SELECT {key} FROM memsync.{table}")}  # noqa: S608  ours
    with pytest.raises(InvalidInput):
        lab.undo(plans[0])
    for plan in plans[1:]:
        assert 1 == lab.undo(plan).done
