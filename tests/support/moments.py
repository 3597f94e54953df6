"""Polls for a condition, lets time pass, and has `tell` functions that act at a moment of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from memsync.model.progress import Kind, Progress, Tell
from memsync.stores.history.phases import Phase
from support.failing import Crash

DEADLINE_S = 30.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Poll until it holds; fail after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S:.0f} s: {what}")
        pause.wait(0.01)


def at(moment: str, action: Callable[[], object]) -> Tell:
    """A `tell` that acts once, when the phase of this name, or a step of this kind, begins."""
    # A moment of another name never comes, and the test would prove nothing.
    assert moment in {*Phase, *Kind}
    done = False

    def tell(step: Progress) -> None:
        nonlocal done
        begins = step.what if step.kind is Kind.PHASE else step.kind
        if begins == moment and not done:
            done = True
            action()

    return tell


def at_share(share: float, action: Callable[[], object]) -> Tell:
    """A `tell` that acts once, after the batch with which this share of the rows is filled.

    0 is after the first batch, 1 after the last, before the indexes and the foreign key.
    """
    done = False

    def tell(step: Progress) -> None:
        nonlocal done
        if done or step.total is None or step.kind not in {Kind.FILL_PERSONAS, Kind.COPY}:
            return
        if step.done >= share * step.total:
            done = True
            action()

    return tell


def cut_before(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Cut the connection before the first statement with these words."""
    execute = psycopg.Cursor.execute

    def cutting(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        text = query.as_string(None) if isinstance(query, sql.Composable) else str(query)
        if words in text:
            cursor.connection.close()
            raise Crash
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", cutting)


def later(url: str, seconds: float) -> None:
    """Let the last write of user_id be older by so many seconds."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT setval('memsync.user_id_written_at', last_value - %s::bigint, is_called)"
            " FROM memsync.user_id_written_at",
            (int(seconds) + 1,),
        )
