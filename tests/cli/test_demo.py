"""Tests `memsync demo`: its story, exit status and settings, and that it leaves nothing behind."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memsync import Settings
from memsync.cli import demo
from memsync.demo import story
from memsync.demo.world import World, read_dialogues
from support.cli import NO_QDRANT, NOWHERE, run


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo uses stores of its own, meets all its expectations and leaves nothing behind."""
    monkeypatch.delenv("MEMSYNC_EMBEDDER")
    monkeypatch.setenv("MEMSYNC_POSTGRES_URL", NOWHERE)
    monkeypatch.setenv("MEMSYNC_QDRANT_URL", NO_QDRANT)
    left_before = left()

    ran = run("demo")

    assert (0, "") == (ran.status, ran.err)
    assert ran.out.splitlines()[-1].startswith("Everything came true")
    assert "FAILED" not in ran.out
    assert [] == list(tmp_path.iterdir())
    assert left_before == left()


def left() -> set[str]:
    """The names of the demo's temporary folders that exist now."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("memsync-d*")}


def played(monkeypatch: pytest.MonkeyPatch, *scenes: story.Scene) -> list[Settings]:
    """Let the story be these scenes; returns the list that gets the settings of the stage."""
    seen: list[Settings] = []

    def play(stage: story.Stage, _: World) -> Iterator[story.Scene]:
        seen.append(stage.settings)
        yield from scenes

    monkeypatch.setattr(story, "play", play)
    return seen


def test_demo_that_fails_is_70(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come true is said on both streams: a status, or what the stores hold."""
    played(
        monkeypatch,
        story.Scene("A scene", "memsync rules", status=1),
        story.Scene("Another", unmet=lambda: ["rows: expected 1, got 2"]),
    )
    ran = run("demo")

    assert 70 == ran.status
    assert "   FAILED exit status: 0, not 1" in ran.out.splitlines()
    assert "   FAILED rows: expected 1, got 2" in ran.out.splitlines()
    assert (
        "FAILED A scene: exit status: 0, not 1\nFAILED Another: rows: expected 1, got 2\n"
        == ran.err
    )
    assert "Everything came true" not in ran.out


def test_transcripts_are_what_the_commands_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene shows what its command prints to the letter; the middle of a long one is cut."""
    short, long = run("rules", "MSC001").out, run("rules").out
    played(
        monkeypatch,
        story.Scene("A rule", "memsync rules MSC001"),
        story.Scene("All", "memsync rules"),
    )
    told = run("demo")

    assert (0, "") == (told.status, told.err)
    first, *_, last = long.splitlines()
    left_out = len(long.splitlines()) - demo.SHOWN_LINES
    assert left_out > 0
    assert f"\n1. A rule\n$ memsync rules MSC001\n{short}\n2. All\n" in told.out
    assert f"$ memsync rules\n{first}\n" in told.out
    assert f"\n[… {left_out} more lines …]\n" in told.out
    assert f"\n{last}\n\nEverything came true" in told.out


def test_demo_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The demo and its commands ignore the caller's settings, which are as they were afterwards."""
    (tmp_path / "memsync.toml").write_text("not_a_setting = 1\n")
    monkeypatch.setenv("MEMSYNC_QUARANTINE_DAYS", "7")
    monkeypatch.setenv("MEMSYNC_POSTGRES_URL", NOWHERE)
    monkeypatch.setenv("PGHOST", "nowhere")
    before = dict(os.environ)
    seen = played(monkeypatch, story.Scene("Init", "memsync init"))
    ran = run("demo", "--json")

    assert [30] == [each.quarantine_days for each in seen]
    (scene,) = ran.json()["scenes"]
    assert ("memsync init", 0, True) == (
        scene["command"],
        scene["status"],
        scene["result"]["made"],
    )
    assert (before, tmp_path) == (dict(os.environ), Path.cwd())


@pytest.mark.parametrize("option", ["--keep", "--legacy"])
def test_a_folder_in_use_is_refused(option: str, tmp_path: Path) -> None:
    """A folder that holds anything, or is none, is an error that names it, before any store."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("")
    for name in ("used", "used/mine"):
        ran = run("demo", option, name)
        assert (2, "") == (ran.status, ran.out)
        assert name in ran.err
    assert ["mine"] == [path.name for path in (tmp_path / "used").iterdir()]
    assert 2 == run("demo", "--keep", "a", "--legacy", "b").status


@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_is_kept_of_a_story_cut_short(
    monkeypatch: pytest.MonkeyPatch, reachable_dir: Path, *, is_new: bool
) -> None:
    """Where the story fails, a folder of its own is gone, and one that stood is empty."""
    played(monkeypatch, story.Scene("None", "memsync sync status"))
    folder = reachable_dir / "kept"
    if not is_new:
        folder.mkdir()
    ran = run("demo", "--keep", str(folder))

    assert 12 == ran.status
    assert ([] if is_new else [folder]) == list(reachable_dir.rglob("*"))


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_of_others_outlives_a_story_cut_short(
    monkeypatch: pytest.MonkeyPatch, reachable_dir: Path, *, is_new: bool
) -> None:
    """What somebody else put into the folder meanwhile is not the demo's to remove."""

    def left_by_another() -> list[str]:
        Path("notes").mkdir()
        Path("notes/mine.txt").write_text("mine")
        return []

    played(
        monkeypatch,
        story.Scene("Another", unmet=left_by_another),
        story.Scene("None", "memsync sync status"),
    )
    folder = reachable_dir / "kept"
    if not is_new:
        folder.mkdir()
    ran = run("demo", "--keep", str(folder))

    assert 12 == ran.status
    assert [folder / "notes"] == list(folder.iterdir())
    assert "mine" == (folder / "notes" / "mine.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("option", "stage"), [("--keep", "contracted"), ("--legacy", "legacy")])
def test_what_is_kept_can_be_moved_and_tried(
    option: str, stage: str, reachable_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's commands, typed in their order, do what it says, also where the folder is moved.

    A command ends with 0, or with the status that its comment names.
    """
    monkeypatch.delenv("MEMSYNC_EMBEDDER")
    made = run("demo", option, str(reachable_dir / "kept"))
    assert (0, "") == (made.status, made.err)
    assert f"COMMANDS.md in {reachable_dir}/kept says what to type there" in made.out
    (reachable_dir / "kept").rename(reachable_dir / "moved")
    monkeypatch.chdir(reachable_dir / "moved")
    assert stage == run("migrate", "status", "--json").json()["stage"]

    page = Path("COMMANDS.md").read_text()
    assert not re.search(r"\{\w+\}", page)
    commands = 0
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block, "COMMANDS.md", "exec"), {})  # noqa: S102  it is to run
            assert out.getvalue()
            assert ("eanut" in out.getvalue()) is ("remember" in block or "recall" in block)
            continue
        for line in block.splitlines():
            typed, _, comment = line.partition("#")
            named = re.search(r"exit status (\d+)", comment)
            ran = run(*shlex.split(typed)[1:])
            assert (line, int(named[1]) if named else 0) == (line, ran.status), ran.err
            commands += 1
    assert commands >= 9


@pytest.mark.parametrize("content", [b"", b"not gzip", b"\x1f\x8b broken"])
def test_demo_refuses_bad_dialogues(content: bytes, tmp_path: Path) -> None:
    """A file that holds no dialogues is refused by name, before a store is started."""
    file = tmp_path / "dialogues.jsonl.gz"
    file.write_bytes(content)

    ran = run("demo", "--dialogues", str(file))

    assert (2, "") == (ran.status, ran.out)
    assert "dialogues.jsonl.gz" in ran.err


def test_demo_reads_plain_lines(tmp_path: Path) -> None:
    """A file with one JSON object per line need not be compressed."""
    turns = [{"role": "user", "text": "Hello"}, {"role": "assistant", "text": "Hi"}]
    file = tmp_path / "dialogues.jsonl"
    file.write_text(json.dumps({"id": 1, "scenario": "s", "turns": turns}) + "\n")

    assert 1 == len(read_dialogues(file))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
    ],
)
def test_demo_cleans_up_when_told_to_end(number: signal.Signals, reachable_dir: Path) -> None:
    """A demo that a signal ends in the middle stops its server and removes its folder."""
    environ = {name: value for name, value in os.environ.items() if name != "MEMSYNC_EMBEDDER"}
    process = subprocess.Popen(
        [sys.executable, "-m", "memsync", "demo"],
        env={**environ, "TMPDIR": str(reachable_dir)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            started = any("A legacy app" in line for line in process.stdout)
            process.send_signal(number)
        status = process.wait(timeout=30)
        assert started
        assert 0 != status
        assert [] == list(reachable_dir.iterdir())
    finally:
        process.kill()
        process.wait()
        stop_servers_below(reachable_dir)


def stop_servers_below(folder: Path) -> None:
    """Stop the servers that a killed demo left running."""
    for file in folder.glob("*/postgres/postmaster.pid"):
        pid = int(file.read_text().split()[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + 10
        while file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
