"""Prisma's history: `resolve` writes what Prisma itself would have written."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from memsync.migrate import State
from support.prisma import COLUMN, FAILED, NAMES, folder_with
from support.roles import at_url, role

if TYPE_CHECKING:
    from pathlib import Path

    from support.app import App

NAME = COLUMN


@pytest.fixture
def prisma_dir(tmp_path: Path) -> Path:
    """A folder with the app's migrations."""
    return folder_with(tmp_path, *NAMES)


def rows(app: App) -> list[tuple[Any, ...]]:
    """The rows of Prisma's history about the migration."""
    return app.query(
        "SELECT checksum, finished_at = started_at, rolled_back_at IS NOT NULL, logs,"
        " applied_steps_count FROM _prisma_migrations WHERE migration_name = %s"
        " ORDER BY finished_at NULLS FIRST",
        NAME,
    )


def resolve(app: App, *arguments: object) -> int:
    """The exit status of `memsync migrate resolve`."""
    return app.command("resolve", *map(str, arguments))


def test_applied(app: App, prisma_dir: Path) -> None:
    """--applied adds a finished row with the file's checksum, no steps and empty logs."""
    checksum = hashlib.sha256((prisma_dir / NAME / "migration.sql").read_bytes()).hexdigest()
    assert 0 == resolve(app, "--applied", NAME, "--prisma-dir", prisma_dir)
    assert [(checksum, True, False, "", 0)] == rows(app)
    # Prisma refuses the second time, and so does memsync.
    assert 2 == resolve(app, "--applied", NAME, "--prisma-dir", prisma_dir)
    assert 1 == len(rows(app))


def test_applied_after_a_failure(app: App, prisma_dir: Path) -> None:
    """--applied first marks an unfinished row as rolled back."""
    app.do(FAILED, NAME)
    assert 0 == resolve(app, "--applied", NAME, "--prisma-dir", prisma_dir)
    assert [(None, True), (True, False)] == [(row[1], row[2]) for row in rows(app)]


def test_rolled_back_refuses_what_is_not_there(app: App) -> None:
    """--rolled-back refuses a migration that is not there, and one that is rolled back already."""
    assert 2 == resolve(app, "--rolled-back", NAME)
    app.do(FAILED, NAME)
    assert 0 == resolve(app, "--rolled-back", NAME)
    assert [(None, True)] == [(row[1], row[2]) for row in rows(app)]
    assert 2 == resolve(app, "--rolled-back", NAME)


@pytest.mark.parametrize("name", ["20990101000000_nobody_wrote_it", "../escape", ""])
def test_a_name_without_a_directory_is_refused(app: App, prisma_dir: Path, name: str) -> None:
    """A name without a directory is refused: Prisma would offer to reset the database."""
    before = app.query("SELECT count(*) FROM _prisma_migrations")
    assert 2 == resolve(app, "--applied", name, "--prisma-dir", prisma_dir)
    assert before == app.query("SELECT count(*) FROM _prisma_migrations")


def test_one_of_the_options(app: App) -> None:
    """Exactly one of the options that say what to do must be given."""
    assert 2 == resolve(app)
    assert 2 == resolve(app, "--applied", NAME, "--rolled-back", NAME)
    assert 2 == resolve(app, "--all", "--rolled-back", NAME)
    assert 2 == resolve(app, "--all", "--show-schema")


def test_another_table_is_refused(app: App, prisma_dir: Path) -> None:
    """A history with other columns is refused, because another Prisma writes it."""
    app.do("ALTER TABLE _prisma_migrations RENAME COLUMN logs TO log")
    assert 12 == resolve(app, "--applied", NAME, "--prisma-dir", prisma_dir)


def test_prisma_at_work_is_left_alone(app: App, prisma_dir: Path) -> None:
    """While Prisma holds its lock nothing is written."""
    with app.connected() as prisma:
        prisma.execute("SELECT pg_advisory_lock(72707369)")
        assert 11 == resolve(app, "--applied", NAME, "--prisma-dir", prisma_dir)
    assert [] == rows(app)


def test_status_shows_both_histories(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Status shows the stage, and beside it the state in Prisma's history."""
    app.do(FAILED, NAME)
    assert 0 == app.command("status")
    assert f"Prisma: {NAME}  failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (["CREATE TABLE _prisma_ledger (id int)"], "_prisma_ledger"),
        (["CREATE SCHEMA prisma", "CREATE TABLE prisma.migrations (id int)"], "prisma.migrations"),
        (["CREATE SCHEMA _prisma", "CREATE TABLE _prisma.log (id int)"], "_prisma.log"),
        (
            ["CREATE SCHEMA prisma_contract", "CREATE TABLE prisma_contract.marker (id int)"],
            "prisma_contract.marker",
        ),
    ],
)
def test_a_newer_prisma_is_named_and_refused_by_resolve(
    app: App,
    prisma_dir: Path,
    capsys: pytest.CaptureFixture[str],
    made: list[LiteralString],
    named: str,
) -> None:
    """A history of an unknown kind is named by plan and status, and refused by resolve."""
    for each in made:
        app.do(each)
    assert {"prisma": State.OK} == of_prisma(app)
    app.do("DROP TABLE _prisma_migrations")
    assert {"prisma": State.WARNING} == of_prisma(app)
    capsys.readouterr()
    for command in (("plan", "--unresolved", "create"), ("status",)):
        assert 0 == app.command(*command)
        said = [line for line in capsys.readouterr().out.splitlines() if named in line]
        assert 1 == len(said)
        assert "risma" in said[0]
    assert 0 == app.command("status", "--json")
    assert named in json.loads(capsys.readouterr().out)["prisma_unknown"]
    for options in (
        ["--applied", NAME, "--prisma-dir", str(prisma_dir)],
        ["--rolled-back", NAME],
        ["--all", "--prisma-dir", str(prisma_dir)],
    ):
        assert 12 == resolve(app, *options)
        assert named in capsys.readouterr().err


def test_a_history_that_may_not_be_read_is_not_known(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """A history that may not be read is reported as not known, with the rest of the status."""
    with role(app) as url:
        assert 0 == at_url(app, url).command("status", "--json")
    assert "_prisma_migrations" in json.loads(capsys.readouterr().out)["prisma_unknown"]


def of_prisma(app: App) -> dict[str, State]:
    """The checks of `plan` that concern Prisma."""
    return {each.name: each.state for each in app.plan().checks if each.name == "prisma"}


def test_an_app_without_prisma(app: App, prisma_dir: Path) -> None:
    """Without Prisma's history plan and status work, and resolve is refused."""
    app.do("DROP TABLE _prisma_migrations")
    assert 14 == app.command("plan")
    assert 0 == app.command("plan", "--unresolved", "create")
    assert 0 == app.command("status")
    assert 12 == app.command("resolve", "--applied", NAME, "--prisma-dir", str(prisma_dir))
