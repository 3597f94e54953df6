"""A relay in a thread lives on, whatever an embedder raises or asks for."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from memsync.memory import Follower, Stores
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from support.lab import Lab
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
