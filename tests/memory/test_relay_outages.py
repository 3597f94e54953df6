"""Tests what an outage, a refusal and a death of the process cost an entry of the outbox."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg
import pytest

from memsync.errors import (
    EmbedderUnreachable,
    InvalidInput,
    PartlyDone,
    SchemaMismatch,
    SettingsError,
    StoreUnreachable,
)
from memsync.memory import Drained, outbox_status, relay, revive
from memsync.memory.relay import ATTEMPTS_MAX, BATCH_ENTRIES
from memsync.model.progress import Kind, Progress
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from support.clock import Clock, clock
from support.failing import Failing
from support.lab import Lab, embed
from support.models import Model, Status, holding
from support.releasing import drain, released

__all__ = ["clock"]


def ltm_of(lab: Lab, model: Any, **settings: Any) -> LongTermMemory:
    """Long-term memory with another model, loaded while it answers."""
    chosen = Settings(**{**lab.settings.model_dump(), **settings})
    return LongTermMemory(lab.vectors, chosen, Embedder("test", model))


def entries(lab: Lab) -> set[tuple[int, bool, int]]:
    """The attempts of all entries, whether they are dead, and how many of them there are."""
    return set(lab.sql("SELECT attempts, dead, count(*) FROM memsync.outbox GROUP BY 1, 2"))


class Outage:
    """A model that raises at everything until `ends_at` on the clock."""

    def __init__(self, clock: Clock, error: Exception, ends_at_s: float = 1e9) -> None:
        self.calls: list[int] = []
        self._clock, self._error, self._ends_at_s = clock, error, ends_at_s

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        if ["dimensions"] == texts:
            return embed(texts)
        self.calls.append(len(texts))
        if self._clock.now_s < self._ends_at_s:
            raise self._error
        return embed(texts)


@pytest.mark.parametrize(
    "error",
    [Status(429), Status(503), Status(500), ConnectionError("refused"), TimeoutError(),
     RuntimeError("x"), ValueError("x"), Status(400)],
    ids=repr,
)  # fmt: skip
def test_an_outage_costs_no_attempt(lab: Lab, clock: Clock, error: Exception) -> None:
    """A model that is down for a whole run costs few calls and no attempt of any entry."""
    lab.say(40)
    down = Outage(clock, error)
    with pytest.raises(PartlyDone, match=r"does not answer.*memsync sync run") as caught:
        drain(lab.postgres, ltm_of(lab, down))
    assert {(0, False, 40)} == entries(lab)
    assert (0, 40, 0) == tuple(caught.value.fields[each] for each in ("done", "pending", "dead"))
    assert len(down.calls) <= 16
    assert sum(clock.pauses) <= relay.OUTAGE_WAIT_S
    assert Drained(40, 40) == drain(lab.postgres, lab.ltm)
    assert lab.check().ok


def test_pauses_grow_up_to_a_minute(lab: Lab, clock: Clock) -> None:
    """Each pause is twice the one before, and all together they last as long as is allowed."""
    lab.say()
    with pytest.raises(PartlyDone), released(lab.url):
        relay.drain(lab.postgres, ltm_of(lab, Outage(clock, Status(429))), outage_wait_s=300)
    assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == clock.pauses


def test_without_a_wait_an_outage_ends_the_run(lab: Lab, clock: Clock) -> None:
    """With a wait of 0 s the model is asked once."""
    lab.say(3)
    down = Outage(clock, Status(429))
    with pytest.raises(PartlyDone), released(lab.url):
        relay.drain(lab.postgres, ltm_of(lab, down), outage_wait_s=0)
    assert ([3], []) == (down.calls, clock.pauses)


@pytest.mark.parametrize(("asked", "pauses"), [("20", [20.0]), ("3600", [])])
def test_retry_after_is_kept(lab: Lab, clock: Clock, asked: str, pauses: list[float]) -> None:
    """A pause is as long as the service asks for; a longer one than is allowed ends the run."""
    lab.say(3)
    down = Outage(clock, Status(429, retry_after=asked), ends_at_s=clock.now_s + 20)
    if pauses:
        assert Drained(3, 3) == drain(lab.postgres, ltm_of(lab, down))
    else:
        with pytest.raises(PartlyDone):
            drain(lab.postgres, ltm_of(lab, down))
    assert pauses == clock.pauses


def test_what_no_waiting_mends_ends_the_run_at_once(lab: Lab, clock: Clock) -> None:
    """A key that is refused costs no attempt and no time."""
    lab.say(3)
    with pytest.raises(PartlyDone, match="invalid key"):
        drain(lab.postgres, ltm_of(lab, Outage(clock, Status(401, "invalid key"))))
    assert ([], {(0, False, 3)}) == (clock.pauses, entries(lab))


def test_an_outage_that_ends_is_no_failure(lab: Lab, clock: Clock) -> None:
    """The run goes on where it was, tells of the wait, and ends as if nothing had been."""
    lab.say(300)
    told: list[Progress] = []
    down = Outage(clock, Status(503), ends_at_s=clock.now_s + 5)
    with released(lab.url):
        done = relay.drain(lab.postgres, ltm_of(lab, down), told.append)
    assert (Drained(300, 300), [1, 2, 4]) == (done, clock.pauses)
    waits = [each.what for each in told if each.kind is Kind.WAITING_FOR_SERVICE]
    assert 3 == len(waits)
    assert "does not answer: Status: no" in waits[0]
    assert waits[0].endswith("the next try is in 1 s")
    assert lab.check().ok


@pytest.mark.usefixtures("clock")
def test_a_long_run_through_a_rate_limit(lab: Lab) -> None:
    """A limit that stops every third call keeps nothing back and costs no attempt."""
    lab.say(60)
    limited = Model(Status(429), lambda _: len(limited.calls) % 3 == 0)
    ltm = ltm_of(lab, limited, embedder_batch_texts=4)
    assert Drained(60, 60) == drain(lab.postgres, ltm)
    assert lab.check().ok


def test_a_store_that_goes_down_costs_no_attempt(lab: Lab, clock: Clock) -> None:
    """A vector store that fails at a write is asked again; one that stays down costs nothing."""
    failures = ["once"]

    def refuse(name: str) -> None:
        if name == "upsert" and failures:
            failures.pop()
            raise StoreUnreachable("Qdrant does not answer: 503 out of disk")

    full = Failing(lab.vectors, meanwhile=refuse)
    lab.say(3)
    assert Drained(3, 3) == drain(lab.postgres, lab.with_store(full))
    assert [1] == clock.pauses
    lab.say(3)
    failures += ["for long"] * 100
    with pytest.raises(PartlyDone, match="out of disk"):
        drain(lab.postgres, lab.with_store(full))
    assert {(0, False, 3)} == entries(lab)


def test_a_memory_that_the_store_refuses_costs_that_one(lab: Lab) -> None:
    """The store's refusal is found by halving, and the vectors are not made again."""
    said = lab.say(40)

    class Strict(Failing):
        def upsert(self, collection: str, points: Any, **how: Any) -> None:
            self._now("upsert")
            if any(each.id == said[17].anchor_id for each in points):
                raise InvalidInput("Qdrant cannot do that: the payload is too large")
            self.store.upsert(collection, points, **how)

    strict, model = Strict(lab.vectors), Model()
    chosen = Settings(**{**lab.settings.model_dump(), "embedder_batch_texts": 100})
    with pytest.raises(PartlyDone, match="payload is too large"):
        drain(lab.postgres, LongTermMemory(strict, chosen, Embedder("test", model)))
    assert {(1, False, 1)} == entries(lab)
    assert 39 == lab.vectors.count(lab.home)
    assert [1, 40] == list(map(len, model.calls))
    # One of them is the mark's.
    assert strict.calls.count("upsert") <= 1 + 2 * 6 + 1


@pytest.mark.usefixtures("clock")
def test_one_run_spends_one_attempt(lab: Lab) -> None:
    """An entry that is due again before the run ends waits for the next run."""
    lab.say(BATCH_ENTRIES + 10)

    def slow(texts: Sequence[str]) -> list[list[float]]:
        # Time passes: what failed a moment ago is due by now.
        lab.sql("UPDATE memsync.outbox SET next_attempt_at = clock_timestamp() WHERE attempts > 0")
        if any("question 1\n" in each for each in texts):
            raise ValueError("too long")
        return embed(texts)

    with pytest.raises(PartlyDone):
        drain(lab.postgres, ltm_of(lab, slow))
    assert {(1, False, 1)} == entries(lab)


@pytest.mark.usefixtures("clock")
def test_an_entry_that_brings_the_model_down_holds_up_no_other(lab: Lab) -> None:
    """A text at which the service goes away for a moment costs the other entries nothing."""
    lab.say(20)
    poisoned = Model(ConnectionError("refused"), holding("question 3\n"))
    with pytest.raises(PartlyDone):
        drain(lab.postgres, ltm_of(lab, poisoned))
    assert ({(0, False, 1)}, 19) == (entries(lab), lab.vectors.count(lab.home))


@pytest.mark.parametrize("error", [SettingsError("no key"), KeyboardInterrupt()])
def test_what_ends_the_run_from_outside_costs_no_attempt(lab: Lab, error: BaseException) -> None:
    """A bad setting and Ctrl-C give the attempts back."""
    lab.say(3)
    with pytest.raises(type(error)):
        drain(lab.postgres, ltm_of(lab, Model(error, holding("question"))))
    assert {(0, False, 3)} == entries(lab)
    assert Drained(3, 3) == drain(lab.postgres, lab.ltm)


def test_a_collection_that_is_dropped_is_made_again(any_lab: Lab) -> None:
    """A relay that goes on meets it once: the next drain makes the collection, and none is lost."""
    any_lab.say(2)
    drain(any_lab.postgres, any_lab.ltm)
    any_lab.vectors.drop(any_lab.home)
    any_lab.say(3)
    with pytest.raises(SchemaMismatch):
        drain(any_lab.postgres, any_lab.ltm)
    assert {(0, False, 3)} == entries(any_lab)
    assert Drained(3, 3) == drain(any_lab.postgres, any_lab.ltm)
    assert 3 == any_lab.vectors.count(any_lab.home)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("error", [SystemExit(0), asyncio.CancelledError()])
def test_a_model_that_ends_the_program_ends_no_run(lab: Lab, error: BaseException) -> None:
    """The run ends with a status of its own, and the entries are given back."""
    lab.say(3)
    with pytest.raises(PartlyDone, match="3 wait for a retry"):
        drain(lab.postgres, ltm_of(lab, Model(error, lambda texts: texts != ["dimensions"])))
    assert {(0, False, 3)} == entries(lab)


def test_an_embedder_that_is_down_from_the_beginning(lab: Lab) -> None:
    """The caller hears at once that the embedder is down, and nothing is changed."""
    lab.say(3)
    chosen = Settings(**{**lab.settings.model_dump(), "embedder": "support.models:unreachable"})
    before = lab.tables()
    with pytest.raises(EmbedderUnreachable) as caught:
        drain(lab.postgres, LongTermMemory(lab.vectors, chosen))
    assert (10, before) == (caught.value.exit_status, lab.tables())


def test_dead_entries_are_told_by_every_run(lab: Lab) -> None:
    """A run that leaves dead entries says how many, why, and what to do; after a retry none is."""
    lab.say(3)
    lab.sync()
    [first, *_] = lab.say(4)
    lab.sql("UPDATE memsync.outbox SET dead = true, last_error = 'odd' WHERE point_id = %(id)s",
            id=first.anchor_id)  # fmt: skip
    lab.sql("UPDATE memsync.outbox SET dead = true, last_error = 'too long' WHERE NOT dead"
            " AND id > (SELECT min(id) FROM memsync.outbox) + 1")  # fmt: skip
    for done in (1, 0):
        with pytest.raises(PartlyDone, match=r"3 are dead.*too long.*memsync sync retry") as left:
            drain(lab.postgres, lab.ltm)
        assert (done, 3) == (left.value.fields["done"], left.value.fields["dead"])
    assert "too long" == outbox_status(lab.postgres).dead_error
    assert 3 == revive(lab.postgres)
    assert Drained(3, 3) == drain(lab.postgres, lab.ltm)


DYING = dedent("""
    import contextlib, os, sys
    from memsync.errors import PartlyDone
    from memsync.memory import relay
    from memsync.settings import Settings
    from memsync.stores.ltm import LongTermMemory
    from memsync.stores.ltm.embedders import Embedder
    from memsync.stores.postgres import Postgres
    from memsync.stores.vectors import open_vectors

    def deadly(texts):
        if any("question 3\\n" in each for each in texts):
            os._exit(9)
        return [[1.0, float(len(each))] for each in texts]

    relay.ATTEMPTS_MAX, relay.BATCH_ENTRIES = int(sys.argv[1]), int(sys.argv[2])
    settings = Settings(postgres_url=sys.argv[3], qdrant_url=sys.argv[4])
    with Postgres.open(settings.postgres_url) as postgres:
        with contextlib.closing(open_vectors(settings, create=True)) as vectors:
            try:
                relay.drain(postgres, LongTermMemory(vectors, settings, Embedder("test", deadly)))
            except PartlyDone as left:
                sys.exit(left.exit_status)
""")


@pytest.mark.parametrize(
    ("attempts_max", "batch_entries"),
    [(4, 4), pytest.param(ATTEMPTS_MAX, BATCH_ENTRIES, marks=pytest.mark.slow)],
)
def test_a_text_that_ends_the_process(
    open_lab: "partial[Lab]", tmp_path: Path, attempts_max: int, batch_entries: int
) -> None:
    """Such a text is dead after its attempts; none of the entries claimed with it is."""
    lab = open_lab()
    lab.say(9)
    arguments = [str(attempts_max), str(batch_entries), lab.url, f"edge:{tmp_path / 'points'}"]
    statuses = []
    for _ in range(attempts_max):
        with released(lab.url):
            died = subprocess.run([sys.executable, "-c", DYING, *arguments], check=False)
        statuses.append(died.returncode)
    assert [9] * attempts_max == statuses
    assert {(attempts_max, True, 1)} == entries(lab)
    assert "the relay ended while it made this memory" == outbox_status(lab.postgres).dead_error
    last = subprocess.run([sys.executable, "-c", DYING, *arguments], check=False)
    assert PartlyDone.exit_status == last.returncode
    with psycopg.connect(lab.url) as connection:
        left = connection.execute("SELECT point_id FROM memsync.outbox").fetchall()
    assert [(lab.said[3].anchor_id,)] == left


def test_a_relay_that_goes_on_gets_behind_such_an_entry(lab: Lab) -> None:
    """It waits for no outage. Each run goes on behind what the one before it has tried."""
    lab.say(20)
    poisoned = ltm_of(lab, Model(ConnectionError("refused"), holding("question 3\n")))
    ended: relay.Ended | None = None
    for _ in range(10):
        with released(lab.url):
            ended = relay.drain_once(lab.postgres, poisoned, last=ended)
    assert ({(0, False, 1)}, 19) == (entries(lab), lab.vectors.count(lab.home))
    assert ended
    assert ended.outage


def test_an_outage_is_told_by_the_run_that_met_it(open_lab: partial[Lab]) -> None:
    """The next one has its own end, also where it may write nothing: the app writes by then."""
    lab = open_lab(layout="per-persona")
    lab.say(2)

    def run(writer: str, last: relay.Ended | None) -> relay.Ended:
        settings = lab.settings.model_copy(update={"writer": writer})
        down = Embedder("test", Model(ConnectionError("refused"), holding("question")))
        ltm = LongTermMemory(lab.vectors, settings, down, lab.ltm.layout)
        with released(lab.url):
            return relay.drain_once(lab.postgres, ltm, last=last)

    ended = run("memsync", None)
    assert ended.outage
    ended = run("app", ended)
    assert (None, 2) == (ended.outage, ended.status.held)


def test_an_entry_that_is_revived_while_it_is_tried(lab: Lab) -> None:
    """At its last attempt it counts as dead already. An outage then takes no attempt from it."""
    lab.say(2)
    lab.sql("UPDATE memsync.outbox SET attempts = %(n)s", n=ATTEMPTS_MAX - 1)

    def revived(texts: Sequence[str]) -> list[list[float]]:
        if ["dimensions"] != list(texts):
            revive(lab.postgres)
            raise ConnectionError("refused")
        return embed(texts)

    with pytest.raises(PartlyDone):
        drain(lab.postgres, ltm_of(lab, revived), outage_wait_s=0)
    assert {(0, False, 1)} <= entries(lab)
    assert Drained(2, 2) == drain(lab.postgres, lab.ltm)
