"""Fixtures that open every driver of the vector store from settings, as users do."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from memsync.settings import Settings
from memsync.stores.vectors import open_vectors
from memsync.stores.vectors.protocol import VectorStore

DRIVERS = ("memory", "local", "edge", "server-rest", "server-grpc")


@pytest.fixture(params=DRIVERS)
def vector_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings that name one driver's store; without a server, server drivers are skipped."""
    driver: str = request.param
    if driver == "memory":
        return Settings(qdrant_url=":memory:")
    if driver in {"local", "edge"}:
        (tmp_path / driver).mkdir()
        return Settings(qdrant_url=f"{driver}:{tmp_path / driver}")
    url = request.getfixturevalue("qdrant_server_url")
    if url is None:
        pytest.skip("no Qdrant server")
    return Settings(qdrant_url=url, qdrant_grpc=driver == "server-grpc")


@pytest.fixture(params=["local", "edge"])
def directory_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings that name a store kept in a directory of this machine, empty at first."""
    (tmp_path / "store").mkdir()
    return Settings(qdrant_url=f"{request.param}:{tmp_path / 'store'}")


@pytest.fixture
def vector_store(vector_settings: Settings) -> Iterator[VectorStore]:
    """An open store of one driver."""
    store = open_vectors(vector_settings)
    yield store
    store.close()


@pytest.fixture
def name(vector_store: VectorStore) -> Iterator[str]:
    """The name of a collection that does not exist yet; it is dropped after the test."""
    name = f"conformance-{uuid4().hex}"
    yield name
    vector_store.drop(name)
