"""A relay in a thread lives on, whatever an embedder raises or asks for."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from memsync.errors import InvalidInput, PartlyDone
from memsync.memory import Follower, Stores
from memsync.memory.flush import flush
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from support.failing import Failing
from support.lab import DIMS, A, C, Lab
from support.models import Model

DEADLINE_S = 20.0
Open = Callable[[Any], Follower]
PANIC = type("PanicException", (BaseException,), {})("my doctor says")
UNKNOWN = type("Timeout", (BaseException,), {})("my doctor says it is benign")


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


@pytest.fixture
def open_relay(lab: Lab) -> Iterator[Open]:
    """Call it with a model for a relay on the lab's stores."""
    with ExitStack() as after:

        def opened(model: Any) -> Follower:
            ltm = LongTermMemory(lab.vectors, lab.settings, Embedder("test", model))
            stores = after.enter_context(closing(Stores(lab.postgres, lab.settings, ltm)))
            relay = Follower(lambda: stores, every_s=0.05)
            after.callback(relay.join, DEADLINE_S)
            after.callback(relay.end)
            return relay

        yield opened


def is_empty(lab: Lab) -> bool:
    """Whether all entries are settled."""
    return not lab.sql("SELECT 1 FROM memsync.outbox")


def asking_for(seconds: float) -> Exception:
    """An outage of a service that asks to be left alone."""
    error = ConnectionError("refused")
    error.retry_after = seconds  # type: ignore[attr-defined]  # as libraries of services do
    return error


@pytest.mark.parametrize(
    "error", [asking_for(1e12), asyncio.CancelledError(), PANIC, UNKNOWN, SystemExit(0)], ids=repr
)
def test_no_error_of_an_embedder_ends_a_relay(
    lab: Lab, open_relay: Open, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a trouble that is waited for, and its words are in no log."""
    caplog.set_level(logging.DEBUG, logger="memsync")
    lab.say(3)
    model = Model(error, lambda texts: texts != ["dimensions"])
    relay = open_relay(model)
    relay.wake()
    until(lambda: relay.trouble)
    model.error = None
    lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")
    relay.ask()
    until(lambda: is_empty(lab))
    if error is UNKNOWN:
        assert "Timeout" in caplog.text
        assert "doctor" not in caplog.text
        assert "models.py" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_relay_that_has_ended_is_started_anew(lab: Lab, open_relay: Open) -> None:
    """Where its thread is gone, the next wake starts one."""
    lab.say(3)
    model = Model(KeyboardInterrupt(), lambda texts: texts != ["dimensions"])
    relay = open_relay(model)
    relay.wake()
    until(lambda: model.calls[1:])
    assert relay.join(DEADLINE_S)
    assert not relay.is_ending
    model.error = None
    relay.wake()
    until(lambda: is_empty(lab))


def test_a_request_that_is_refused_ends_no_service(lab: Lab) -> None:
    """No setting is at fault, so a strict relay waits, also before its first success."""
    refusals = [1]

    def refuse(name: str) -> None:
        if name == "retrieve" and refusals:
            raise InvalidInput("Qdrant cannot do that: limit exceeded")

    stores = Stores(
        lab.postgres, lab.settings, lab.with_store(Failing(lab.vectors, meanwhile=refuse))
    )
    relay = Follower(lambda: stores, every_s=0.05, strict=True)
    lab.say()
    try:
        relay.wake()
        until(lambda: relay.trouble or relay.failure)
        refusals.clear()
        relay.ask()
        until(lambda: is_empty(lab))
    finally:
        relay.end()
        assert relay.join(DEADLINE_S)


# ---------------------------------------------------------------------- what is held


class Told(list[str]):
    """What a relay tells."""

    def __call__(self, state: str, *, well: bool) -> None:
        self.append(state)
        assert well is (state == "memories are written again")


def apart(open_lab: "partial[Lab]", **settings: Any) -> tuple[Lab, Stores]:
    """A lab in the per-persona layout, and its stores."""
    lab = open_lab(layout="per-persona", **settings)
    return lab, Stores(lab.postgres, lab.settings, lab.ltm)


def test_a_collection_of_another_size_holds_up_no_other(open_lab: "partial[Lab]") -> None:
    """It is told once; what comes meanwhile is written at once; a flush ends at what is held."""
    (lab, stores), told = apart(open_lab, writer="memsync"), Told()
    lab.vectors.create(f"persona-{A}", DIMS + 1, {})
    follower = Follower(lambda: stores, every_s=1000, tell=told)
    try:
        lab.say()
        follower.wake()
        until(lambda: follower.trouble)
        for number in range(1, 4):
            lab.say(persona=C)
            follower.wake()
            until(partial(_has, lab, C, number))
            time.sleep(0.2)
        with pytest.raises(PartlyDone, match=f"1 memory is not written.* {DIMS + 1} dimensions"):
            flush(lab.postgres, follower, 1000)
        assert 1 == len(told)
        assert told[0].startswith("memories wait: ")
        lab.vectors.drop(f"persona-{A}")
        flush(lab.postgres, follower, DEADLINE_S)
        until(lambda: told[1:])
    finally:
        follower.end()
        assert follower.join(DEADLINE_S)
    assert "memories are written again" == told[1]
    assert 1 == _count(lab, A)


def _has(lab: Lab, persona: UUID, count: int) -> bool:
    return count == _count(lab, persona)


def _count(lab: Lab, persona: UUID) -> int:
    name = f"persona-{persona}"
    return lab.vectors.count(name) if lab.vectors.describe(name) else 0


def test_where_the_app_writes_a_flush_says_so(open_lab: "partial[Lab]") -> None:
    """The relay goes on, tells it once, and loads no embedder; no attempt is counted."""
    (lab, stores), told = apart(open_lab, writer="app"), Told()
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (gen_random_uuid())")
    follower = Follower(lambda: stores, every_s=0.05, strict=True, tell=told)
    try:
        for _ in range(2):
            with pytest.raises(PartlyDone, match="writer = memsync"):
                flush(lab.postgres, follower, 1000)
        assert 1 == len(told)
    finally:
        follower.end()
        assert follower.join(DEADLINE_S)
    assert [(0, False)] == lab.sql("SELECT attempts, dead FROM memsync.outbox")
