"""The crowd: its processes, its servers, who ends them, and what an audit says meanwhile."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from memsync import migrate
from memsync.demo.world import legacy_schema
from memsync.settings import Settings
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.embedded import start_embedded
from memsync.stores.postgres.embedded.server import EmbeddedPostgres
from support.cast import CAST
from support.environ import environ_of
from support.lab import DIMS, UNHINDERED, A, B, C, Lab, lab_on
from support.postgres import PostgresCluster
from support.qdrant import QdrantProgram
from support.traffic import Kind

EMBEDDER = "support.lab:embed"
SETTLE_S = 15
"""Longer than a store needs to come back, so that the app has written what it wants to by then."""
_PAST = 8
_MEMSYNC = (sys.executable, "-m", "memsync")
_TIMEOUT_S = 120.0

_CROWDS = {
    Kind.APP: (("app", 1), ("careful", 1), ("retention", 1)),
    Kind.HANDED_OVER: (("library", 2), ("relay", 1), ("retention", 1)),
    Kind.SHARED: (("library", 2), ("relay", 1), ("retention", 1)),
}
# Whoever writes a memory before its rows must not be killed: what it leaves is a fault indeed.
_MORTAL = ("careful", "library", "relay")


@dataclass(frozen=True)
class Look:
    """What an audit said: its exit status, and its findings. `is_whole`: nothing was in its way."""

    status: int
    findings: tuple[dict[str, Any], ...]
    is_whole: bool
    said: str

    @property
    def names(self) -> Counter[str]:
        """How many findings there are of each name."""
        return Counter(each["name"] for each in self.findings)


class Servers:
    """A Postgres and a Qdrant, which come back as they were after they were killed."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._qdrant = QdrantProgram(folder)
        self._postgres: EmbeddedPostgres = start_embedded(self._data, durable=True)
        self.postgres_url = self._postgres.conninfo
        self.qdrant_url = self._qdrant.start()

    def restart_qdrant(self) -> None:
        """End it as a crash does, and start it again."""
        self._qdrant.kill()
        assert self.qdrant_url == self._qdrant.start()

    def restart_postgres(self) -> None:
        """The same with Postgres, which then recovers."""
        process = self._postgres._process
        assert process is not None
        process.send_signal(3)  # SIGQUIT, as `pg_ctl stop -m immediate` sends it
        process.wait(_TIMEOUT_S)
        self._postgres.stop()
        self._postgres = start_embedded(self._data, durable=True)
        assert self.postgres_url == self._postgres.conninfo

    def end_sessions(self) -> None:
        """End all sessions, as an administrator does."""
        with psycopg.connect(self.postgres_url, autocommit=True) as administrator:
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    def stop(self) -> None:
        """End both."""
        self._postgres.stop()
        self._qdrant.kill()


@dataclass
class Crowd:
    """The processes of an app, and the lab on whose stores they work."""

    kind: Kind
    lab: Lab
    servers: Servers
    chance: random.Random
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """Start everybody."""
        for role, number in _CROWDS[self.kind]:
            for each in range(number):
                self._start(f"{role}-{each}")

    def _start(self, name: str) -> None:
        role = name.partition("-")[0]
        command = [*_MEMSYNC, "sync", "run", "--follow", "--every", "0.2"]
        if role != "relay":
            seed = str(self.chance.getrandbits(32))
            command = [sys.executable, "-m", "support.crowd.actor", role, name, seed]
        self.processes[name] = subprocess.Popen(
            command,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=None if role != "relay" else subprocess.DEVNULL,
        )

    @property
    def environ(self) -> dict[str, str]:
        """The settings for processes."""
        return environ_of(self.lab.settings)

    # ------------------------------------------------------------------ disturbing

    def disturb(self) -> None:
        """Kill somebody, or take a store away for a moment."""
        mortal = [each for each in self.processes if each.startswith(_MORTAL)]
        for name in self.chance.sample(mortal, 1):
            _kill(self.processes[name])
            self._start(name)
            self.done[f"killed {name}"] += 1
        what = self.chance.choice(
            (self.servers.restart_qdrant, self.servers.restart_postgres, self.servers.end_sessions)
        )
        what()
        self.done[what.__name__] += 1

    # ------------------------------------------------------------------ looking

    def look(self, *how: str, is_disturbed: bool = False) -> Look:
        """Run `memsync check` beside everybody; if need be with a disturbance in the middle."""
        check = subprocess.Popen(
            [*_MEMSYNC, "check", "--json", *how],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if is_disturbed:
                time.sleep(self.chance.uniform(0.5, 2.5))
                self.disturb()
            out, err = check.communicate(timeout=_TIMEOUT_S)
        finally:
            check.kill()
            check.wait()
        said = json.loads(out) if out else {}
        findings = (*said.get("findings", ()),)
        return Look(check.returncode, findings, check.returncode in {0, 1}, out or err)

    # ------------------------------------------------------------------ ending

    def rest(self) -> None:
        """Let everybody finish, and the relay drain what is left."""
        for name, process in self.processes.items():
            if name.startswith("relay"):
                process.terminate()
            assert process.stdin is not None
            process.stdin.close()
        for name, process in self.processes.items():
            status = process.wait(_TIMEOUT_S)
            assert status == 0 or name.startswith("relay"), f"{name} ended with {status}"
        if self.kind is not Kind.APP:
            subprocess.run(
                [*_MEMSYNC, "sync", "run"], env=self.environ, check=True, capture_output=True
            )

    def end(self) -> None:
        """End whoever is left."""
        for process in self.processes.values():
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


@contextmanager
def crowd_of(kind: Kind, folder: Path, seed: int) -> Iterator[Crowd]:
    """A crowd on a migrated app with a past that is in order."""
    with ExitStack() as after:
        servers = Servers(folder)
        after.callback(servers.stop)
        cluster = PostgresCluster(servers.postgres_url)
        url = cluster.url_of(cluster.create())
        settings = Settings(
            postgres_url=url,
            qdrant_url=servers.qdrant_url,
            collection=f"memories-{uuid4().hex}",
            embedder=EMBEDDER,
            drain="no",
            settle_s=SETTLE_S,
            **kind.settings,
        )
        with Postgres.open(url) as postgres:
            with postgres.session() as session:
                session.run_script(legacy_schema())
                session.run_script(CAST)
            migrate.run(postgres, Settings(), UNHINDERED)
        past = settings.model_copy(update={"writer": "memsync"})
        lab = after.enter_context(lab_on(past, seed, EMBEDDER))
        if kind is not Kind.SHARED:
            for persona in (A, B, C):
                lab.vectors.create(f"persona-{persona}", DIMS, {})
        lab.settled(_PAST)
        lab.settings = settings
        crowd = Crowd(kind, lab, servers, lab.rng)
        after.callback(crowd.end)
        yield crowd
