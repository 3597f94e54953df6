"""Tests how a command finds its stores: URLs, libpq's variables, and stores already in use."""

import contextlib
import os
from pathlib import Path

import psycopg
import pytest

from memsync.stores.postgres.embedded import start_embedded
from memsync.stores.vectors.edge import open_edge
from support.cli import NOWHERE, on, run


def test_held_data_directories_are_11(reachable_dir: Path, app: str, tmp_path: Path) -> None:
    """An embedded store that is already in use is refused, both of Postgres and of Qdrant."""
    with start_embedded(reachable_dir / "postgres", durable=False):
        ran = run("--postgres-url", f"embedded:{reachable_dir / 'postgres'}", "migrate", "status")
    assert (11, "") == (ran.status, ran.out)
    assert str(os.getpid()) in ran.err

    with contextlib.closing(open_edge(tmp_path / "held")):
        ran = on(app, f"edge:{tmp_path / 'held'}", "check")
    assert (11, "") == (ran.status, ran.out)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://user@127.0.0.1:1/app?connect_timeout=abc"),
        pytest.param("postgresql://user@127.0.0.1:port/app"),
        "postgresql://user@[::1/app",
        "postgresql://127.0.0.1:1/app?nope=1",
    ],
)
def test_postgres_url_that_cannot_be_meant_is_2(url: str) -> None:
    """A malformed URL is an error in the settings, not a server that is down."""
    ran = on(url, ":memory:", "migrate", "status")

    assert (2, "") == (ran.status, ran.out)
    assert "postgres_url" in ran.err


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:port", "http://127.0.0.1:99999", "http://[::1", "http:host", "http://"],
)
def test_qdrant_url_that_cannot_be_meant_is_2(url: str) -> None:
    """A malformed URL is an error in the settings, found before Postgres is opened."""
    ran = on(NOWHERE, url, "check")

    assert (2, "") == (ran.status, ran.out)
    assert "qdrant_url" in ran.err


def test_libpq_variables_work(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that the URL leaves out are taken from the PG* variables."""
    facts = psycopg.conninfo.conninfo_to_dict(app)
    for variable, name in (("PGHOST", "host"), ("PGPORT", "port"), ("PGUSER", "user")):
        if name in facts:
            monkeypatch.setenv(variable, str(facts[name]))
    if "password" in facts:
        monkeypatch.setenv("PGPASSWORD", str(facts["password"]))

    ran = on(f"postgresql:///{facts['dbname']}", ":memory:", "migrate", "status", "--json")

    assert "contracted" == ran.json()["stage"]


def test_message_names_the_host_of_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message does not name localhost when PGHOST names another host."""
    monkeypatch.setenv("PGHOST", "127.0.0.2")
    monkeypatch.setenv("PGPORT", "1")

    assert "localhost" not in on("postgresql:///app", ":memory:", "migrate", "status").err


@pytest.mark.parametrize(
    ("variable", "value"), [("PGHOSTADDR", "240.0.0.1"), ("PGOPTIONS", "-c search_path=nowhere")]
)
def test_libpq_variables_do_not_reach_the_embedded_server(
    variable: str, value: str, reachable_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PG* variables never redirect a connection to the embedded server."""
    start_embedded(reachable_dir / "data", durable=False).stop()
    monkeypatch.setenv(variable, value)
    ran = run("--postgres-url", f"embedded:{reachable_dir / 'data'}", "migrate", "status")

    assert 12 == ran.status, ran.err
