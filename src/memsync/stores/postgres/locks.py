"""Session-level advisory locks, so that one process at a time migrates, relays or repairs.

A lock is tried, if need be again, and no statement waits for it, because such a wait deadlocks with
CREATE INDEX CONCURRENTLY, which waits for open transactions. A second process gets an error that
names the session with the lock. This module decides the keys.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from memsync.errors import StoreBusy, StoreUnreachable
from memsync.stores.postgres.connection import Postgres
from memsync.stores.postgres.pooler import require_direct
from memsync.stores.postgres.session import Session

_TRY_EVERY_S = 0.05


class LockKey(IntEnum):
    """Keys of the advisory locks: 'memsync' in hex, then a number."""

    MIGRATE = 0x6D656D73796E6301
    RELAY = 0x6D656D73796E6302
    REPAIR = 0x6D656D73796E6303


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A session that holds a lock; `since` is when it connected, in words."""

    pid: int
    since: str


def holders(session: Session, key: LockKey) -> list[LockHolder]:
    """The sessions that hold the lock now."""
    return [LockHolder(row.pid, row.since) for row in session.rows("lock_holders", key=key.value)]


@contextlib.contextmanager
def exclusive(postgres: Postgres, key: LockKey, what: str) -> Iterator[Session]:
    """A dedicated session that holds the lock `key`; the lock ends with the session.

    Work that must not go on without the lock must run on this session, because then both end
    together if the connection dies.

    Raises: StoreBusy naming the session that holds the lock; SettingsError behind a pooler.
    """
    session = postgres.dedicated()
    try:
        require_direct(session)
        with held(session, key, what):
            yield session
    finally:
        session.connection.close()


@contextlib.contextmanager
def held(session: Session, key: LockKey, what: str, *, wait_s: float = 0) -> Iterator[None]:
    """A lock on a dedicated session, beside one that it holds; tried anew for `wait_s` seconds.

    Raises: StoreBusy naming the session that holds the lock.
    """
    until = time.monotonic() + wait_s
    while not session.row("try_lock", key=key.value).taken:
        if time.monotonic() >= until:
            raise _taken(holders(session, key), what)
        time.sleep(_TRY_EVERY_S)
    try:
        yield
    finally:
        # The server notices a closed connection late, and the next run may come before that.
        # If the session is lost, so is the lock.
        with contextlib.suppress(StoreUnreachable):
            session.run("unlock", key=key.value)


def require_free(session: Session, key: LockKey, what: str) -> None:
    """Check that the lock is free, without taking it.

    Raises: StoreBusy naming the session that holds it.
    """
    if held_by := holders(session, key):
        raise _taken(held_by, what)


def _taken(held_by: list[LockHolder], what: str) -> StoreBusy:
    by = ", ".join(f"pid {holder.pid} since {holder.since}" for holder in held_by)
    return StoreBusy(
        f"another {what} is running ({by or 'it just ended'}). Wait for it, or stop it; "
        "nothing was done here",
        pids=[holder.pid for holder in held_by],
    )
