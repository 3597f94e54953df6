"""Tests `memsync demo`: its story, exit status and settings, and that it leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memsync import Settings
from memsync.demo import story as demo
from memsync.demo.world import Recipe, read_dialogues
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


@pytest.mark.slow
def test_demo_that_fails_is_70(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expectation that is not met is printed on both streams and sets the exit status."""

    def play(*_: object) -> Iterator[demo.Scene]:
        yield demo.Scene("A scene", "memsync check", [("clean", False)], ["clean: not at all"])

    monkeypatch.setattr(demo, "play", play)
    ran = run("demo")

    assert 70 == ran.status
    assert "   FAILED clean: not at all" in ran.out.splitlines()
    assert "FAILED A scene: clean: not at all\n" == ran.err
    assert "Everything came true" not in ran.out


@pytest.mark.slow
def test_demo_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo ignores the caller's settings, because its expected counts rest on the defaults."""
    monkeypatch.setenv("MEMSYNC_RETENTION_DAYS", "30")
    monkeypatch.setenv("MEMSYNC_SETTLE_S", "99999999")
    seen: list[Settings] = []

    def play(stage: demo.Stage, _: Recipe) -> Iterator[demo.Scene]:
        seen.append(stage.settings)
        yield demo.Scene("A scene", "", [])

    monkeypatch.setattr(demo, "play", play)

    assert 0 == run("demo").status
    assert [(None, 60.0)] == [(each.retention_days, each.settle_s) for each in seen]


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
        pytest.param(signal.SIGHUP),
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
            started = any("Two stores" in line for line in process.stdout)
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
