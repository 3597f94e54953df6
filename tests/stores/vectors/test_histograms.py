"""How many points have each value, and the points that have them, on every driver."""

from uuid import UUID

import pytest

from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.vectors.protocol import IndexKind, VectorStore, Where, scan


def point(point_id: PointId, **payload: object) -> Point:
    """A point to write."""
    return Point(point_id, payload, (1.0, 0.0, 0.0))


@pytest.fixture
def indexed(vector_store: VectorStore, name: str) -> str:
    """The name of a collection with a number and a tenant's id, both indexed."""
    indexes = {"fp": IndexKind.INTEGER, "who": IndexKind.TENANT}
    vector_store.create(name, 3, indexes)
    vector_store.upsert(
        name,
        [
            point(1, fp=3, who=str(UUID(int=1))),
            point(2, fp=3, who=str(UUID(int=2))),
            point(3, fp=4095, who=str(UUID(int=2))),
            point(4, fp=[7, 8, 7]),
            point(5),
            point(6, fp=None, who=None),
        ],
    )
    return name


def test_values_are_counted(vector_store: VectorStore, indexed: str) -> None:
    """Each value has its number of points, once for a list that repeats it."""
    assert vector_store.facet(indexed, "fp", limit=9) == {3: 2, 4095: 1, 7: 1, 8: 1}
    of_tenants = {str(UUID(int=2)): 2, str(UUID(int=1)): 1}
    assert vector_store.facet(indexed, "who", limit=9) == of_tenants


def test_the_most_frequent_come_first(vector_store: VectorStore, indexed: str) -> None:
    """With a limit the values of most points are returned."""
    assert vector_store.facet(indexed, "fp", limit=1) == {3: 2}


def test_what_is_gone_is_not_counted(vector_store: VectorStore, indexed: str) -> None:
    """A value without a point any more is left out, and a changed payload counts anew."""
    vector_store.delete(indexed, [3])
    vector_store.overwrite_payloads(indexed, {1: {"fp": 9}})
    assert vector_store.facet(indexed, "fp", limit=9) == {3: 1, 9: 1, 7: 1, 8: 1}
    assert vector_store.facet(indexed, "who", limit=9) == {str(UUID(int=2)): 1}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"fp": frozenset({3, 8})}, [1, 2, 4]),
        ({"fp": frozenset({3, 4095}), "who": frozenset({str(UUID(int=2))})}, [2, 3]),
        ({"fp": frozenset[int]()}, []),
        ({}, [1, 2, 3, 4, 5, 6]),
    ],
    ids=["numbers", "both keys", "none", "no condition"],
)
def test_scroll_with_conditions(
    vector_store: VectorStore, indexed: str, where: Where, expected: list[PointId]
) -> None:
    """A point that meets all conditions is found, on pages in id order, and no other one."""
    found = scan(vector_store, indexed, where=where, page_points=1)
    assert expected == [each.id for each in found]
