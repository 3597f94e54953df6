"""A Memory with an embedded store drains the outbox itself, beside the app, whatever fails."""

import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, LiteralString

import pytest

from memsync import InvalidInput, Memory, NewExchange, PartlyDone, StoreBusy, StoreUnreachable
from memsync.demo.world import make_world
from memsync.memory import api
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.locks import LockKey, exclusive
from memsync.stores.postgres.session_settings import Pins
from memsync.stores.vectors import open_vectors
from support.app import App
from support.cli import RECIPE
from support.lab import ADA, CHANNEL, A, Lab, embed
from support.models import Model, holding
from support.roles import APP_GRANTS, LIBRARY_GRANTS, role

DEADLINE_S = 20.0
Open = Callable[..., Memory]


def said(text: str = "hello") -> NewExchange:
    """An exchange of persona A."""
    return NewExchange(CHANNEL, ADA, A, text, f"reply to {text}")


def texts(memory: Memory) -> set[str]:
    """What the user said in all memories of persona A."""
    return {each.user_text for each in memory.recall("x", persona_id=A, limit=1000)}


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def relays() -> list[threading.Thread]:
    """The threads that drain."""
    return [each for each in threading.enumerate() if "memsync-relay" == each.name]


@pytest.fixture
def lab(open_lab: "partial[Lab]") -> Iterator[Lab]:
    """A lab on an embedded store, whose Memory drains; no thread is left of a test."""
    yield open_lab("edge", drain="auto")
    until(lambda: not relays())


@pytest.fixture
def open_memory(lab: Lab) -> Iterator[Open]:
    """Call it, if need be with a model and settings, for a Memory that drains."""
    with ExitStack() as after:

        def opened(model: Any = embed, **given: object) -> Memory:
            settings = lab.settings.model_copy(update=given)
            ltm = LongTermMemory(lab.vectors, settings, Embedder("test", model))
            postgres = Postgres.open(lab.url)
            return after.enter_context(closing(Memory(postgres, settings, ltm)))

        yield opened


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of memsync, from info on."""
    caplog.set_level(logging.INFO, logger="memsync")
    return caplog


def waits(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the relay told, in order."""
    return [each.getMessage() for each in caplog.records if "memsync.memory.follow" == each.name]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path) -> None:
    """Make the folder of the embedded stores of these tests."""
    (tmp_path / "own").mkdir()


# ---------------------------------------------------------------------- the usual


@pytest.mark.parametrize("kind", ["edge", "local", ":memory:"])
def test_what_is_remembered_is_recalled_after_a_flush(
    lab: Lab, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no relay but the Memory itself, a flush makes every exchange before it a memory."""
    monkeypatch.setattr(api, "POLL_S", 1e6)
    url = kind if kind == ":memory:" else f"{kind}:{tmp_path / 'own'}"
    settings = Settings(
        postgres_url=lab.url,
        qdrant_url=url,
        embedder="support.lab:embed",
        settle_s=0,
        layout="shared",
    )
    with Memory.open(settings) as memory:
        for number in range(3):
            memory.remember(said(f"said {number}"))
            memory.flush(timeout_s=DEADLINE_S)
            assert {f"said {each}" for each in range(number + 1)} == texts(memory)
        assert memory.check().ok
    assert 0 == lab.sql("SELECT count(*) FROM memsync.outbox")[0][0]


def test_a_remember_is_written_at_once(open_memory: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is woken by a remember of this process; it does not wait for its next look."""
    monkeypatch.setattr(api, "POLL_S", 1e6)
    memory = open_memory()
    for number in range(3):
        memory.remember(said(f"said {number}"))
        until(partial(_is_recalled, memory, f"said {number}"))


def _is_recalled(memory: Memory, text: str) -> bool:
    return text in texts(memory)


def test_entries_of_others_are_found(
    lab: Lab, open_memory: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process queued is written by the next look, without a call."""
    monkeypatch.setattr(api, "POLL_S", 0.05)
    open_memory().recall("x", persona_id=A)
    open_memory(drain="no").remember(said("of another"))
    until(lambda: lab.vectors.describe(lab.home) and lab.vectors.count(lab.home))


@pytest.mark.parametrize(
    ("drain", "url", "drains"),
    [
        ("auto", "edge:q", True),
        ("auto", "local:q", True),
        ("auto", ":memory:", True),
        ("auto", "http://h:6333", False),
        ("auto", "https://h", False),
        ("yes", "http://h:6333", True),
        ("no", "edge:q", False),
    ],
)
def test_the_setting_decides(drain: Any, url: str, *, drains: bool) -> None:
    """By default a Memory drains where the vector store is embedded."""
    assert drains == Settings(drain=drain, qdrant_url=url).drains


def test_no_call_no_thread(open_memory: Open) -> None:
    """A Memory that was opened, and then forked, has started nothing and opened no vector store."""
    open_memory()
    open_memory().get_recent_history(CHANNEL, ADA, persona_id=A)
    assert [] == relays()


def test_without_a_relay_a_flush_waits_for_another(lab: Lab, open_memory: Open) -> None:
    """Where this process does not drain, a flush ends when the entries are settled by others."""
    memory = open_memory(drain="no")
    memory.remember(said())
    with pytest.raises(PartlyDone, match=r"1 memory is not written after 0 s; no relay runs"):
        memory.flush(timeout_s=0)
    waiting = threading.Thread(target=memory.flush, kwargs={"timeout_s": DEADLINE_S})
    waiting.start()
    lab.sync()
    waiting.join(DEADLINE_S)
    assert not waiting.is_alive()
    assert {"hello"} == texts(memory)
    assert [] == relays()


def test_a_flush_does_not_wait_for_what_comes_after_it(lab: Lab, open_memory: Open) -> None:
    """Entries that are queued while it waits are not waited for."""
    memory = open_memory(drain="no")
    memory.remember(said("first"))
    lab.sync()
    memory.flush(timeout_s=0)
    memory.remember(said("second"))
    with pytest.raises(PartlyDone):
        memory.flush(timeout_s=0)


@pytest.mark.parametrize("timeout_s", ["1", -1, float("nan"), float("inf"), None, True])
def test_a_timeout_that_is_none_is_refused(open_memory: Open, timeout_s: Any) -> None:
    """What is no number of seconds is an InvalidInput."""
    with pytest.raises(InvalidInput, match="timeout_s must be 0 to 86400 seconds"):
        open_memory().flush(timeout_s=timeout_s)


# ---------------------------------------------------------------------- failures


def test_an_outage_is_waited_for(
    lab: Lab,
    open_memory: Open,
    logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An embedder that is down is told once, costs no attempt, and is asked again after a pause.

    What is remembered in the pause does not end it; a flush does.
    """
    monkeypatch.setattr("memsync.memory.patience._FIRST_PAUSE_S", 1e6)
    down = Model(ConnectionError("refused"), holding("reply"))
    memory = open_memory(down)
    memory.remember(said("0"))
    until(lambda: waits(logged))
    asked = len(down.calls)
    for number in range(1, 30):
        memory.remember(said(str(number)))
    assert asked == len(down.calls)
    with pytest.raises(PartlyDone, match=r"30 memories are not written.*refused") as left:
        memory.flush(timeout_s=0.5)
    assert (30, 0) == (left.value.fields["pending"], left.value.fields["dead"])
    assert {(0, False)} == set(lab.sql("SELECT attempts, dead FROM memsync.outbox"))
    assert asked < len(down.calls)
    down.error = None
    memory.flush(timeout_s=DEADLINE_S)
    assert 30 == len(texts(memory))
    until(lambda: 2 == len(waits(logged)))
    told = waits(logged)
    assert told[0].startswith("memories wait, and are tried again: ")
    assert "memories are written again" == told[1]


def test_a_dead_entry_is_told(
    lab: Lab, open_memory: Open, logged: pytest.LogCaptureFixture
) -> None:
    """A flush waits for all others first, then says how many are dead, of what, and what to do."""
    open_memory(drain="no").remember(said("poison"))
    memory = open_memory()
    lab.sql("UPDATE memsync.outbox SET dead = true, last_error = 'too long'")
    memory.remember(said())
    with pytest.raises(PartlyDone, match=r"1 outbox entry is dead.*too long.*sync retry") as left:
        memory.flush(timeout_s=DEADLINE_S)
    assert (0, 1) == (left.value.fields["pending"], left.value.fields["dead"])
    assert {"hello"} == texts(memory)
    until(lambda: waits(logged))
    assert [True] == ["is dead" in each for each in waits(logged)]


def test_a_text_that_is_refused_is_told(
    open_memory: Open, logged: pytest.LogCaptureFixture
) -> None:
    """A text at which the model raises holds up no other, and a flush says why it is left."""
    memory = open_memory(Model(ValueError("too many tokens"), holding("poison")))
    memory.remember(said("poison"))
    memory.remember(said("fine"))
    until(lambda: {"fine"} == texts(memory))
    with pytest.raises(PartlyDone, match=r"1 memory is not written.*too many tokens"):
        memory.flush(timeout_s=0.2)
    until(lambda: any("a memory cannot be made" in each for each in waits(logged)))


@pytest.mark.parametrize("name", ["no.such.module:x", "support.models:exits"])
def test_an_embedder_that_cannot_be_loaded_ends_a_flush_early(lab: Lab, name: str) -> None:
    """What no waiting mends is told at once, and the app goes on remembering."""
    settings = lab.settings.model_copy(update={"embedder": name})
    with Memory(Postgres.open(lab.url), settings, LongTermMemory(lab.vectors, settings)) as memory:
        memory.remember(said())
        began = time.monotonic()
        with pytest.raises(PartlyDone, match="the relay of this process waits: "):
            memory.flush(timeout_s=1000)
        assert time.monotonic() - began < DEADLINE_S
        memory.remember(said("again"))
        assert 1 == len(relays())


def test_a_restart_of_postgres_is_survived(lab: Lab, open_memory: Open) -> None:
    """Sessions that the server ended are opened again by the thread."""
    memory = open_memory()
    memory.remember(said("before"))
    memory.flush(timeout_s=DEADLINE_S)
    lab.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    memory.remember(said("after"))
    memory.flush(timeout_s=DEADLINE_S)
    assert {"before", "after"} == texts(memory)


def test_another_relay_is_waited_for_quietly(
    lab: Lab, open_memory: Open, logged: pytest.LogCaptureFixture
) -> None:
    """Where another relay is at work, the thread looks again soon, and tells nobody."""
    memory = open_memory()
    with exclusive(lab.postgres, LockKey.RELAY, "relay"):
        memory.remember(said())
        with pytest.raises(PartlyDone):
            memory.flush(timeout_s=0.3)
    memory.flush(timeout_s=DEADLINE_S)
    assert [] == waits(logged)


def test_what_a_policy_hides_is_not_taken_for_gone(
    open_lab: "partial[Lab]", own_database: str, logged: pytest.LogCaptureFixture
) -> None:
    """The thread runs as commands do: an entry whose exchange it may not see is not settled. What
    else the role lacks is told as the thread begins.
    """
    lab = open_lab("edge", own_database, drain="auto")
    grants: tuple[LiteralString, ...] = (
        *(*APP_GRANTS, *LIBRARY_GRANTS, "GRANT UPDATE, DELETE ON memsync.outbox TO {}"),
        "ALTER TABLE conversation_history ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY writes ON conversation_history FOR INSERT TO {} WITH CHECK (true)",
    )
    with (
        role(App(lab.url, make_world(RECIPE)), *grants) as url,
        Memory(Postgres.open(url, pins=Pins(filtered=True)), lab.settings, lab.ltm) as memory,
    ):
        memory.remember(said())
        with pytest.raises(PartlyDone, match=r"the role may not do this.* BYPASSRLS"):
            memory.flush(timeout_s=1000)
    assert "GRANT INSERT ON memsync.quarantine" in waits(logged)[0]
    assert [(0, False)] == lab.sql("SELECT attempts, dead FROM memsync.outbox")


def test_what_was_mended_is_not_told_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush asks anew before it says that no waiting helps: the cause may be mended by now."""
    settings = lab.settings.model_copy(update={"embedder": "memsync_later:embed"})
    with Memory(Postgres.open(lab.url), settings, LongTermMemory(lab.vectors, settings)) as memory:
        memory.remember(said())
        with pytest.raises(PartlyDone, match="memsync_later"):
            memory.flush(timeout_s=1000)
        later = ModuleType("memsync_later")
        later.__dict__["embed"] = embed
        monkeypatch.setitem(sys.modules, "memsync_later", later)
        memory.flush(timeout_s=DEADLINE_S)
        assert {"hello"} == texts(memory)


# ---------------------------------------------------------------------- two stores, two processes


def test_two_of_one_folder(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two Memories of one folder the second remembers, the first writes; recall says which."""
    update = {"qdrant_url": f"edge:{tmp_path / 'own'}", "embedder": "support.lab:embed"}
    settings = lab.settings.model_copy(update=update)
    monkeypatch.setattr(api, "POLL_S", 0.05)
    with Memory.open(settings) as first, Memory.open(settings) as second:
        assert [] == first.recall("x", persona_id=A)
        second.remember(said("of the second"))
        first.flush(timeout_s=DEADLINE_S)
        second.flush(timeout_s=DEADLINE_S)
        assert {"of the second"} == texts(first)
        with pytest.raises(StoreBusy, match=rf"open already, in this process \({os.getpid()}\)"):
            second.recall("x", persona_id=A)
        with pytest.raises(StoreBusy, match="use the Memory that has it"):
            second.check()


def test_a_command_beside_the_app_names_it(lab: Lab, tmp_path: Path) -> None:
    """`memsync check` on the store of a running app says which process to ask, and how."""
    update = {"qdrant_url": f"edge:{tmp_path / 'own'}", "embedder": "support.lab:embed"}
    with Memory.open(lab.settings.model_copy(update=update)) as memory:
        memory.remember(said())
        memory.flush(timeout_s=DEADLINE_S)
        command = ("--postgres-url", lab.url, "--qdrant-url", update["qdrant_url"], "check")
        ran = subprocess.run(
            [sys.executable, "-m", "memsync", *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
    assert (11, "") == (ran.returncode, ran.stdout)
    assert f"is open in process {os.getpid()} (" in ran.stderr
    assert "Memory.check" in ran.stderr


def forked(work: Callable[[], object]) -> object:
    """The result of `work` in a forked process, or what it raised."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()

    def run() -> None:
        try:
            theirs.send(work())
        except BaseException as error:  # noqa: BLE001  compared by the parent
            theirs.send(repr(error))
        os._exit(0)  # a normal exit would run pytest's

    child = context.Process(target=run)
    child.start()
    assert mine.poll(60), "the child does not answer"
    result: object = mine.recv()
    child.join(20)
    return result


def test_a_forked_process_begins_anew(open_memory: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has no thread at first; what it remembers is written by its parent, which goes on."""
    monkeypatch.setattr(api, "POLL_S", 0.05)
    memory = open_memory()
    memory.remember(said("parent"))
    memory.flush(timeout_s=DEADLINE_S)

    def in_child() -> object:
        before = len(relays())
        memory.remember(said("child"))
        memory.flush(timeout_s=DEADLINE_S)
        with pytest.raises(StoreBusy, match="belongs to process") as refused:
            memory.recall("x", persona_id=A)
        memory.close()
        return before, str(os.getppid()) in str(refused.value), len(relays())

    assert (0, True, 0) == forked(in_child)
    memory.remember(said("parent again"))
    memory.flush(timeout_s=DEADLINE_S)
    assert {"parent", "child", "parent again"} == texts(memory)


def test_a_process_that_was_forked_before_the_first_call(lab: Lab, tmp_path: Path) -> None:
    """A Memory that was opened before the fork is the child's with its first call, thread and all.

    So does a server with one worker that loads the app before it forks.
    """
    update = {"qdrant_url": f"edge:{tmp_path / 'own'}", "embedder": "support.lab:embed"}
    with Memory.open(lab.settings.model_copy(update=update)) as memory:

        def in_child() -> object:
            memory.remember(said("child"))
            memory.flush(timeout_s=DEADLINE_S)
            found, running = texts(memory), len(relays())
            memory.close()
            return found, running

        assert ({"child"}, 1) == forked(in_child)
        assert {"child"} == texts(memory)


# ---------------------------------------------------------------------- the end


class Slow:
    """A model that takes as long as it is told to, and says when it has begun."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, some: Sequence[str]) -> list[list[float]]:
        if any("reply" in each for each in some):
            self.begun.set()
            self.may_end.wait(60)
        return embed(some)


def test_close_finishes_the_batch(lab: Lab, open_memory: Open) -> None:
    """A close waits for the batch under way, and leaves the rest in the outbox, none lost."""
    slow = Slow()
    memory = open_memory(slow)
    memory.remember(said("first"))
    assert slow.begun.wait(DEADLINE_S)
    memory.remember(said("second"))
    threading.Timer(0.3, slow.may_end.set).start()
    memory.close()
    assert 1 == lab.vectors.count(lab.home)
    assert [(0, False)] == lab.sql("SELECT attempts, dead FROM memsync.outbox")
    with pytest.raises(StoreUnreachable):
        memory.flush(timeout_s=0)


def test_close_leaves_a_model_that_hangs(
    lab: Lab,
    open_memory: Open,
    monkeypatch: pytest.MonkeyPatch,
    logged: pytest.LogCaptureFixture,
) -> None:
    """A close ends in bounded time; the entry stays, for the next relay."""
    monkeypatch.setattr("memsync.memory.api.END_S", 0.2)
    slow = Slow()
    memory = open_memory(slow)
    memory.remember(said())
    assert slow.begun.wait(DEADLINE_S)
    began = time.monotonic()
    memory.close()
    assert time.monotonic() - began < 5
    assert "the relay is still in a batch after 0.2 s" in logged.text
    assert 1 == lab.sql("SELECT count(*) FROM memsync.outbox")[0][0]
    slow.may_end.set()
    until(lambda: not relays())
    lab.sync()
    assert lab.check().ok


def test_a_memory_that_is_dropped_leaves_no_thread(lab: Lab) -> None:
    """A Memory that is never closed does not run on when nothing refers to it any more."""
    memory = Memory(Postgres.open(lab.url), lab.settings, lab.ltm)
    memory.remember(said())
    memory.flush(timeout_s=DEADLINE_S)
    assert 1 == len(relays())
    postgres = memory._postgres
    del memory
    gc.collect()
    until(lambda: not relays())
    postgres.close()


NEVER_CLOSED = dedent("""
    import sys
    from support import models
    from memsync import Memory, NewExchange, Settings

    settings = Settings(
        postgres_url=sys.argv[1], qdrant_url=sys.argv[2], embedder=sys.argv[3], layout="shared"
    )
    memory = Memory.open(settings)
    for number in range(20):
        memory.remember(NewExchange(*sys.argv[4:7], f"said {number}", "reply"))
        # The others come while the first is under way, so the end leaves some of them.
        assert models.begun.wait(20)
""")


def in_a_process(code: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the code in a process of its own, which may import the support of tests, to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def test_a_process_that_ends_without_a_close(lab: Lab, tmp_path: Path) -> None:
    """The process ends by itself, silently, once its batch is done; the rest stays, untried."""
    url = f"edge:{tmp_path / 'own'}"
    arguments = [lab.url, url, "support.models:takes_a_second", CHANNEL, str(ADA), str(A)]
    ended = in_a_process(NEVER_CLOSED, arguments)
    assert (0, "", "") == (ended.returncode, ended.stdout, ended.stderr)
    left, attempts = lab.sql("SELECT count(*), max(attempts) FROM memsync.outbox")[0]
    settings = lab.settings.model_copy(update={"qdrant_url": url})
    with closing(open_vectors(settings)) as vectors:
        assert 20 - left == vectors.count(settings.collection) > 0
    assert attempts in (None, 0)


PREPARE = dedent("""
    import sys
    from memsync import Settings, migrate
    from memsync.demo.world import legacy_schema
    from memsync.stores.postgres import open_postgres
    from support.cast import CAST
    from support.lab import UNHINDERED

    settings = Settings(postgres_url=sys.argv[1])
    with open_postgres(settings, create=True) as postgres:
        with postgres.session() as session:
            session.run_script(legacy_schema())
            session.run_script(CAST)
        migrate.run(postgres, settings, UNHINDERED)
""")
COUNT = dedent("""
    import sys
    from memsync import Memory, Settings
    from memsync.stores.history import outbox

    settings = Settings(
        postgres_url=sys.argv[1], qdrant_url=sys.argv[2], embedder=sys.argv[3], layout="shared"
    )
    with Memory.open(settings) as memory:
        with memory._postgres.session() as session:
            attempts = outbox.due_attempts(session, outbox.clock(session))
        memory.flush(timeout_s=20)
        audit = memory.check()
        print(attempts, audit.points_checked, [each.name for each in audit.findings])
""")


def test_a_process_that_ends_with_both_stores_embedded(reachable_dir: Path, tmp_path: Path) -> None:
    """The thread ends before the server that its process started, so no batch is cut short."""
    arguments = [f"embedded:{reachable_dir / 'postgres'}", f"edge:{tmp_path / 'own'}"]
    arguments += ["support.models:takes_a_second", CHANNEL, str(ADA), str(A)]
    for code in (PREPARE, NEVER_CLOSED, COUNT):
        ended = in_a_process(code, arguments)
        assert (0, "") == (ended.returncode, ended.stderr)
    assert "[0] 20 []\n" == ended.stdout
