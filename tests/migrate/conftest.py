"""Copies of the app, and the means to act in the middle of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memsync.demo.world import Recipe, World, make_world
from memsync.migrate.backfill import cutover, fill
from memsync.model.progress import Tell
from support.app import App, NewApp, app, filled_database, new_app, world, world_template
from support.kills import DurableLab, Lab, Way
from support.moments import at, at_share, until
from support.starts import REDESIGN

if TYPE_CHECKING:
    from support.postgres import NewDatabase, PostgresCluster

__all__ = ["app", "new_app", "world", "world_template"]


@pytest.fixture(scope="session")
def large_world() -> World:
    """About twenty thousand messages: a run over them takes long enough to meet live clients."""
    return make_world(Recipe(points=False, users=80, personalities=6, dialogues=4000, days=900))


@pytest.fixture(scope="session")
def large_template(postgres_cluster: PostgresCluster, large_world: World) -> Iterator[str]:
    """The name of a database that holds the large world."""
    with filled_database(postgres_cluster, large_world) as name:
        yield name


@pytest.fixture
def redesigned(app: App) -> App:
    """The app after its redesign: defaults and overrides in tables of other names."""
    with app.connected() as connection:
        connection.execute(REDESIGN.encode())
    return app


@pytest.fixture
def large_app(new_database: NewDatabase, large_template: str, large_world: World) -> App:
    """A larger app before any migration."""
    return App(new_database(template=large_template), large_world)


@pytest.fixture
def settled(new_app: NewApp) -> App:
    """An app after an undisturbed migration, with which other runs are compared."""
    app = new_app()
    app.run()
    return app


@pytest.fixture(scope="module")
def way_for(postgres_cluster: PostgresCluster, world: World) -> Iterator[Callable[..., Way]]:
    """Call it with direction, fate and method for a way on which that fate may strike."""
    with ExitStack() as after:

        @cache
        def lab(*, durable: bool) -> Lab:
            made: Lab
            if durable:
                folder = Path(after.enter_context(tempfile.TemporaryDirectory(prefix="memsync-")))
                folder.chmod(0o755)
                made = DurableLab(type(postgres_cluster), folder / "data", world, App)
            else:
                made = Lab(postgres_cluster, world, App)
            after.callback(made.close)
            return made

        @cache
        def way(direction: type[Way], method: str, *, durable: bool) -> Way:
            return direction(lab(durable=durable), method)

        yield lambda direction, fate, method: way(direction, method, durable=fate == "server")


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str], None]:
    """Polls until something holds."""
    return until


@pytest.fixture
def when() -> Callable[[str, Callable[[], object]], Tell]:
    """Makes a `tell` that acts once when a phase (`isolate` to `contract`) or a step begins.

    A step is named by its `Kind`. A phase is told before it does anything: at `backfill` nothing
    is decided and no row is filled.
    """
    return at


@pytest.fixture
def when_filled() -> Callable[[float, Callable[[], object]], Tell]:
    """Makes a `tell` that acts once when this share of the rows is filled."""
    return at_share


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make fills take one block at a time, so that there are many moments between batches."""
    for way in (fill, cutover):
        monkeypatch.setattr(way, "_BLOCKS_START", 1)
        monkeypatch.setattr(way, "_BLOCKS_MAX", 1)
