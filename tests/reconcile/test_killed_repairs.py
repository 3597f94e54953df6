"""Commands that are ended by SIGKILL, or whose sessions are ended: the next run does the rest.

Other tests let an exception end a run, and so see each of its writes in little time. Here it is a
process that dies: nothing is closed, rolled back or released but by the servers.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from memsync.settings import Settings
from support.doomed_repair import COUNTED_IN
from support.environ import environ_of
from support.lab import A, C, Lab, lab_on
from support.laws.base import OLD_MS
from support.relayout import EMBEDDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.postgres import PostgresCluster

LAYOUT = ("reconcile", "layout", "set")
COMMANDS = {
    "apply": ("reconcile", "apply", "PLAN", "--remove-many"),
    "undo": ("reconcile", "undo", "RUN"),
    "to shared": (*LAYOUT, "shared", "--app-stopped"),
    "retire": (*LAYOUT, "shared", "--retire"),
    "back": (*LAYOUT, "per-persona"),
}
BEGINS_AFTER = {"apply": "", "undo": "apply", "to shared": "apply", "retire": "to shared",
                "back": "retire"}  # fmt: skip
UNHARMED = ("kill", "0", "after")
KILLED, DISCONNECTED = -9, (3, 10)
MANY = 12


@dataclass(frozen=True)
class Stand:
    """Both stores at one moment, to be copied: the name of a database, and a folder."""

    database: str
    folder: Path


@dataclass
class Story:
    """The commands, one after the other.

    Of each: the stores after it, what they hold, and how much it did that counts. The stand "" is
    the one before all.
    """

    cluster: PostgresCluster
    folder: Path
    stands: dict[str, Stand] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, object] = field(default_factory=dict)
    run_id: str = ""

    @property
    def plan(self) -> Path:
        """Where the plan is saved."""
        return self.folder / "plan.json"

    @property
    def live(self) -> Path:
        """Where the vector store is while a command runs: a plan is for one folder."""
        return self.folder / "live"

    def tell(self, name: str) -> None:
        """Run the command once, on a copy of what it begins with, and first those before it."""
        if name in self.stands:
            return
        self.tell(BEGINS_AFTER[name])
        with self.begun(name) as begun:
            if not self.run_id:
                self._plan(begun)
            assert 0 == self.run(begun, name)
            self.counts[name] = int((self.folder / COUNTED_IN).read_text())
            self.keep(name, begun)
            self.ends[name] = self.held(begun)

    def _plan(self, database: str) -> None:
        plan = ("reconcile", "plan", "--unsafe", "--out", str(self.plan))
        assert 0 == self._process(database, *UNHARMED, *plan)
        self.run_id = json.loads(self.plan.read_text())["plan_id"]

    def keep(self, name: str, stand: str) -> None:
        """Keep the stores as they are now."""
        folder = self.folder / f"after {name}"
        shutil.copytree(self.live, folder)
        self.cluster.end_sessions(stand)
        self.stands[name] = Stand(self.cluster.create(template=stand), folder)

    @contextmanager
    def begun(self, name: str) -> Iterator[str]:
        """A database, and the vector store in `live`, as the command begins with them."""
        begun = self.stands[BEGINS_AFTER[name]]
        shutil.rmtree(self.live, ignore_errors=True)
        shutil.copytree(begun.folder, self.live)
        database = self.cluster.create(template=begun.database)
        try:
            yield database
        finally:
            self.cluster.drop(database)

    def run(self, database: str, name: str, *fate: str) -> int:
        """Run the command on what was begun with, as a process. Returns its exit status."""
        words = {"PLAN": str(self.plan), "RUN": self.run_id}
        command = [words.get(each, each) for each in COMMANDS[name]]
        return self._process(database, *(fate or UNHARMED), *command)

    def _process(self, database: str, *arguments: str) -> int:
        ran = subprocess.run(
            [sys.executable, "-m", "support.doomed_repair", *arguments],
            env=environ_of(self.settings(database)) | {COUNTED_IN: str(self.folder / COUNTED_IN)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        sys.stdout.write(ran.stdout)  # pytest shows it where a test fails
        return ran.returncode

    def settings(self, database: str) -> Settings:
        """The settings for this database and `live`."""
        return Settings(
            postgres_url=self.cluster.url_of(database),
            qdrant_url=f"edge:{self.live}",
            embedder=EMBEDDER,
        )

    @contextmanager
    def lab(self, database: str) -> Iterator[Lab]:
        """A lab on them, as the app is before its memories are shared."""
        own = {"layout": "per-persona", "writer": "memsync"}
        with lab_on(self.settings(database).model_copy(update=own), 0) as lab:
            yield lab

    def held(self, database: str) -> object:
        """The memories, the history and the quarantine, which must be whole."""
        with self.lab(database) as lab:
            return lab.memories(), lab.tables()["conversation_history"], lab.quarantined()


def spoil(lab: Lab) -> None:
    """Give the app archived and enriched memories, and faults of most kinds of repair."""
    said = lab.settled(5)
    lost, edited, doubled, given_away, misspelt = (each for each in said if each.persona_id == A)
    lab.lose(lost)
    lab.respell(edited, content="User (Al): never said\nAda: never heard", liked=True)
    lab.deploy(doubled)
    lab.lose(given_away)
    lab.deploy(given_away, collection=f"persona-{C}", personaId=str(C))
    lab.respell(misspelt, createdAt=misspelt.created_at_ms // 1000)
    for number in range(2):
        lab.deploy(said[-1], createdAt=OLD_MS + number, content=f"User (Bo): {number}\nAda: so")


@pytest.fixture(scope="module")
def story(
    postgres_cluster: PostgresCluster, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """The story. Each command is told once, without an end that comes too early."""
    story = Story(postgres_cluster, tmp_path_factory.mktemp("story"))
    empty = postgres_cluster.create(template=migrated)
    with story.lab(empty) as lab:
        spoil(lab)
    story.keep("", empty)
    postgres_cluster.drop(empty)
    yield story
    for each in story.stands.values():
        postgres_cluster.drop(each.database)


def ended_early(story: Story, name: str, fate: str, chance: random.Random, most: int) -> None:
    """End the command early at moments that are drawn, each time on stores that are as before it.

    The same command then ends as one that nobody ended, and says so.
    """
    story.tell(name)
    moments = [(at, how) for at in range(1, story.counts[name] + 1) for how in ("before", "after")]
    for at, moment in chance.sample(moments, min(most, len(moments))):
        with story.begun(name) as begun:
            status = story.run(begun, name, fate, str(at), moment)
            assert status in {"kill": {KILLED}, "disconnect": {0, *DISCONNECTED}}[fate], (
                at,
                moment,
            )
            assert 0 == story.run(begun, name), (at, moment)
            assert story.ends[name] == story.held(begun), (at, moment)


def test_the_next_run_ends_it(story: Story, seed: int) -> None:
    """Whatever an apply had done in either store when it died."""
    ended_early(story, "apply", "kill", random.Random(f"{seed}"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["kill", "disconnect"])
@pytest.mark.parametrize("name", COMMANDS)
def test_at_many_moments(story: Story, seed: int, name: str, fate: str) -> None:
    """The same at more moments, and where only the sessions end."""
    ended_early(story, name, fate, random.Random(f"{seed} {name} {fate} many"), MANY)
