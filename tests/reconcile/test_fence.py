"""Tests that a repair and the relay never write at once, and that a lost session writes no more."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from threading import Thread

import psycopg
import pytest

from memsync.errors import StoreBusy, StoreUnreachable
from memsync.memory import Follower, Stores, relay
from memsync.model.records import Place
from memsync.reconcile import fence
from memsync.reconcile.findings import Repair
from memsync.reconcile.plans import Plan
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.locks import LockKey, exclusive
from support.failing import Failing
from support.lab import A, Lab
from support.repairs import Faults, settled, spoiled

DEADLINE_S = 20.0
WRITES = frozenset(("upsert", "overwrite_payloads", "delete", "create", "drop"))
Run = Callable[[Plan, Failing], object]
MARKING = 3
"""Calls at the end of a run that make the mark, which may fail."""


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


@pytest.fixture
def plan(lab: Lab) -> Plan:
    """A plan with actions of every kind."""
    return spoiled(lab).plan()


@pytest.mark.parametrize(
    ("key", "what"),
    [(LockKey.REPAIR, "another repair"), (LockKey.RELAY, "another relay or repair")],
)
def test_who_finds_a_lock_taken_changes_nothing(
    lab: Lab, plan: Plan, key: LockKey, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apply and undo raise StoreBusy while a repair or a relay runs."""
    monkeypatch.setattr(fence, "RELAY_WAIT_S", 0.1)
    lab.apply(plan, limit=3)
    before = lab.points(), lab.tables()
    for act in (lab.apply, lab.undo):
        with (
            exclusive(lab.postgres, key, "x"),
            pytest.raises(StoreBusy, match=f"{what} is running"),
        ):
            act(plan)
    assert before == (lab.points(), lab.tables())
    lab.apply(plan)
    lab.undo(plan)


def test_a_repair_waits_for_the_batch_of_a_relay(lab: Lab, plan: Plan) -> None:
    """The relay's lock is tried again until it is free."""
    with exclusive(lab.postgres, LockKey.RELAY, "x"):
        repair = Thread(target=lab.apply, args=(plan,), daemon=True)
        repair.start()
        time.sleep(0.3)
        assert repair.is_alive()
        assert [] == lab.sql("SELECT 1 FROM memsync.journal")
    repair.join(DEADLINE_S)
    assert not repair.is_alive()
    assert len(plan.actions) == len(lab.sql("SELECT 1 FROM memsync.journal"))


@pytest.mark.parametrize(("level", "expected"), [("off", "local"), ("remote_apply",) * 2])
def test_what_a_repair_commits_is_on_disk(lab: Lab, level: str, expected: str) -> None:
    """Whatever is set for the role; what waits for a standby goes on to do so."""
    asked = f"{lab.url}&options=-csynchronous_commit%3D{level}"
    with Postgres.open(asked) as postgres, fence.repairing(postgres, lab.ltm) as session:
        assert (expected,) == session.connection.execute("SHOW synchronous_commit").fetchone()


@pytest.mark.parametrize("undoes", [False, True], ids=["apply", "undo"])
def test_no_relay_runs_beside_a_repair(lab: Lab, plan: Plan, *, undoes: bool) -> None:
    """At each write of a repair, a drain raises StoreBusy and settles nothing."""
    if undoes:
        lab.apply(plan)
    lab.say()
    refused: list[StoreBusy] = []

    def drain(name: str) -> None:
        if name in WRITES:
            with pytest.raises(StoreBusy, match="another relay or repair is running") as caught:
                relay.drain(lab.postgres, lab.ltm)
            refused.append(caught.value)

    store = Failing(lab.vectors, meanwhile=drain)
    if undoes:
        lab.undo(plan, store)
    else:
        lab.apply(plan, store)
    assert len(store.writes()) == len(refused)
    assert [(0, False)] == lab.sql("SELECT attempts, dead FROM memsync.outbox")
    lab.sync()
    assert [] == lab.sql("SELECT 1 FROM memsync.outbox")


@pytest.fixture
def follower(lab: Lab) -> Iterator[Follower]:
    """A relay in a thread on the lab's stores."""
    with closing(Stores(lab.postgres, lab.settings, lab.ltm)) as stores:
        made = Follower(lambda: stores, every_s=0.02)
        yield made
        made.end()
        made.join(DEADLINE_S)


def test_a_relay_that_meets_a_repair_goes_on_afterwards(
    lab: Lab, plan: Plan, follower: Follower
) -> None:
    """A Follower waits while a repair is at work, loses no entry and no attempt, and lives on."""
    looks: list[int] = []

    def say_once(name: str) -> None:
        if name in WRITES and not looks:
            lab.say(3)
            looks.append(follower.ask())
            until(lambda: follower.answered >= looks[0])
            looks.append(follower.ask())
            until(lambda: follower.answered >= looks[1])
            assert [(0,)] * 3 == lab.sql("SELECT attempts FROM memsync.outbox")
            assert follower._thread is not None
            assert follower._thread.is_alive()

    lab.apply(plan, Failing(lab.vectors, meanwhile=say_once))
    assert looks
    until(lambda: not lab.sql("SELECT 1 FROM memsync.outbox"))
    assert {each.anchor_id for each in lab.said[-3:]} <= {
        point_id for point_id, *_ in lab.points()[lab.home]
    }
    assert not follower.is_ending


def kill_sessions(lab: Lab) -> None:
    """End the sessions that hold a lock of memsync's, as an administrator or a network may."""
    with psycopg.connect(lab.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
            " AND classid = x'6d656d73'::int AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("undoes", [False, True], ids=["apply", "undo"])
def test_a_writer_whose_session_is_lost_writes_no_other_batch(
    open_lab: partial[Lab], *, undoes: bool, every: int
) -> None:
    """Its locks went with the session, so it stops; the next run finishes it."""
    lab = open_lab(layout="per-persona")
    plan = spoiled(lab).plan()
    before = lab.memories()
    watched = Failing(lab.vectors)
    act: Run = lab.undo if undoes else lab.apply
    if undoes:
        lab.apply(plan)
    act(plan, watched)
    # What makes the mark at the end may fail.
    at_writes = [at for at in watched.writes() if at <= len(watched.calls) - MARKING]
    looks = ("retrieve", "count")
    reads = [at for at, name in enumerate(watched.calls, 1) if name in looks]
    moments = sorted({*at_writes, *(max(r for r in reads if r < at) for at in at_writes)})
    for moment in moments[::every]:
        if undoes:
            lab.apply(plan)
        else:
            lab.undo(plan)
        store = Failing(lab.vectors)
        batches: list[int] = []

        def lose(
            name: str, store: Failing = store, at: int = moment, batches: list[int] = batches
        ) -> None:
            if len(store.calls) == at:
                kill_sessions(lab)
            elif len(store.calls) > at and name in WRITES:
                batches.append(len(store.calls))

        store.meanwhile = lose
        if moment <= at_writes[-1]:
            with pytest.raises(StoreUnreachable):
                act(plan, store)
        # A batch whose intents are committed may take several calls; none begins after it.
        after = [each for each in at_writes if each > moment]
        same_batch = {
            each for each in after if set(range(moment, each)) <= {*at_writes, *describes(watched)}
        }
        assert set(batches) <= same_batch, (moment, batches)
        act(plan, Failing(lab.vectors))
    if undoes:
        assert before == lab.memories()


def describes(watched: Failing) -> set[int]:
    """The numbers of the calls that only look at a collection's form."""
    return {number for number, name in enumerate(watched.calls, 1) if name == "describe"}


def test_after_a_crash_the_locks_are_free(lab: Lab, plan: Plan) -> None:
    """Both locks end with the session of whoever held them."""
    with pytest.raises(StoreUnreachable):
        lab.apply(plan, Failing(lab.vectors, at=20))
    lab.say()
    lab.sync()
    lab.apply(plan)


def test_a_repair_and_a_relay_in_turn_lose_nothing(lab: Lab, follower: Follower) -> None:
    """While exchanges are remembered and relayed, repairs run beside; every memory is there."""
    said = settled(lab, 6)
    follower.wake()
    for number in range(6):
        faults = Faults(lab)
        place = Place(lab.home, said[number].anchor_id)
        lab.vectors.delete(lab.home, [place.point_id])
        faults.add(Repair.MAKE, row=said[number], target=place)
        lab.say(2, persona=A)
        follower.wake()
        lab.apply(faults.plan())
    until(lambda: not lab.sql("SELECT 1 FROM memsync.outbox"))
    expected = {each.anchor_id for each in lab.exchanges()}
    assert expected == {point_id for point_id, *_ in lab.points()[lab.home]}
