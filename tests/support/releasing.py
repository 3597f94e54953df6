"""Waits until the server has noticed that a session of memsync's ended, and freed its locks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from memsync.errors import StoreBusy
from memsync.memory import Drained, relay
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres

LOCKS = """SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND locktype = 'advisory' AND classid = x'6d656d73'::int"""


@contextmanager
def released(url: str) -> Iterator[None]:
    """Wait at the end until no run holds its lock: a server releases it a moment later."""
    try:
        yield
    except StoreBusy:
        raise
    except BaseException:
        _await_release(url)
        raise
    _await_release(url)


def _await_release(url: str) -> None:
    deadline = time.monotonic() + 20
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(LOCKS).fetchone() != (0,):
            assert time.monotonic() < deadline, "a lock is still held"
            time.sleep(0.005)


def drain(
    postgres: Postgres, ltm: LongTermMemory, *, outage_wait_s: float = relay.OUTAGE_WAIT_S
) -> Drained:
    """Drain the outbox, and wait until its lock is released."""
    with released(postgres.conninfo):
        return relay.drain(postgres, ltm, outage_wait_s=outage_wait_s)
