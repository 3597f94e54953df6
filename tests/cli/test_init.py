"""`memsync init` as a command: what it prints, the settings file that it writes, and refusals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memsync import Settings
from memsync.stores.ltm import record
from memsync.stores.postgres import open_postgres
from support.cli import Ran, run


@pytest.fixture
def home(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which the embedded server's user may enter."""
    monkeypatch.chdir(reachable_dir)
    return reachable_dir


def test_embedded_from_nothing_to_clean(home: Path) -> None:
    """One command makes both stores, the schema and the settings; every command then works."""
    made = run("init", "--embedded", "data")

    assert (0, "") == (made.status, made.err)
    assert made.out.endswith("the schema is made\nnext: memsync check\n")
    assert f"settings  {home}/memsync.toml" in made.out
    assert (0, "clean: both stores agree") == after(run("check"))
    assert 0 == run("sync", "run").status
    assert (0, "ok") == after(run("migrate", "verify"))
    assert (0, "nothing is ahead: every step is done") == after(run("migrate", "plan"))
    assert (0, "there is nothing to repair") == after(run("reconcile", "plan"))
    assert "contracted" == run("migrate", "status", "--json").json()["stage"]
    assert (0, "next: memsync check") == after(again := run("init"))
    assert "the schema stands already; nothing was changed" in again.out
    assert again.out == run("init", "--embedded", "data").out.replace(
        f"  settings  {home}/memsync.toml\n", ""
    )


@pytest.mark.parametrize(("named", "recorded"), [("", "shared"), ("per-persona", "per-persona")])
def test_the_layout_is_recorded(
    home: Path, monkeypatch: pytest.MonkeyPatch, named: str, recorded: str
) -> None:
    """What init makes has one, the shared one unless another is named; what stands keeps it."""
    (home / "memsync.toml").write_text(
        f'postgres_url = "embedded:{home}/pg"\nqdrant_url = "edge:{home}/q"\n'
    )
    monkeypatch.setenv("MEMSYNC_LAYOUT", named)
    assert 0 == run("init").status
    monkeypatch.delenv("MEMSYNC_LAYOUT")
    assert 0 == run("init").status

    with open_postgres(Settings.load()) as postgres, postgres.session() as session:
        assert recorded == record.recorded(session)


def after(ran: Ran) -> tuple[int, str]:
    """The status of a command and its last line."""
    return ran.status, ran.out.splitlines()[-1]


def test_both_are_moved_together(home: Path) -> None:
    """The file names stores below its own folder relative to it, so all of it may be moved."""
    (home / "old").mkdir()
    os.chdir(home / "old")
    assert 0 == run("init", "--embedded", "data").status
    os.chdir(home)
    (home / "old").rename(home / "new")

    assert 0 == run("--config", "new/memsync.toml", "check").status


def test_another_folder_is_named_whole(home: Path) -> None:
    """Stores outside of the file's folder are named by their full path, whatever it holds."""
    odd = 'a "b" \\ é'
    (home / "project").mkdir()
    ran = run("--config", "project/own.toml", "init", "--embedded", odd, "--json")

    assert {"made": True, "settings": f"{home}/project/own.toml"}.items() <= ran.json().items()
    found = Settings.load(home / "project" / "own.toml", environ={})
    assert f"embedded:{home / odd}/postgres" == found.postgres_url
    assert f"edge:{home / odd}/qdrant" == found.qdrant_url
    assert (home / odd / "postgres" / "PG_VERSION").is_file()


def test_each_project_has_stores_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DIR the stores are below XDG_DATA_HOME, in a folder for the folder of the file."""
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "share"))
    for project in ("one/bot", "two/bot"):
        (home / project).mkdir(parents=True)
        monkeypatch.chdir(home / project)
        assert run("init", "--embedded", "--json").json()["made"] is True
        assert run("init", "--embedded", "--json").json()["made"] is False
    both = list((home / "share" / "memsync").iterdir())

    assert [True, True] == [each.name.startswith("bot-") for each in both]
    for each in both:
        assert {"postgres", "qdrant"} <= {path.name for path in each.iterdir()}


def test_a_file_that_is_new_is_no_nothing(home: Path) -> None:
    """Where the stores stand and only the file is made, that is what is said."""
    run("init", "--embedded", "data")
    (home / "memsync.toml").unlink()
    ran = run("init", "--embedded", "data")

    assert "the schema stands already; memsync.toml is new\n" in ran.out
    assert "nothing was changed" not in ran.out


def test_a_file_is_never_overwritten(home: Path) -> None:
    """A settings file that stands is an error that names it, before any store is made."""
    (home / "memsync.toml").write_text("settle_s = 5\n")
    ran = run("init", "--embedded", "data")

    assert (2, "") == (ran.status, ran.out)
    assert "memsync.toml stands already, and is not overwritten" in ran.err
    assert "settle_s = 5\n" == (home / "memsync.toml").read_text()
    assert not (home / "data").exists()


@pytest.mark.parametrize("config", ["link.toml", "folder", "nodir/c.toml", "mine/c.toml"])
def test_a_file_that_cannot_be_written(home: Path, config: str) -> None:
    """A dangling link, a folder, and a place that is no folder are refused before any store."""
    (home / "link.toml").symlink_to(home / "nowhere.toml")
    (home / "folder").mkdir()
    (home / "mine").write_text("")
    ran = run("--config", config, "init", "--embedded", "data")

    assert (2, "") == (ran.status, ran.out)
    assert config in ran.err
    assert "--config" in ran.err
    assert ["folder", "link.toml", "mine"] == sorted(path.name for path in home.iterdir())


@pytest.mark.parametrize("variable", ["MEMSYNC_POSTGRES_URL", "MEMSYNC_QDRANT_URL"])
def test_a_variable_that_would_hide_the_file(
    home: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a variable names a store, the file would not hold: it is not written."""
    monkeypatch.setenv(variable, ":memory:" if "QDRANT" in variable else "postgresql://nowhere/x")
    ran = run("init", "--embedded", "data")

    assert (2, "") == (ran.status, ran.out)
    assert f"{variable} would override memsync.toml" in ran.err
    assert [] == list(home.iterdir())


def test_a_folder_needs_embedded(home: Path) -> None:
    """DIR without --embedded is refused: it names nothing."""
    assert 2 == run("init", "data").status
    assert [] == list(home.iterdir())


def test_the_stores_of_the_settings(home: Path, database: str) -> None:
    """Without --embedded the schema is made in the Postgres of the settings, and nothing else."""
    ran = run("--postgres-url", database, "init")

    assert (0, "next: memsync migrate status") == after(ran)
    assert "qdrant" not in ran.out
    with_server = run("--postgres-url", database, "--qdrant-url", "http://127.0.0.1:1", "init")
    assert (0, "next: memsync check") == after(with_server)
    assert [] == list(home.iterdir())


def test_embedded_stores_of_the_settings_are_made(home: Path) -> None:
    """The embedded stores that the settings name are made: a file may go to another machine."""
    (home / "memsync.toml").write_text(
        'postgres_url = "embedded:pg"\nqdrant_url = "local:points"\n'
    )
    assert 2 == run("check").status
    assert 0 == run("init").status
    assert 0 == run("check").status


def test_a_legacy_app_is_12(legacy_app: str, app: str) -> None:
    """A legacy app is refused with the command for it; a migrated one stands already."""
    refused = run("--postgres-url", legacy_app, "init", "--json").failure()

    assert ("SchemaMismatch", 12, "legacy") == (
        refused["error"],
        refused["exit_status"],
        refused["stage"],
    )
    assert "`memsync migrate plan`" in refused["message"]
    assert run("--postgres-url", app, "init", "--json").json()["made"] is False


def test_two_processes_at_once(database: str) -> None:
    """Of two processes one makes the schema, and the other is told so or finds it standing."""
    command = [sys.executable, "-m", "memsync", "--postgres-url", database, "init"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    statuses = sorted(process.returncode for process in both)

    assert 1 == "".join(said).count("the schema is made")
    assert statuses in ([0, 0], [0, 11])
    assert (0, "ok") == after(run("--postgres-url", database, "migrate", "verify"))
