"""Tests of applying a plan: what it leaves, and how it goes on after an end at any moment."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from memsync.model.records import Place
from memsync.reconcile.apply import Applied
from memsync.reconcile.findings import Repair
from memsync.reconcile.plans import ActionKind
from support.failing import Crash, Failing
from support.lab import Lab
from support.repairs import Faults, ends_at, restore, spoiled

LAYOUTS = ("shared", "per-persona")
Open = partial[Lab]


@pytest.fixture(params=LAYOUTS)
def lab(request: pytest.FixtureRequest, open_lab: Open) -> Lab:
    """A lab on the store in memory, in each layout."""
    return open_lab(layout=request.param)


@pytest.mark.parametrize("store", ["memory", "edge"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_kind_of_action(open_lab: Open, store: str, layout: str) -> None:
    """Each point is as its action wants it; what was there before is in the quarantine."""
    lab = open_lab(store, layout=layout)
    faults = spoiled(lab)
    before = lab.points()
    plan = faults.plan()
    assert list(ActionKind) == list(dict.fromkeys(each.kind for each in plan.actions))
    done = lab.apply(plan)
    assert (len(plan.actions), 0, 0) == (done.done, done.done_before, done.left)
    changed = {
        (each.place.collection, str(each.place.point_id))
        for each in plan.actions
        if each.state is not None
    }
    assert sorted(changed) == lab.quarantined()
    for action in plan.actions:
        place = action.place
        if action.kind is ActionKind.REMOVE:
            assert [] == lab.vectors.retrieve(place.collection, [place.point_id])
            continue
        point = lab.point(place.point_id, place.collection)
        codec = lab.ltm.codec_of(place.collection)
        reading = codec.decode(point.payload)
        assert ((), False) == (reading.wrong_keys, reading.wrong_unit), action
        if action.anchor_id:
            row = lab.exchange(action.anchor_id)
            assert reading.memory.persona_id == row.persona_id
            assert reading.memory.created_at_ms == row.created_at_ms
        if action.kind is ActionKind.PUT:
            assert point.vector is not None
            assert sum(map(abs, point.vector)) > 0
        if action.source:
            source = next(
                each
                for each in before[action.source.collection]
                if each[0] == action.source.point_id
            )
            assert source[2] == pytest.approx(point.vector, abs=1e-6)
            assert reading.memory.created_at_ms is not None
            assert "senders" in point.payload
    again = lab.apply(plan)
    assert (0, len(plan.actions), 0) == (again.done, again.done_before, again.by_others)
    assert sorted(changed) == lab.quarantined()


def test_what_another_plan_has_done_is_not_this_ones(open_lab: Open) -> None:
    """It is counted apart, because this plan has no run that could be undone."""
    lab = open_lab()
    lab.lose(lab.settled()[0])
    plan = lab.plan()
    lab.apply(plan)
    assert Applied(0, 1, 0, by_others=1) == lab.apply(replace(plan, plan_id=lab.new_id()))


def test_a_patch_leaves_the_vector_to_the_bit(open_lab: Open) -> None:
    """The payload is mended, other keys stay, and the vector is the one that was there."""
    for layout in LAYOUTS:
        lab = open_lab("memory", layout=layout)
        faults = spoiled(lab)
        plan = faults.plan()
        [patch] = [each for each in plan.actions if each.kind is ActionKind.PATCH]
        before = lab.point(patch.place.point_id, patch.place.collection)
        watched = Failing(lab.vectors)
        lab.apply(replace(plan, actions=(patch,)), watched)
        # The others make the mark.
        writes = [watched.calls[at - 1] for at in watched.writes()]
        assert ["overwrite_payloads", "create", "upsert"] == writes
        after = lab.point(patch.place.point_id, patch.place.collection)
        assert before.vector == after.vector
        assert before.payload != after.payload
        assert ["1"] == after.payload["senders"]
        assert not {"text", "timestamp", "userText"} & after.payload.keys()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_write_is_finished_by_the_next_apply(lab: Lab, *, after: bool) -> None:
    """An apply that is killed at any write and repeated ends like an undisturbed one.

    Before a write is much like after the one before it, so each moment has every other write.
    """
    plan = spoiled(lab).plan()
    kept = lab.points()
    restore(lab, kept)
    watched = Failing(lab.vectors)
    lab.apply(plan, watched)
    expected, gone, noted = lab.memories(), lab.quarantined(), journal(lab)
    moments = watched.writes()
    assert len(moments) > 8
    for at in moments[after::2]:
        restore(lab, kept)
        with pytest.raises(Crash):
            lab.apply(plan, Failing(lab.vectors, at=at, after=after, error=Crash))
        lab.apply(plan)
        assert expected == lab.memories(), watched.calls[at - 1]
        assert gone == lab.quarantined(), watched.calls[at - 1]
        assert noted == journal(lab), watched.calls[at - 1]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_transaction_is_finished_by_the_next_apply(lab: Lab, *, after: bool) -> None:
    """The same for an end before or after any transaction in Postgres."""
    plan = spoiled(lab).plan()
    kept = lab.points()
    with ends_at(0, after=after) as transactions:
        lab.apply(plan)
    expected, gone, noted = lab.memories(), lab.quarantined(), journal(lab)
    assert transactions.calls > 8
    for at in range(1 + after, transactions.calls + 1, 2):
        restore(lab, kept)
        with pytest.raises(Crash), ends_at(at, after=after):
            lab.apply(plan)
        lab.apply(plan)
        assert expected == lab.memories(), at
        assert gone == lab.quarantined(), at
        assert noted == journal(lab), at


def journal(lab: Lab) -> list[tuple[object, ...]]:
    """The journal without ids and times."""
    return sorted(
        lab.sql(
            "SELECT collection, point_id, action, coalesce(state_before, ''),"
            " coalesce(state_after, ''), done_at IS NOT NULL, undone_at IS NOT NULL"
            " FROM memsync.journal"
        )
    )


def test_a_limit_goes_on_where_the_last_one_ended(lab: Lab) -> None:
    """N actions at a time give the same; no point goes before what replaces it."""
    faults = spoiled(lab)
    kept = lab.points()
    plan = faults.plan()
    lab.apply(plan)
    expected = lab.memories()
    restore(lab, kept)
    for number in range(1, len(plan.actions) + 1):
        done = lab.apply(plan, limit=1)
        assert (1, number - 1) == (done.done, done.done_before)
        assert len(plan.actions) - number == done.left
        for action in plan.actions:
            if action.replaced_by and not _stands(lab, action.place):
                assert _stands(lab, action.replaced_by)
    assert expected == lab.memories()
    assert 0 == lab.apply(plan, limit=1).done


def _stands(lab: Lab, place: Place) -> bool:
    return bool(lab.ltm.points(place.collection, [place.point_id]))


def test_a_plan_of_several_batches(open_lab: Open) -> None:
    """A plan with more actions than fit in one batch is carried out whole, and undone."""
    lab = open_lab("edge", layout="per-persona")
    said = lab.say(300)
    lab.sync()
    faults, home = Faults(lab), f"persona-{said[0].persona_id}"
    for each in said[:150]:
        lab.vectors.delete(home, [each.anchor_id])
        faults.add(Repair.MAKE, row=each, target=Place(home, each.anchor_id))
    for each in said[150:]:
        double = Place(home, lab.deploy(each).id)
        faults.add(Repair.REMOVE, row=each, place=double, target=Place(home, each.anchor_id))
    before = lab.points()
    plan = faults.plan()
    assert {"put": 150, "remove": 150} == dict(Counter(each.kind for each in plan.actions))
    lab.apply(plan)
    assert {each.anchor_id for each in said} == {point_id for point_id, *_ in lab.points()[home]}
    lab.undo(plan)
    assert before == lab.points()
