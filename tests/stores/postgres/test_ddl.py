"""Tests how OnlineDdl gets a lock.

Postgres applies lock_timeout to each lock separately:
https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from memsync.errors import StoreBusy
from memsync.model.progress import silent
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.ddl import OnlineDdl

if TYPE_CHECKING:
    from support.postgres import NewDatabase

LOCK_TIMEOUT_S = 1.0
USED_S = 0.8
GIVES_UP_AT_ONCE = -1.0


def test_locks_of_one_transaction_are_queued_for_together(new_database: NewDatabase) -> None:
    """All locks of a transaction share one lock_timeout, as clients wait for all of them."""
    url = new_database()
    with psycopg.connect(url) as holder, Postgres.open(url) as postgres:
        holder.execute("CREATE TABLE held ()")
        holder.commit()
        holder.execute("LOCK TABLE held")
        session = postgres.dedicated()
        ddl = OnlineDdl(
            session,
            lock_timeout_ms=int(LOCK_TIMEOUT_S * 1000),
            deadline_s=GIVES_UP_AT_ONCE,
            tell=silent,
        )
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="no lock on held"):
            ddl.run("SELECT pg_sleep(0.8)", "LOCK TABLE held", table="held")
        took_s = time.monotonic() - began
        session.connection.close()

    assert USED_S < took_s < USED_S + LOCK_TIMEOUT_S


def test_only_sessions_in_the_way_are_named(new_database: NewDatabase) -> None:
    """A foreign key waits for writers and not for readers, so a reader is not named."""
    url = new_database()
    with (
        psycopg.connect(url) as reader,
        psycopg.connect(url) as writer,
        Postgres.open(url) as postgres,
    ):
        reader.execute("CREATE TABLE parent (id uuid PRIMARY KEY)")
        reader.execute("CREATE TABLE child (parent_id uuid)")
        reader.commit()
        reader.execute("SELECT FROM child, parent")
        writer.execute("LOCK TABLE child IN ROW EXCLUSIVE MODE")
        session = postgres.dedicated()
        ddl = OnlineDdl(session, lock_timeout_ms=50, deadline_s=GIVES_UP_AT_ONCE, tell=silent)
        with pytest.raises(StoreBusy) as by_writer:
            ddl.foreign_key("child", "parent_id", "parent")
        with pytest.raises(StoreBusy) as by_both:
            ddl.run("LOCK TABLE child", table="child")
        writer.rollback()
        ddl.foreign_key("child", "parent_id", "parent")
        session.connection.close()
        pids = (reader.info.backend_pid, writer.info.backend_pid)

    assert [pids[1]] == by_writer.value.fields["pids"]
    assert sorted(pids) == sorted(map(int, str(by_both.value.fields["pids"])[1:-1].split(",")))
