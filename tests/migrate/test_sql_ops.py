"""The operators' queries: each runs in psql at every stage, says what it should, and only reads."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memsync.stores.history.phases import Phase
from support.psql import PSQL, needs_psql

if TYPE_CHECKING:
    from support.app import App

FOLDER = Path(__file__).parents[2] / "sql" / "ops"
SCRIPTS = sorted(FOLDER.glob("*.sql"))


def psql(app: App, script: Path) -> str:
    """The output of the script; it must succeed, and say nothing on stderr."""
    # Read only, so that a script that writes fails.
    read_only = "SET default_transaction_read_only = on"
    done = subprocess.run(
        [str(PSQL), "-X", "-A", "-q", app.url, "-c", read_only, "-f", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def said(app: App, name: str) -> str:
    return psql(app, FOLDER / f"{name}.sql")


def test_scripts_are_found() -> None:
    """Scripts are found, so that the tests below have something to check."""
    assert {"locks.sql", "long-transactions.sql", "who-writes-user-id.sql"} <= {
        script.name for script in SCRIPTS
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_say_what_they_are(script: Path) -> None:
    """Each script begins with a comment that says that it only reads, and stops at an error."""
    lines = script.read_text().splitlines()
    comment = [line for line in lines[: lines.index(r"\set ON_ERROR_STOP on")] if line]
    assert comment
    assert all(line.startswith("-- ") for line in comment)
    assert "Reads only." in " ".join(comment)


@needs_psql
def test_every_script_at_every_stage(app: App) -> None:
    """Every script runs without a warning at every stage, after rollback and after finalize."""
    for script in SCRIPTS:
        psql(app, script)
    for phase in Phase:
        app.run(phase)
        for script in SCRIPTS:
            psql(app, script)
    assert 0 == app.command("rollback", "--to", "start")
    for script in SCRIPTS:
        psql(app, script)
    app.run()
    assert 0 == app.command("finalize", "--yes")
    for script in SCRIPTS:
        psql(app, script)


@needs_psql
def test_every_script_in_an_empty_database(app: App, database: str) -> None:
    """Every script runs in an empty database, because a missing table is no error."""
    empty = type(app)(database, app.world)
    for script in SCRIPTS:
        psql(empty, script)


@needs_psql
@pytest.mark.parametrize("kind", ["app", "redesigned"])
def test_users_without_persona(request: pytest.FixtureRequest, kind: str) -> None:
    """The query finds the same users before the redesign and after it."""
    app: App = request.getfixturevalue(kind)
    unresolved = {str(user.id) for user in app.world.cast.users if not user.global_persona_id}
    rows = said(app, "users-without-persona").splitlines()[1:-1]
    assert unresolved <= {row.split("|")[0] for row in rows}
    assert unresolved == {row.split("|")[0] for row in rows if row.endswith("|f")}


@needs_psql
def test_who_writes_user_id(app: App) -> None:
    """The query names the session, the role and the view that still use user_id."""
    app.do("CREATE VIEW talk AS SELECT user_id FROM conversation_history")
    with app.connected() as client:
        client.execute("SELECT user_id FROM conversation_history LIMIT 1")
        out = said(app, "who-writes-user-id")
        assert f"{client.info.backend_pid}|" in out
    assert "view talk" in out
    assert "INSERT, UPDATE" in out


@needs_psql
def test_locks(app: App) -> None:
    """The query names a session that keeps a lock on the history, and no other."""
    with app.connected(autocommit=False) as client, app.connected(autocommit=False) as other:
        client.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        other.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        out = said(app, "locks")
        assert f"\n{client.info.backend_pid}|RowExclusiveLock|t|idle in transaction|" in out
        assert f"\n{other.info.backend_pid}|" not in out


@needs_psql
def test_long_transactions(app: App, tmp_path: Path) -> None:
    """The query names transactions that are open for over a minute, and the call to end them."""
    at_once = tmp_path / "at-once.sql"
    text = (FOLDER / "long-transactions.sql").read_text()
    assert "interval '1 minute'" in text
    at_once.write_text(text.replace("interval '1 minute'", "interval '0'"))
    with app.connected(autocommit=False) as client:
        client.execute("SELECT FROM users LIMIT 1")
        pid = client.info.backend_pid
        assert f"\n{pid}|" not in said(app, "long-transactions")
        out = psql(app, at_once)
    assert f"\n{pid}|" in out
    assert f"|SELECT pg_terminate_backend({pid});\n" in out


@needs_psql
def test_progress(app: App) -> None:
    """The query says before the fill that it has not begun, and after it that all is done."""
    assert "the fill has not begun" in said(app, "progress")
    app.run(Phase.BACKFILL)
    assert "|100.0|" in said(app, "progress")


@needs_psql
def test_table_size(app: App) -> None:
    """The query lists the table, each index, and our own tables once they exist."""
    out = said(app, "table-size")
    assert "conversation_history|table|" in out
    assert "conversation_history_user_id_idx|index|" in out
    assert "memsync.persona_map" not in out
    app.run(Phase.ISOLATE)
    assert "memsync.persona_map|" in said(app, "table-size")


@needs_psql
def test_times_that_cannot_be_read_are_listed(app: App) -> None:
    """Exactly the messages whose time Python cannot hold are listed."""
    rows = [row for (row,) in app.query("SELECT id FROM conversation_history ORDER BY id LIMIT 4")]
    times = ("infinity", "0044-03-15 BC", "9999-12-31 23:59:59.999", "0001-01-01")
    for row, moment in zip(rows, times, strict=True):
        app.do("UPDATE conversation_history SET created_at = %s WHERE id = %s", moment, row)
    listed = said(app, "unreadable-times")
    assert [True, True, False, False] == [str(row) in listed for row in rows]
    assert "(2 rows)" in listed
