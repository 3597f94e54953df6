"""Tests of taking a run back: both stores are as before it, whatever ended run or undo early."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self
from uuid import uuid4

import pytest
from qdrant_client import models

from memsync.errors import (
    InvalidInput,
    PartlyDone,
    SchemaMismatch,
    StalePlan,
    StoreUnreachable,
)
from memsync.model.records import Place, Point
from memsync.reconcile.findings import Repair
from memsync.reconcile.plans import ActionKind, Plan
from memsync.reconcile.undoable import kept
from memsync.stores.ltm.marks import META
from support.failing import Crash, Failing
from support.lab import BASIL, DIMS, A, B, Lab
from support.relayout import retire
from support.repairs import OLD_MS, Faults, alike, aside, ends_at, restore, settled, spoiled

LAYOUTS = ("shared", "per-persona")
Open = partial[Lab]


@pytest.fixture(params=LAYOUTS)
def lab(request: pytest.FixtureRequest, open_lab: Open) -> Lab:
    """A lab on the store in memory, in each layout."""
    return open_lab(layout=request.param)


@pytest.mark.parametrize("store", ["memory", "edge"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_stores_are_as_before(open_lab: Open, store: str, layout: str) -> None:
    """Every point has its payload and vector again, and collections that were made are gone.

    The vectors are the same to the bit, but for the store in memory, which normalises what is
    written once more.
    """
    lab = open_lab(store, layout=layout)
    plan = spoiled(lab).plan()
    before, history = lab.points(), lab.tables()["conversation_history"]
    lab.apply(plan)
    assert not alike(before, lab.points(), exactly=False)
    done = lab.undo(plan)
    assert (len(plan.actions), ()) == (done.done, done.kept)
    assert alike(before, lab.points(), exactly=store == "edge")
    assert history == lab.tables()["conversation_history"]
    assert 0 == lab.undo(plan).done
    assert alike(before, lab.points(), exactly=store == "edge")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_audit_repair_and_undo_agree(open_lab: Open, layout: str) -> None:
    """After apply nothing is left to repair; after undo the audit finds what it found first."""
    lab = open_lab("edge", layout=layout)
    spoiled(lab)
    before, found = lab.points(), lab.audit()
    assert len(found.faults) > 6
    plan = lab.plan(found)
    lab.apply(plan)
    again = lab.audit()
    assert {Repair.NONE} >= {each.repair for each in again.faults}
    assert () == lab.plan(again).actions
    lab.undo(plan)
    assert before == lab.points()
    assert found.counts == lab.audit().counts
    lab.apply(lab.plan())
    assert again.counts == lab.audit().counts


def test_a_part_of_a_run_is_undone(lab: Lab) -> None:
    """However far an apply came, its undo leads back to the beginning, and apply may begin anew."""
    plan = spoiled(lab).plan()
    before = lab.points()
    for number in range(1, len(plan.actions) + 1):
        lab.apply(plan, limit=number)
        assert number == lab.undo(plan).done
        assert alike(before, lab.points(), exactly=False), number
    done = lab.apply(plan)
    assert (len(plan.actions), 0) == (done.done, done.done_before)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_was_killed_at_any_write_is_undone(lab: Lab, *, after: bool) -> None:
    """An intent that was not carried out is no change; one that was is taken back.

    Before a write is much like after the one before it, so each moment has every other write.
    """
    plan = spoiled(lab).plan()
    before = lab.points()
    restore(lab, before)
    watched = Failing(lab.vectors)
    lab.apply(plan, watched)
    with ends_at(0, after=after) as transactions:
        restore(lab, before)
        lab.apply(plan)
    for at in watched.writes()[after::2]:
        restore(lab, before)
        with pytest.raises(Crash):
            lab.apply(plan, Failing(lab.vectors, at=at, after=after, error=Crash))
        lab.undo(plan)
        assert alike(before, lab.points(), exactly=False), watched.calls[at - 1]
    # Before the first transaction there is nothing to undo.
    for at in range(1 if after else 2, transactions.calls + 1, 2):
        restore(lab, before)
        with pytest.raises(Crash), ends_at(at, after=after):
            lab.apply(plan)
        lab.undo(plan)
        assert alike(before, lab.points(), exactly=False), at


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_undo_that_was_killed_is_finished_by_the_next(lab: Lab, *, after: bool) -> None:
    """An undo that is killed at any write or transaction and repeated ends the same."""
    plan = spoiled(lab).plan()
    before = lab.points()
    lab.apply(plan)
    watched = Failing(lab.vectors)
    with ends_at(0, after=after) as transactions:
        lab.undo(plan, watched)
    assert len(watched.writes()) > 6
    for at in watched.writes()[after::2]:
        lab.apply(plan)
        with pytest.raises(Crash):
            lab.undo(plan, Failing(lab.vectors, at=at, after=after, error=Crash))
        lab.undo(plan)
        assert alike(before, lab.points(), exactly=False), watched.calls[at - 1]
    for at in range(1 + after, transactions.calls + 1, 2):
        lab.apply(plan)
        with pytest.raises(Crash), ends_at(at, after=after):
            lab.undo(plan)
        lab.undo(plan)
        assert alike(before, lab.points(), exactly=False), at
    kept = lab.sql(
        "SELECT collection, point_id, state FROM memsync.quarantine WHERE reason = 'undone'"
    )
    assert kept
    assert len(set(kept)) == len(kept), "no undo keeps a copy that an earlier one kept"


def test_what_somebody_wrote_since_is_left_and_told(lab: Lab) -> None:
    """A point that was written after the run stays, the others are undone, and the status is 3."""
    plan = spoiled(lab).plan()
    before = lab.points()
    lab.apply(plan)
    theirs: dict[Place, object] = {}
    for kind in ActionKind:
        place = next(each.place for each in plan.actions if each.kind is kind)
        theirs[place] = lab.put(place.point_id, {"content": "theirs"}, place.collection).payload
    with pytest.raises(PartlyDone, match="somebody has written the point since") as caught:
        lab.undo(plan)
    assert 3 == caught.value.exit_status
    assert len(theirs) == caught.value.fields["set_aside"]
    assert len(plan.actions) - len(theirs) == caught.value.fields["done"]
    told = caught.value.fields["actions"]
    assert {(each.collection, each.point_id) for each in theirs} == {
        (each["collection"], each["point_id"])
        for each in told  # type: ignore[attr-defined]  # a list
    }
    for place, payload in theirs.items():
        assert payload == lab.point(place.point_id, place.collection).payload
    changed = {each.place for each in plan.actions} - theirs.keys()
    now = lab.points()
    for place in changed:
        was = [each for each in before.get(place.collection, []) if each[0] == place.point_id]
        is_ = [each for each in now.get(place.collection, []) if each[0] == place.point_id]
        assert alike({"": was}, {"": is_}, exactly=False), place
    # What is back in the state that the run left can be undone after all.
    with pytest.raises(PartlyDone):
        lab.undo(plan)


def test_a_memory_that_a_later_run_removed_does_not_come_back(lab: Lab) -> None:
    """The run removed a further point of it; the rows went, and another run removed the memory."""
    said = settled(lab)[1]
    first = lab.place(said)
    lab.put(lab.new_id(), lab.point(first.point_id, first.collection).payload, first.collection)
    whole = lab.memories()
    double = lab.plan()
    lab.apply(double)
    lab.unsay(said)
    lab.sql("TRUNCATE memsync.memories")
    orphan = lab.plan()
    assert {"orphan-point"} == {each.reason for each in orphan.actions}
    lab.apply(orphan)

    with pytest.raises(PartlyDone, match=f"the run {orphan.plan_id} has removed this memory since"):
        lab.undo(double)
    assert 0 == len([p for p in lab.points()[first.collection] if said.user_text in str(p)])
    lab.undo(orphan)
    lab.undo(double)
    assert whole == lab.memories()


def test_a_further_point_that_a_later_run_removed_is_not_the_memory(lab: Lab) -> None:
    """Two runs removed a further point each, and the rows went. Either undo goes first."""
    said = settled(lab)[1]
    first = lab.place(said)
    payload, plans = lab.point(first.point_id, first.collection).payload, []
    for _ in range(2):
        lab.put(lab.new_id(), payload, first.collection)
        plans.append(lab.plan())
        assert {"duplicate-point"} == {each.reason for each in plans[-1].actions}
        lab.apply(plans[-1])
    lab.unsay(said)
    assert [1, 1] == [lab.undo(each).done for each in plans]


def test_what_a_memory_says_by_now_stays_without_its_rows(lab: Lab) -> None:
    """Two messages were edited, and a run wrote their memories anew; then the rows of one went."""
    first, second, *_ = settled(lab)
    for each in (first, second):
        lab.sql(
            "UPDATE conversation_history SET content = 'edited' WHERE id = %(i)s", i=each.said_id
        )
    places = [lab.place(first), lab.place(second)]
    before, plan = lab.memories(), lab.plan()
    assert {"stale-content"} == {each.reason for each in plan.actions}
    lab.apply(plan)
    edited = [lab.point(each.point_id, each.collection) for each in places]
    assert ("whole", None) == undo_of(lab)
    lab.unsay(first)
    why = "1 memory is the only trace of what was said, because the rows are gone"
    assert ("in part", why) == undo_of(lab)
    with pytest.raises(PartlyDone, match="only trace") as caught:
        lab.undo(plan)
    assert {places[0]} == set(aside(caught))
    assert edited[0] == lab.point(places[0].point_id, places[0].collection)
    # What an undo overwrites is kept as well.
    kept = lab.sql(
        "SELECT point_id, payload, vector FROM memsync.quarantine WHERE reason = 'undone'"
    )
    assert [(str(edited[1].id), edited[1].payload)] == [(i, p) for i, p, _ in kept]
    assert pytest.approx(edited[1].vector) == kept[0][2]
    lab.sql("TRUNCATE memsync.memories")
    lab.undo(plan)
    assert before == lab.memories()


def undo_of(lab: Lab) -> tuple[str, str | None]:
    """What `reconcile runs` says of an undo."""
    with lab.postgres.session() as session:
        [[found], _] = kept(session, lab.ltm)
    return found.undo, found.why_not


@dataclass(frozen=True)
class Copied:
    """A run that copied a memory out of a collection that the shared layout does not read."""

    plan: Plan
    source: Place
    target: Place

    @classmethod
    def by(cls, lab: Lab) -> Self:
        """Make it; the memory has no rows, and the ledger has it."""
        [said, *_] = settled(lab)
        told = lab.deploy(said, createdAt=OLD_MS, content="User (Al): of old\nAda: indeed")
        source = Place(f"persona-{A}", told.id)
        plan = lab.plan()
        assert ["misplaced-point"] == [each.reason for each in plan.actions]
        lab.apply(plan)
        return cls(plan, source, plan.actions[0].place)


def test_a_copy_stays_when_its_original_was_retired(open_lab: Open) -> None:
    """It is the only one that recall finds, so its run can be undone when the other is back."""
    lab = open_lab()
    run = Copied.by(lab)
    assert ("whole", None) == undo_of(lab)
    retire(lab)
    copy = lab.point(run.target.point_id)
    undo, why = undo_of(lab)
    assert "no" == undo
    assert "1 point is of collections that were retired" in str(why)
    with pytest.raises(PartlyDone, match="retired; `memsync reconcile layout set per-persona`"):
        lab.undo(run.plan)
    assert copy == lab.point(run.target.point_id)


@pytest.mark.parametrize("harm", ["gone", "removed", "rewritten"])
def test_a_copy_stays_when_its_original_does_not_stand(open_lab: Open, harm: str) -> None:
    """Somebody dropped the old collection, removed the point, or wrote something else there."""
    lab = open_lab()
    run = Copied.by(lab)
    copy, source = (
        lab.point(run.target.point_id),
        lab.point(run.source.point_id, run.source.collection),
    )
    if harm == "gone":
        lab.vectors.drop(run.source.collection)
        assert ("in part", "the collection of 1 point is gone, or of another size") == undo_of(lab)
    elif harm == "removed":
        lab.vectors.delete(run.source.collection, [source.id])
    else:
        lab.put(source.id, {**source.payload, "content": "theirs"}, run.source.collection)
    with pytest.raises(PartlyDone, match="only trace") as caught:
        lab.undo(run.plan)
    assert {run.target} == set(aside(caught))
    assert copy == lab.point(run.target.point_id)
    lab.put(source.id, source.payload, run.source.collection)
    assert 1 == lab.undo(run.plan).done
    assert [] == lab.vectors.retrieve(lab.home, [run.target.point_id])


def test_a_copy_of_which_the_journal_has_no_source_stays(open_lab: Open) -> None:
    """An earlier version made it, and nobody knows whether its original says the same."""
    lab = open_lab()
    run = Copied.by(lab)
    lab.sql("UPDATE memsync.journal SET source_collection = NULL, source_id = NULL")
    why = "1 point is a copy, and an earlier memsync did not note of what"
    assert ("no", why) == undo_of(lab)
    with pytest.raises(PartlyDone, match="did not note what it is a copy of"):
        lab.undo(run.plan)
    assert [run.target.point_id] == [
        p.id for p in lab.vectors.retrieve(lab.home, [run.target.point_id])
    ]


@pytest.mark.parametrize(
    ("layout", "spoilt", "kind", "expected"),
    [
        ("shared", {"digest": "0" * 64}, ActionKind.PUT, "whole"),
        ("per-persona", {"personalityId": str(BASIL)}, ActionKind.PATCH, "no"),
    ],
)
def test_runs_says_what_an_undo_does_without_rows(
    open_lab: Open, layout: str, spoilt: dict[str, object], kind: ActionKind, expected: str
) -> None:
    """Another personality is the only trace of the one before; another digest says the same."""
    lab = open_lab(layout=layout)
    said = settled(lab)[0]
    lab.respell(said, **spoilt)
    before, plan = lab.memories(), lab.plan()
    assert [kind] == [each.kind for each in plan.actions]
    lab.apply(plan)
    lab.unsay(said)
    assert expected == undo_of(lab)[0]
    if expected == "whole":
        lab.undo(plan)
        assert before == lab.memories()
    else:
        with pytest.raises(PartlyDone, match="only trace"):
            lab.undo(plan)


def test_a_vector_that_an_undo_replaces_is_kept(open_lab: Open) -> None:
    """Nothing says whether it is the run's own, because the payload is the same."""
    lab = open_lab("edge")
    [said, *_] = settled(lab)
    place = lab.place(said)
    old = replace(lab.point(place.point_id), vector=(0.0,) * DIMS)
    newer = replace(old, vector=(1.0, *[0.0] * (DIMS - 1)))
    lab.vectors.upsert(place.collection, [old])
    faults = Faults(lab)
    faults.add(Repair.MAKE, "vector-zero", row=said, place=place, target=place)
    plan = faults.plan()
    lab.apply(plan)
    lab.vectors.upsert(place.collection, [newer])
    lab.undo(plan)
    assert old == lab.point(place.point_id)
    kept = lab.sql("SELECT reason, vector FROM memsync.quarantine ORDER BY id")
    assert [("vector-zero", [0.0] * DIMS), ("undone", [1.0, *[0.0] * (DIMS - 1)])] == kept


def test_what_is_written_while_an_undo_looks_stays(lab: Lab) -> None:
    """A point that the run made is removed only as it was when its state was compared."""
    said = settled(lab)[0]
    lab.lose(said)
    place, plan = lab.place(said), lab.plan()
    lab.apply(plan)
    payload = lab.point(place.point_id, place.collection).payload
    theirs = {**payload, "content" if "content" in payload else "user_text": "theirs"}

    class Busy(Failing):
        def retrieve(self, collection: str, *given: Any, **named: Any) -> list[Point]:
            found = super().retrieve(collection, *given, **named)
            if collection == place.collection:
                lab.put(place.point_id, theirs, place.collection)
            return found

    with pytest.raises(PartlyDone):
        lab.undo(plan, Busy(lab.vectors))
    assert theirs == lab.point(place.point_id, place.collection).payload


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("DELETE FROM memsync.quarantine", "not in the quarantine"),
        ("UPDATE memsync.quarantine SET payload = '{}'", "damaged"),
        ("UPDATE memsync.quarantine SET vector[1] = 0.5", "damaged"),
        ("UPDATE memsync.quarantine SET digest = 'x'", "damaged"),
    ],
)
def test_a_copy_that_is_gone_or_damaged(lab: Lab, harm: str, why: str) -> None:
    """Its point cannot be undone, which is told; the others are."""
    plan = spoiled(lab).plan()
    lab.apply(plan)
    left = lab.points()
    removed = [each for each in plan.actions if each.kind is ActionKind.REMOVE]
    lab.sql(f"{harm} WHERE point_id = '{removed[0].place.point_id}'")
    with pytest.raises(PartlyDone, match=f"undo is not possible.*{why}") as caught:
        lab.undo(plan)
    assert 1 == caught.value.fields["set_aside"]
    place = removed[0].place
    assert place.point_id not in [each[0] for each in left.get(place.collection, [])]
    assert [] == lab.vectors.retrieve(place.collection, [place.point_id])


def test_a_collection_that_others_use_by_now_is_kept(open_lab: Open) -> None:
    """The run's own points leave it, and what others wrote stays."""
    lab = open_lab(layout="per-persona")
    plan = spoiled(lab).plan()
    made = f"persona-{B}"
    assert made not in lab.vectors.collections()
    lab.apply(plan)
    lab.put(3, {"content": "theirs"}, made)
    assert (made,) == lab.undo(plan).kept
    assert [3] == [point_id for point_id, *_ in lab.points()[made]]
    lab.vectors.delete(made, [3])
    assert () == lab.undo(plan).kept
    assert made not in lab.vectors.collections()


def test_a_collection_of_another_form_by_now_costs_itself(open_lab: Open) -> None:
    """Somebody made two anew, one of them after it was retired. The rest is undone."""
    lab = open_lab(layout="per-persona")
    plan = spoiled(lab).plan()
    lab.apply(plan)
    forms = {"text": models.VectorParams(size=2, distance=models.Distance.COSINE)}
    client = lab.vectors._client  # type: ignore[attr-defined]  # of this driver
    anew = {f"persona-{each}" for each in (A, B)}
    for name in anew:
        lab.vectors.drop(name)
        client.create_collection(name, vectors_config=forms)
    lab.sql(
        """INSERT INTO memsync.retired (run_id, collection, dims, indexes, dropped_at)
        VALUES (gen_random_uuid(), %(home)s, 8, '[]', now())""",
        home=f"persona-{A}",
    )
    assert "in part" == undo_of(lab)[0]
    there = [each for each in plan.actions if each.place.collection in anew]
    for done in (len(plan.actions) - len(there), 0):
        with pytest.raises(PartlyDone, match=r"under names|was retired") as caught:
            lab.undo(plan)
        assert done == caught.value.fields["done"]
        assert anew >= {each.collection for each in aside(caught)}


def test_a_collection_that_is_gone_sets_its_points_aside(open_lab: Open) -> None:
    """What was removed from a collection that somebody dropped since is not brought back there."""
    lab = open_lab(layout="per-persona")
    [said, *_] = settled(lab)
    faults, home = Faults(lab), f"persona-{A}"
    double = Place(home, lab.deploy(said).id)
    faults.add(Repair.REMOVE, row=said, place=double, target=Place(home, said.anchor_id))
    plan = faults.plan()
    lab.apply(plan)
    lab.vectors.drop(home)
    with pytest.raises(PartlyDone, match=r"no collection"):
        lab.undo(plan)


def test_a_run_that_nobody_knows(lab: Lab) -> None:
    """A run that was not made here, or is forgotten, raises InvalidInput."""
    settled(lab)
    plan = spoiled_plan_of(lab)
    with pytest.raises(InvalidInput, match="reconcile runs"):
        lab.undo(plan)


def spoiled_plan_of(lab: Lab) -> Plan:
    """A plan that was never applied."""
    return replace(Faults(lab).plan(), plan_id=uuid4())


def test_a_run_on_another_vector_store(lab: Lab) -> None:
    """It is refused before any write: what is absent there was not removed by the run."""

    class Other(Failing):
        @property
        def label(self) -> str:
            return "another store"

    plan = spoiled(lab).plan()
    lab.apply(plan)
    before = lab.points()
    lab.vectors.drop(META)
    with pytest.raises(StalePlan, match="another store"):
        lab.undo(plan, Other(lab.vectors))
    assert before == lab.points()


def test_a_store_that_goes_away_is_said_and_finished_later(lab: Lab) -> None:
    """StoreUnreachable reaches the caller, and the same undo later finishes the rest."""
    plan = spoiled(lab).plan()
    before = lab.points()
    lab.apply(plan)
    with pytest.raises(StoreUnreachable):
        lab.undo(plan, Failing(lab.vectors, at=30))
    lab.undo(plan)
    assert alike(before, lab.points(), exactly=False)


def test_what_is_undone_and_applied_again_is_undone_to_what_was_there_then(
    open_lab: Open,
) -> None:
    """The quarantine has the point as it was before the last apply, its vector too."""
    lab = open_lab("edge", layout="per-persona")
    [said, *_] = settled(lab)
    place = Place(f"persona-{A}", said.anchor_id)
    faults = Faults(lab)
    faults.add(Repair.MAKE, "vector-drift", row=said, place=place, target=place)
    plan = faults.plan()
    lab.apply(plan)
    lab.undo(plan)
    point = lab.point(place.point_id, place.collection)
    turned = replace(point, vector=(1.0, *[0.0] * (DIMS - 1)))
    lab.vectors.upsert(place.collection, [turned])
    before = lab.points()
    lab.apply(plan)
    assert before != lab.points()
    lab.undo(plan)
    assert before == lab.points()


@pytest.mark.parametrize("error", [Crash, SchemaMismatch])
def test_what_was_embedded_anew_before_its_removal_comes_back_so(
    open_lab: Open, error: type[Exception]
) -> None:
    """A removal failed, somebody made the vector anew, and then the removal was done."""
    lab = open_lab("edge")
    [said, *_] = settled(lab)
    double = lab.put(7, lab.point(said.anchor_id).payload)
    plan = lab.plan()
    assert [double.id] == [each.place.point_id for each in plan.actions]

    class Refusing(Failing):
        def delete(self, *_: Any, **__: Any) -> None:
            raise error("refused")

    with pytest.raises((Crash, PartlyDone)):
        lab.apply(plan, Refusing(lab.vectors))
    turned = replace(double, vector=(1.0, *[0.0] * (DIMS - 1)))
    lab.vectors.upsert(lab.home, [turned])
    before = lab.points()
    assert 1 == lab.apply(plan).done
    lab.undo(plan)
    assert before == lab.points()
