"""Tests `memsync migrate`: its exit statuses, and its messages while it waits for a lock."""

import psycopg
import pytest

from memsync.stores.postgres import Postgres
from memsync.stores.postgres.locks import LockKey, exclusive
from support.cli import THROUGH, Ran, on


def test_second_migration_is_11(legacy_app: str) -> None:
    """The failure gives the pid of the session that holds the lock."""
    with Postgres.open(legacy_app) as postgres, exclusive(postgres, LockKey.MIGRATE, "migration"):
        ran = on(legacy_app, ":memory:", "migrate", "run", "--json")

    assert 11 == ran.status
    assert 1 == len(ran.failure()["pids"])


def behind_a_lock(url: str, *options: str) -> Ran:
    """Run the migration while a client holds a lock; it reports the wait and then gives up."""
    with psycopg.connect(url) as client:
        client.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        client.execute("SELECT count(*), count(username), count(discord_id) FROM users")
        return on(url, ":memory:", *THROUGH, *options)


def test_a_failure_after_a_wait_is_one_object(
    legacy_app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json stderr holds the failure alone, without the line about the wait."""
    monkeypatch.setenv("MEMSYNC_LOCK_DEADLINE_S", "0.5")
    ran = behind_a_lock(legacy_app, "--json")

    assert (11, "StoreBusy") == (ran.status, ran.failure()["error"])


def test_a_wait_is_one_line_of_a_log(legacy_app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message that names the session in the way is one line, however long."""
    monkeypatch.setenv("MEMSYNC_LOCK_DEADLINE_S", "0.5")
    ran = behind_a_lock(legacy_app)
    waiting, failed = ran.err.splitlines()

    assert waiting.startswith("waiting for a lock on ")
    assert 80 < len(waiting)
    assert failed.startswith("memsync: no lock on ")


def test_users_without_persona_are_14(legacy_app: str) -> None:
    """With --unresolved fail, a user without persona stops the run before it changes anything."""
    by_settings = ("--unresolved", "fail", "--evidence", "ignore")
    ran = on(legacy_app, ":memory:", "migrate", "run", *by_settings)

    assert (14, "") == (ran.status, ran.out)
    assert "--unresolved create" in ran.err
    assert "legacy" == on(legacy_app, ":memory:", "migrate", "status", "--json").json()["stage"]
