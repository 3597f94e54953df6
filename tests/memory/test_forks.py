"""A Memory that was opened before the process forked, as preloading servers do."""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from memsync import forks
from memsync.errors import MemsyncError, StoreBusy
from memsync.memory import Memory, NewExchange
from memsync.model.ids import PersonaId
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.embedded import start_embedded
from memsync.stores.vectors import open_vectors
from support.lab import ADA, A, B, C

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memsync.model.records import Exchange
    from support.lab import Lab

PERSONAS = (A, B, C)
READS = 150
FORK = multiprocessing.get_context("fork")


def in_child(work: Callable[[], object]) -> Any:
    """The result of `work` in a forked process."""
    mine, theirs = FORK.Pipe()

    def run() -> None:
        try:
            theirs.send((work(), None))
        except BaseException as error:  # noqa: BLE001  raised again by the parent
            theirs.send((None, repr(error)))
        os._exit(0)  # a normal exit would run pytest's

    child = FORK.Process(target=run)
    child.start()
    assert mine.poll(60), "the child does not answer"
    result, error = mine.recv()
    child.join(10)
    assert error is None, error
    return result


def put(lab: Lab, ltm: LongTermMemory, said: list[Exchange]) -> None:
    """Write the memories of these exchanges."""
    with lab.postgres.session() as session:
        ltm.write(ltm.make(session, said))


def foreign_rows(memory: Memory) -> int:
    """How many messages that were read are another persona's."""
    wrong = 0
    for number in range(READS):
        persona = PERSONAS[number % len(PERSONAS)]
        found = memory.get_recent_history("forks", ADA, persona_id=persona)
        wrong += sum(str(persona) not in each.content for each in found) + (len(found) != 2)
    return wrong


@pytest.fixture
def memory(lab: Lab) -> Memory:
    """A Memory whose pool stands, with an exchange of each persona."""
    opened = Memory(Postgres.open(lab.url), lab.settings, lab.ltm)
    for persona in PERSONAS:
        text = f"I am {persona}"
        opened.remember(NewExchange("forks", ADA, persona, text, text))
    return opened


def test_parent_and_child_read_their_own_rows(memory: Memory) -> None:
    """Neither gets an answer to the other's question."""
    with closing(memory):
        assert 0 == foreign_rows(memory)
        mine: list[int] = []
        reading = threading.Thread(target=lambda: mine.append(foreign_rows(memory)))

        def both() -> int:
            return foreign_rows(memory)

        children = [threading.Thread(target=lambda: mine.append(in_child(both))) for _ in range(2)]
        for each in (reading, *children):
            each.start()
        for each in (reading, *children):
            each.join()
        assert [0, 0, 0] == mine
        assert 0 == foreign_rows(memory)


def test_a_child_that_ends_leaves_the_parents_sessions(memory: Memory) -> None:
    """A child may write, close its Memory and end; the parent's connections still stand."""
    with closing(memory):
        with memory._postgres.session() as session:
            before = session.row("serving_pid").pid

        def write_and_close() -> int:
            said = memory.remember(NewExchange("forks", ADA, A, "child", "child"))
            memory.close()
            return said.assistant_message_id.int

        written = UUID(int=in_child(write_and_close))
        with memory._postgres.session() as session:
            assert before == session.row("serving_pid").pid
        history = memory.get_recent_history("forks", ADA, persona_id=A)
        assert written == history[-1].id


def test_a_child_forked_while_locks_are_held_does_not_hang(memory: Memory) -> None:
    """Locks that another thread of the parent held are new in the child."""
    with closing(memory):
        stores, ltm = memory._stores, memory._stores.ltm()
        with stores._opening, memory._postgres._opening, ltm._loading:
            # The parent's own locks are taken by this thread; the child must not wait for them.
            assert 0 == in_child(lambda: foreign_rows(memory))


def test_a_session_in_use_is_refused_in_the_child(memory: Memory) -> None:
    """A session that was handed over by a fork says so before it sends anything."""
    with closing(memory), memory._postgres.session() as session:

        def use() -> str:
            with pytest.raises(MemsyncError, match="was opened by process") as refused:
                session.row("serving_pid")
            return str(refused.value)

        assert str(os.getpid()) in in_child(use)
        assert session.row("serving_pid").pid


def test_a_child_of_a_child(memory: Memory) -> None:
    """Every generation begins anew."""
    with closing(memory):
        assert 0 == in_child(lambda: foreign_rows(memory) + in_child(lambda: foreign_rows(memory)))
        assert 0 == foreign_rows(memory)


def test_the_embedded_server_is_the_parents(reachable_dir: Path) -> None:
    """A child that closes its store does not stop the server that the parent started."""
    with start_embedded(reachable_dir / "data", durable=False) as server:
        stopped: list[int] = []
        on_close = ExitStack()
        on_close.callback(lambda: stopped.append(os.getpid()))
        with Postgres.open(server.conninfo, on_close=on_close) as postgres:

            def close() -> list[int]:
                postgres.close()
                return stopped

            assert [] == in_child(close)
        assert [os.getpid()] == stopped


@pytest.mark.parametrize("kind", ["edge", "local", ":memory:"])
def test_an_embedded_vector_store_is_the_parents(lab: Lab, tmp_path: Path, kind: str) -> None:
    """The child is told whose store it is; what the parent wrote and writes stays whole."""
    url = kind if kind == ":memory:" else f"{kind}:{tmp_path / 'q'}"
    settings = lab.settings.model_copy(update={"qdrant_url": url})
    with closing(
        LongTermMemory(open_vectors(settings, create=True), settings, lab.ltm.embedder)
    ) as ltm:
        ltm.prepare()
        said = lab.say(1)
        put(lab, ltm, said)

        def use() -> str:
            with pytest.raises(StoreBusy, match="belongs to process") as refused:
                ltm.count(ltm.collection)
            ltm.close()
            return str(refused.value)

        assert str(os.getpid()) in in_child(use)
        assert 1 == ltm.count(ltm.collection)
        put(lab, ltm, lab.say(1))
        assert 2 == ltm.count(ltm.collection)


@pytest.mark.server
def test_a_server_is_asked_by_a_client_of_the_childs_own(
    lab: Lab, qdrant_server_url: str, seed: int
) -> None:
    """Parent and child search at once, by REST and by gRPC, and each finds its own."""
    for grpc in (False, True):
        update = {
            "qdrant_url": qdrant_server_url,
            "qdrant_grpc": grpc,
            "collection": f"forks-{seed}-{grpc}",
        }
        settings = lab.settings.model_copy(update=update)
        with closing(
            LongTermMemory(open_vectors(settings, create=True), settings, lab.ltm.embedder)
        ) as ltm:
            ltm.prepare()
            put(lab, ltm, [*lab.say(1), *lab.say(1, persona=B)])

            assert (50, 50) == _recalled_at_once(ltm)
            ltm.repairs.drop(ltm.collection)


def _recalled_at_once(ltm: LongTermMemory) -> tuple[int, int]:
    """How many memories parent and child find in fifty recalls of one each, at the same time."""

    def found(persona: UUID) -> int:
        own = PersonaId(persona)
        return sum(len(ltm.recall("q", persona_id=own, limit=5)) for _ in range(50))

    counted: list[int] = []
    beside = threading.Thread(target=lambda: counted.append(found(A)))
    beside.start()
    of_child = in_child(lambda: found(B))
    beside.join()
    return counted[0], of_child


def test_one_that_fails_leaves_no_other_on_the_parents_connections(memory: Memory) -> None:
    """Each object begins anew, whatever another one raises."""

    class Failing:
        """An object that cannot begin anew."""

        def begin_anew(self) -> None:
            raise OSError("no more files")

    failing = [Failing() for _ in range(8)]
    for each in failing:
        forks.watch(each)
    with closing(memory):
        assert 0 == in_child(lambda: foreign_rows(memory))
