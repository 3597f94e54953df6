"""Tests of the audit of vectors: which are looked at, what is said of the others, and repairs.

Each finding has its laws in support/laws/vectors.py.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest

from memsync import reconcile
from memsync.errors import GateClosed, PartlyDone, SchemaMismatch, StoreUnreachable
from memsync.model.ids import PersonaId, PointId
from memsync.model.records import Exchange, Point
from memsync.reconcile import verifying
from memsync.reconcile.cases import Case, Role
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.plans import ActionKind
from memsync.reconcile.rules.vectors import LEAST_COSINE, VectorDrift
from memsync.reconcile.seen_vectors import SeenVector, Verify
from memsync.reconcile.verifying import Verifier
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.marks import META
from memsync.stores.vectors.protocol import Page, scan
from support.failing import Crash, Failing
from support.lab import DIMS, A, C, Lab, as_told, embed
from support.laws.base import OLD_MS
from support.laws.vectors import named
from support.models import Model, Status, holding
from support.raw_vectors import INFINITE, NONE, SHORT, ZERO, misform, with_vector, write_raw
from support.relayout import back, to_shared
from support.repairs import alike, aside, ends_at, with_model

LAYOUTS = ("shared", "per-persona")
ALL = Verify()
Open = partial[Lab]
SEEN = SeenVector("", DIMS, DIMS, 0, 1.0, can_be_made=True)


class _Watched(Failing):
    """Notes the ids whose vectors are read. That of `hidden` cannot be read; where it `is_gone`,
    none can, nor after so many as `most`.
    """

    hidden: PointId | None = None
    is_gone: bool = False
    most: int = sys.maxsize

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read: list[PointId] = []

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        if (self.is_gone and collection != META) or (vectors and len(self.read) >= self.most):
            raise StoreUnreachable("refused")
        if vectors and self.hidden in ids:
            raise SchemaMismatch("it has vectors under names")
        if vectors:
            self.read += ids
        return super().retrieve(collection, ids, vectors=vectors)

    def scroll(self, collection: str, *, vectors: bool = False, **how: object) -> Page:
        assert not vectors
        return super().scroll(collection, vectors=vectors, **how)  # type: ignore[arg-type]


def watched(lab: Lab) -> _Watched:
    """Let the lab use its store through one that notes whose vectors are read."""
    store = _Watched(lab.vectors)
    lab.ltm = lab.with_store(store)
    return store


# ---------------------------------------------------------------------- which


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_audit_reads_no_vector_unless_it_is_asked_to(open_lab: Open, layout: str) -> None:
    """Nobody waits for what nobody asked for, and the audit says that it did not look."""
    lab = open_lab(layout=layout)
    with_vector(lab, lab.settled()[0], ZERO)
    store = watched(lab)
    found = lab.check()
    assert ({}, None, []) == (found.counts, found.vectors, store.read)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wanted", [1, 5, 15, 16, 40])
def test_a_sample_has_the_size_that_was_asked_for(open_lab: Open, layout: str, wanted: int) -> None:
    """So many memories, each once; all where there are fewer, and the report says how many."""
    lab = open_lab(layout=layout)
    lab.settled(8)
    store = watched(lab)
    lab.verify = Verify(wanted, seed=3)
    found = lab.audit()
    looked = min(wanted, 16)
    assert looked == len(store.read) == len(set(store.read))
    assert found.vectors is not None
    assert (16, looked, 0, 3) == (
        found.vectors.memories,
        found.vectors.looked_at,
        found.vectors.compared,
        found.vectors.seed,
    )
    assert found.complete


def test_a_seed_chooses_the_same_memories_and_another_one_others(open_lab: Open) -> None:
    """A report can be made again, and the runs of a month see more than one run does."""
    lab = open_lab()
    said = lab.settled(20)
    store = watched(lab)
    chosen = []
    for seed in (1, 1, 2):
        store.read.clear()
        lab.verify = Verify(10, seed)
        lab.audit()
        chosen.append(frozenset(store.read))
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]
    read: set[PointId] = set()
    for seed in range(40):
        store.read.clear()
        lab.verify = Verify(10, seed)
        lab.audit()
        read |= set(store.read)
    assert {each.anchor_id for each in said} == read


@pytest.mark.parametrize("verify", [ALL, Verify(3, 1), Verify(100, 1)], ids=str)
def test_the_other_findings_are_the_same(open_lab: Open, verify: Verify) -> None:
    """Whatever vectors are looked at, each case is judged once."""
    lab = open_lab()
    said = lab.settled(8)
    lab.lose(said[0])
    lab.respell(said[1], user_text="x")
    lab.put(lab.new_id(), lab.point(said[2].anchor_id).payload)
    plain = lab.audit()
    assert {"missing-point": 1, "stale-content": 1, "duplicate-point": 1} == plain.counts
    lab.verify = verify
    looked = lab.audit()
    assert (plain.counts, plain.points_checked) == (looked.counts, looked.points_checked)


def test_memories_without_rows_are_looked_at_too(lab: Lab) -> None:
    """Recall finds archived memories by their vectors as well; orphans are no memories."""
    lab.settled()
    lab.unsay(*lab.said[:2])
    lab.verify = ALL
    found = lab.audit()
    assert 2 == found.archived
    assert found.vectors is not None
    assert 8 == found.vectors.looked_at


def test_collections_that_recall_does_not_search_are_left_alone(lab: Lab) -> None:
    """A vector in a collection of another layout hides nothing."""
    said = lab.settled()
    point = lab.deploy(said[0], createdAt=OLD_MS, content="User (Al): of old\nAda: indeed")
    lab.vectors.upsert(f"persona-{A}", [Point(point.id, point.payload, tuple(ZERO))])
    plain = lab.audit()
    lab.verify = ALL
    found = lab.audit()
    assert plain.counts == found.counts
    assert found.vectors is not None
    assert (8, 9) == (found.vectors.memories, found.points_checked)


# ---------------------------------------------------------------------- what is unknown


def test_a_vector_that_cannot_be_read_costs_itself(lab: Lab) -> None:
    """The audit is incomplete, names the collection, and looks at all others."""
    said = lab.settled()
    with_vector(lab, said[1], ZERO)
    lab.verify = ALL
    watched(lab).hidden = said[0].anchor_id
    found = lab.audit()
    assert {"vector-zero": 1} == found.counts
    assert found.vectors is not None
    assert 7 == found.vectors.looked_at
    [unknown] = found.not_checked
    assert f"vectors of {lab.home}: 1 vector could not be read" in unknown


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_store_that_goes_away_leaves_vectors_unknown(open_lab: Open, layout: str) -> None:
    """Not one vector is taken for right because it was not read."""
    lab = open_lab(layout=layout)
    lab.settled()

    watched(lab).is_gone = True
    lab.verify = ALL
    found = lab.audit()
    assert found.vectors is not None
    assert (False, 0) == (found.complete, found.vectors.looked_at)
    assert 8 == sum(int(each.partition(": ")[2].split()[0]) for each in found.not_checked)


def test_what_the_second_look_cannot_read_is_unknown(lab: Lab) -> None:
    """A fault that was seen and cannot be read again is no finding, and no audit is clean then."""
    for each in lab.settled(2):
        with_vector(lab, each, ZERO)
    watched(lab).most = 4
    lab.verify = ALL
    found = lab.audit()
    assert ({}, (f"vectors of {lab.home}: 4 vectors could not be read: refused",)) == (
        found.counts,
        found.not_checked,
    )


def test_an_embedder_that_is_down_makes_the_audit_incomplete(lab: Lab) -> None:
    """What could not be compared is counted; what a vector says by itself is still found."""
    said = lab.settled()
    with_vector(lab, said[0], ZERO)
    named(lab)
    model = Model(Status(429), at=lambda texts: "question" in str(texts))
    with_model(lab, model, embedder_batch_texts=2)
    lab.verify = ALL
    found = lab.audit()
    assert {"vector-zero": 1} == found.counts
    [unknown] = found.not_checked
    assert "vectors: 7 vectors were not compared with the embedder" in unknown
    assert found.vectors is not None
    assert (8, 0) == (found.vectors.looked_at, found.vectors.compared)


def test_after_an_outage_no_text_is_sent_any_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large audit does not wait for the embedder batch after batch, and counts all the same."""
    monkeypatch.setattr(verifying, "_BATCH", 2)
    lab.settled()
    named(lab)
    model = Model(Status(429), at=lambda texts: "question" in str(texts))
    with_model(lab, model)
    lab.verify = ALL
    found = lab.audit()
    assert any("8 vectors were not compared" in each for each in found.not_checked)
    assert 1 == sum("question" in str(each) for each in model.calls)


def test_a_text_that_the_embedder_refuses_is_unknown(lab: Lab) -> None:
    """The text is not quoted, and the others are compared."""
    said = lab.settled()
    named(lab)
    with_model(lab, Model(ValueError("no"), holding(f"{said[0].user_text}\n")))
    lab.verify = ALL
    found = lab.audit()
    assert {} == found.counts
    [unknown] = found.not_checked
    assert "vectors: the embedder refuses 1 text" in unknown
    assert said[0].user_text not in unknown
    assert found.vectors is not None
    assert (8, 7) == (found.vectors.looked_at, found.vectors.compared)


def test_an_embedder_that_cannot_be_loaded_makes_the_audit_incomplete(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no vector is compared, and none is taken for right."""
    module = ModuleType("named_for_vectors")
    module.__dict__["down"] = Model(ConnectionError("refused"))
    monkeypatch.setitem(sys.modules, "named_for_vectors", module)
    lab.settled()
    settings = Settings(**{**lab.settings.model_dump(), "embedder": "named_for_vectors:down"})
    ltm = LongTermMemory(lab.vectors, settings)
    found = reconcile.audit(lab.postgres, ltm, settings, verify=ALL)
    assert not found.complete
    assert any("8 vectors were not compared" in each for each in found.not_checked)


@pytest.mark.parametrize("named", [True, False])
def test_a_collection_of_another_form_costs_itself(open_lab: Open, *, named: bool) -> None:
    """What is found in it cannot be confirmed, so it is unknown; all else is still found."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()
    lab.respell(said[0], content="User (Al): x\nAda: draft")
    lab.respell(said[4], content="User (Al): x\nAda: draft")
    misform(lab.vectors, f"persona-{C}", DIMS, named=named)
    found = lab.check()
    assert {"stale-content": 1, "unsearchable-vectors": 1} == found.counts
    [unknown] = found.not_checked
    assert f"collection persona-{C}: " in unknown
    lab.verify = ALL
    assert any("4 vectors could not be read" in each for each in lab.audit().not_checked)


# ---------------------------------------------------------------------- of which text


def test_only_what_the_named_embedder_made_is_compared(lab: Lab) -> None:
    """A vector of another embedder, or of one that nobody knows, says nothing about this one."""
    said = lab.settled()
    for each, embedder in ((said[0], "app.models:older/8"), (said[1], None)):
        lab.respell(each.anchor_id, embedder=embedder)
        with_vector(lab, each, list(embed(["another text"])[0]))
    lab.verify = ALL
    assert {} == lab.audit().counts
    named(lab)
    found = lab.audit()
    assert {"embedder-mismatch": 1} == found.counts
    assert found.vectors is not None
    assert 6 == found.vectors.compared


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_of_a_text_has_its_vector(open_lab: Open, layout: str) -> None:
    """Texts of two fields, of the app's, enriched and of earlier builds are no drift."""
    lab = open_lab(layout=layout)
    said = lab.settled()
    if lab.deployed:
        lab.respell(said[0], content=as_told(said[0], user=" [a cat]", reply="\n[b]"))
    else:
        codec = lab.ltm.codec
        for each, text in ((said[0], as_told(said[0])), (said[1], as_told(said[1], user=" [a]"))):
            lab.put(each.anchor_id, {**codec.encode_deployed(each, text), "embedder": "test/8"})
    named(lab)
    lab.verify = ALL
    found = lab.audit()
    assert ({}, True) == (found.counts, found.complete)
    assert found.vectors is not None
    assert 8 == found.vectors.compared


def test_after_a_change_of_layout_no_vector_drifts(quick: Lab) -> None:
    """Copies keep the app's vectors and the app's texts, and are compared by these, also back."""
    quick.verify = ALL
    for change in (to_shared, back):
        change(quick)
        found = quick.check()
        assert ({}, ()) == (found.counts, found.not_checked)
        assert found.vectors is not None
        assert found.vectors.memories == found.vectors.compared > 7


def test_a_memory_without_a_vector_stops_a_change_of_layout(quick: Lab) -> None:
    """It is not copied as it is, and the message says which plan makes it whole."""
    [point, *_] = scan(quick.vectors, f"persona-{A}")
    write_raw(quick.vectors, f"persona-{A}", point, NONE)
    with pytest.raises(GateClosed, match=r"has no vector.*--verify-vectors all"):
        to_shared(quick)


def test_an_embedder_of_another_size_is_compared_with_nothing(open_lab: Open) -> None:
    """Where sizes differ, dimension-mismatch says what is to be said."""
    lab = open_lab(layout="per-persona")
    lab.settled()
    named(lab)
    larger = Embedder("test", lambda texts: [[1.0] * (DIMS + 1) for _ in texts])
    lab.ltm = LongTermMemory(lab.vectors, lab.settings, larger, lab.ltm.layout)
    lab.verify = ALL
    assert {"dimension-mismatch": 2} == lab.audit().counts


@pytest.mark.parametrize(("by", "drifts"), [(0.0, False), (0.04, False), (0.05, True), (1.0, True)])
def test_rounding_is_no_drift(by: float, *, drifts: bool) -> None:
    """A cosine just above the bound is the noise of a service, and one below it is not."""
    seen = replace(SEEN, cosine=math.cos(by))
    assert drifts is (VectorDrift().sees(seen) is not None)
    assert (math.cos(by) < LEAST_COSINE) is drifts


def test_a_vector_that_is_written_meanwhile_is_settling(lab: Lab) -> None:
    """A difference is a finding only where it is still there on the second look."""
    said = lab.settled()
    right = lab.point(said[0].anchor_id)
    with_vector(lab, said[0], ZERO)
    store = watched(lab)
    lab.verify = ALL
    looked = store.retrieve

    def mended(collection: str, ids: Sequence[PointId], *, vectors: bool = False) -> list[Point]:
        found = looked(collection, ids, vectors=vectors)
        if vectors:
            lab.vectors.upsert(lab.home, [right])
        return found

    store.retrieve = mended  # type: ignore[method-assign]
    found = lab.audit()
    assert ({}, 1) == (found.counts, found.settling)


# ---------------------------------------------------------------------- repairs


def spoilt(lab: Lab) -> list[Exchange]:
    """An app with a vector of each kind that a plan makes anew, and that an undo can bring back."""
    said = lab.settled()
    named(lab)
    lab.verify = ALL
    for each, vector in zip(said, spoiling(lab), strict=False):
        with_vector(lab, each, vector)
    return said


def spoiling(lab: Lab) -> list[list[float]]:
    """The vectors; the store in memory brings one that is short to the length 1."""
    return [NONE, ZERO] if lab.settings.qdrant_url == ":memory:" else [NONE, ZERO, SHORT]


@pytest.mark.parametrize("store", ["memory", "edge", "server"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_repair_keeps_text_and_id_and_undo_brings_the_vector_back(
    open_lab: Open, store: str, layout: str
) -> None:
    """After apply recall finds the memories; after undo every vector is what it was."""
    lab = open_lab(store, layout=layout)
    said = spoilt(lab)
    before = lab.points()
    found = lab.check()
    wanted = {"not-a-vector": 1, "vector-zero": len(spoiling(lab)) - 1}
    assert wanted == found.counts
    plan = lab.plan(found)
    assert {ActionKind.PUT} == {each.kind for each in plan.actions}
    lab.apply(plan)
    assert {} == lab.check().counts
    for each in said[:3]:
        [first, *_] = lab.ltm.recall(
            as_told(each) if lab.deployed else each.text, persona_id=PersonaId(A), limit=1
        )
        assert lab.place(each).point_id == first.id
        assert pytest.approx(1.0, abs=1e-5) == first.score
    lab.undo(plan)
    assert alike(before, lab.points(), exactly=False)
    assert wanted == lab.check().counts
    lab.apply(lab.plan())
    assert {} == lab.check().counts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_undo_says_where_a_vector_cannot_come_back(open_lab: Open, layout: str) -> None:
    """NaN is written to no store, so that memory keeps the vector that was made."""
    lab = open_lab("edge", layout=layout)
    said = lab.settled()
    named(lab)
    lab.verify = ALL
    with_vector(lab, said[0], INFINITE)
    with_vector(lab, said[1], ZERO)
    plan = lab.plan()
    lab.apply(plan)
    assert {} == lab.check().counts
    with pytest.raises(PartlyDone, match="NaN or infinity") as caught:
        lab.undo(plan)
    assert {lab.place(said[0])} == aside(caught).keys()
    assert {"vector-zero": 1} == lab.check().counts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_vector_that_was_written_since_is_set_aside(open_lab: Open, layout: str) -> None:
    """An apply makes no vector anew that is not the one that the plan rests on."""
    lab = open_lab(layout=layout)
    said = spoilt(lab)
    plan = lab.plan()
    another = list(embed(["another writer"])[0])
    with_vector(lab, said[1], another)
    with pytest.raises(PartlyDone, match="the vector of the point is") as caught:
        lab.apply(plan)
    place = lab.place(said[1])
    assert {place} == aside(caught).keys()
    kept = lab.point(place.point_id, place.collection).vector
    assert pytest.approx(another, abs=1e-6) == kept


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_apply_that_was_killed_is_finished(open_lab: Open, layout: str, *, after: bool) -> None:
    """A vector that the killed run has written already is not another writer's."""
    lab = open_lab(layout=layout)
    spoilt(lab)
    plan = lab.plan()
    before = lab.points()
    for at in range(1, 9):
        with ends_at(at, after=after) as counted:
            try:
                lab.apply(plan)
            except Crash:
                pass
            else:
                break
        lab.apply(plan)
        assert {} == lab.check().counts, at
        lab.undo(plan)
        assert alike(before, lab.points(), exactly=False), at
        lab.sql("TRUNCATE memsync.quarantine, memsync.repair, memsync.journal")
    assert counted.calls < at
    assert at > 3


def test_what_the_app_added_to_its_text_stays(open_lab: Open) -> None:
    """Only the vector is made anew, from the text that stands there; other keys stay too."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()
    content = as_told(said[0], user=" [a cat]")
    lab.respell(said[0], content=content, senders=["7"])
    place = lab.place(said[0])
    before = lab.point(place.point_id, place.collection)
    with_vector(lab, said[0], ZERO)
    named(lab)
    lab.verify = ALL
    lab.apply(lab.plan())
    after = lab.point(place.point_id, place.collection)
    assert before.payload == after.payload
    assert pytest.approx(before.vector, abs=1e-6) == after.vector


def test_a_payload_that_is_wrong_too_is_mended_with_the_vector(open_lab: Open) -> None:
    """Of two findings about one point one action comes, and the next audit is clean."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()
    lab.respell(said[0], createdAt=said[0].created_at_ms // 1000)
    lab.respell(said[1], content="User (Al): x\nAda: draft")
    for each in said[:2]:
        with_vector(lab, each, ZERO)
    named(lab)
    lab.verify = ALL
    found = lab.audit()
    assert {"stale-content": 1, "wrong-time-unit": 1, "vector-zero": 2} == found.counts
    plan = lab.plan(found)
    assert ([ActionKind.PUT] * 2, {}) == ([each.kind for each in plan.actions], plan.left)
    lab.apply(plan)
    assert {} == lab.check().counts


def test_in_the_shared_layout_the_new_embedder_is_named(lab: Lab) -> None:
    """The text that was brought from the app stays, and the payload says who made its vector."""
    [said, *_] = lab.settled()
    payload = lab.ltm.codec.encode_deployed(said, as_told(said, user=" [a cat]"))
    lab.put(said.anchor_id, {**payload, "embedder": "app.models:older/8"})
    with_vector(lab, said, ZERO)
    lab.verify = ALL
    lab.apply(lab.plan())
    after = lab.point(said.anchor_id)
    assert {**payload, "embedder": "test/8"} == after.payload
    assert pytest.approx(embed([str(payload["content"])])[0], abs=1e-6) == after.vector
    assert {} == lab.check().counts


def test_a_sample_is_held_in_memory_and_no_more(lab: Lab) -> None:
    """Cases that are not chosen are passed on while the rest is still read."""
    lab.settled(8)
    lab.verify = Verify(2, 1)
    verifier = Verifier(lab.ltm, lab.settings, lab.verify)
    taken: list[Case] = []

    def noted(case: Case) -> Case:
        taken.append(case)
        return case

    with lab.postgres.session() as session:
        pairing = Pairing.of(session, lab.ltm, Catalog.read(session), tolerance_s=10)
        first = next(iter(verifier.looked(map(noted, pairing.cases()))))
    assert (3, None, Role.MEMORY) == (len(taken), first.vector, first.role)
