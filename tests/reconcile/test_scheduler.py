"""The workers of a Dask scheduler read the parts of a deep audit. What was not read is not clean.

Scheduler and workers run in this process, on the lab's store, so that a test can end them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import dask
import distributed
import pytest

from memsync import reconcile
from memsync.reconcile import deep
from memsync.reconcile.deep import How
from memsync.stores.ltm import parts
from support.laws.coverage import missing
from support.laws.data import stale

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from functools import partial
    from pathlib import Path

    from memsync.reconcile.findings import Audit
    from memsync.stores.ltm.parts import Part, Seen
    from support.lab import Lab

CLOSE_S, OPEN_S = 3.0, 30.0

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Nobody is waited for as long as usual."""
    with dask.config.set(
        {"distributed.comm.timeouts.connect": "2s", "distributed.comm.retry.count": 0}
    ):
        yield


class Cluster:
    """A scheduler with two workers, whose event loop is a thread of this process.

    Not a LocalCluster: one whose scheduler has gone waits for it as it is closed, and leaves
    sockets behind that a later test is warned of.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster")
        self._thread.start()
        self.scheduler: Any = None
        self.workers: list[Any] = []
        self._run(self._open())

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return str(self.scheduler.address)

    def end(self, *servers: Any) -> None:
        """Begin to close these. It waits for none: a worker cannot end within its own task."""
        for each in servers:
            asyncio.run_coroutine_threadsafe(each.close(), self._loop)

    def close(self) -> None:
        """End all that still run, as far as they can be ended, and the loop."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self.scheduler = await distributed.Scheduler(
            host="127.0.0.1", port=0, dashboard=False, dashboard_address=None
        )
        for name in range(2):
            worker = distributed.Worker(
                self.scheduler.address, name=name, nthreads=1, dashboard=False
            )
            self.workers.append(await worker)

    async def _close(self) -> None:
        # What has lost its scheduler in the middle may wait for it for ever, and so may a task that
        # is told to end. The loop ends then without them.
        ending = [asyncio.ensure_future(each.close()) for each in (*self.workers, self.scheduler)]
        await asyncio.wait(ending, timeout=CLOSE_S)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=CLOSE_S)

    def _run(self, does: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(does, self._loop).result(OPEN_S)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A scheduler and its workers, which are closed after the test."""
    before = open_sockets()
    cluster = Cluster()
    yield cluster
    cluster.close()
    # A connection that was lost in the middle leaves its socket open. The collector would warn of
    # it in whatever test is next.
    for each in open_sockets():
        if each not in before:
            each.close()
    gc.collect()


def open_sockets() -> list[socket.socket]:
    """All of this process."""
    every = (each for each in gc.get_objects() if issubclass(type(each), socket.socket))
    return [each for each in every if each.fileno() >= 0]


@pytest.fixture
def lab(open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with two differences, in six parts, whose store the workers may use."""
    lab = open_lab()
    said = lab.settled(40)
    missing(lab, said)
    stale(lab, said[20:])
    monkeypatch.setattr(deep, "_PART_ROWS", 7)
    monkeypatch.setattr(deep, "_is_embedded", lambda _: False)
    monkeypatch.setattr(deep, "_PATIENCE_S", 0.5)
    monkeypatch.setitem(parts._OPEN, (os.getpid(), str(lab.settings.qdrant_url)), lab.vectors)
    return lab


def audit(lab: Lab, **how: Any) -> Audit:
    return reconcile.audit(lab.postgres, lab.ltm, lab.settings, deep=True, how=How(**how))


def told(audit: Audit) -> list[tuple[str, str]]:
    return [(each.code, each.key) for each in audit.findings]


@pytest.fixture
def at_part(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Do this, once, when a worker is about to read that part."""
    real, done = parts.look_at, list[int]()

    def at(number: int, do: Callable[[], object]) -> None:
        def look_at(*given: Any) -> Seen:
            part: Part = given[3]
            if part.number == number and not done:
                done.append(number)
                do()
            return real(*given)

        monkeypatch.setattr(parts, "look_at", look_at)

    return at


def test_a_scheduler_says_the_same(lab: Lab, cluster: Cluster) -> None:
    """As one process alone."""
    alone, found = audit(lab), audit(lab, scheduler=cluster.address)
    assert told(alone)
    assert (told(alone), alone.points_checked) == (told(found), found.points_checked)
    assert found.complete
    assert found.why_alone is None


def test_a_worker_that_ends_costs_its_parts(
    lab: Lab, cluster: Cluster, at_part: Callable[[int, Callable[[], object]], None]
) -> None:
    """The scheduler gives them to the other one."""
    alone = told(audit(lab))
    at_part(2, lambda: cluster.end(cluster.workers[0]))
    found = audit(lab, scheduler=cluster.address)
    assert (alone, True) == (told(found), found.complete)


def test_without_any_worker_left_it_is_incomplete(
    lab: Lab,
    cluster: Cluster,
    at_part: Callable[[int, Callable[[], object]], None],
    tmp_path: Path,
) -> None:
    """It waits for none for ever, and the next audit reads the rest."""
    state = tmp_path / "state"
    at_part(2, lambda: cluster.end(*cluster.workers))
    found = audit(lab, scheduler=cluster.address, state=state)
    assert not found.complete
    assert "has no workers" in str(found.not_checked)
    assert told(audit(lab)) == told(audit(lab, state=state))


def test_without_the_scheduler_it_is_incomplete(
    lab: Lab,
    cluster: Cluster,
    at_part: Callable[[int, Callable[[], object]], None],
    tmp_path: Path,
) -> None:
    """Nobody knows what its workers saw; the next audit reads the rest."""
    state = tmp_path / "state"
    at_part(2, lambda: cluster.end(cluster.scheduler))
    found = audit(lab, scheduler=cluster.address, state=state)
    assert not found.complete
    assert told(audit(lab)) == told(audit(lab, state=state))


def test_no_scheduler_is_there(lab: Lab) -> None:
    """The audit says so, and that is no clean result."""
    found = audit(lab, scheduler="tcp://127.0.0.1:1")
    assert not found.complete
    assert "the scheduler at tcp://127.0.0.1:1 does not answer" in str(found.not_checked)
