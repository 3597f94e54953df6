"""Pacing of a fill: by clients that wait for it, by a limit of WAL, and by standbys that lag."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from memsync.errors import Cancelled, MissingRight
from memsync.migrate import RunOptions, ask
from memsync.migrate.pacing import pace, throttle
from memsync.migrate.pacing.pace import Pace
from memsync.model.progress import WAITS, Kind, Progress
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.embedded.host import account_for, binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.app import App

    Eventually = Callable[[Callable[[], bool], str], None]


LIMIT = 0.25
SMALLER = Progress(
    Kind.WAITING_FOR_CLIENTS, "waiting: clients wait for rows of a batch; batches get smaller"
)
FILLS = {"in-place": Kind.FILL_PERSONAS, "copy": Kind.COPY}
"""The kind of progress that each method tells after a batch."""

by_either = pytest.mark.parametrize("method", FILLS)


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a pace look every time that it is asked."""
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.0)


@contextmanager
def paced(app: App, told: list[Progress], **options: Any) -> Iterator[tuple[Session, Pace]]:
    """A session as a run has it, and its pace."""
    with Postgres.open(app.url) as postgres:
        session = postgres.dedicated()
        try:
            yield session, Pace(session, RunOptions(**options), told.append, "memsync migrate run")
        finally:
            session.connection.close()


@contextmanager
def someone_waits(app: App, statement: str, eventually: Eventually) -> Iterator[None]:
    """A client whose statement waits for a lock until the block ends, or its holder lets go."""
    with app.connected() as client:
        thread = threading.Thread(target=lambda: client.execute(statement.encode(), prepare=False))
        thread.start()
        try:
            eventually(
                lambda: bool(
                    app.query(
                        "SELECT FROM pg_locks WHERE NOT granted AND pid = %s",
                        client.info.backend_pid,
                    )
                ),
                "the client waits",
            )
            yield
        finally:
            thread.join()


# ------------------------------------------------------------------ clients


@pytest.mark.usefixtures("attentive")
def test_batches_shrink_while_clients_wait_for_them(app: App, eventually: Eventually) -> None:
    """Batches shrink while clients wait for their rows, and grow again afterwards."""
    told: list[Progress] = []
    touch = "UPDATE conversation_history SET content = content"
    with paced(app, told) as (session, mine):
        assert 1.0 == mine.between_batches()
        shares = []
        for _ in range(2):
            with ExitStack() as waiting, session.transaction():
                session.connection.execute(touch.encode())
                waiting.enter_context(someone_waits(app, touch, eventually))
                mine.before_commit(session)
            shares.append(mine.between_batches())
        shares += [mine.between_batches() for _ in range(3)]

    assert [0.5, 0.25, 0.5, 1.0, 1.0] == shares
    assert [SMALLER] == told
    assert mine.waited_s > 0


@by_either
@pytest.mark.usefixtures("attentive", "small_batches")
def test_a_fill_sees_who_waits_for_its_batch(
    app: App, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A fill by either method looks for waiting clients before it commits, and makes them known."""
    told: list[Progress] = []
    looks = Pace.before_commit
    # It changes nothing, and waits even for sessions that only read.
    lock = "DO 'BEGIN LOCK TABLE conversation_history IN ACCESS EXCLUSIVE MODE; END'"
    with ExitStack() as waiting:
        left = [lambda: waiting.enter_context(someone_waits(app, lock, eventually))]

        def with_a_client(mine: Pace, session: Session) -> None:
            if left:
                left.pop()()
            looks(mine, session)

        monkeypatch.setattr(Pace, "before_commit", with_a_client)
        app.run(
            Phase.BACKFILL,
            tell=told.append,
            options={"method": method},
            batch_target_ms=1,
        )
    assert SMALLER in told
    assert [(True,)] == app.query("SELECT waited_s > 0 FROM memsync.runs WHERE phase = 'backfill'")


@pytest.mark.usefixtures("attentive")
def test_a_batch_that_nobody_waits_for_does_not_shrink(app: App, eventually: Eventually) -> None:
    """Clients that wait for one another elsewhere do not make batches smaller."""
    told: list[Progress] = []
    touch = "UPDATE users SET username = username"
    with paced(app, told) as (session, mine), app.connected(autocommit=False) as holder:
        holder.execute(touch.encode())
        with someone_waits(app, touch, eventually):
            with session.transaction():
                session.connection.execute(b"UPDATE conversation_history SET content = content")
                mine.before_commit(session)
            shares = [mine.between_batches()]
            holder.rollback()

    assert ([1.0], []) == (shares, told)


@pytest.mark.usefixtures("attentive")
def test_the_fill_steps_aside_for_those_who_wait_for_the_table(
    app: App, eventually: Eventually
) -> None:
    """The fill waits while a client waits for the table, though it holds no lock itself."""
    with app.connected(autocommit=False) as holder:

        class Told(list[Progress]):
            def append(self, what: Progress) -> None:
                super().append(what)
                holder.rollback()

        told = Told()
        holder.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        alter = "ALTER TABLE conversation_history DISABLE TRIGGER USER"
        with paced(app, told) as (_, mine), someone_waits(app, alter, eventually):
            eventually(lambda: mine.between_batches() < 1, "the client has waited long enough")
        assert 1 == len(told)
        assert Kind.WAITING_FOR_CLIENTS is told[0].kind
        assert "clients wait for conversation_history over 100 ms: pid" in told[0].what


@pytest.mark.usefixtures("attentive")
def test_a_jam_of_others_does_not_stop_the_fill_for_ever(
    app: App, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a limited wait the fill goes on, though clients still wait for the table."""
    monkeypatch.setattr(throttle, "_ASIDE_MAX_S", 0.3)
    told: list[Progress] = []
    with paced(app, told) as (_, mine), app.connected(autocommit=False) as holder:
        holder.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        alter = "ALTER TABLE conversation_history DISABLE TRIGGER USER"
        with someone_waits(app, alter, eventually):
            eventually(lambda: mine.between_batches() < 1, "the client has waited long enough")
            holder.rollback()
    assert mine.waited_s >= 0.3


# ------------------------------------------------------------------ rate of WAL


class Measured:
    """A `tell` that measures how much WAL the fill's batches wrote, and in what time."""

    def __init__(self, app: App, method: str) -> None:
        self._app = app
        self._fill = FILLS[method]
        self.marks: list[tuple[float, int]] = []
        self.told: list[Progress] = []

    def __call__(self, step: Progress) -> None:
        self.told.append(step)
        if step.kind is self._fill:
            written = self._app.query("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
            self.marks.append((time.monotonic(), int(written[0][0])))

    @property
    def mb_per_s(self) -> float:
        (began, before), (ended, after) = self.marks[0], self.marks[-1]
        return (after - before) / 1e6 / (ended - began)


@by_either
@pytest.mark.usefixtures("small_batches")
def test_the_rate_of_wal_is_kept(app: App, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The fill keeps its limit of WAL; the reason of its waits is told once and recorded."""
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.02)
    measured = Measured(app, method)
    options = {"max_rate_mb_s": LIMIT, "method": method}
    app.run(Phase.BACKFILL, tell=measured, options=options, batch_target_ms=1)
    waits = [each.what for each in measured.told if each.kind is Kind.WAITING_FOR_RATE]

    assert measured.mb_per_s < LIMIT * 1.15
    assert 1 == len(waits)
    assert waits[0].endswith(" MB/s, the limit is 0.25 MB/s")
    assert [(True,)] == app.query(
        "SELECT waited_s > 0.3 FROM memsync.runs WHERE phase = 'backfill'"
    )


@by_either
@pytest.mark.usefixtures("small_batches")
def test_without_a_limit_nothing_waits(app: App, method: str) -> None:
    """Without a limit the same fill never waits, and writes faster than the limit above."""
    measured = Measured(app, method)
    app.run(Phase.BACKFILL, tell=measured, options={"method": method}, batch_target_ms=1)

    assert measured.mb_per_s > LIMIT * 1.5
    assert [] == [each for each in measured.told if each.kind in WAITS]
    assert [(0.0,)] == app.query("SELECT waited_s FROM memsync.runs WHERE phase = 'backfill'")


@by_either
@pytest.mark.usefixtures("attentive", "small_batches")
def test_cancel_is_heard_while_the_fill_waits(app: App, method: str) -> None:
    """A run that waits for a limit that it can never keep still hears a cancel."""

    def tell(step: Progress) -> None:
        if step.kind is Kind.WAITING_FOR_RATE:
            with Postgres.open(app.url) as postgres:
                ask(postgres, "cancel")

    options = {"max_rate_mb_s": 1e-9, "method": method}
    with pytest.raises(Cancelled):
        app.run(tell=tell, options=options, batch_target_ms=1)
    assert Stage.CONTRACTED == app.run()


# ------------------------------------------------------------------ lag


def test_a_lag_that_cannot_be_seen_is_no_limit(app: App) -> None:
    """Where the role does not see the standbys, --max-lag-ms is refused instead of ignored."""
    name = f"memsync_blind_{uuid4().hex[:12]}"
    facts = psycopg.conninfo.conninfo_to_dict(app.url)
    port = f"&port={facts['port']}" if "port" in facts else ""
    role = sql.Identifier(name)
    with app.connected() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(role))
        try:
            url = f"postgresql://{name}:secret@/{facts['dbname']}?host={facts['host']}{port}"
            blind = type(app)(url, app.world)
            with pytest.raises(MissingRight, match="pg_read_all_stats"):
                blind.run(options={"max_lag_ms": 100})
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_without_standbys_no_lag_holds_anything(app: App) -> None:
    """A limit of lag holds nothing up where there are no standbys."""
    assert Stage.CONTRACTED == app.run(options={"max_lag_ms": 1})


@contextmanager
def standby(app: App, folder: Path, eventually: Eventually) -> Iterator[str]:
    """A hot standby of the server; its URL. It is made with the programs of the embedded server."""
    if os.environ.get("MEMSYNC_TEST_POSTGRES_URL"):
        pytest.skip("a standby needs the programs of the server that the tests were given")
    account = account_for(folder)
    programs = binaries(account)
    account.own(folder)
    data = folder / "standby"
    facts = psycopg.conninfo.conninfo_to_dict(app.url)
    source = psycopg.conninfo.make_conninfo("", host=facts["host"], port=5432, user="postgres")
    copied = account.run(
        *(programs / "pg_basebackup", "-D", data, "-d", source, "-R", "-X", "stream", "-c", "fast")
    )
    assert not copied.returncode, copied.stderr
    with (folder / "log").open("wb") as log:
        server = account.spawn(
            *(programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="),
            log=log,
        )
    try:
        url = f"postgresql://postgres@/{facts['dbname']}?host={folder}"

        def answers() -> bool:
            try:
                psycopg.connect(url).close()
            except psycopg.OperationalError:
                return False
            return True

        eventually(answers, "the standby answers")
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@by_either
@pytest.mark.slow
@pytest.mark.usefixtures("small_batches")
def test_a_standby_that_lags_holds_the_fill(
    large_app: App,
    reachable_dir: Path,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """The fill waits for a standby that stopped replaying, though such a one reports no lag."""
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.02)
    with (
        standby(large_app, reachable_dir, eventually) as url,
        psycopg.connect(url, autocommit=True) as follower,
    ):
        told: list[Progress] = []

        def tell(step: Progress) -> None:
            if step.kind is FILLS[method] and all(each.kind is not step.kind for each in told):
                follower.execute("SELECT pg_wal_replay_pause()")
            told.append(step)
            if step.kind is Kind.WAITING_FOR_STANDBY:
                threading.Timer(0.5, follower.execute, ["SELECT pg_wal_replay_resume()"]).start()

        options = {"max_lag_ms": 300, "method": method}
        large_app.run(Phase.BACKFILL, tell=tell, options=options, batch_target_ms=5)
        waits = [each.what for each in told if each.kind is Kind.WAITING_FOR_STANDBY]
    assert 1 == len(waits)
    assert waits[0].endswith(" ms behind, the limit is 300 ms")
