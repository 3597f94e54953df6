"""Clients of the app, in their own processes; they measure how long their statements take.

The clients act as two versions of the app. They write user_id until the server reports that the
column does not exist, and repeat that write with persona_id at once; both count as one wait. Every
other error of the server counts as a client error. A hostile client holds a transaction open, as a
forgotten session does.
"""

import contextlib
import multiprocessing as mp
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from typing import Any

import psycopg
from psycopg import errors

READERS = 2
WRITERS = 2
PAUSE_S = 0.005
START_TIMEOUT_S = 60.0

# The persona that the app would write now: the user's choice for the personality, or the default.
_PAIRS = """
SELECT DISTINCT ON (h.user_id, h.personality_id)
       h.channel_id, h.personality_id, h.user_id, coalesce(s.persona_id, u.global_persona_id)
FROM (SELECT * FROM conversation_history LIMIT 5000) h
JOIN users u ON u.id = h.user_id
LEFT JOIN user_personality_settings s
       ON s.user_id = h.user_id AND s.personality_id = h.personality_id
"""


@dataclass
class Waits:
    """The measurements of all clients: number of statements, waits in milliseconds, errors."""

    statements: int = 0
    worst_ms: float = 0.0
    p99_9_ms: float = 0.0
    p99_ms: float = 0.0
    errors: list[str] = field(default_factory=list)

    def fill(self, took_ms: list[float]) -> None:
        """Compute the figures from the waits of all statements."""
        took_ms.sort()
        self.statements = len(took_ms)
        self.worst_ms = took_ms[-1]
        self.p99_9_ms = took_ms[int(len(took_ms) * 0.999)]
        self.p99_ms = took_ms[int(len(took_ms) * 0.99)]


@contextlib.contextmanager
def clients(url: str) -> Iterator[Waits]:
    """Run the clients while the block runs. The result is filled in when the block ends."""
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
            raise RuntimeError(f"a client did not start within {START_TIMEOUT_S:g} s")
    waits = Waits()
    try:
        yield waits
    finally:
        stop.set()
        took_ms: list[float] = []
        for _ in running:
            times_ms, failed = results.get(timeout=START_TIMEOUT_S)
            took_ms += times_ms
            waits.errors += failed
        for each in running:
            each.join()
        waits.fill(took_ms)


def _client(url: str, seed: int, kind: str, stop: Event, ready: Any, results: Any) -> None:
    rng = random.Random(seed)
    took_ms: list[float] = []
    failed: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        pairs = connection.execute(_PAIRS).fetchall()
        ready.release()
        by_persona = False
        while not stop.is_set():
            pair = rng.choice(pairs)
            started = time.perf_counter()
            try:
                if kind == "reader":
                    _read(connection, pair)
                else:
                    by_persona = _write(connection, pair, by_persona=by_persona)
            except psycopg.Error as error:
                failed.append(f"{type(error).__name__}: {error}")
                if connection.closed:
                    break
            took_ms.append((time.perf_counter() - started) * 1000)
            time.sleep(PAUSE_S)
    results.put((took_ms, failed))


def _read(connection: psycopg.Connection[Any], pair: Any) -> None:
    connection.execute(
        "SELECT id, role, content FROM conversation_history"
        " WHERE channel_id = %s AND personality_id = %s ORDER BY created_at DESC LIMIT 20",
        pair[:2],
    ).fetchall()


def _write(connection: psycopg.Connection[Any], pair: Any, *, by_persona: bool) -> bool:
    """Write one message. Returns whether the client acts as the new version of the app from now."""
    if not by_persona:
        try:
            _insert(connection, pair, "user_id", pair[2])
        except errors.UndefinedColumn:
            pass  # contract: the new version of the app takes over
        else:
            return False
    _insert(connection, pair, "persona_id", pair[3])
    return True


def _insert(connection: psycopg.Connection[Any], pair: Any, column: str, owner: Any) -> None:
    connection.execute(
        f"INSERT INTO conversation_history (id, channel_id, personality_id, {column}, role,"
        " content) VALUES (gen_random_uuid(), %s, %s, %s, 'user', 'a message from a live client')",
        (*pair[:2], owner),
    )


class Hostile:
    """Clients that update a message and a user, and hold the transaction open for `held_s` s."""

    def __init__(self, url: str, held_s: float) -> None:
        self._url = url
        self._held_s = held_s
        self._context = mp.get_context("spawn")
        self._errors: Any = self._context.Queue()
        self._running: list[BaseProcess] = []

    def begin(self) -> None:
        """Start one more client. Returns when its transaction holds its locks."""
        holds = self._context.Event()
        process = self._context.Process(
            target=_hold, daemon=True, args=(self._url, self._held_s, holds, self._errors)
        )
        process.start()
        self._running.append(process)
        if not holds.wait(timeout=START_TIMEOUT_S):
            raise RuntimeError(f"a hostile client did not begin within {START_TIMEOUT_S:g} s")

    def ended(self) -> list[str]:
        """Wait for all clients to end. Returns their errors."""
        met = [self._errors.get(timeout=self._held_s + START_TIMEOUT_S) for _ in self._running]
        for process in self._running:
            process.join()
        return [error for error in met if error]


def _hold(url: str, held_s: float, holds: Event, met: Any) -> None:
    error = ""
    try:
        with psycopg.connect(url) as connection:
            connection.execute(
                "UPDATE conversation_history SET content = content"
                " WHERE id = (SELECT id FROM conversation_history LIMIT 1)"
            )
            connection.execute(
                "UPDATE users SET updated_at = now() WHERE id = (SELECT id FROM users LIMIT 1)"
            )
            holds.set()
            time.sleep(held_s)
    except psycopg.Error as raised:
        error = f"hostile client: {type(raised).__name__}: {raised}"
        holds.set()
    met.put(error)
