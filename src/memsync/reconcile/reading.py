"""Reads single points, so that one which cannot be read costs itself and no other.

It knows no action and no finding.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from memsync.errors import SchemaMismatch
from memsync.model.ids import PointId
from memsync.model.records import Place, Point, ids_by_collection
from memsync.stores.ltm import LongTermMemory


@dataclass(frozen=True, slots=True)
class Read:
    """The points of a collection that were found, and why others could not be read."""

    points: Mapping[PointId, Point]
    unread: Mapping[PointId, str] = field(default_factory=dict)


def read_points(
    ltm: LongTermMemory, collection: str, ids: Sequence[PointId], *, vectors: bool = False
) -> Read:
    """These points. One that cannot be read, for want of one vector, costs itself."""
    try:
        return Read(ltm.points(collection, ids, vectors=vectors))
    except SchemaMismatch as error:
        if len(ids) == 1:
            return Read({}, {ids[0]: error.message})
    found: dict[PointId, Point] = {}
    unread: dict[PointId, str] = {}
    for each in ids:
        one = read_points(ltm, collection, [each], vectors=vectors)
        found |= one.points
        unread |= one.unread
    return Read(found, unread)


def points_at(ltm: LongTermMemory, places: Iterable[Place]) -> dict[Place, Point]:
    """Those of these points that stand and can be read, without vectors."""
    return {
        Place(name, point.id): point
        for name, some in ids_by_collection(places).items()
        for point in read_points(ltm, name, some).points.values()
    }
