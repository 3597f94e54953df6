"""Tests an apply whose memories are refused: those are set aside and told, the rest goes on."""

from collections import Counter
from functools import partial

import pytest

from memsync.errors import EmbedderUnreachable, InvalidInput, PartlyDone
from memsync.model.records import to_ms
from memsync.reconcile.plans import ActionKind
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from support.lab import LONG_AGO, A, Lab
from support.models import Model, Status, holding

OLD_MS = to_ms(LONG_AGO) - 86_400_000
POISON = "question 3\n"


def with_model(lab: Lab, model: Model, **settings: int) -> None:
    """Give the lab another model under the same name."""
    chosen = Settings(**{**lab.settings.model_dump(), **settings})
    lab.ltm = LongTermMemory(lab.vectors, chosen, Embedder("test", model))


def test_one_refused_text_costs_its_action_alone(open_lab: "partial[Lab]") -> None:
    """All other memories are made in the same apply; the next one makes the last."""
    lab = open_lab("edge")
    said = lab.say(300)
    lab.sql("DELETE FROM memsync.outbox")
    plan = lab.plan()
    model = Model(ValueError("maximum context length is 8192 tokens"), holding(POISON))
    with_model(lab, model, embedder_batch_texts=64)
    for done in (299, 0):
        with pytest.raises(PartlyDone, match=r"1 set aside.*8192 tokens") as caught:
            lab.apply(plan)
        assert 3 == caught.value.exit_status
        assert (done, 1) == (caught.value.fields["done"], caught.value.fields["set_aside"])
        assert str(said[3].anchor_id) in caught.value.message
        assert 299 == lab.vectors.count(lab.home)
    assert max(map(len, model.calls)) <= 64
    assert len(model.calls) <= 1 + 6 + 2 * 6 + 2 + 2
    with_model(lab, Model())
    lab.apply(plan)
    assert lab.check().ok


def test_a_point_is_not_removed_before_its_memory_is_made(lab: Lab) -> None:
    """The old point of a refused memory stays, and so does its collection."""
    said = lab.settled(6)
    for each in said[2:5]:
        lab.vectors.delete(lab.home, [each.anchor_id])
    old = {each.anchor_id: lab.deploy(each) for each in said[2:5]}
    plan = lab.plan()
    assert 3 == sum(each.replaced_by is not None for each in plan.actions)
    with_model(lab, Model(Status(400), holding(POISON)))
    with pytest.raises(PartlyDone) as caught:
        lab.apply(plan)
    aside = Counter(each["action"] for each in caught.value.fields["actions"])  # type: ignore[attr-defined]
    assert {ActionKind.PUT: 1, ActionKind.REMOVE: 1, ActionKind.RETIRE: 1} == aside
    kept = [point_id for point_id, *_ in lab.points()[f"persona-{A}"]]
    assert [old[said[3].anchor_id].id] == kept
    with_model(lab, Model())
    lab.apply(plan)
    assert lab.check().ok


def test_an_archived_memory_that_is_refused_stays_where_it_is(lab: Lab) -> None:
    """It is not moved, not removed, and its collection is not retired; the others are moved."""
    said = lab.settled()
    text = "User (Al): {}\nAda: y"
    olds = [
        lab.deploy(said[0], createdAt=OLD_MS + at, content=text.format(f"old {at}"))
        for at in range(4)
    ]
    plan = lab.plan()
    with_model(lab, Model(ValueError("no"), holding("old 2\n")))
    with pytest.raises(PartlyDone, match="2 set aside"):
        lab.apply(plan)
    assert [olds[2].id] == [point_id for point_id, *_ in lab.points()[f"persona-{A}"]]
    assert {each.id for each in olds if each is not olds[2]} <= {
        point_id for point_id, *_ in lab.points()[lab.home]
    }
    with_model(lab, Model())
    lab.apply(plan)
    assert lab.check().ok


def test_a_memory_that_the_store_refuses_is_set_aside(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for a memory that the vector store refuses."""
    said = lab.say(20)
    lab.sql("DELETE FROM memsync.outbox")
    plan, upsert = lab.plan(), lab.vectors.upsert

    def strict(collection: str, points: object, **how: object) -> None:
        if any(each.id == said[7].anchor_id for each in points):  # type: ignore[attr-defined]
            raise InvalidInput("Qdrant cannot do that: too large")
        upsert(collection, points, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(lab.vectors, "upsert", strict)
    with pytest.raises(PartlyDone, match=r"1 set aside.*too large"):
        lab.apply(plan)
    assert 19 == lab.vectors.count(lab.home)


def test_an_outage_keeps_what_was_made(lab: Lab) -> None:
    """An apply during an outage ends as unreachable; the next one does the rest."""
    lab.say(100)
    lab.sql("DELETE FROM memsync.outbox")
    plan = lab.plan()
    with_model(lab, Model(Status(429), holding("question 70\n")), embedder_batch_texts=1)
    with pytest.raises(EmbedderUnreachable):
        lab.apply(plan)
    made = lab.vectors.count(lab.home)
    assert 0 < made < 100
    with_model(lab, Model())
    done = lab.apply(plan)
    assert (100 - made, made) == (done.done, done.done_before)
    assert lab.check().ok
