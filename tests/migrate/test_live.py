"""The migration under live clients of both versions of the app, and beside other migrations."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from memsync.errors import StoreBusy
from memsync.migrate import rollback
from memsync.model.progress import Kind
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres, ddl
from support.live import Client, expected_of

if TYPE_CHECKING:
    from memsync.model.progress import Progress
    from support.app import App, NewApp

    Eventually = Callable[[Callable[[], bool], str], None]

STATEMENT_MAX_S = 1.0
LOCK_TIMEOUT_MS = 100


def test_both_versions_of_the_app_write_all_the_while(
    large_app: App, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No client of either version meets an error or waits long; every row ends right, none is lost.

    The old version goes before contract, the new one comes after expand and stays.
    """
    app = large_app
    old = [Client(app, f"{seed}/old/{n}", by_persona=False) for n in range(2)]
    new = [Client(app, f"{seed}/new/{n}", by_persona=True) for n in range(2)]

    def tell(step: Progress) -> None:
        if step.total is not None:
            for client in new:
                client.start()
        if step.kind is Kind.PHASE and step.what == Phase.CONTRACT:
            for client in old:
                client.stop()

    before = app.world.manifest.messages
    try:
        for client in old:
            client.start()
        assert Stage.CONTRACTED == app.run(tell=tell, batch_target_ms=5)
    finally:
        for client in (*old, *new):
            client.stop()
    longest = max((*old, *new), key=lambda client: client.longest_s)
    with capsys.disabled():
        sys.stdout.write(f"\nlongest wait of a client: {longest.longest_s * 1000:.0f} ms\n")

    assert [] == [error for client in (*old, *new) for error in client.errors]
    after = app.personas()
    expected = app.expected()
    for client in (*old, *new):
        assert client.written
        expected |= expected_of(app, client)
    assert expected == after
    assert before + sum(len(client.written) for client in (*old, *new)) == len(after)
    assert longest.longest_s < STATEMENT_MAX_S


def test_clients_read_and_write_by_persona_on_the_way_back(
    large_app: App, seed: int, eventually: Eventually
) -> None:
    """Taking contract back is online too: no errors, no long waits, every row gets its user."""
    app = large_app
    assert Stage.CONTRACTED == app.run()
    clients = [Client(app, f"{seed}/back/{n}", by_persona=True) for n in range(2)]
    try:
        for client in clients:
            client.start()
        eventually(lambda: all(client.written for client in clients), "clients write")
        before = [len(client.written) for client in clients]
        with Postgres.open(app.url) as postgres:
            settings = app.settings(batch_target_ms=5)
            assert Stage.BACKFILLED == rollback(postgres, settings, to=Phase.BACKFILL)
        during = [len(client.written) for client in clients]
    finally:
        for client in clients:
            client.stop()

    assert [] == [error for client in clients for error in client.errors]
    assert all(later > sooner for sooner, later in zip(before, during, strict=True))
    expected = {row.id: row.user_id for row in app.world.history()}
    personas = app.expected()
    for client in clients:
        expected |= {row: user for row, (user, _) in client.written.items()}
        personas |= expected_of(app, client)
    assert expected == dict(app.query("SELECT id, user_id FROM conversation_history"))
    assert personas == app.personas()
    assert app.verify().ok
    assert STATEMENT_MAX_S > max(client.longest_s for client in clients)


@pytest.mark.parametrize("phase", [Phase.EXPAND, Phase.CONTRACT])
def test_an_open_transaction_is_waited_for_and_named(
    app: App, phase: Phase, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that wrote and stays open delays the migration, not the other clients.

    It is named by its pid, once and not at every try, and once it ends the run goes on.
    """
    monkeypatch.setattr(ddl, "_TELL_EVERY_S", 60.0)
    app.run(Phase.ISOLATE if phase is Phase.EXPAND else Phase.BACKFILL)
    told: list[Progress] = []
    waits = threading.Event()
    client = Client(app, "reader", by_persona=False)
    with app.connected(autocommit=False) as hostile:
        hostile.execute(
            "UPDATE conversation_history SET content = content"
            " WHERE id = (SELECT id FROM conversation_history LIMIT 1)"
        )
        pid = f"pid {hostile.info.backend_pid} (idle in transaction"

        def tell(step: Progress) -> None:
            told.append(step)
            if pid in step.what:
                waits.set()

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(app.run, phase, tell=tell, lock_timeout_ms=LOCK_TIMEOUT_MS)
            client.start()
            try:
                eventually(waits.is_set, "the migration waits")
                assert not running.done()
                eventually(lambda: len(client.written) > 200, "clients go on")
            finally:
                client.stop()
                hostile.rollback()
            running.result()
    assert 1 == sum(pid in each.what for each in told)
    assert app.query("SELECT FROM memsync.runs WHERE phase = %s AND lock_waits > 1", phase)
    assert [] == client.errors
    assert client.longest_s < LOCK_TIMEOUT_MS / 1000 + 0.4


@pytest.mark.parametrize(("every_s", "often"), [(0.0, True), (60.0, False)])
def test_a_long_wait_is_told_again_after_a_while(
    app: App,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    every_s: float,
    *,
    often: bool,
) -> None:
    """A client in the way is named again each time that _TELL_EVERY_S has passed."""
    monkeypatch.setattr(ddl, "_TELL_EVERY_S", every_s)
    app.run(Phase.REDESIGN)
    told: list[Progress] = []
    tries: list[int] = []
    wait_turn = ddl.OnlineDdl.wait_turn

    def counted(of: ddl.OnlineDdl, table: str, *blockers: Any) -> None:
        wait_turn(of, table, *blockers)
        tries.append(of.waits)

    monkeypatch.setattr(ddl.OnlineDdl, "wait_turn", counted)
    with app.connected(autocommit=False) as hostile, ThreadPoolExecutor(1) as pool:
        hostile.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        running = pool.submit(app.run, Phase.EXPAND, tell=told.append, lock_timeout_ms=10)
        try:
            eventually(lambda: len(tries) >= 3 or running.done(), "it tried three times")
        finally:
            hostile.rollback()
        running.result()
    waits = sum(each.kind is Kind.WAITING_FOR_LOCK for each in told)
    assert (len(tries) if often else 1) == waits


def test_a_row_held_by_a_client_delays_the_fill_and_nobody_else(
    app: App, eventually: Eventually
) -> None:
    """A row locked by an open transaction stops the fill at that row; its holder is named."""
    app.run(Phase.EXPAND)
    told: list[Progress] = []
    with app.connected(autocommit=False) as hostile:
        hostile.execute("SELECT FROM conversation_history ORDER BY id LIMIT 1 FOR UPDATE")
        pid = f"pid {hostile.info.backend_pid} (idle in transaction"
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(app.run, Phase.BACKFILL, tell=told.append)
            eventually(lambda: any(pid in each.what for each in told), "its holder is named")
            hostile.rollback()
            assert Stage.BACKFILLED == running.result()
    assert app.verify().ok


def test_a_lock_that_never_comes_ends_in_store_busy(app: App) -> None:
    """After the deadline the run gives up, naming the pid; the catalog shows nothing half done."""
    app.run(Phase.REDESIGN)
    catalog = app.catalog()
    with app.connected(autocommit=False) as hostile:
        hostile.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        with pytest.raises(StoreBusy) as busy:
            app.run(lock_timeout_ms=10, lock_deadline_s=0.3)
        assert [hostile.info.backend_pid] == busy.value.fields["pids"]
        hostile.rollback()
    assert catalog == app.catalog()


def test_it_gives_way_before_the_server_looks_for_deadlocks(
    app: App, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDL queues for half of deadlock_timeout at most, so that no client becomes a victim."""
    queued_ms: list[int] = []
    queue_for = ddl.OnlineDdl._queue_for

    def noted(of: ddl.OnlineDdl, timeout_ms: int) -> None:
        queued_ms.append(timeout_ms)
        queue_for(of, timeout_ms)

    monkeypatch.setattr(ddl.OnlineDdl, "_queue_for", noted)
    name = app.query("SELECT current_database()")[0][0]
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '80ms'").format(sql.Identifier(name))
        )
    told: list[Progress] = []
    with ThreadPoolExecutor(1) as pool, app.connected(autocommit=False) as client:
        client.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        running = pool.submit(app.run, lock_timeout_ms=10_000, tell=told.append)
        eventually(lambda: any(each.kind is Kind.WAITING_FOR_LOCK for each in told), "it gives way")
        client.rollback()
        assert Stage.CONTRACTED == running.result()
    assert 40 == max(queued_ms)


def test_users_made_personas_while_one_is_held(app: App, eventually: Eventually) -> None:
    """A client that holds one user's row does not make the run hold the rows of other users."""
    app.run(Phase.EXPAND)
    first, *_, last = sorted(user.id for user in app.world.cast.users if not user.global_persona_id)
    with app.connected(autocommit=False) as hostile, app.connected() as client:
        hostile.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (last,))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(app.run, Phase.BACKFILL)
            eventually(
                lambda: bool(
                    app.query(
                        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                        " AND datname = current_database()"
                    )
                ),
                "the run waits for the user's row",
            )
            try:
                client.execute("SET lock_timeout = '2s'")
                client.execute("UPDATE users SET username = 'renamed' WHERE id = %s", (first,))
            finally:
                hostile.rollback()
                running.result()


def command_line(app: App) -> subprocess.Popen[str]:
    """`memsync migrate run` in a process of its own."""
    command = ["--postgres-url", app.url, "migrate", "run", "--unresolved", "create"]
    command += ["--quiet-minutes", "0", "--backup-confirmed", "tests", "--evidence", "ignore"]
    return subprocess.Popen(
        [sys.executable, "-m", "memsync", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def statuses_of_four(app: App, eventually: Eventually, *, held: bool) -> list[int]:
    """Four runs started at once; their exit statuses.

    `held`: a client's open transaction keeps the first at its index build, so that the others are
    sure to come while it works.
    """
    with app.connected(autocommit=False) as client:
        if held:
            client.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        running = [command_line(app) for _ in range(4)]
        try:
            if held:
                eventually(
                    lambda: sum(each.poll() is None for each in running) == 1, "one run is left"
                )
            client.rollback()
            return sorted(each.wait(timeout=60) for each in running)
        finally:
            for each in running:
                each.kill()
                each.communicate()


@pytest.mark.parametrize(
    "round_",
    [pytest.param(n, marks=[pytest.mark.slow] if n >= 2 else []) for n in range(20)],
)
def test_of_four_runs_at_once_one_migrates(
    new_app: NewApp, settled: App, eventually: Eventually, round_: int
) -> None:
    """One of four runs migrates, the others exit with 11; nothing deadlocks, no index is INVALID.

    A run that comes after the end finds nothing to do and exits with 0. It has no entry in
    memsync.runs, where every run that works has one for each phase.
    """
    app = new_app()
    held = round_ % 2 == 0
    statuses = statuses_of_four(app, eventually, held=held)
    if held:
        assert [0, 11, 11, 11] == statuses
    assert statuses[0] == 0
    assert {0, 11} >= set(statuses)
    entries = app.query("SELECT phase, outcome FROM memsync.runs ORDER BY id")
    assert {"done"} == {outcome for _, outcome in entries}
    assert sorted(set(entries)) == sorted(entries)
    assert [(0,)] == app.query(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert settled.catalog() == app.catalog()
    assert app.expected() == app.personas()
