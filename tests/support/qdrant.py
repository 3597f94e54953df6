"""Finds or starts the Qdrant server of a test run."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest

QDRANT_IMAGE = "qdrant/qdrant:v1.18.3"
READY_TIMEOUT_S = 60.0

QdrantSource = Literal["url", "program", "docker", "none"]


def find_qdrant() -> QdrantSource:
    """Where the server of this test run comes from."""
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


class QdrantProgram:
    """A server that the program on PATH runs. Its folder and its ports outlive the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = _free_port_pair()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it; its URL, once it answers."""
        folder, port = self._folder, self._port
        given = {
            "SERVICE__HOST": "127.0.0.1",
            "SERVICE__HTTP_PORT": str(port),
            "SERVICE__GRPC_PORT": str(port + 1),
            "STORAGE__STORAGE_PATH": f"{folder}/storage",
            "STORAGE__SNAPSHOTS_PATH": f"{folder}/snapshots",
            "TELEMETRY_DISABLED": "true",
        }
        environ = os.environ | {f"QDRANT__{name}": value for name, value in given.items()}
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["qdrant"], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
            )
        self._process = process
        return _ready_qdrant("127.0.0.1", port, lambda: process.poll() is None, log.read_text)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def qdrant_program() -> Iterator[str]:
    """The URL of a server that the program on PATH runs."""
    with tempfile.TemporaryDirectory(prefix="memsync-qdrant-") as folder:
        server = QdrantProgram(Path(folder))
        try:
            yield server.start()
        finally:
            server.kill()


@contextmanager
def qdrant_container() -> Iterator[str]:
    """The URL of a server in a container."""
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
