"""A store that no setting names is an error; no command makes a store or starts a server for it."""

from pathlib import Path

import pytest

from memsync import Memory
from memsync.errors import SettingsError
from support.cli import COMMANDS, NOWHERE, every_command, run

OF_POSTGRES = {command for command in COMMANDS if command[0] == "migrate"} | {
    ("sync", "status"),
    ("sync", "retry"),
}
"""The commands that need Postgres alone."""


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder for data, which does not exist yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path / "share"


@every_command
def test_a_command_without_stores_is_2(command: tuple[str, ...], tmp_path: Path) -> None:
    """Each command names the missing settings, all at once, and leaves nothing behind."""
    ran = run(*command)

    assert (2, "") == (ran.status, ran.out)
    assert "postgres_url: set --postgres-url, MEMSYNC_POSTGRES_URL or postgres_url in" in ran.err
    assert (command not in OF_POSTGRES) == ("qdrant_url: set --qdrant-url" in ran.err)
    assert "`memsync init --embedded`" in ran.err
    assert f"\nthere is no memsync.toml in {Path.cwd()}\n" in ran.err  # a wrong folder, mostly
    assert [] == list(tmp_path.iterdir())


def test_nothing_is_opened_for_a_store_that_is_missing(tmp_path: Path) -> None:
    """A command that lacks one of its stores does not try the other."""
    ran = run("--postgres-url", NOWHERE, "check")

    assert (2, "") == (ran.status, ran.out)
    assert "postgres_url" not in ran.err
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("migrate", "status"), ("check",)], ids=" ".join)
@pytest.mark.parametrize("there", [False, True])
def test_an_embedded_server_is_not_made_by_the_way(
    command: tuple[str, ...], tmp_path: Path, *, there: bool
) -> None:
    """A folder without a server's data is an error that names it; nothing is made in or beside."""
    if there:
        (tmp_path / "pg").mkdir()
    before = sorted(tmp_path.rglob("*"))
    ran = run("--postgres-url", "embedded:pg", "--qdrant-url", ":memory:", *command)

    assert (2, "") == (ran.status, ran.out)
    assert f"there is no embedded Postgres in {tmp_path}/pg: the folder " in ran.err
    assert before == sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("kind", ["edge", "local"])
def test_an_embedded_store_is_not_made_by_the_way(app: str, kind: str, tmp_path: Path) -> None:
    """A folder of points that does not exist is an error that names it."""
    ran = run("--postgres-url", app, "--qdrant-url", f"{kind}:{tmp_path}/points", "check")

    assert (2, "") == (ran.status, ran.out)
    assert f"{tmp_path}/points: the folder does not exist" in ran.err
    assert [] == list(tmp_path.iterdir())


def test_the_library_needs_its_stores_named(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Memory.open` needs Postgres; Qdrant must be named for the first recall."""
    with pytest.raises(SettingsError, match="MEMSYNC_POSTGRES_URL"):
        Memory.open()
    monkeypatch.setenv("MEMSYNC_POSTGRES_URL", app)
    with Memory.open() as memory, pytest.raises(SettingsError, match="MEMSYNC_QDRANT_URL"):
        memory.recall("what?", persona_id="7f9c24e5-8f6e-4b8e-9a57-1d2c3b4a5f60")
    monkeypatch.setenv("MEMSYNC_QDRANT_URL", "edge:nowhere")
    with pytest.raises(SettingsError, match="nowhere: the folder does not exist"):
        Memory.open()
