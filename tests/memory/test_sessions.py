"""The library on databases, poolers and pools as deployments have them."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql

from memsync.errors import MemsyncError, StoreBusy, StoreUnreachable
from memsync.memory import Memory, NewExchange
from memsync.model.records import Thread
from memsync.stores.history.exchanges import lock_thread
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.session_settings import Pins
from memsync.stores.vectors import open_vectors
from support.lab import ADA, A, B, C
from support.pooler import needs_pgbouncer, pgbouncer

if TYPE_CHECKING:
    from pathlib import Path

    from support.lab import Lab

PERSONAS = (A, B, C)


def said(channel: str, number: int) -> NewExchange:
    """An exchange whose two texts name each other."""
    persona = PERSONAS[number % len(PERSONAS)]
    return NewExchange(channel, ADA, persona, f"{number}?", f"{number}!")


def torn(memory: Memory, channel: str, count: int) -> list[str]:
    """The faults of the histories of `count` exchanges: pairs torn apart, messages lost."""
    wrong = []
    total = 0
    for persona in PERSONAS:
        texts = [
            each.content
            for each in memory.get_recent_history(channel, ADA, persona_id=persona, limit=1000)
        ]
        total += len(texts)
        wrong += [
            f"{question} {answer}"
            for question, answer in zip(texts[::2], texts[1::2], strict=True)
            if (question[:-1], question[-1], answer[-1]) != (answer[:-1], "?", "!")
        ]
    return wrong if total == 2 * count else [*wrong, f"{total} messages of {2 * count}"]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_concurrent_remembers_whatever_the_default_isolation(lab: Lab, level: str) -> None:
    """Pairs stay whole and every call succeeds, though the database asks for more isolation."""
    database = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(lab.url)["dbname"]))
    default = "ALTER DATABASE {} SET default_transaction_isolation = {}"
    with psycopg.connect(lab.url, autocommit=True) as client:
        client.execute(sql.SQL(default).format(database, level))
        try:
            with (
                Memory(Postgres.open(lab.url, connections_max=8), lab.settings, lab.ltm) as memory,
                ThreadPoolExecutor(8) as pool,
            ):
                list(pool.map(lambda n: memory.remember(said("levels", n)), range(96)))
                assert [] == torn(memory, "levels", 96)
        finally:
            client.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(database))


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_the_library_behind_a_pooler(lab: Lab, mode: str, reachable_dir: Path) -> None:
    """240 calls from many threads through two server sessions: all succeed, none leaves a trace."""
    left: LiteralString = (
        "SELECT current_setting('row_security'), current_setting('statement_timeout')"
    )
    pins = Pins(statement_timeout_ms=7_000)
    sessions = 2 if mode == "transaction" else 20
    with (
        pgbouncer(lab.url, mode, reachable_dir, server_sessions=sessions) as behind,
        psycopg.connect(behind, autocommit=True, prepare_threshold=None) as other,
    ):
        with (
            Memory(Postgres.open(behind, pins=pins), lab.settings, lab.ltm) as memory,
            ThreadPoolExecutor(8) as pool,
        ):
            assert memory._postgres.is_pooled
            list(pool.map(lambda n: memory.remember(said("pooled", n)), range(120)))
            reads = pool.map(
                lambda n: memory.get_recent_history("pooled", ADA, persona_id=PERSONAS[n % 3]),
                range(120),
            )
            assert {20} == {len(each) for each in reads}
            assert [] == torn(memory, "pooled", 120)
        assert {("on", "0")} == {other.execute(left).fetchone() for _ in range(20)}


@needs_pgbouncer
def test_prismas_pgbouncer_parameter(lab: Lab, reachable_dir: Path) -> None:
    """`?pgbouncer=true` says what the server could not be asked for."""
    with pgbouncer(lab.url, "transaction", reachable_dir) as behind:
        url = f"{behind}?pgbouncer=true&connection_limit=5"
        with Memory(Postgres.open(url), lab.settings, lab.ltm) as memory:
            assert memory._postgres.is_pooled
            memory.remember(said("prisma", 1))
            assert ("connection_limit",) == memory._postgres.left_out


def test_writers_that_wait_for_one_thread_do_not_stop_the_rest(lab: Lab) -> None:
    """A writer waits without a connection, so reads and other threads go on."""
    thread = Thread("busy", ADA, A)  # type: ignore[arg-type]
    with (
        Memory(Postgres.open(lab.url, connections_max=2, wait_s=30), lab.settings) as memory,
        ThreadPoolExecutor(6) as pool,
        closing(lab.postgres.dedicated().connection),
    ):
        with lab.postgres.session() as holder, holder.transaction():
            lock_thread(holder, thread)
            waiting = [pool.submit(memory.remember, said("busy", 0)) for _ in range(4)]
            began = time.monotonic()
            for number in range(20):
                memory.get_recent_history("free", ADA, persona_id=B)
                memory.remember(said("free", number))
            assert time.monotonic() - began < 20
            assert not any(each.done() for each in waiting)
        for each in waiting:
            each.result(timeout=30)
        assert 8 == len(memory.get_recent_history("busy", ADA, persona_id=A))


def test_a_writer_that_waits_too_long_is_told(lab: Lab) -> None:
    """The error comes after pool_wait_s, and nothing was written."""
    thread = Thread("busy", ADA, A)  # type: ignore[arg-type]
    with Memory(Postgres.open(lab.url, wait_s=0.3), lab.settings) as memory:
        with lab.postgres.session() as holder, holder.transaction():
            lock_thread(holder, thread)
            with pytest.raises(StoreBusy, match="another call has been writing to this thread"):
                memory.remember(said("busy", 0))
        assert [] == memory.get_recent_history("busy", ADA, persona_id=A)


def test_a_statement_ends_after_its_time(lab: Lab) -> None:
    """statement_timeout_s bounds what one call waits for the database."""
    settings = lab.settings.model_copy(update={"statement_timeout_s": 0.3})
    with Memory.open(settings) as memory:
        memory.remember(said("timeout", 0))
        with psycopg.connect(lab.url) as client:
            client.execute("LOCK TABLE conversation_history")
            with pytest.raises(StoreBusy, match="statement timeout"):
                memory.get_recent_history("timeout", ADA, persona_id=A)
        assert 2 == len(memory.get_recent_history("timeout", ADA, persona_id=A))


def test_every_call_after_close_says_so(lab: Lab) -> None:
    """A closed Memory is named as closed by each call."""
    memory = Memory.open(lab.settings)
    memory.close()
    for use in (
        lambda: memory.remember(said("closed", 0)),
        lambda: memory.get_recent_history("closed", ADA, persona_id=A),
        lambda: memory.recall("closed", persona_id=A),
    ):
        with pytest.raises(MemsyncError, match="closed"):
            use()


@pytest.mark.parametrize("is_new", [True, False], ids=["a new process", "an open store"])
def test_a_qdrant_that_hangs_costs_each_caller_one_timeout(lab: Lab, *, is_new: bool) -> None:
    """Callers wait side by side, for qdrant_timeout_s, and history does not wait at all."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        port = silent.getsockname()[1]
        settings = lab.settings.model_copy(
            update={
                "qdrant_url": f"http://127.0.0.1:{port}",
                "qdrant_timeout_s": 1,
                "embedder": "support.lab:embed",
            }
        )
        opened = LongTermMemory(open_vectors(settings), settings, lab.ltm.embedder)
        with (
            closing(opened),
            Memory(Postgres.open(lab.url), settings, None if is_new else opened) as memory,
            ThreadPoolExecutor(5) as pool,
        ):
            memory.remember(said("hang", 0))
            began = time.monotonic()
            calls = [pool.submit(memory.recall, "x", persona_id=A) for _ in range(5)]
            assert 2 == len(memory.get_recent_history("hang", ADA, persona_id=A))
            errors = [each.exception(timeout=30) for each in calls]
            took_s = time.monotonic() - began
    assert {StoreUnreachable} == {type(each) for each in errors}
    assert 1 <= took_s < 4
