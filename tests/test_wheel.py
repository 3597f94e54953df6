"""The wheel carries all that the program reads: an installed memsync has no checkout around it."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (built,) = folder.glob("*.whl")
    return built


NOT_SHIPPED = {"__pycache__", "parts"}
"""Caches, and the source of the scripts for psql: the scripts themselves are shipped."""


def files_under(folder: str) -> set[str]:
    """The paths of a folder's files inside `ROOT`, as the wheel must repeat them."""
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(p.relative_to(ROOT / folder)) for p in paths if NOT_SHIPPED.isdisjoint(p.parts)}


@pytest.mark.parametrize(
    ("folder", "packaged"),
    [
        ("src", ""),
        ("docs", "memsync/_docs/"),
        ("migrations", "memsync/_migrations/"),
        ("sql", "memsync/_sql/"),
    ],
)
def test_wheel_is_complete(wheel: Path, folder: str, packaged: str) -> None:
    """The wheel holds all code, pages, revisions and SQL."""
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert set() == {packaged + name for name in files_under(folder)} - names


def test_files_that_are_no_modules(wheel: Path) -> None:
    """The wheel holds the files that are read at run time, at the paths where they are read."""
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert {
        "memsync/_migrations/env.py",
        "memsync/_sql/migrate-persona-all-in-one.sql",
        "memsync/_sql/ops/locks.sql",
        "memsync/_sql/steps/1-isolate.sql",
        "memsync/cli/formats/page.css",
        "memsync/demo/world/schema.sql",
        "memsync/py.typed",
        "memsync/stores/postgres/session.sql",
    } <= names


def test_wheel_imports_without_checkout(wheel: Path, tmp_path: Path) -> None:
    """The package works from the wheel alone."""
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import memsync.cli.app, memsync; print(memsync.__file__)"

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )

    assert f"{tmp_path}/memsync/__init__.py" == done.stdout.strip()


def test_wheel_tells_the_whole_story(wheel: Path, tmp_path: Path) -> None:
    """`memsync demo` runs from the wheel alone, and finds its migrations and SQL there."""
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)

    told = subprocess.run(
        [sys.executable, "-m", "memsync", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert (0, "") == (told.returncode, told.stderr)
    assert "Everything came true" in told.stdout
