"""Fixtures for tests of commands: no settings of the caller, an app before and after migration."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from memsync import Settings, migrate
from memsync.demo.world import load_rows, make_world
from memsync.stores.postgres import Postgres
from support.cli import EMBEDDERS, RECIPE, embed, embed_nothing
from support.postgres import NewDatabase, PostgresCluster


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the caller's settings, name an embedder that loads at once, enter an empty folder."""
    for name in list(os.environ):
        if name.startswith("PG") or (
            name.startswith("MEMSYNC_") and not name.startswith("MEMSYNC_TEST_")
        ):
            monkeypatch.delenv(name)
    embedders = ModuleType(EMBEDDERS)
    embedders.__dict__.update(embed=embed, embed_nothing=embed_nothing)
    monkeypatch.setitem(sys.modules, EMBEDDERS, embedders)
    monkeypatch.setenv("MEMSYNC_EMBEDDER", f"{EMBEDDERS}:embed")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def legacy_template(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The name of a database with a small legacy app."""
    name = postgres_cluster.create()
    with Postgres.open(postgres_cluster.url_of(name)) as postgres, postgres.session() as session:
        load_rows(make_world(RECIPE), session)
    yield name
    postgres_cluster.drop(name)


@pytest.fixture(scope="session")
def contracted_template(postgres_cluster: PostgresCluster, legacy_template: str) -> Iterator[str]:
    """The name of a database with the same app after the whole migration."""
    name = postgres_cluster.create(template=legacy_template)
    with Postgres.open(postgres_cluster.url_of(name)) as postgres:
        options = migrate.RunOptions(
            unresolved="create", quiet_minutes=0, backup_confirmed="test", evidence="ignore"
        )
        migrate.run(postgres, Settings.load(environ={}), options)
    yield name
    postgres_cluster.drop(name)


@pytest.fixture
def legacy_app(new_database: NewDatabase, legacy_template: str) -> str:
    """The URL of a legacy app's database."""
    return new_database(template=legacy_template)


@pytest.fixture
def app(new_database: NewDatabase, contracted_template: str) -> str:
    """The URL of a migrated app's database, which has no memories in Qdrant yet."""
    return new_database(template=contracted_template)


@pytest.fixture
def per_persona(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the app's own layout: where no memory stands yet, nothing else shows it."""
    monkeypatch.setenv("MEMSYNC_LAYOUT", "per-persona")


@pytest.fixture
def qdrant(tmp_path: Path) -> str:
    """The URL of a vector store, empty at first, that keeps its points between commands."""
    (tmp_path / "qdrant").mkdir()
    return f"edge:{tmp_path / 'qdrant'}"
