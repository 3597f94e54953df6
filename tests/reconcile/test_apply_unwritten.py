"""Tests of an apply that meets what cannot be written, other writers, and stores that go away."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from qdrant_client import models

from memsync.errors import (
    EmbedderUnreachable,
    InvalidInput,
    PartlyDone,
    StoreUnreachable,
)
from memsync.model.digests import point_state
from memsync.model.records import Place, Point
from memsync.reconcile.findings import Repair
from memsync.reconcile.plans import ActionKind, Plan
from memsync.stores.ltm.layouts import Layout
from support.failing import Failing
from support.lab import DIMS, A, B, C, Lab, as_told
from support.models import Model, Status, holding
from support.repairs import (
    Faults,
    aside,
    missing,
    one,
    restore,
    settled,
    spoiled,
    with_model,
)

LAYOUTS = ("shared", "per-persona")
Open = partial[Lab]
Change = Callable[[Lab, Plan], Place]

MARKING = 3
"""Calls at the end of an apply that make the mark."""


@pytest.fixture(params=LAYOUTS)
def lab(request: pytest.FixtureRequest, open_lab: Open) -> Lab:
    """A lab on the store in memory, in each layout."""
    return open_lab(layout=request.param)


# ---------------------------------------------------------------------- what cannot be written


def test_one_refused_text_costs_its_action_alone(lab: Lab) -> None:
    """All other memories are made in the same apply; the next one makes the last."""
    plan = missing(lab, 300).plan()
    home = lab.ltm.home_of(A)
    model = Model(ValueError("maximum context length is 8192 tokens"), holding("question 3\n"))
    with_model(lab, model, embedder_batch_texts=64)
    for done in (299, 0):
        with pytest.raises(PartlyDone, match=r"1 set aside.*8192 tokens") as caught:
            lab.apply(plan)
        assert done == caught.value.fields["done"]
        assert {Place(home, lab.said[3].anchor_id)} == aside(caught).keys()
        assert 299 == lab.vectors.count(home)
    assert max(map(len, model.calls)) <= 64
    with_model(lab, Model())
    last = lab.apply(plan)
    assert (1, 299) == (last.done, last.done_before)


def test_what_rests_on_a_refused_memory_stays(lab: Lab) -> None:
    """The old point of a memory that cannot be made is not removed."""
    said = settled(lab, 4)
    home, other = lab.ltm.home_of(A), f"persona-{B}"
    faults = Faults(lab)
    for each in said[:3]:
        lab.vectors.delete(home, [each.anchor_id])
        old = Place(other, lab.deploy(each, collection=other).id)
        faults.add(Repair.MAKE, row=each, place=old, target=Place(home, each.anchor_id))
    plan = faults.plan()
    with_model(lab, Model(Status(400), holding("question 1\n")))
    with pytest.raises(PartlyDone) as caught:
        lab.apply(plan)
    kinds = Counter(each["action"] for each in caught.value.fields["actions"])  # type: ignore[attr-defined]
    assert {ActionKind.PUT: 1, ActionKind.REMOVE: 1} == kinds
    assert [f"the memory that replaces it, {Place(home, said[1].anchor_id)}, is set aside"] == [
        why for place, why in aside(caught).items() if place.collection == other
    ]
    assert 1 == lab.vectors.count(other)
    with_model(lab, Model())
    lab.apply(plan)
    assert 0 == lab.vectors.count(other)


def test_a_memory_that_the_store_refuses_is_set_aside(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for a memory that the vector store refuses; its intent is forgotten."""
    plan, upsert = missing(lab, 20).plan(), lab.vectors.upsert

    def strict(collection: str, points: Any, **how: Any) -> None:
        if any(each.id == lab.said[7].anchor_id for each in points):
            raise InvalidInput("Qdrant cannot do that: too large")
        upsert(collection, points, **how)

    monkeypatch.setattr(lab.vectors, "upsert", strict)
    with pytest.raises(PartlyDone, match=r"1 set aside.*too large"):
        lab.apply(plan)
    assert 19 == lab.vectors.count(lab.ltm.home_of(A))
    assert [] == lab.sql("SELECT 1 FROM memsync.journal WHERE done_at IS NULL")
    assert 19 == lab.undo(plan).done


def test_a_removal_that_the_store_refuses_costs_itself(lab: Lab) -> None:
    """A server may refuse a filter by so many values, or so long a text. Undo is no other."""
    [one, *others] = map(lab.place, settled(lab, 4)[:4])
    payload = lab.point(one.point_id, one.collection).payload
    for _ in range(3):
        lab.put(lab.new_id(), payload, one.collection)
    plan = lab.plan()
    refused = {plan.actions[1].place.point_id}

    class Refusing(Failing):
        def delete(self, collection: str, ids: Any, **how: Any) -> None:
            if refused & {*ids}:
                raise InvalidInput("Qdrant cannot do that: too many conditions")
            super().delete(collection, ids, **how)

    store = Refusing(lab.vectors)
    for done in (2, 0):
        with pytest.raises(PartlyDone, match=r"1 set aside.*too many conditions") as caught:
            lab.apply(plan, store)
        assert done == caught.value.fields["done"]
        assert {plan.actions[1].place} == aside(caught).keys()
    lab.apply(plan)
    for each in others:
        lab.vectors.delete(each.collection, [each.point_id])
    made = lab.plan()
    lab.apply(made)
    refused.add(made.actions[1].place.point_id)
    for done in (2, 0):
        with pytest.raises(PartlyDone, match=r"1 left as they are.*too many conditions") as caught:
            lab.undo(made, store)
        assert done == caught.value.fields["done"]
        assert {made.actions[1].place} == aside(caught).keys()
    assert 1 == lab.undo(made).done


def test_an_outage_keeps_what_was_made(lab: Lab) -> None:
    """An apply during an outage ends as unreachable; the next one does the rest."""
    plan = missing(lab, 100).plan()
    home = lab.ltm.home_of(A)
    anchor = plan.actions[50].anchor_id
    assert anchor
    late = lab.exchange(anchor).user_text
    with_model(lab, Model(Status(429), holding(f"{late}\n")), embedder_batch_texts=1)
    with pytest.raises(EmbedderUnreachable):
        lab.apply(plan)
    made = lab.vectors.count(home)
    assert 0 < made < 100
    assert made == lab.undo(plan).done
    with pytest.raises(EmbedderUnreachable):
        lab.apply(plan)
    with_model(lab, Model())
    done = lab.apply(plan)
    assert (100 - made, made) == (done.done, done.done_before)


def test_named_vectors_cost_themselves(open_lab: Open) -> None:
    """A collection whose points memsync cannot read costs its own actions, and no other's."""
    lab = open_lab(layout="per-persona")
    faults = spoiled(lab)
    strange = f"persona-{C}"
    lab.vectors.drop(strange)
    sizes = {"text": models.VectorParams(size=2, distance=models.Distance.COSINE)}
    client = lab.vectors._client  # type: ignore[attr-defined]  # of this driver
    client.create_collection(strange, vectors_config=sizes)
    client.upsert(strange, [models.PointStruct(id=1, vector={"text": [1.0, 0.0]}, payload={})])
    plan = faults.plan()
    here = {each.place for each in plan.actions if each.place.collection == strange}
    assert here
    with pytest.raises(PartlyDone, match="under names") as caught:
        lab.apply(plan)
    assert here == aside(caught).keys()


def test_a_collection_of_another_size_costs_itself(lab: Lab) -> None:
    """Copies and memories that do not fit into a collection are set aside, the rest is done."""
    faults = spoiled(lab)
    plan = faults.plan()
    copy = one(plan, ActionKind.COPY)
    assert copy.source is not None
    point = lab.vectors.retrieve(copy.source.collection, [copy.source.point_id])[0]
    others = [
        each.source.point_id
        for each in plan.actions
        if each.source and each.source.collection == copy.source.collection
    ]
    payloads = {
        each.id: each.payload for each in lab.vectors.retrieve(copy.source.collection, others)
    }
    lab.vectors.drop(copy.source.collection)
    lab.vectors.create(copy.source.collection, 3, {})
    lab.vectors.upsert(
        copy.source.collection,
        [Point(each, payload, (1.0, 0.0, 0.0)) for each, payload in payloads.items()],
    )
    assert copy.source_state == point_state(point)
    with pytest.raises(PartlyDone, match=r"differ in size|dimensions") as caught:
        lab.apply(plan)
    told = aside(caught)
    assert copy.place in told
    kinds = {each.kind for each in plan.actions if each.place in told}
    assert kinds <= {ActionKind.COPY, ActionKind.REMOVE}
    for each in plan.actions:
        if each.place in told and each.kind is ActionKind.REMOVE:
            assert lab.ltm.points(each.place.collection, [each.place.point_id])


@pytest.mark.parametrize(
    ("homes", "named", "where"),
    [
        ([DIMS], False, "other collections have"),
        ([], True, "the embedder has"),
        ([4], True, "the embedder has"),
        ([], False, None),
        ([DIMS, 4], False, None),
    ],
)
def test_no_collection_is_made_that_takes_no_new_memory(
    open_lab: Open, homes: list[int], where: str | None, *, named: bool
) -> None:
    """An old collection has vectors of an embedder that the app no longer uses. The one that is
    named decides, or else the other collections, where they agree.
    """
    lab = open_lab(layout="per-persona")
    for persona, dims in zip((A, C), homes, strict=False):
        lab.vectors.create(f"persona-{persona}", dims, {})
    if named:
        lab.settings = lab.settings.model_copy(update={"embedder": "test"})
    [said] = lab.say(persona=B)
    lab.sql("DELETE FROM memsync.outbox")
    older, home = f"personality-{said.personality_id}", f"persona-{B}"
    lab.vectors.create(older, 4, {})
    payload = {"personalityId": str(said.personality_id), "personaId": str(B)}
    payload |= {"content": as_told(said)}
    when = {"createdAt": said.created_at_ms}
    lab.vectors.upsert(older, [Point(lab.new_id(), {**payload, **when}, (1.0, 0.0, 0.0, 0.0))])
    plan = lab.plan(unsafe=False)
    assert [ActionKind.COPY] == [each.kind for each in plan.actions]
    if where is None:
        assert 1 == lab.apply(plan).done
        return
    for _ in range(2):
        with pytest.raises(PartlyDone, match=f"4 dimensions, where {where} 8") as caught:
            lab.apply(plan)
        assert {plan.actions[0].place} == aside(caught).keys()
        assert home not in lab.vectors.collections()
    assert [] == lab.sql("SELECT 1 FROM memsync.journal")


# ---------------------------------------------------------------------- other writers


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("call", ["upsert", "overwrite_payloads", "delete"])
def test_a_writer_at_the_last_moment_is_not_overwritten(
    open_lab: Open, call: str, layout: Layout
) -> None:
    """Right before a write, another one's memories stay as they are, in every collection.

    The store itself compares what was seen there.
    """
    lab = open_lab(layout=layout.value)
    plan = spoiled(lab).plan()
    kept = lab.points()
    restore(lab, kept)
    watched = Failing(lab.vectors)
    lab.apply(plan, watched)
    moments = [at for at, name in enumerate(watched.calls, 1) if name == call]
    assert moments
    places = {each.place for each in plan.actions if each.place.collection in kept}
    for moment in moments:
        restore(lab, kept)
        store = Failing(lab.vectors)
        wrote: dict[Place, object] = {}

        def write(_: str, store: Failing = store, at: int = moment, wrote: Any = wrote) -> None:
            if len(store.calls) == at:
                for place in places:
                    theirs = {"content": f"theirs {place}"}
                    new = lab.put(place.point_id, theirs, place.collection)
                    wrote[place] = new.payload

        store.meanwhile = write
        with suppress(PartlyDone):
            lab.apply(plan, store)
        for place, payload in wrote.items():
            assert payload == lab.point(place.point_id, place.collection).payload, (moment, place)
        with suppress(PartlyDone):
            lab.undo(plan)
        for place, payload in wrote.items():
            assert payload == lab.point(place.point_id, place.collection).payload


def test_a_point_that_vanishes_at_any_moment(lab: Lab) -> None:
    """Points that a client deletes meanwhile are done or set aside, and no point comes back."""
    plan = spoiled(lab).plan()
    kept = lab.points()
    restore(lab, kept)
    watched = Failing(lab.vectors)
    lab.apply(plan, watched)
    places = [each.place for each in plan.actions if each.state is not None]
    for at in range(1, len(watched.calls) + 1, 3):
        restore(lab, kept)
        store = Failing(lab.vectors)

        def vanish(_: str, store: Failing = store, at: int = at) -> None:
            if len(store.calls) == at:
                for place in places:
                    if lab.vectors.describe(place.collection):
                        lab.vectors.delete(place.collection, [place.point_id])

        store.meanwhile = vanish
        with suppress(PartlyDone):
            lab.apply(plan, store)
        for place in places:
            standing = lab.ltm.points(place.collection, [place.point_id])
            assert not standing or at >= len(watched.calls) - MARKING, "a point came back"


def test_a_store_that_goes_away_is_said_and_finished_later(lab: Lab) -> None:
    """StoreUnreachable reaches the caller, and the same plan later finishes the rest."""
    plan = spoiled(lab).plan()
    kept = lab.points()
    restore(lab, kept)
    watched = Failing(lab.vectors)
    lab.apply(plan, watched)
    expected = lab.memories()
    for at in watched.writes()[:-2:3]:  # the last two make the mark, which may fail
        restore(lab, kept)
        with pytest.raises(StoreUnreachable):
            lab.apply(plan, Failing(lab.vectors, at=at))
        lab.apply(plan)
        assert expected == lab.memories()


@pytest.mark.parametrize("what", ["row", "point"])
def test_what_changes_while_memories_are_embedded(lab: Lab, what: str) -> None:
    """An embedder may take its time, so rows and points are looked at again after it."""
    [said, *_] = settled(lab)
    place = Place(lab.ltm.home_of(A), said.anchor_id)
    lab.put(said.anchor_id, {"content": "stale"}, place.collection)
    faults = Faults(lab)
    faults.add(Repair.MAKE, row=said, place=place, target=place)
    plan = faults.plan()

    def change(texts: Any) -> bool:
        if texts != ["dimensions"]:
            if what == "point":
                lab.put(said.anchor_id, {"content": "theirs"}, place.collection)
            else:
                lab.sql(
                    "UPDATE conversation_history SET content = 'new' WHERE id = %(i)s",
                    i=said.anchor_id,
                )
        return False

    with_model(lab, Model(ValueError(), change))
    with pytest.raises(PartlyDone, match="plan again") as caught:
        lab.apply(plan)
    assert {place} == aside(caught).keys()
    expected = "theirs" if what == "point" else "stale"
    assert {"content": expected} == lab.point(said.anchor_id, place.collection).payload
    assert [] == lab.sql("SELECT 1 FROM memsync.journal")
