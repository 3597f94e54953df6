"""Tests `memsync sync run --follow`, the relay as a service: how it lives, waits and ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import psycopg
import pytest

from memsync import Memory, NewExchange, Settings, migrate
from memsync.demo.world import load_rows, make_world
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.embedded import start_embedded
from memsync.stores.vectors.edge import open_edge
from support.cli import RECIPE

DEADLINE_S = 40.0
MODEL = """
import os
from pathlib import Path
from support.cli import embed as answer

def embed(texts):
    if Path("model-is-interrupted").exists():
        raise KeyboardInterrupt
    if Path("model-is-down").exists():
        raise ConnectionRefusedError("the model is down")
    while Path("model-is-slow").exists() and texts != ["dimensions"]:
        Path("model-has-begun").touch()
    return answer(texts)
"""


class Service:
    """A relay that runs in a process of its own; its lines are read as they come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.out: Queue[str] = Queue()
        self.err: Queue[str] = Queue()
        self.told: list[str] = []
        self._readers = [
            threading.Thread(target=_read, args=pair)
            for pair in ((process.stdout, self.out), (process.stderr, self.err))
        ]
        for each in self._readers:
            each.start()

    def tells(self, *words: str) -> str:
        """Wait for the next line on stderr, which must have these words."""
        line = self.err.get(timeout=DEADLINE_S)
        self.told.append(line)
        assert all(each in line for each in words), self.told
        return line

    def printed(self) -> Any:
        """Wait for the next line on stdout, an object of JSON."""
        return json.loads(self.out.get(timeout=DEADLINE_S))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; return the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE_S)
        for each in self._readers:
            each.join(DEADLINE_S)
        return status

    def rest(self) -> tuple[list[str], list[str]]:
        """All lines on stdout and stderr that nobody has read, once the process has ended."""
        return _all(self.out), _all(self.err)


def _read(stream: Any, lines: "Queue[str]") -> None:
    for line in stream or ():
        lines.put(line.rstrip("\n"))


def _all(lines: "Queue[str]") -> list[str]:
    found: list[str] = []
    try:
        while True:
            found.append(lines.get_nowait())
    except Empty:
        return found


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Call it with the URLs of both stores, and options, for a relay that follows."""
    (tmp_path / "model.py").write_text(MODEL)
    with ExitStack() as after:

        def started(
            postgres: str, qdrant: str, *options: str, stdout: int = subprocess.PIPE
        ) -> Service:
            command = ("--postgres-url", postgres, "--qdrant-url", qdrant, "sync", "run")
            process = after.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "memsync", *command, "--follow", *options],
                    env=os.environ
                    | {"MEMSYNC_EMBEDDER": "model:embed", "MEMSYNC_LAYOUT": "shared"}
                    | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=tmp_path,
                )
            )
            after.callback(process.kill)
            return Service(process)

        yield started


def remember(url: str, text: str) -> None:
    """Queue one exchange."""
    with psycopg.connect(url) as connection:
        personality, persona = connection.execute(
            "SELECT o.id, p.id FROM personalities o, personas p LIMIT 1"
        ).fetchone() or (None, None)
    settings = Settings.load(environ={}, postgres_url=url, drain="no")
    with Memory.open(settings) as memory:
        memory.remember(NewExchange("follow", personality, persona, text, "an answer"))


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that the relay does."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def pending(url: str) -> int:
    """How many entries the outbox has."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM memsync.outbox").fetchone()
    assert found is not None
    return int(found[0])


def test_it_drains_what_comes_and_ends_with_0(app: str, qdrant: str, start: Start) -> None:
    """Entries before and after its start are written; SIGTERM ends it with 0 and a summary."""
    remember(app, "before")
    relay = start(app, qdrant, "--every", "0.1")
    relay.tells("follows the outbox, and looks every 0.1 s")
    until(lambda: 0 == pending(app))
    remember(app, "after")
    until(lambda: 0 == pending(app))

    assert 0 == relay.end()
    assert (["ended: 2 outbox entries drained, 2 memories written"], []) == relay.rest()
    with closing(open_edge(Path(qdrant.removeprefix("edge:")))) as vectors:
        assert 2 == vectors.count("memories")


def test_each_batch_is_a_line_of_json(app: str, qdrant: str, start: Start) -> None:
    """With --json stdout has an object for each batch and nothing else, stderr one for a state."""
    relay = start(app, qdrant, "--every", "0.1", "--json")
    assert {"schema_version": 2, "state": "working"}.items() <= json.loads(relay.tells()).items()
    for number in range(2):
        remember(app, str(number))
        assert {"schema_version": 2, "entries": 1, "memories": 1} == relay.printed()

    assert 0 == relay.end(signal.SIGINT)
    assert ([], []) == relay.rest()


def test_the_batch_that_is_under_way_is_finished(
    app: str, qdrant: str, start: Start, tmp_path: Path
) -> None:
    """SIGTERM in the middle of a batch ends the relay behind it; no entry lost an attempt."""
    for number in range(3):
        remember(app, str(number))
    (tmp_path / "model-is-slow").touch()
    relay = start(app, qdrant, "--every", "0.1")
    until((tmp_path / "model-has-begun").exists)
    relay.process.send_signal(signal.SIGTERM)
    remember(app, "too late")
    (tmp_path / "model-is-slow").unlink()

    assert 0 == relay.process.wait(DEADLINE_S)
    assert 1 == pending(app)


def test_a_setting_that_cannot_be_used_ends_it(
    app: str, qdrant: str, start: Start, tmp_path: Path
) -> None:
    """What no waiting mends ends the service with status 2, so that a supervisor gives up."""
    remember(app, "waits")
    (tmp_path / "model.py").write_text("embed = 7")
    relay = start(app, qdrant)
    relay.tells("follows the outbox")
    relay.tells("model:embed")
    assert 2 == relay.process.wait(DEADLINE_S)


def test_a_relay_that_ends_by_itself_is_an_error(
    app: str, qdrant: str, start: Start, tmp_path: Path
) -> None:
    """Nobody asked it to end, so that a supervisor must start it again: the status is not 0."""
    relay = start(app, qdrant, "--every", "0.1")
    relay.tells("follows the outbox")
    remember(app, "before")
    until(lambda: 0 == pending(app))
    (tmp_path / "model-is-interrupted").touch()
    remember(app, "waits")
    assert 70 == relay.process.wait(DEADLINE_S)
    _, told = relay.rest()
    assert any("the relay ended although nobody asked it to" in each for each in told)
    assert 1 == pending(app)


def test_a_reader_that_has_gone_ends_it(app: str, qdrant: str, start: Start) -> None:
    """Where nobody reads the lines of --json any more, it ends as every command does, work done."""
    reading, writing = os.pipe()
    relay = start(app, qdrant, "--every", "0.1", "--json", stdout=writing)
    os.close(writing)
    relay.tells("working")
    os.close(reading)
    remember(app, "unread")
    assert 141 == relay.process.wait(DEADLINE_S)
    assert 0 == pending(app)


@pytest.mark.slow
def test_outages_are_survived(
    request: pytest.FixtureRequest, reachable_dir: Path, tmp_path: Path, start: Start, qdrant: str
) -> None:
    """It starts before Postgres, goes through an outage of each store and of the model, and tells
    each change once.
    """
    folder = reachable_dir / "data"
    with start_embedded(folder, durable=False) as server:
        url = server.conninfo
        with Postgres.open(url) as postgres:
            with postgres.session() as session:
                load_rows(make_world(RECIPE), session)
            options = migrate.RunOptions(
                unresolved="create", quiet_minutes=0, backup_confirmed="test", evidence="ignore"
            )
            migrate.run(postgres, Settings.load(environ={}), options)
    held = open_edge(Path(qdrant.removeprefix("edge:")))
    request.addfinalizer(held.close)
    relay = start(url, qdrant, "--every", "0.1")
    relay.tells("follows the outbox")
    relay.tells("memories wait, and are tried again", "does not answer")
    with start_embedded(folder, durable=False):
        remember(url, "while the vector store is held")
        relay.tells("memories wait: ", f"is open in process {os.getpid()}")
        held.close()
        relay.tells("memories are written again")
        until(lambda: 0 == pending(url))
        (tmp_path / "model-is-down").touch()
        remember(url, "while the model is down")
        relay.tells("memories wait, and are tried again", "ConnectionRefusedError")
        (tmp_path / "model-is-down").unlink()
        relay.tells("memories are written again")
        until(lambda: 0 == pending(url))
    relay.tells("memories wait, and are tried again")
    with start_embedded(folder, durable=False):
        relay.tells("memories are written again")
        remember(url, "after all")
        until(lambda: 0 == pending(url))
        assert 0 == relay.end()
    assert (["ended: 3 outbox entries drained, 3 memories written"], []) == relay.rest()
