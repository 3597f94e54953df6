"""Cuts runs short at seeded statements, and checks that the next run finishes them.

`Lab` makes copies of the app on a server, `DurableLab` on one that may be stopped at any moment.
`Way` is a direction, forward or back: it runs the migration and knows how it must end.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, get_args, get_type_hints

from memsync.demo.world import load_rows
from memsync.errors import StoreUnreachable
from memsync.migrate import RunOptions
from memsync.stores.history.phases import Stage
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.embedded import start_embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from memsync.demo.world import World
    from support.app import App, Catalog, Rows
    from support.postgres import PostgresCluster

    Eventually = Callable[[Callable[[], bool], str], None]

DOOMED = Path(__file__).with_name("doomed.py")
TIMEOUT_S = 60
MOMENTS = ("before", "during", "after")
FATES = ("client", "terminate", "server")

IN_PLACE = "in-place"
BY_THREE = ", by 3 workers"
"""Added to a method's name for a run with three workers."""


def offered_methods() -> list[str]:
    """The methods of the backfill except `auto`, which chooses one of the others."""
    return [each for each in get_args(get_type_hints(RunOptions)["method"]) if each != "auto"]


def run_options(method: str) -> dict[str, Any]:
    """The options of a run by that method."""
    name = method.removesuffix(BY_THREE)
    return {"method": name, "workers": 1 if name == method else 3}


@dataclass(frozen=True)
class End:
    """Where and how a run is cut short."""

    statement: int
    moment: str
    fate: str

    def arguments(self) -> list[str]:
        return [str(self.statement), self.moment, "--fate", self.fate]


def drawn(seed: str, fate: str, acting: list[int], kills: int) -> list[End]:
    """Draw ends of one fate: one in each equal part of a run, so that every phase has its share.

    Only statements that do more than read are drawn, because a read changes nothing.
    """
    chance = random.Random(seed)
    parts = [
        acting[len(acting) * at // kills : len(acting) * (at + 1) // kills] for at in range(kills)
    ]
    return [End(chance.choice(part or acting), chance.choice(MOMENTS), fate) for part in parts]


def migrator(app: App, *arguments: str) -> tuple[int, str]:
    """Run a migrator in a process of its own; return its exit status and output."""
    ran = subprocess.run(
        [sys.executable, str(DOOMED), app.url, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return ran.returncode, ran.stdout


class Lab:
    """Copies of the app on one server."""

    def __init__(
        self, cluster: PostgresCluster, world: World, app_of: Callable[[str, World], App]
    ) -> None:
        self._cluster = cluster
        self._world = world
        self._app_of = app_of
        self._templates: list[str] = []
        self.legacy = self.template(self._load)

    def template(self, make: Callable[[App], object], of: str = "template1") -> str:
        """Make a database to copy: like `of`, with `make` done to it. Returns its name."""
        name = self._cluster.create(template=of)
        self._templates.append(name)
        make(self._app_of(self._cluster.url_of(name), self._world))
        return name

    @contextmanager
    def app(self, template: str) -> Iterator[App]:
        """A copy of a template."""
        name = self._cluster.create(template=template)
        try:
            yield self._app_of(self._cluster.url_of(name), self._world)
        finally:
            self._cluster.drop(name)

    def close(self) -> None:
        for name in self._templates:
            self._cluster.drop(name)

    def _load(self, app: App) -> None:
        with Postgres.open(app.url) as postgres, postgres.session() as session:
            load_rows(self._world, session)

    def fate_arguments(self) -> list[str]:
        """The arguments that a fate needs on this server."""
        return []

    def recover(self) -> None:
        """Make sure that the server runs."""


class DurableLab(Lab):
    """The same on a durable server, which a fate may stop."""

    def __init__(
        self,
        cluster_of: Callable[[str], PostgresCluster],
        directory: Path,
        world: World,
        app_of: Callable[[str, World], App],
    ) -> None:
        self._directory = directory
        self._server = start_embedded(directory, durable=True)
        super().__init__(cluster_of(self._server.conninfo), world, app_of)

    @contextmanager
    def app(self, template: str) -> Iterator[App]:
        """A copy of a template."""
        with super().app(template) as app:
            # Postgres logs a sequence's values ahead, but not for a page that was just copied with
            # its database. Without a checkpoint, a crash would set the sequence back, and it would
            # give an id twice.
            app.do("CHECKPOINT")
            yield app

    def close(self) -> None:
        self._server.stop()

    def fate_arguments(self) -> list[str]:
        return ["--postmaster", str(self._postmaster().pid)]

    def recover(self) -> None:
        """Start the server that was stopped; it recovers what was committed."""
        self._postmaster().wait(TIMEOUT_S)
        url = self._server.conninfo
        self._server.stop()
        self._server = start_embedded(self._directory, durable=True)
        assert url == self._server.conninfo
        said = self._directory.with_name(f"{self._directory.name}.log").read_text()
        assert "was not properly shut down" in said, said

    def _postmaster(self) -> subprocess.Popen[bytes]:
        assert self._server._process is not None
        return self._server._process


@dataclass(frozen=True)
class Left:
    """The result of an undisturbed migration, with which that of an interrupted one is compared."""

    catalog: Catalog
    contents: set[tuple[Any, ...]]


class Way:
    """Forward: from the app before any migration to the end of contract."""

    name = "forward"
    flags: tuple[str, ...] = ()
    end = Stage.CONTRACTED
    fill = "personas"
    filled_column: LiteralString = "persona_id"

    def __init__(self, lab: Lab, method: str) -> None:
        self.lab = lab
        self.method = method
        contracted = lab.template(self.forward, of=lab.legacy)
        self.begins_with = contracted if self.end is Stage.LEGACY else lab.legacy
        with lab.app(lab.legacy) as app:
            self.legacy = Left(of_the_app(app.catalog()), users(app))
        with lab.app(contracted) as app:
            self.settled = Left(app.catalog(), app.contents())

    def forward(self, app: App) -> Stage:
        return app.run(options=run_options(self.method))

    def walk(self, app: App) -> Stage:
        """Go the whole way, undisturbed."""
        return self.forward(app)

    def assert_whole(self, app: App) -> None:
        assert self.settled.catalog == app.catalog()
        assert app.expected() == app.personas()
        assert self.settled.contents == app.contents()

    def doomed(self, app: App, *arguments: str) -> tuple[int, str]:
        chosen = json.dumps(run_options(self.method))
        return migrator(
            app, *arguments, *self.flags, "--options", chosen, *self.lab.fate_arguments()
        )

    @cached_property
    def acting(self) -> list[int]:
        """The numbers of the statements of an undisturbed run that do more than read."""
        with self.lab.app(self.begins_with) as app:
            status, out = self.doomed(app, "--list")
            assert status == 0, out
            self.assert_whole(app)
        acting: list[int] = json.loads(out)
        return acting


class WayBack(Way):
    """Back: from the end of contract to the app before any migration, then forward again."""

    name = "back"
    flags = ("--back",)
    end = Stage.LEGACY
    fill = "users"
    filled_column: LiteralString = "user_id"

    def walk(self, app: App) -> Stage:
        return app.back()

    def assert_whole(self, app: App) -> None:
        assert self.legacy == Left(of_the_app(app.catalog()), users(app))

    def assert_forward_again(self, app: App) -> None:
        assert self.forward(app) == Stage.CONTRACTED
        super().assert_whole(app)


def of_the_app(catalog: Catalog) -> Catalog:
    """The objects of the app's own tables; memsync's schema stays after the way back."""
    kinds = ("columns", "indexes", "constraints", "triggers")
    return {kind: catalog[kind] for kind in kinds}


def assert_as_if_undisturbed(app: App, settled: App) -> None:
    """The migration of this app ended as the undisturbed one did."""
    assert settled.catalog() == app.catalog()
    assert app.expected() == app.personas()
    assert settled.contents() == app.contents()


def users(app: App) -> set[tuple[Any, ...]]:
    """The user of every message."""
    return set(app.query("SELECT id, user_id FROM conversation_history"))


@dataclass(frozen=True)
class Done:
    """How much of a fill was committed: the version of each filled row, and the checkpoint."""

    row_versions: dict[UUID, str]
    rows_total: int
    rows_done: int | None
    last_run: int


def done_so_far(app: App, way: Way) -> Done:
    """Read how far the fill is, in a database that no run works on."""
    columns = {
        row[0]
        for row in app.query(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'conversation_history'::regclass"
            " AND NOT attisdropped"
        )
    }
    versions: Rows = []
    if way.filled_column in columns:
        versions = app.query(
            "SELECT id, xmin::text FROM conversation_history"  # noqa: S608
            " WHERE " + way.filled_column + " IS NOT NULL"
        )
    own = {
        row[0]
        for row in app.query(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('memsync')"
        )
    }
    checkpoint: Rows = []
    if "backfill" in own:
        checkpoint = app.query("SELECT rows_done FROM memsync.backfill WHERE fill = %s", way.fill)
    last: Rows = [(0,)]
    if "runs" in own:
        last = app.query("SELECT coalesce(max(id), 0) FROM memsync.runs")
    return Done(
        dict(versions),
        app.query("SELECT count(*) FROM conversation_history")[0][0],
        checkpoint[0][0] if checkpoint else None,
        last[0][0],
    )


def assert_no_batch_twice(app: App, way: Way, before: Done) -> None:
    """No committed batch was done again by the next run.

    The checkpoint counted exactly the filled rows, the next run filled exactly the others, and
    every row that was filled before still has the same version (xmin).
    """
    if before.rows_done is not None:
        assert before.rows_done == len(before.row_versions)
    filled = app.query(
        "SELECT coalesce(sum(rows_filled), 0) FROM memsync.runs WHERE id > %s", before.last_run
    )[0][0]
    assert before.rows_total == len(before.row_versions) + filled
    now = done_so_far(app, way).row_versions
    assert before.row_versions.items() <= now.items()


def cut_short(way: Way, end: End, eventually: Eventually) -> None:
    """Cut one run short, and check that the next one finishes it."""
    with way.lab.app(way.begins_with) as app:
        status, out = way.doomed(app, *end.arguments())
        # The listed run may have sent more statements than this one, to try again for a lock.
        met = status != 0 or int(out) >= end.statement
        if met and end.fate == "server":
            way.lab.recover()
        # A run does not notice that its session was ended where it had only tried the connection,
        # or was at its end.
        wanted = -signal.SIGKILL if end.fate == "client" else StoreUnreachable.exit_status
        assert status == wanted or (status == 0 and end.fate != "client") or not met, out
        eventually(lambda: nobody_works_on(app), "the session of the run that met its end goes")
        if status == 0:
            # The run was over by then, or had only tried the connection.
            way.assert_whole(app)
        before = done_so_far(app, way)
        assert way.end == way.walk(app)
        way.assert_whole(app)
        if run_options(way.method)["method"] == IN_PLACE:
            assert_no_batch_twice(app, way, before)
        if isinstance(way, WayBack):
            way.assert_forward_again(app)


def nobody_works_on(app: App) -> bool:
    """Whether no session of memsync is left; a killed client's lives until its statement ends."""
    return not app.query(
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'memsync'"
    )


def all_cut_short(way: Way, ends: list[End], eventually: Eventually, seed: int) -> None:
    """Try every end; a failure notes which one it was, and the seed that draws it again."""
    for end in ends:
        try:
            cut_short(way, end, eventually)
        except BaseException as error:
            error.add_note(f"{way.name}, {way.method}: {end}; MEMSYNC_TEST_SEED={seed}")
            raise
