"""Runs a command of memsync in a process of its own, and measures its time and its memory.

It also starts a Qdrant server, where the program is on PATH.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memsync.settings import Settings

_READY_S = 60.0

# A process between this one and the command, because a child's peak begins with its parent's.
_LAUNCH = """
import json, resource, subprocess, sys, time
def own_kib(pid):
    try:
        lines = open(f"/proc/{pid}/status").read().splitlines()
    except OSError:
        return 0
    return next((int(each.split()[1]) for each in lines if each.startswith("RssAnon")), 0)
began, own = time.perf_counter(), 0
command = subprocess.Popen(sys.argv[2:])
while command.poll() is None:
    own = max(own, own_kib(command.pid))
    time.sleep(0.01)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
unit = 1 if sys.platform == "darwin" else 1024
fields = {"status": command.returncode, "wall_s": time.perf_counter() - began,
          "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss * unit / 2**20,
          "own_mib": own / 1024}
open(sys.argv[1], "w").write(json.dumps(fields))
"""
_MEMSYNC = "from memsync.__main__ import entry; entry()"


@dataclass(frozen=True)
class Ran:
    """A command that was run. `peak_mib` is its memory at most, mapped files included.

    `own_mib` is that without mapped files, as it was seen now and then; 0 where no system tells.
    `cpu_s` is its own time on a processor, and that of its workers, without that of the servers.
    `last` is the last line that it printed, and `printed` the digest of all.
    """

    status: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    own_mib: float
    last: str
    printed: str


def ran(arguments: Sequence[str], environ: Mapping[str, str]) -> Ran:
    """Run `memsync` with these arguments. The folder of the benchmarks is on its path."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    given = {name: value for name, value in os.environ.items() if not name.startswith("MEMSYNC_")}
    command = [sys.executable, "-c", _MEMSYNC, *arguments]
    with tempfile.TemporaryDirectory(prefix="memsync-bench-") as folder:
        measured, printed = Path(folder, "measured"), Path(folder, "printed")
        with printed.open("wb") as output:
            subprocess.run(
                [sys.executable, "-c", _LAUNCH, str(measured), *command],
                env={**given, **environ, "PYTHONPATH": path},
                stdout=output,
                check=True,
            )
        fields = json.loads(measured.read_text())
        last = ""
        with printed.open() as lines:
            for last in lines:  # noqa: B007  there may be very many
                pass
        with printed.open("rb") as output:
            digest = hashlib.file_digest(output, "sha256").hexdigest()
    return Ran(**fields, last=last, printed=digest)


def environ_of(settings: Settings) -> dict[str, str]:
    """The environment that gives a command these settings."""
    given = settings.model_dump(exclude_unset=True)
    return {f"MEMSYNC_{name.upper()}": str(value) for name, value in given.items()}


@contextmanager
def qdrant_program() -> Iterator[str | None]:
    """The URL of a server that the program on PATH runs; None without the program."""
    program = shutil.which("qdrant")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="memsync-bench-") as folder:
        port = _free_port()
        given = {
            "SERVICE__HOST": "127.0.0.1",
            "SERVICE__HTTP_PORT": str(port),
            "SERVICE__ENABLE_GRPC": "false",
            "SERVICE__GRPC_PORT": str(_free_port()),
            "STORAGE__STORAGE_PATH": f"{folder}/storage",
            "STORAGE__SNAPSHOTS_PATH": f"{folder}/snapshots",
            "TELEMETRY_DISABLED": "true",
        }
        environ = os.environ | {f"QDRANT__{name}": value for name, value in given.items()}
        server = subprocess.Popen(
            [program],
            cwd=folder,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield _ready(server, f"http://127.0.0.1:{port}")
        finally:
            server.kill()
            server.wait()


def _ready(server: "subprocess.Popen[bytes]", url: str) -> str:
    deadline = time.monotonic() + _READY_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):  # noqa: S310  our own server
                return url
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the program qdrant is not ready on {url}; start it by hand to see why")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
