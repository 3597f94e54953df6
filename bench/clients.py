"""Clients of the app, in processes of their own: what they wait for while something else happens.

Two versions of the app: it writes user_id until the server says that there is none, then
persona_id. An error is anything else that a client would see.
"""

import contextlib
import multiprocessing as mp
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import Any

import psycopg
from psycopg import errors

READERS = 2
WRITERS = 2
PAUSE_S = 0.005
START_TIMEOUT_S = 30.0


@dataclass
class Waits:
    """What all clients saw together: statements, the longest waits in ms, errors."""

    statements: int = 0
    worst_ms: float = 0.0
    p99_ms: float = 0.0
    failed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def clients(url: str) -> Iterator[Waits]:
    """Run the clients while the block runs; the result is filled when it ends."""
    context = mp.get_context("spawn")
    stop, ready, results = context.Event(), context.Semaphore(0), context.Queue()
    running = [
        context.Process(
            target=_client,
            daemon=True,
            args=(url, number, "reader" if number < READERS else "writer", stop, ready, results),
        )
        for number in range(READERS + WRITERS)
    ]
    for each in running:
        each.start()
    for _ in running:
        if not ready.acquire(timeout=START_TIMEOUT_S):
            raise RuntimeError("a client did not start")
    waits = Waits()
    try:
        yield waits
    finally:
        stop.set()
        took: list[float] = []
        for _ in running:
            times_ms, failed = results.get(timeout=START_TIMEOUT_S)
            took += times_ms
            waits.failed += failed
        for each in running:
            each.join()
        took.sort()
        waits.statements = len(took)
        waits.worst_ms = took[-1]
        waits.p99_ms = took[int(len(took) * 0.99)]


def _client(url: str, seed: int, kind: str, stop: Event, ready: Any, results: Any) -> None:
    rng = random.Random(seed)
    took_ms: list[float] = []
    failed: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        pairs = connection.execute(
            "SELECT DISTINCT ON (user_id) channel_id, personality_id, user_id,"
            " (SELECT global_persona_id FROM users u WHERE u.id = user_id)"
            " FROM (SELECT * FROM conversation_history LIMIT 5000) sampled"
        ).fetchall()
        ready.release()
        writes_users = True
        while not stop.is_set():
            pair = rng.choice(pairs)
            both = ("user_id", pair[2]), ("persona_id", pair[3])
            started = time.perf_counter()
            try:
                if kind == "reader":
                    _read(connection, pair)
                else:
                    column, owner = both[0] if writes_users else both[1]
                    _write(connection, column, owner, pair)
            except (errors.UndefinedColumn, errors.FeatureNotSupported):
                # Contract: the new version of the app takes over.
                writes_users = False
            except psycopg.Error as error:
                failed.append(f"{type(error).__name__}: {error}")
            took_ms.append((time.perf_counter() - started) * 1000)
            time.sleep(PAUSE_S)
    results.put((took_ms, failed))


def _read(connection: psycopg.Connection[Any], pair: Any) -> None:
    connection.execute(
        "SELECT id, role, content FROM conversation_history"
        " WHERE channel_id = %s AND personality_id = %s ORDER BY created_at DESC LIMIT 20",
        pair[:2],
    ).fetchall()


def _write(connection: psycopg.Connection[Any], column: str, owner: Any, pair: Any) -> None:
    connection.execute(
        f"INSERT INTO conversation_history (id, channel_id, personality_id, {column}, role,"
        " content) VALUES (gen_random_uuid(), %s, %s, %s, 'user', 'a message from a live client')",
        (*pair[:2], owner),
    )
