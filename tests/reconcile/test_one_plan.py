"""One deleted exchange, or one lost memory, is settled by one plan, whatever copies there are."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from memsync import reconcile
from memsync.errors import GateClosed
from memsync.model.records import Place
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.texts import say_the_same
from support.lab import ADA, A, C, Lab
from support.laws.base import OLD_MS
from support.ledger import adopt
from support.relayout import CLASH, back, home, retire, to_shared
from support.releasing import released

if TYPE_CHECKING:
    from memsync.model.ids import PointId

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
    """Its copy stands in the shared collection, whatever becomes of both. Once that is removed,
    what was retired does not come back.
    """
    to_shared(quick)
    quick.unsay(quick.said[1])
    accept(quick, Place(quick.home, quick.said[1].anchor_id))
    assert {"orphan-point": 2} == quick.check().counts
    assert 11 == retire(quick).points
    assert {"orphan-point": 1} == quick.check().counts
    quick.apply(quick.plan())
    assert {} == quick.check().counts
    changed = back(quick)
    assert changed.audit
    assert (1, {}) == (changed.restored.removed, changed.audit.counts)


@pytest.mark.parametrize(
    "said", [[4], [0], [0, 1], [0, 1, 2]], ids=["as it is", "earlier", "later", "without channel"]
)
def test_an_archived_memory_that_was_brought_under_its_anchors_id(
    quick: Lab, said: list[int]
) -> None:
    """The ledger of both layouts ties the app's point to it, whatever time and channel that has."""
    adopt(quick)
    to_shared(quick)
    gone = quick.said[said[-1]]
    quick.unsay(*(quick.said[each] for each in said))
    assert quick.check().ok
    whole = quick.point(gone.anchor_id)
    quick.vectors.delete(quick.home, [gone.anchor_id])
    assert {"misplaced-point": 1} == quick.check().counts
    quick.apply(quick.plan())
    assert {} == quick.check().counts
    again = quick.point(gone.anchor_id)
    for key in ("content", "created_at", "channel_id", "persona_id", "digest"):
        assert whole.payload[key] == again.payload[key]


@pytest.mark.parametrize("older", [home(A), f"personality-{ADA}", LEGACY])
@pytest.mark.parametrize("later_ms", [0, 1500])
def test_a_memory_of_memsyncs_and_the_apps_old_copy(lab: Lab, older: str, later_ms: int) -> None:
    """Nothing else than the words ties the two: once the rows are gone, it is a copy still."""
    first = lab.settled()[0]
    copy = lab.deploy(first, collection=older, createdAt=first.created_at_ms + later_ms)
    lab.unsay(first)
    assert ({}, 1) == (lab.audit().counts, lab.audit().facts["legacy-copy"])
    # Of a text that was said twice one may be the only memory.
    lab.put(7, {**copy.payload, "createdAt": first.created_at_ms + 3000}, older)
    assert {"misplaced-point": 1 if later_ms == 0 else 2} == lab.audit().counts


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


@pytest.mark.parametrize("point_id", [7, CLASH])
def test_words_that_stand_in_an_old_collection_alone(quick: Lab, point_id: PointId) -> None:
    """Somebody has written over a copy in the shared collection of which neither the ledger nor a
    digest tells. A plan brings the words once more, and only then their collection goes.
    """
    to_shared(quick)
    said = quick.point(point_id).payload["content"]
    payload = {**quick.point(point_id).payload, "content": "User (Al): other\nAda: words"}
    payload.pop("digest", None)
    quick.put(point_id, payload)
    assert {"misplaced-point": 1} == quick.check().counts
    with pytest.raises(GateClosed, match="1 point of 1 collection has no copy"):
        retire(quick)
    quick.apply(quick.plan())
    assert {} == quick.check().counts
    assert 11 == retire(quick).points
    texts = [dict(payload)["content"] for _, payload, _ in quick.points()[quick.home]]  # type: ignore[call-overload]
    assert {said, "User (Al): other\nAda: words"} <= set(texts)


def test_two_points_that_say_nothing_are_not_one(quick: Lab) -> None:
    """No text makes them alike, and no collection goes because of the one that stands."""
    to_shared(quick)
    quick.put(UUID(int=1), {"persona_id": str(A), "personality_id": str(ADA)})
    quick.deploy(quick.said[0], point_id=501, createdAt=None, content=None, other="words")
    with pytest.raises(GateClosed, match="1 point of 1 collection has no copy"):
        retire(quick)


@pytest.mark.parametrize(
    ("at_ms", "found"), [(OLD_MS - 86_400_000, "misplaced-point"), (2**41, "newer-than-history")]
)
def test_an_id_that_another_memory_has_at_home(quick: Lab, at_ms: int, found: str) -> None:
    """Every collection may count from 1. What has the id does not make it young."""
    quick.deploy(
        quick.said[4],
        collection=f"persona-legacy-{C}",
        point_id=7,
        createdAt=at_ms,
        content="User (Bo): other\nAda: words",
    )
    audit = quick.check()
    assert ({found: 1}, 0) == (audit.counts, audit.settling)
    plan = quick.plan()
    if plan.actions:
        quick.apply(plan)
        assert {} == quick.check().counts
