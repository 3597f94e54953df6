"""One run at a time: session-level advisory locks, taken without waiting.

Decides the lock keys. A blocking wait for such a lock deadlocks CREATE INDEX CONCURRENTLY, which
waits for every open statement; so a lock is tried, and a second run is told who has it.
"""

import contextlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from memsync.errors import StoreBusy, StoreUnreachable
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.pooler import require_direct


class LockKey(IntEnum):
    """Keys of the advisory locks: 'memsync' in hex, then a number."""

    MIGRATE = 0x6D656D73796E6301
    RELAY = 0x6D656D73796E6302
    REPAIR = 0x6D656D73796E6303


@contextlib.contextmanager
def exclusive(postgres: Postgres, key: LockKey, what: str) -> Iterator[Session]:
    """A dedicated session that holds the lock `key`; the lock goes when the session does.

    Work that must not go on without the lock runs on this very session: if the connection dies,
    lock and work end together.

    Raises: StoreBusy naming the session that holds the lock; InvalidInput behind a pooler.
    """
    session = postgres.dedicated()
    try:
        require_direct(session)
        session.run("no_timeouts")
        if not session.row("try_lock", key=key.value).taken:
            raise _taken(session.rows("lock_holders", key=key.value), what)
        try:
            yield session
        finally:
            # The server notices a closed connection a moment later; the next run may be quicker.
            # If the session is lost, so is the lock.
            with contextlib.suppress(StoreUnreachable):
                session.run("unlock", key=key.value)
    finally:
        session.connection.close()


def require_free(session: Session, key: LockKey, what: str) -> None:
    """Look whether the lock is free, without taking it.

    Raises: StoreBusy naming the session that holds it.
    """
    if holders := session.rows("lock_holders", key=key.value):
        raise _taken(holders, what)


def _taken(holders: list[Any], what: str) -> StoreBusy:
    by = ", ".join(f"pid {h.pid} since {h.since}" for h in holders)
    return StoreBusy(
        f"another {what} is running ({by or 'it just ended'}). Wait for it, or stop it; "
        "nothing was done here",
        pids=[h.pid for h in holders],
    )
