"""The relay in the per-persona layout where the collection of one persona fails, or all do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from memsync import reconcile
from memsync.errors import PartlyDone, SchemaMismatch, StoreUnreachable
from memsync.memory import outbox_status, relay
from memsync.model.records import Point
from memsync.stores.ltm import LongTermMemory, apart, standing
from memsync.stores.ltm.embedders import Embedder
from support.failing import Failing
from support.lab import A, B, C, Lab, embed
from support.releasing import drain, released

HOME = f"persona-{A}"
WRITES = ("create", "upsert", "overwrite_payloads")


@dataclass
class Case:
    """A lab, a store that fails at these calls where `fails`, and the texts that were embedded."""

    lab: Lab
    names: Sequence[str] = ()
    fails: Callable[[str, Sequence[Point]], bool] = lambda name, _: name == HOME
    texts: list[str] = field(default_factory=list)
    calls: int = 0

    def __post_init__(self) -> None:
        self.store = Failing(self.lab.vectors)
        for name in ("describe", "scroll", "retrieve", "collections", *WRITES):
            setattr(self.store, name, partial(self._call, name, getattr(self.store, name)))
        model = Embedder("test", self._embed)
        self.texts.clear()
        self.ltm = LongTermMemory(self.store, self.lab.settings, model, self.lab.ltm.layout)

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.texts += texts
        return embed(texts)

    def _call(self, name: str, call: Any, collection: str = "", *given: Any, **named: Any) -> Any:
        points = given[0] if name == "upsert" else ()
        if name in self.names and self.fails(collection, points):
            self.calls += 1
            raise StoreUnreachable("a shard is down")
        return call(*([collection] if collection else []), *given, **named)

    def run(self, last: relay.Ended | None = None, *, anew: bool = False) -> relay.Ended:
        """A run of a relay that goes on, after the time for which entries are held."""
        self.texts.clear()
        self.lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")
        with released(self.lab.url):
            return relay.drain_once(self.lab.postgres, self.ltm, last=last, anew=anew)


@pytest.fixture
def lab(open_lab: "partial[Lab]") -> Lab:
    """A lab whose app has handed its memories over."""
    return open_lab(layout="per-persona", writer="memsync")


@pytest.mark.parametrize("name", ["describe", "scroll", "upsert", "retrieve"])
def test_a_collection_that_fails_holds_its_own_entries_only(lab: Lab, name: str) -> None:
    """The store takes writes otherwise, so the others are written, and no attempt is spent."""
    lab.say(1)
    lab.say(1, persona=C)
    lab.sync()
    lab.say(2)
    lab.say(persona=C)
    with pytest.raises(PartlyDone, match="2 outbox entries are held: a shard is down") as left:
        drain(lab.postgres, Case(lab, [name]).ltm)
    assert 1 == left.value.fields["done"]
    assert [(0, False)] * 2 == lab.sql("SELECT attempts, dead FROM memsync.outbox")
    assert 2 == drain(lab.postgres, lab.ltm).entries
    assert lab.check().ok


@pytest.mark.parametrize("personas", [(A,), (A, B, C)], ids=["one persona", "three"])
def test_a_store_that_takes_no_write_is_down(lab: Lab, personas: Sequence[Any]) -> None:
    """It answers reads. Nothing is held; each later run embeds one text, to see if it is over."""
    for each in personas:
        lab.say(4, persona=each)
    case = Case(lab, WRITES, lambda *_: True)
    ended: relay.Ended | None = None
    for embedded in (4 * len(personas), 1, 1):
        ended = case.run(ended)
        assert (embedded, 0) == (len(case.texts), ended.status.held)
        assert ended.outage
    assert case.calls <= 3 * 3
    case.names = ()
    assert 4 * len(personas) == case.run(ended).drained.entries


@pytest.mark.parametrize("name", ["create", "upsert"])
def test_a_collection_that_fails_is_left_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its texts are embedded once. Later one at most, until it takes a write; then all follow."""
    monkeypatch.setattr(apart, "_FAILURES_MAX", 4)
    monkeypatch.setattr(relay, "BATCH_ENTRIES", 8)
    lab.say(20)
    lab.say(2, persona=C)
    case = Case(lab, [name])
    ended = case.run()
    assert (2, 20, None) == (ended.drained.entries, ended.status.held, ended.outage)
    assert 8 + 2 == len(case.texts)
    assert (20, 0) == (case.run().status.held, len(case.texts)), "it failed a moment ago"
    again = 1 if name == "upsert" else 0
    assert (20, again) == (case.run(anew=True).status.held, len(case.texts))
    case.names = ()
    assert (20, 20) == (case.run(anew=True).drained.entries, len(case.texts))
    assert lab.check().ok


@pytest.mark.parametrize("bad", [{0}, {3, 11}])
def test_one_bad_point_holds_itself_only(lab: Lab, bad: set[int]) -> None:
    """The store fails at any batch with it. The persona's other memories are written."""
    said = lab.say(16)
    ids = {said[at].anchor_id for at in bad}
    case = Case(
        lab, ["upsert"], lambda name, points: name == HOME and any(p.id in ids for p in points)
    )
    ended = case.run()
    assert (16 - len(bad), len(bad)) == (ended.drained.entries, ended.status.held)
    lab.say(4)
    assert (4, len(bad)) == (case.run().drained.entries, outbox_status(lab.postgres).held)
    case.names = ()
    assert len(bad) == case.run().drained.entries
    assert lab.check().ok


def test_a_bad_point_does_not_hold_others_for_good(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has failed so often alone that the collection counts as failing. Any other ends that."""
    monkeypatch.setattr(apart, "_FAILURES_MAX", 4)
    [bad] = lab.say()
    case = Case(
        lab,
        ["upsert"],
        lambda name, points: name == HOME and any(p.id == bad.anchor_id for p in points),
    )
    for _ in range(4):
        assert 1 == case.run().status.held
    lab.say(2)
    assert (3, 0) == (case.run().status.held, len(case.texts))
    # Which of the three is tried is chance.
    for _ in range(50):
        if 1 == case.run(anew=True).status.held:
            break
    assert [(bad.anchor_id,)] == lab.sql("SELECT point_id FROM memsync.outbox")


def test_a_collection_that_keeps_one_waiting_is_not_tried_in_parts(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write of many points may take as long as the time limit, and so may each part."""
    monkeypatch.setattr(apart, "_PARTS_S", -1.0)
    lab.say(8)
    case = Case(lab, ["upsert"])
    assert (8, 1) == (case.run().status.held, case.calls)


def test_several_slow_collections_are_an_outage(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch would wait for each of them."""
    monkeypatch.setattr(apart, "_SLOW_S", -1.0)
    monkeypatch.setattr(apart, "_SLOW_MAX", 1)
    lab.say()
    lab.say(persona=C)
    with pytest.raises(PartlyDone, match=r"2 wait for a retry.*a shard is down"):
        drain(lab.postgres, Case(lab, ["describe"]).ltm, outage_wait_s=0)
    assert f"persona-{C}" not in lab.vectors.collections()


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ((standing, "exchanges_at"), StoreUnreachable("disk full")),
        ((reconcile, "keep_replaced"), SchemaMismatch("no table")),
    ],
    ids=["look", "keep"],
)
def test_a_failure_of_postgres_is_no_collections(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str], error: Exception
) -> None:
    """It is everybody's, and nothing is held for it."""
    [stands, replaced] = lab.say(2)
    lab.deploy(stands)
    lab.deploy(replaced, point_id=replaced.anchor_id, content="User (Al): x\nAda: y", messageIds=[])

    def fails(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(*where, fails)
    with released(lab.url), pytest.raises((PartlyDone, SchemaMismatch), match=str(error)):
        relay.drain(lab.postgres, lab.ltm, outage_wait_s=0)
    assert (2, 0) == (outbox_status(lab.postgres).pending, outbox_status(lab.postgres).held)
