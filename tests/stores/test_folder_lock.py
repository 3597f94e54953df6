"""An embedded store is one process's, and every other one is told whose, without its secrets."""

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from memsync.errors import StoreBusy
from memsync.settings import Settings
from memsync.stores import folder_lock
from memsync.stores.folder_lock import hold
from memsync.stores.vectors import open_vectors

EMBEDDED = pytest.mark.parametrize("kind", ["edge", "local"])
SECRET = "Canary7Xyzzy"  # noqa: S105  that none is shown is the claim
HOLDER = dedent("""
    import sys
    from memsync.settings import Settings
    from memsync.stores.vectors import open_vectors

    store = open_vectors(Settings(qdrant_url=sys.argv[1]))
    print("open", flush=True)
    sys.stdin.read()
""")


@pytest.fixture(autouse=True)
def store_folder(tmp_path: Path) -> None:
    """Make the folder of the store."""
    (tmp_path / "store").mkdir()


@contextmanager
def holder(url: str, *words: str) -> Iterator[int]:
    """The id of another process that has the store open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "open\n" == process.stdout.readline()
        yield process.pid
        process.stdin.close()


def refused(open_it: Callable[[], Any]) -> StoreBusy:
    """The error of a process that cannot have the store."""
    with pytest.raises(StoreBusy) as error:
        open_it()
    assert "\n" not in error.value.message
    return error.value


@EMBEDDED
def test_another_process_is_named(tmp_path: Path, kind: str) -> None:
    """The error names store, process and program, and says what to do; no argument is shown."""
    url = f"{kind}:{tmp_path / 'store'}"
    words = (
        *("--postgres-url", f"postgresql://app:{SECRET}@host/app"),
        *("--api-key", SECRET, f"--token={SECRET}", f"host=h password='{SECRET}'", "serve"),
        *("--say", f"my words: {SECRET}", f"-p{SECRET}", SECRET),
    )
    with holder(url, *words) as pid:
        said = refused(lambda: open_vectors(Settings(qdrant_url=url)))

    assert pid == said.fields["pid"]
    for part in (str(tmp_path), f"process {pid} (", "Memory.check", "Qdrant server"):
        assert part in said.message
    assert Path(sys.executable).name == said.fields["command"]
    assert SECRET not in f"{said.message}{said.fields}"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/venv/bin/python", "{script}", "--key", SECRET], "python {script}"),
        (["/venv/bin/python", SECRET, "--key"], "python"),
        (["/venv/bin/python", "-c", SECRET], "python"),
        (["python3", "-m", "bot.main", SECRET], "python3 -m bot.main"),
        (["python3", "-m", "memsync", "sync", "run", "-v", SECRET], "python3 -m memsync sync run"),
        (["/bin/memsync", "check", "--persona", SECRET], "memsync check"),
        (["/bin/memsync", "--config", SECRET, "check"], "memsync"),
        (["/bin/memsync", "reconcile", "apply", "words"], "memsync reconcile apply"),
        (["/bin/memsync", "rules", SECRET], "memsync rules"),
        (["gunicorn: worker", SECRET], "gunicorn:"),
        ([f"bot --token={SECRET}"], "bot"),
        ([""], None),
    ],
)
def test_only_program_script_and_subcommand_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], shown: str | None
) -> None:
    """Options, their values and what follows -c may be secrets or people's words."""
    script = tmp_path / "bot.py"
    script.write_text("")
    (tmp_path / "1").mkdir()
    line = "\0".join(words).format(script=script)
    (tmp_path / "1" / "cmdline").write_text(f"{line}\0")
    monkeypatch.setattr(folder_lock, "_PROC", tmp_path)
    monkeypatch.setattr(folder_lock, "_is_alive", lambda _: True)
    lock = hold(tmp_path / "lock", "the store", server="Qdrant")
    (tmp_path / "lock").write_text(f"1 {socket.gethostname()}")

    said = refused(lambda: hold(tmp_path / "lock", "the store", server="Qdrant"))

    expected = shown.format(script=script) if shown else None
    assert expected == said.fields["command"]
    lock.release()


@EMBEDDED
def test_a_second_one_in_this_process_is_told_so(tmp_path: Path, kind: str) -> None:
    """Two of one folder in one process are refused by name; after a close the next may have it."""
    settings = Settings(qdrant_url=f"{kind}:{tmp_path / 'store'}")
    with closing(open_vectors(settings)):
        said = refused(lambda: open_vectors(settings))
    assert f"open already, in this process ({os.getpid()})" in said.message
    open_vectors(settings).close()


@EMBEDDED
def test_what_a_dead_process_wrote_is_no_obstacle(tmp_path: Path, kind: str) -> None:
    """After a kill the file still names its process, and nobody is refused because of that."""
    url = f"{kind}:{tmp_path / 'store'}"
    with ExitStack() as after:
        process = after.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        assert process.stdout is not None
        assert b"open\n" == process.stdout.readline()
        process.kill()
        process.wait()
    assert any(str(process.pid) in each.read_text() for each in tmp_path.rglob(".*lock"))
    open_vectors(Settings(qdrant_url=url)).close()


@EMBEDDED
def test_a_child_that_was_forked_does_not_keep_the_folder(tmp_path: Path, kind: str) -> None:
    """A store that its process closed can be opened again while a forked child goes on."""
    settings = Settings(qdrant_url=f"{kind}:{tmp_path / 'store'}")
    store = open_vectors(settings)
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=theirs.recv)
    child.start()
    store.close()
    open_vectors(settings).close()
    mine.send("end")
    child.join(20)
    assert 0 == child.exitcode


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is open in another process"),
        ("no pid", "is open in another process"),
        ("1 another-container", "is open in process 1 on the host another-container"),
        (f"{{dead}} {socket.gethostname()}", "a process that {dead} has forked, which itself has"),
        (f"{{me}} {socket.gethostname()}", "is open already, in this process ({me})"),
    ],
)
def test_what_the_file_says_is_not_trusted_blindly(tmp_path: Path, text: str, told: str) -> None:
    """A file without a process, one of another host, and one whose process is gone are told so."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    numbers = {"dead": ended.pid, "me": os.getpid()}
    lock = hold(tmp_path / "lock", "the store", server="Qdrant")
    (tmp_path / "lock").write_text(text.format(**numbers))

    said = refused(lambda: hold(tmp_path / "lock", "the store", server="Qdrant"))

    assert told.format(**numbers) in said.message
    lock.release()
    lock.release()
    hold(tmp_path / "lock", "the store", server="Qdrant").release()


def test_a_system_without_proc_names_the_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no command line can be read, the process is named by its id."""
    url = f"edge:{tmp_path / 'store'}"
    monkeypatch.setattr(folder_lock, "_PROC", tmp_path / "nowhere")
    with holder(url) as pid:
        said = refused(lambda: open_vectors(Settings(qdrant_url=url)))
    assert f"is open in process {pid}. An embedded store" in said.message
