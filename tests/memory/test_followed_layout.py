"""A change of the recorded layout is followed by whoever is open: each Memory, each relay."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from memsync.errors import PartlyDone, SchemaMismatch, StoreUnreachable
from memsync.memory import Drained, Memory, relay, stores
from memsync.model.records import Exchange
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.record import decide
from memsync.stores.ltm.writer import known_layout
from memsync.stores.postgres import Postgres
from memsync.stores.vectors.protocol import VectorStore
from support.failing import Failing
from support.lab import A, Lab
from support.releasing import drain
from support.roles import LIBRARY_GRANTS

HOME = f"persona-{A}"


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is known of the record be old at once."""
    monkeypatch.setattr(stores, "LOOK_S", 0.0)
    monkeypatch.setattr(relay, "LOOK_S", -1.0)


@pytest.fixture
def lab(open_lab: "partial[Lab]") -> Lab:
    """A lab whose embedded store several threads may use."""
    return open_lab("edge")


def change(lab: Lab, layout: str) -> None:
    """Record another layout, as `memsync reconcile layout set` does at its end."""
    lab.sql("DELETE FROM memsync.layout")
    lab.sql("INSERT INTO memsync.layout (layout, why) VALUES (%(l)s, 'test')", l=layout)


def opened(lab: Lab, vectors: VectorStore | None = None, **given: Any) -> Memory:
    """A Memory for which no setting names the layout; the shared one is in force."""
    settings = lab.settings.model_copy(update={"layout": "auto", **given})
    ltm = LongTermMemory(vectors or lab.vectors, settings, lab.ltm.embedder, Layout.SHARED)
    return Memory(lab.postgres, settings, ltm)


def in_both(lab: Lab) -> tuple[Exchange, UUID]:
    """An exchange with a memory in the shared collection, and another id in the persona's own."""
    [said] = lab.say()
    lab.sync()
    point = lab.deploy(said)
    assert isinstance(point.id, UUID)
    change(lab, "shared")
    return said, point.id


def first(memory: Memory) -> object:
    """The id of the persona's nearest memory."""
    return memory.recall("x", persona_id=A)[0].id


def test_recalls_of_many_threads_follow(lab: Lab) -> None:
    """Each sees the old layout, and then the new one for good; there and back; nobody fails."""
    said, deployed = in_both(lab)
    memory, seen, failed = opened(lab), [list[object]() for _ in range(4)], list[Exception]()
    ends = threading.Event()

    def read(into: list[object]) -> None:
        while not ends.is_set():
            try:
                into.append(first(memory))
            except Exception as error:  # noqa: BLE001  whatever it is, the test tells it
                failed.append(error)
                return

    readers = [threading.Thread(target=read, args=(each,)) for each in seen]
    for each in readers:
        each.start()
    expected = [said.anchor_id, deployed, said.anchor_id]
    until = time.monotonic() + 60
    for layout, answer in zip(("shared", "per-persona", "shared"), expected, strict=True):
        change(lab, layout)
        while not failed and not all(each and each[-1] == answer for each in seen):
            assert time.monotonic() < until, "nobody follows"
            ends.wait(0.005)
    ends.set()
    for each in readers:
        each.join()
    assert [] == failed
    for answers in seen:
        changes = [here for here, before in zip(answers, [None, *answers], strict=False)
                   if here != before]  # fmt: skip
        assert expected == changes


def test_a_recall_in_the_middle_ends_in_its_layout(lab: Lab) -> None:
    """While it searches, the layout changes and another call follows; both have their answer."""
    said, deployed = in_both(lab)
    began, may_go = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name == "query" and not began.is_set():
            began.set()
            assert may_go.wait(20)

    memory, found = opened(lab, Failing(lab.vectors, meanwhile=wait)), list[object]()
    reader = threading.Thread(target=lambda: found.append(first(memory)))
    reader.start()
    assert began.wait(20)
    change(lab, "per-persona")
    assert deployed == first(memory)
    may_go.set()
    reader.join()
    assert [said.anchor_id] == found


def test_the_record_is_read_rarely(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many calls within the time one asks Postgres."""
    in_both(lab)
    monkeypatch.setattr(stores, "LOOK_S", 10.0)
    asked: list[object] = []

    def count(*given: Any, **named: Any) -> Any:
        asked.append(given)
        return known_layout(*given, **named)

    monkeypatch.setattr(stores, "known_layout", count)
    memory = opened(lab)
    for _ in range(20):
        first(memory)
    assert 1 == len(asked)


def test_a_setting_that_contradicts_the_record_is_told(lab: Lab) -> None:
    """A Memory whose setting names the old layout says so, and reads nothing wrong."""
    in_both(lab)
    memory = opened(lab, layout="shared")
    first(memory)
    change(lab, "per-persona")
    with pytest.raises(SchemaMismatch, match="layout set shared"):
        memory.recall("x", persona_id=A)


def test_a_recall_needs_no_postgres(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Postgres does not answer, the layout stays as it was known."""
    said, _ = in_both(lab)
    memory = opened(lab)
    first(memory)

    def fail(*_: object, **__: object) -> None:
        raise StoreUnreachable("down")

    monkeypatch.setattr(lab.postgres, "call", fail)
    assert said.anchor_id == first(memory)


def halfway(lab: Lab, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Failing:
    """A store that acts at its first write, for a relay whose batches have one entry."""
    monkeypatch.setattr(relay, "BATCH_ENTRIES", 1)
    acts = [act]
    return Failing(lab.vectors, meanwhile=lambda name: name == "upsert" and acts and acts.pop()())


@pytest.mark.parametrize("writer", ["memsync", "app"])
def test_a_relay_follows_between_two_batches(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    """The batch under way ends in the old layout; the next lies in the new one, or is held."""
    change(lab, "shared")
    lab.say(3)
    store = halfway(lab, lambda: change(lab, "per-persona"), monkeypatch)
    settings = lab.settings.model_copy(update={"layout": "auto", "writer": writer})
    ltm = LongTermMemory(store, settings, lab.ltm.embedder, Layout.SHARED)
    if writer == "memsync":
        assert Drained(3, 3) == drain(lab.postgres, ltm)
        assert (1, 2) == (lab.vectors.count(lab.home), lab.vectors.count(HOME))
        return
    with pytest.raises(PartlyDone, match="2 outbox entries are held"):
        drain(lab.postgres, ltm)
    assert 1 == lab.vectors.count(lab.home)
    assert [(0, False)] * 2 == lab.sql("SELECT attempts, dead FROM memsync.outbox")


def test_the_first_relay_that_writes_records_the_layout(lab: Lab) -> None:
    """One that has nothing to write records nothing; what is recorded by others counts."""
    drain(lab.postgres, lab.ltm)
    assert [] == lab.sql("SELECT layout FROM memsync.layout")
    lab.say()
    lab.sync()
    assert [("shared",)] == lab.sql("SELECT layout FROM memsync.layout")
    lab.say()
    change(lab, "per-persona")
    with pytest.raises(SchemaMismatch, match="the setting layout is shared"):
        drain(lab.postgres, lab.ltm)


def test_a_role_of_the_app_may_ask_where_memories_lie(lab: Lab) -> None:
    """Where nothing shows the layout, it is told that, and not that it lacks a right."""
    lab.say()
    lab.sql("DELETE FROM memsync.outbox")
    lab.sql("DROP ROLE IF EXISTS memsync_asks")
    lab.sql("CREATE ROLE memsync_asks")
    for grant in LIBRARY_GRANTS:
        lab.sql(grant.format("memsync_asks"))
    lab.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO memsync_asks")
    settings = lab.settings.model_copy(update={"layout": "auto"})
    try:
        with Postgres.open(lab.url) as postgres, postgres.session() as session:
            session.run_script("SET ROLE memsync_asks")
            with pytest.raises(SchemaMismatch, match="cannot tell in which layout"):
                decide(session, lab.vectors, settings)
    finally:
        lab.sql("DROP OWNED BY memsync_asks")
        lab.sql("DROP ROLE memsync_asks")
