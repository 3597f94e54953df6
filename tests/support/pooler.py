"""PgBouncer in front of a test's database, where it is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_pgbouncer = pytest.mark.skipif(not shutil.which("pgbouncer"), reason="no pgbouncer on PATH")


def server_of(url: str) -> tuple[str, int, str]:
    """Where the server of a URL listens, and the database."""
    facts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    return unquote(facts["host"]), int(facts.get("port") or 5432), facts["dbname"]


@contextmanager
def pgbouncer(url: str, mode: str, folder: Path, *, server_sessions: int = 20) -> Iterator[str]:
    """The URL of the same database behind PgBouncer in this pool mode."""
    host, port, database = server_of(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = free.getsockname()[1]
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{database} = host={host} port={port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {server_sessions}\n"
    )
    config.chmod(0o644)
    uid = None
    if os.geteuid() == 0:
        # PgBouncer refuses root; the server's socket lies in a folder of the server's user.
        uid = Path(host).stat().st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid
    behind = f"postgresql://postgres@127.0.0.1:{listen}/{database}"
    with subprocess.Popen(
        ["pgbouncer", "-q", config], user=uid, cwd="/", stderr=subprocess.DEVNULL
    ) as pooler:
        try:
            _await(behind)
            yield behind
        finally:
            pooler.terminate()


def _await(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(url, autocommit=True) as connection,
        ):
            connection.execute("SELECT 1")
            return
        assert time.monotonic() < deadline, "pgbouncer does not answer"
        time.sleep(0.02)
