"""Pause, resume and cancel of a run from another terminal, also where the run dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from memsync import migrate
from memsync.errors import Cancelled, NothingRuns, StoreBusy
from memsync.migrate.backfill import cutover, fill, shadow_table
from memsync.migrate.pacing import pace
from memsync.model.progress import Kind, silent
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.locks import LockKey, exclusive
from support.kills import assert_as_if_undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memsync.model.progress import Progress, Tell
    from support.app import App

    Eventually = Callable[[Callable[[], bool], str], None]

SLOWLY: dict[str, Any] = {"batch_target_ms": 1}
FILLS = {"in-place": Kind.FILL_PERSONAS, "copy": Kind.COPY}
"""The kind of progress that each method tells after a batch."""

by_either = pytest.mark.parametrize("method", FILLS)


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs take small batches, and look for requests after each of them."""
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(fill, "_BLOCKS_START", 1)
    monkeypatch.setattr(cutover, "_BLOCKS_START", 1)


def ask(app: App, wanted: migrate.Wanted) -> migrate.Runner:
    with Postgres.open(app.url) as postgres:
        return migrate.ask(postgres, wanted)


def in_the_fill(act: Callable[[], object], fill: Kind = Kind.FILL_PERSONAS) -> Tell:
    """A `tell` that acts once, after the first batch of the fill."""
    left = [act]

    def tell(step: Progress) -> None:
        if step.kind is fill and left:
            left.pop()()

    return tell


def state(app: App) -> str:
    return app.status().run.state


@contextmanager
def paused(
    app: App, eventually: Eventually, tell: Tell = silent, *, method: str = "in-place"
) -> Iterator[Future[Stage]]:
    """A run that is paused in the middle of its fill; at the end it is resumed."""
    pause = in_the_fill(lambda: ask(app, "pause"), FILLS[method])

    def both(step: Progress) -> None:
        tell(step)
        pause(step)

    with ThreadPoolExecutor() as threads:
        run = threads.submit(app.run, tell=both, options={"method": method}, **SLOWLY)
        try:
            eventually(lambda: state(app) == "paused" or run.done(), "the run is paused")
            yield run
        finally:
            if not run.done():
                asked(app, "run")


def outcomes(app: App) -> list[tuple[Any, ...]]:
    return app.query("SELECT verb, phase, outcome FROM memsync.runs ORDER BY id")


@by_either
@pytest.mark.usefixtures("attentive")
def test_paused_and_resumed(app: App, settled: App, eventually: Eventually, method: str) -> None:
    """A paused run keeps its own lock, but no transaction and no lock on the app's tables."""
    told: list[Progress] = []

    with paused(app, eventually, told.append, method=method) as run:
        now = app.status()
        pid = now.run.pid
        assert now.rows_done
        assert now.rows_done < now.rows_total
        eventually(
            lambda: bool(
                app.query("SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'idle'", pid)
            ),
            "no transaction is open",
        )
        assert [] == app.query(
            "SELECT relation::regclass FROM pg_locks JOIN pg_class c ON c.oid = relation"
            " WHERE pid = %s AND relnamespace = 'public'::regnamespace",
            pid,
        )
        with app.connected(autocommit=False) as client:
            client.execute("LOCK TABLE conversation_history IN ACCESS EXCLUSIVE MODE NOWAIT")
            client.rollback()
        assert 11 == app.command("run")
        assert "postgres" == now.run.asked_by
        assert "running" == ask(app, "run").state
        assert Stage.CONTRACTED == run.result(timeout=60)
    assert "idle" == state(app)
    (pause,) = [each.what for each in told if each.kind is Kind.PAUSED]
    assert pause.startswith("paused by postgres at ")
    assert 1 == sum(each.kind is Kind.RESUMED for each in told)
    assert app.query("SELECT waited_s > 0 FROM memsync.runs WHERE phase = 'backfill'") == [(True,)]
    assert_as_if_undisturbed(app, settled)


@by_either
@pytest.mark.usefixtures("attentive")
def test_cancelled_in_the_fill_and_run_again(app: App, settled: App, method: str) -> None:
    """A cancelled run ends with a part of the rows filled, and the next run finishes."""
    cancel = in_the_fill(lambda: ask(app, "cancel"), FILLS[method])
    with pytest.raises(Cancelled) as cancelled:
        app.run(tell=cancel, options={"method": method}, **SLOWLY)
    left = app.status()

    assert 3 == cancelled.value.exit_status
    gates = "--quiet-minutes 0 --backup-confirmed test"
    decided = "--unresolved create --evidence ignore"
    again = f"memsync migrate run {decided} --method {method} {gates}"
    assert f"`{again}` goes on" in cancelled.value.message
    assert again == left.next
    assert (Stage.EXPANDED, "idle") == (left.stage, left.run.state)
    assert left.rows_done
    assert left.rows_done < left.rows_total
    assert ("run", "backfill", "cancelled") == outcomes(app)[-1]
    assert Stage.CONTRACTED == app.run(options={"method": method})
    assert_as_if_undisturbed(app, settled)


class Replayed:
    """A `tell` that makes the change log long at a step, and acts at its next replay."""

    def __init__(
        self, app: App, step: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._app = app
        self._step = step
        self._act = act
        self._is_due = False
        replay = shadow_table.Rows.replay

        def acting(rows: shadow_table.Rows, limit: int) -> int:
            if self._is_due:
                self._is_due = False
                self._act()
            return replay(rows, limit)

        monkeypatch.setattr(shadow_table.Rows, "replay", acting)

    def __call__(self, step: Progress) -> None:
        if step.kind is self._step:
            self._app.do("UPDATE conversation_history SET content = content || '!'")
            self._is_due = True


every_catch_up = pytest.mark.parametrize("step", [Kind.BUILD, Kind.CUTOVER])
STILL_LOGGED = "SELECT FROM memsync_shadow.change_log"


@every_catch_up
@pytest.mark.usefixtures("attentive")
def test_cancelled_while_a_copy_catches_up(
    app: App, monkeypatch: pytest.MonkeyPatch, step: Kind
) -> None:
    """A cancel is heard before a long change log is replayed to its end."""
    cancelling = Replayed(app, step, lambda: ask(app, "cancel"), monkeypatch)
    with pytest.raises(Cancelled):
        app.run(tell=cancelling, options={"method": "copy"})

    assert app.query(STILL_LOGGED)
    assert Stage.EXPANDED == app.status().stage
    written = set(app.query("SELECT id, content FROM conversation_history"))
    assert Stage.CONTRACTED == app.run(options={"method": "copy"})
    assert written == set(app.query("SELECT id, content FROM conversation_history"))
    assert app.expected() == app.personas()


@every_catch_up
@pytest.mark.usefixtures("attentive")
def test_paused_while_a_copy_catches_up(
    app: App, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, step: Kind
) -> None:
    """A pause keeps no transaction open, and may last longer than the catching up may take."""
    pausing = Replayed(app, step, lambda: ask(app, "pause"), monkeypatch)
    may_take_s = 1.0
    with ThreadPoolExecutor() as threads:
        run = threads.submit(
            app.run, tell=pausing, options={"method": "copy"}, lock_deadline_s=may_take_s
        )
        try:
            eventually(lambda: state(app) == "paused" or run.done(), "the run is paused")
            since = time.monotonic()
            assert app.query(STILL_LOGGED)
            with app.connected(autocommit=False) as client:
                client.execute("SET lock_timeout = '1s'")
                client.execute("LOCK TABLE conversation_history IN ACCESS EXCLUSIVE MODE")
                client.rollback()
            eventually(lambda: time.monotonic() - since > may_take_s, "it is paused for long")
        finally:
            asked(app, "run")
        assert Stage.CONTRACTED == run.result(timeout=60)
    assert app.expected() == app.personas()


@pytest.mark.slow
@pytest.mark.usefixtures("attentive")
def test_cancelled_on_the_way_back_and_taken_back_again(app: App) -> None:
    """The refill of user_id hears a cancel as well; the next rollback finishes."""
    before = app.catalog()
    users = app.query("SELECT id, user_id FROM conversation_history ORDER BY id")
    app.run()
    with pytest.raises(Cancelled):
        app.back(tell=in_the_fill(lambda: ask(app, "cancel"), Kind.FILL_USERS), **SLOWLY)
    assert ("rollback", "contract", "cancelled") == outcomes(app)[-1]

    assert Stage.LEGACY == app.back(**SLOWLY)
    assert users == app.query("SELECT id, user_id FROM conversation_history ORDER BY id")
    assert before["columns"] == app.catalog()["columns"]


@by_either
@pytest.mark.usefixtures("attentive")
def test_cancelled_while_paused(app: App, eventually: Eventually, method: str) -> None:
    """A paused run can be cancelled without a resume."""
    with paused(app, eventually, method=method) as run:
        assert "cancelling" == ask(app, "cancel").state
        with pytest.raises(Cancelled):
            run.result(timeout=60)
    assert "idle" == state(app)


@pytest.mark.slow
def test_cancelled_while_it_waits_for_a_lock(app: App) -> None:
    """A run that waits for a lock hears a cancel."""
    app.run(Phase.BACKFILL)

    def tell(step: Progress) -> None:
        if step.kind is Kind.WAITING_FOR_LOCK:
            ask(app, "cancel")

    with app.connected(autocommit=False) as hostile:
        hostile.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        with pytest.raises(Cancelled):
            app.run(tell=tell)
        hostile.rollback()
    assert Stage.CONTRACTED == app.run()


def test_killed_while_paused(app: App, settled: App, eventually: Eventually) -> None:
    """A pause ends with its run: the next run does not wait for a resume."""
    command = [sys.executable, "-m", "memsync", "--postgres-url", app.url, "migrate", "run"]
    command += ["--unresolved", "create", "--quiet-minutes", "0", "--backup-confirmed", "test"]
    command += ["--evidence", "ignore"]
    environ = os.environ | {"MEMSYNC_BATCH_TARGET_MS": "1"}
    with app.connected(autocommit=False) as hostile:
        app.run(Phase.ISOLATE)
        # The run cannot pass expand, whatever the machine's speed, before it is asked.
        hostile.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
            eventually(lambda: asked(app, "pause"), "the run can be asked")
            eventually(lambda: state(app) == "paused", "the run is paused")
            hostile.rollback()
            process.send_signal(signal.SIGKILL)
            process.wait()
    eventually(lambda: state(app) == "idle", "the killed run's session goes")

    assert [("pause",)] == app.query("SELECT wanted FROM memsync.control")
    assert Stage.CONTRACTED == app.run()
    assert_as_if_undisturbed(app, settled)


def asked(app: App, wanted: migrate.Wanted) -> bool:
    try:
        ask(app, wanted)
    except (NothingRuns, StoreBusy):
        return False
    return True


@pytest.mark.parametrize("wanted", ["pause", "resume", "cancel"])
def test_nothing_runs(app: App, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no run is at work, before the first or after the last, the exit status is 18."""
    assert 18 == app.command(wanted)
    app.run()
    assert 18 == app.command(wanted, "--json")
    assert "no migration is running" in capsys.readouterr().err
    assert [("run",)] == app.query("SELECT wanted FROM memsync.control")


def test_a_run_that_cannot_hear_yet(app: App) -> None:
    """A holder of the lock that hears no requests is named, and nothing is asked."""
    app.run()
    with Postgres.open(app.url) as postgres, exclusive(postgres, LockKey.MIGRATE, "x") as holder:
        pid = holder.connection.info.backend_pid
        with pytest.raises(StoreBusy, match=f"pid {pid}") as refused:
            migrate.ask(postgres, "pause")
        assert "running" == migrate.status(postgres).run.state
    assert [("run",)] == app.query("SELECT wanted FROM memsync.control")
    for what in ("reads evidence", "a backup or a psql script", f"pg_terminate_backend({pid})"):
        assert what in refused.value.message


def test_a_run_that_reads_evidence_first_cannot_hear_yet(app: App) -> None:
    """A run from legacy cannot be asked yet, because there is no table for requests."""
    with (
        Postgres.open(app.url) as postgres,
        exclusive(postgres, LockKey.MIGRATE, "x"),
        pytest.raises(StoreBusy, match="reads evidence before its first change"),
    ):
        migrate.ask(postgres, "cancel")


def test_who_runs_is_said(
    app: App, when: Callable[..., Tell], capsys: pytest.CaptureFixture[str]
) -> None:
    """Status names, in text and JSON, the run's state, pid and start, and who asked."""
    said: list[Any] = []

    def look() -> None:
        app.command("cancel")
        app.command("status")
        said.append(capsys.readouterr().out)
        app.command("status", "--json")
        said.append(json.loads(capsys.readouterr().out)["run"])
        app.command("resume")

    assert Stage.CONTRACTED == app.run(tell=when(Kind.PROOF, look))
    text, run = said
    assert ("cancelling", "postgres") == (run["state"], run["asked_by"])
    assert f"cancelling (pid {run['pid']} since {run['since']}, asked by postgres)" in text
    assert 0 == app.command("status")
    out = capsys.readouterr().out
    assert "run     idle\n" in out
    assert out.endswith("next: memsync migrate finalize\n")


def test_status_says_what_comes_next(
    app: App, when: Callable[..., Tell], capsys: pytest.CaptureFixture[str]
) -> None:
    """The next command is a run, or resume while one is paused, or none while one is at work."""
    said: list[str | None] = []

    def look(wanted: migrate.Wanted) -> None:
        ask(app, wanted)
        said.append(app.status().next)
        ask(app, "run")

    assert "memsync migrate plan" == app.status().next
    app.run(Phase.EXPAND, tell=when("redesign", lambda: look("pause")))
    app.run(Phase.BACKFILL, tell=when("backfill", lambda: look("run")))
    assert ["memsync migrate resume", None] == said
    assert 0 == app.command("status")
    asked = "--unresolved create --evidence ignore --quiet-minutes 0 --backup-confirmed test"
    assert capsys.readouterr().out.endswith(f"next: memsync migrate run {asked}\n")
