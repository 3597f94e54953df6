"""One deleted exchange, or one lost memory, is settled by one plan, whatever copies there are."""

from __future__ import annotations

import pytest

from memsync import reconcile
from memsync.model.records import Place
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.texts import say_the_same
from support.lab import A, Lab
from support.ledger import adopt
from support.relayout import CLASH, back, home, retire, to_shared
from support.releasing import released

LEGACY = f"persona-legacy-{A}"


def accept(lab: Lab, place: Place) -> None:
    """Take one memory out of the ledger, as the report of a vanished row says."""
    part = reconcile.Part(points=frozenset({place}))
    with released(lab.url):
        reconcile.adopt(lab.postgres, lab.ltm, lab.settings, anew=True, part=part)


def settled_by_one_plan(lab: Lab, place: Place, orphans: list[Place]) -> None:
    """The rows of the memory at `place` were deleted: one decision, one plan, and all is clean."""
    assert {"row-vanished": 1} == lab.check().counts
    accept(lab, place)
    assert {"orphan-point": len(orphans)} == lab.check().counts
    plan = lab.plan()
    assert (sorted(orphans, key=str), {}) == (
        sorted((each.place for each in plan.actions), key=str),
        plan.left,
    )
    lab.apply(plan)
    assert ({}, 0) == (lab.check().counts, len(lab.plan().actions))
    lab.undo(plan)
    assert {"orphan-point": len(orphans)} == lab.check().counts
    lab.apply(lab.plan())


def test_a_deleted_exchange_with_a_copy_in_an_older_collection(quick: Lab) -> None:
    """In the app's own layout, where the app has set a collection aside."""
    second = quick.said[1]
    [(point_id, payload)] = [
        (i, dict(p))  # type: ignore[call-overload]
        for i, p, _ in quick.points()[home(A)]
        if "a cat" in str(p)
    ]
    quick.put(7, payload, LEGACY)
    adopt(quick)
    quick.unsay(second)
    place = Place(home(A), point_id)
    settled_by_one_plan(quick, place, [place, Place(LEGACY, 7)])


def test_a_deleted_exchange_that_was_brought_to_the_shared_layout(quick: Lab) -> None:
    """Its old collection stands, and the ledger has both. The rest can be retired afterwards."""
    adopt(quick)
    to_shared(quick)
    second = quick.said[1]
    origin = Place.read(str(quick.point(second.anchor_id).payload["brought_from"]))
    assert origin
    quick.unsay(second)
    place = Place(quick.home, second.anchor_id)
    settled_by_one_plan(quick, place, [place, origin])
    assert 10 == retire(quick).points


def test_an_orphan_with_its_copy_does_not_stop_a_retirement(quick: Lab) -> None:
    """Its copy stands in the shared collection, whatever becomes of both. What was retired is
    restored as it was, and told at once.
    """
    to_shared(quick)
    quick.unsay(quick.said[1])
    accept(quick, Place(quick.home, quick.said[1].anchor_id))
    assert {"orphan-point": 2} == quick.check().counts
    assert 11 == retire(quick).points
    assert {"orphan-point": 1} == quick.check().counts
    quick.apply(quick.plan())
    assert {} == quick.check().counts
    restored = back(quick).audit
    assert restored
    assert {"orphan-point": 1} == restored.counts


def test_an_archived_memory_that_was_brought_under_its_anchors_id(quick: Lab) -> None:
    """The ledger of both layouts ties the app's point to it."""
    adopt(quick)
    to_shared(quick)
    of_c = quick.said[4]
    quick.unsay(of_c)
    assert quick.check().ok
    whole = quick.point(of_c.anchor_id)
    quick.vectors.delete(quick.home, [of_c.anchor_id])
    assert {"misplaced-point": 1} == quick.check().counts
    quick.apply(quick.plan())
    assert {} == quick.check().counts
    assert whole.payload["content"] == quick.point(of_c.anchor_id).payload["content"]


@pytest.mark.parametrize("layout", Layout)
def test_an_archived_memory_that_is_lost_where_it_belongs(quick: Lab, layout: Layout) -> None:
    """Its copy in an older collection is one finding, and the plan that brings it back mends it."""
    adopt(quick)
    there = home(A)
    if layout is Layout.SHARED:
        to_shared(quick)
        there = quick.home
    else:
        quick.put(CLASH, quick.point(CLASH, there).payload, LEGACY)
    whole = quick.point(CLASH, there)
    quick.vectors.delete(there, [CLASH])
    assert {"misplaced-point": 1} == quick.check().counts
    plan = quick.plan()
    assert ([Place(there, CLASH)], {}) == ([each.place for each in plan.actions], plan.left)
    quick.apply(plan)
    assert {} == quick.check().counts
    codec = quick.ltm.codec_of(there)
    assert say_the_same(
        *(codec.decode(each.payload).memory for each in (whole, quick.point(CLASH, there)))
    )
