"""Tests how each driver reads and writes points whose vectors are none."""

import math
from uuid import UUID

import pytest

from memsync.errors import InvalidInput, SchemaMismatch
from memsync.model.records import Point
from memsync.stores.vectors.protocol import VectorStore, scan
from support.raw_vectors import misform, write_raw

HERE = UUID(int=1)


@pytest.fixture
def made(vector_store: VectorStore, name: str) -> str:
    """The name of an empty collection of 3 dimensions."""
    vector_store.create(name, 3, {})
    return name


def test_nan_is_read_as_nan(vector_store: VectorStore, made: str) -> None:
    """Over REST too, where JSON has null; the other points of the page are read with it."""
    write_raw(vector_store, made, Point(HERE, {"a": 1}), [math.inf, 1.0, 0.0])
    vector_store.upsert(made, [Point(UUID(int=2), {}, (0.0, 1.0, 0.0))])
    for found in (
        vector_store.retrieve(made, [HERE, UUID(int=2)], vectors=True),
        list(scan(vector_store, made, vectors=True)),
    ):
        odd, even = found
        assert odd.vector is not None
        assert math.isnan(odd.vector[0])
        assert (3, {"a": 1}) == (len(odd.vector), odd.payload)
        assert (0.0, 1.0, 0.0) == even.vector


def test_a_point_without_a_vector_is_read_and_written(vector_store: VectorStore, made: str) -> None:
    """Its vector is empty; written over another point, it takes the vector away."""
    vector_store.upsert(made, [Point(HERE, {"a": 1}, ())])
    assert [Point(HERE, {"a": 1}, ())] == vector_store.retrieve(made, [HERE], vectors=True)
    assert [Point(HERE, {"a": 1}, None)] == vector_store.retrieve(made, [HERE])
    vector_store.upsert(made, [Point(HERE, {"a": 2}, (1.0, 0.0, 0.0))])
    vector_store.upsert(made, [Point(HERE, {"a": 3}, ())], only_where={})
    assert [Point(HERE, {"a": 3}, ())] == vector_store.retrieve(made, [HERE], vectors=True)
    assert [] == vector_store.query(made, (1.0, 0.0, 0.0), where={}, limit=3)


@pytest.mark.parametrize("wrong", [math.inf, math.nan, 1e39, -1e39])
def test_no_number_that_is_none_in_32_bits_is_written(
    vector_store: VectorStore, made: str, wrong: float
) -> None:
    """A store would keep NaN, and a server would then answer no recall."""
    with pytest.raises(InvalidInput, match="finite numbers"):
        vector_store.upsert(made, [Point(HERE, {}, (1.0, wrong, 0.0))])
    assert 0 == vector_store.count(made)


@pytest.mark.parametrize("named", [True, False])
def test_a_collection_of_another_form_is_refused(
    vector_store: VectorStore, name: str, *, named: bool
) -> None:
    """Its points are no memories, and the message says how it keeps its vectors."""
    misform(vector_store, name, 3, named=named)
    with pytest.raises(
        SchemaMismatch, match="under names" if named else "several vectors for a point"
    ):
        vector_store.describe(name)
