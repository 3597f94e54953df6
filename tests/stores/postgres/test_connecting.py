"""What a refused connection is told, and what a call survives."""

from __future__ import annotations

import socket
import threading
import traceback
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from memsync.errors import (
    InvalidInput,
    MemsyncError,
    MissingRight,
    OutcomeUnknown,
    SettingsError,
    StoreBusy,
    StoreUnreachable,
)
from memsync.stores.postgres import Postgres, Session, TryAgain
from memsync.stores.postgres.driver_errors import _MEANINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDED: LiteralString = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def postgres(database: str) -> Iterator[Postgres]:
    """An empty database, open."""
    with Postgres.open(database) as opened:
        yield opened


def answer(session: Session) -> int:
    """A question that any database answers."""
    return int(session.row("serving_pid").pid)


def run_text(text: LiteralString, session: Session) -> None:
    """Run a statement as work of a call."""
    session.execute(text)


def do(url: str, text: LiteralString) -> None:
    """Run a statement as another client."""
    with psycopg.connect(url, autocommit=True) as client:
        client.execute(text)


def with_parts(url: str, **parts: object) -> str:
    """The URL with other parts of a conninfo."""
    facts = {**psycopg.conninfo.conninfo_to_dict(url), **parts}
    host, user, name = facts["host"], facts["user"], facts["dbname"]
    return f"postgresql://{user}@/{name}?host={host}&port={facts.get('port') or 5432}"


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("parts", "error", "told"),
    [
        ({"dbname": "nowhere"}, SettingsError, "has no such database"),
        ({"user": "nobody"}, SettingsError, "does not know the role"),
        ({"host": "127.0.0.1", "port": 1}, StoreUnreachable, "does not answer"),
        ({"host": "no.such.host.invalid"}, StoreUnreachable, "has no address"),
        ({"host": "/nowhere"}, StoreUnreachable, "does not answer"),
    ],
)
def test_each_cause_has_its_own_message(
    database: str, parts: dict[str, object], error: type[MemsyncError], told: str
) -> None:
    """A missing database, a missing role and a server that is down are told apart."""
    with pytest.raises(error, match=told):
        Postgres.open(with_parts(database, **parts))


def test_too_many_connections(database: str) -> None:
    """A server, a database or a role without a free connection says so."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    elsewhere = with_parts(database, dbname="postgres")
    role = f"{name}_guest"[:60]
    with psycopg.connect(elsewhere, autocommit=True) as client:
        client.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
        try:
            with pytest.raises(StoreUnreachable, match="accepts no more connections"):
                Postgres.open(with_parts(database, user=role))
        finally:
            client.execute(f"DROP ROLE {role}")


def test_a_wrong_password() -> None:
    """A password that is refused is told as that, and is not repeated."""
    with (
        Refusing(b'password authentication failed for user "u"') as port,
        pytest.raises(SettingsError, match="does not accept the login") as refused,
    ):
        Postgres.open(f"postgresql://u:Canary7@127.0.0.1:{port}/x?sslmode=disable")
    assert "Canary7" not in str(refused.value)


def test_a_role_that_is_not_let_in() -> None:
    """A missing line in pg_hba.conf is a missing right."""
    with (
        Refusing(b'no pg_hba.conf entry for host "::1", user "u", database "x"') as port,
        pytest.raises(MissingRight, match="does not let this role in"),
    ):
        Postgres.open(f"postgresql://u@127.0.0.1:{port}/x?sslmode=disable")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("foo=1", "the parameter 'foo' is none"),
        ("sslmode=sometimes", "sslmode"),
        ("connect_timeout=soon", "connect_timeout"),
        ("service=nowhere", "nowhere"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(query: str, told: str) -> None:
    """Libpq's own complaints reach the caller with the parameter's name."""
    with pytest.raises(InvalidInput, match=told):
        Postgres.open(f"postgresql://u@127.0.0.1:1/x?{query}")


def test_several_hosts_with_ports(database: str) -> None:
    """The first host is down, the second answers."""
    facts = psycopg.conninfo.conninfo_to_dict(database)
    port = facts.get("port") or 5432
    url = f"postgresql://{facts['user']}@/{facts['dbname']}?host=127.0.0.1,{facts['host']}"
    with Postgres.open(f"{url}&port=1,{port}") as postgres:
        assert postgres.call(answer)


class Refusing:
    """A server that refuses every login with this message; its port."""

    def __init__(self, message: bytes) -> None:
        body = b"SFATAL\0C28P01\0M" + message + b"\0\0"
        self._answer = b"E" + (len(body) + 4).to_bytes(4, "big") + body
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        try:
            while True:
                client, _ = self._listener.accept()
                with client:
                    client.recv(4096)
                    client.sendall(self._answer)
        except OSError:
            return


# ------------------------------------------------------------------ calls


def test_connections_that_the_server_closed_cost_no_call(postgres: Postgres, database: str) -> None:
    """After a restart or an idle timeout every call succeeds, whatever stood in the pool."""
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(postgres.session()).row("serving_pid")
    do(database, ENDED)

    assert 8 == len([postgres.call(answer) for _ in range(8)])


def test_a_pool_that_has_given_up_on_the_server_costs_no_call(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage the call opens a connection of its own; the pool would try ever later."""
    postgres.call(answer)
    pool = postgres._pool
    assert pool
    assert pool.reconnect_timeout <= 5

    def none() -> None:
        raise PoolTimeout

    monkeypatch.setattr(pool, "getconn", none)
    with postgres.session() as session:
        assert answer(session)
        connection = session.connection
    assert connection.closed


def test_work_is_not_repeated_once_its_commit_was_sent(postgres: Postgres, database: str) -> None:
    """A session that ends during COMMIT leaves the outcome unknown, and nothing is tried again."""
    do(database, "CREATE TABLE said (x int)")
    # A deferred trigger runs inside COMMIT, and ends the session there.
    do(
        database,
        "CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
    )
    do(
        database,
        "CREATE CONSTRAINT TRIGGER ends AFTER INSERT ON said DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION ends()",
    )
    calls = []

    def write(session: Session) -> None:
        calls.append(1)
        with session.transaction():
            session.execute("INSERT INTO said VALUES (1)")

    with pytest.raises(OutcomeUnknown, match="committed or not"):
        postgres.call(write)
    assert [1] == calls

    with pytest.raises(OutcomeUnknown, match="committed or not"):
        postgres.call(write, repeatable=True)
    assert [1, 1, 1] == calls


def test_work_that_lost_its_session_before_the_commit_is_done_again(
    postgres: Postgres, database: str
) -> None:
    """The first try is rolled back by the server, the second one counts."""
    do(database, "CREATE TABLE said (x int)")
    calls = []

    def write(session: Session) -> None:
        calls.append(1)
        with session.transaction():
            session.execute("INSERT INTO said VALUES (1)")
            if len(calls) == 1:
                do(database, ENDED)
            session.execute("INSERT INTO said VALUES (2)")

    postgres.call(write)

    assert [1, 1] == calls
    with psycopg.connect(database) as client:
        assert [(1,), (2,)] == client.execute("SELECT x FROM said ORDER BY x").fetchall()


def test_a_server_that_stays_away_is_told(postgres: Postgres, database: str) -> None:
    """The call is tried once more, not for ever."""
    calls = []

    def lost(session: Session) -> None:
        calls.append(1)
        do(database, ENDED)
        session.row("serving_pid")

    with pytest.raises(StoreUnreachable):
        postgres.call(lost)
    assert [1, 1] == calls


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_conflict_is_tried_again(postgres: Postgres, state: str) -> None:
    """What Postgres refuses for concurrency is done again, a few times."""
    calls = []

    def write(until: int, session: Session) -> int:
        calls.append(1)
        if len(calls) < until:
            session.execute(f"DO $$BEGIN RAISE 'conflict' USING ERRCODE = '{state}'; END$$")
        return len(calls)

    assert 3 == postgres.call(partial(write, 3))
    calls.clear()
    with pytest.raises(StoreBusy, match="conflict"):
        postgres.call(partial(write, 100))
    assert 8 == len(calls)


def test_a_wait_for_a_lock_holds_no_connection(database: str) -> None:
    """Work that must be tried again gives its connection back meanwhile."""
    free = threading.Event()

    def writer(_: Session) -> None:
        if not free.is_set():
            raise TryAgain("another writes")

    with Postgres.open(database, connections_max=1, wait_s=20) as postgres:
        waiting = threading.Thread(target=postgres.call, args=(writer,))
        waiting.start()
        try:
            for _ in range(50):
                postgres.call(answer)
        finally:
            free.set()
            waiting.join()


def test_a_wait_for_a_lock_ends(database: str) -> None:
    """The error names what is awaited, and how long it was."""

    def writer(_: Session) -> None:
        raise TryAgain("another writes")

    with (
        Postgres.open(database, wait_s=0.2) as postgres,
        pytest.raises(StoreBusy, match=r"another writes for 0\.2 s"),
    ):
        postgres.call(writer)


def test_a_pool_in_use_is_not_a_server_that_is_down(database: str) -> None:
    """The message gives the size of the pool, the wait and the setting."""
    with (
        Postgres.open(database, connections_max=1, wait_s=0.2) as postgres,
        postgres.session(),
        pytest.raises(StoreBusy, match=r"all 1 connections .* Raise pool_connections"),
    ):
        postgres.call(answer)


def test_after_close_it_says_so(database: str) -> None:
    """A closed store is not a server that is down."""
    postgres = Postgres.open(database)
    postgres.call(answer)
    postgres.close()
    for use in (lambda: postgres.call(answer), lambda: postgres.session().__enter__()):
        with pytest.raises(StoreUnreachable, match="is closed"):
            use()


def test_no_exception_of_the_driver_passes(postgres: Postgres) -> None:
    """Every class of the driver's errors has a meaning."""
    classes = _subclasses(psycopg.Error) | {psycopg.Error}
    assert len(classes) > 200
    for each in classes:
        assert any(issubclass(each, drivers) for drivers, _, _ in _MEANINGS), each
    with postgres.session() as session, pytest.raises(MemsyncError, match="error of memsync"):
        session.execute("SELEC 1")


def _subclasses(of: type[psycopg.Error]) -> set[type[psycopg.Error]]:
    found: set[type[psycopg.Error]] = set(of.__subclasses__())
    return found.union(*map(_subclasses, found))


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_a_transaction_says_its_own_isolation(database: str, level: str) -> None:
    """A default of the database changes neither transactions nor snapshots."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    do(
        with_parts(database, dbname="postgres"),
        f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'",
    )
    shown: LiteralString = "SELECT current_setting('transaction_isolation') AS level"

    def level_of(session: Session) -> str:
        row = session.connection.execute(shown).fetchone()
        return str(row.level if row else None)

    with Postgres.open(database) as postgres, postgres.session() as session:
        assert "read committed" == level_of(session)
        with session.transaction():
            assert "read committed" == level_of(session)
        with session.snapshot():
            assert "repeatable read" == level_of(session)
        with session.transaction():
            assert "read committed" == level_of(session)


def test_no_message_quotes_a_row(postgres: Postgres, database: str) -> None:
    """Neither the error nor the chain that a log prints has the words of a row."""
    do(database, "CREATE TABLE said (x text CHECK (x <> 'a' || 'SECRETNUTS'), y text NOT NULL)")
    for statement in (
        "INSERT INTO said VALUES ('aSECRETNUTS', '')",
        "INSERT INTO said VALUES ('bSECRETNUTS', NULL)",
    ):
        with pytest.raises(InvalidInput, match="a rule of the database refuses") as refused:
            postgres.call(partial(run_text, statement))
        assert "SECRETNUTS" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("postgresql://u:p@db.example:6432/app", "db.example:6432/app"),
        ("postgresql://db.example/app", "db.example:5432/app"),
        ("postgresql://a:1,b:2/app", "a:1,b:2/app"),
        ("postgresql://a,b/app?port=7", "a:7,b:7/app"),
        ("postgresql://[::1]:6432/app", "[::1]:6432/app"),
        ("postgresql:///app?host=/run/pg", "/run/pg/app"),
        ("postgresql:///app?hostaddr=10.0.0.1", "10.0.0.1:5432/app"),
    ],
)
def test_messages_name_host_and_port(monkeypatch: pytest.MonkeyPatch, url: str, label: str) -> None:
    """A server is named as it is reached, because several often answer on one host."""
    for name in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    with Postgres(url) as named:
        assert f"Postgres at {label}" == named.label


def test_the_port_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL without a port is completed as libpq completes it."""
    monkeypatch.setenv("PGPORT", "6543")
    with Postgres("postgresql://db.example/app") as named:
        assert "Postgres at db.example:6543/app" == named.label
