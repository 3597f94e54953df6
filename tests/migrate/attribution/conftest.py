"""Vector stores for evidence, and a world with the memories that its app made."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from memsync.demo.world import Recipe, World, make_world
from memsync.settings import Settings
from memsync.stores.vectors import open_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from memsync.stores.vectors.protocol import VectorStore


@pytest.fixture
def store() -> Iterator[VectorStore]:
    """An empty vector store."""
    with contextlib.closing(open_vectors(Settings(qdrant_url=":memory:"))) as opened:
        yield opened


@pytest.fixture(params=["memory", "edge"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    """An empty vector store of each kind."""
    url = ":memory:" if request.param == "memory" else f"edge:{tmp_path / 'qdrant'}"
    with contextlib.closing(open_vectors(Settings(qdrant_url=url), create=True)) as opened:
        yield opened


@pytest.fixture(scope="session")
def remembered() -> World:
    """The same world as `world`, with the memories that its app made."""
    return make_world(Recipe())
