"""Writes points only where the store still has what was seen there.

So a relay that lost its lock cannot overwrite what a newer one wrote. It decides which part of a
payload stands for the whole in the condition of a write.
"""

from collections.abc import Mapping, Sequence

from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.vectors import VectorStore, Where

DIGEST = "digest"


def write_as_seen(
    vectors: VectorStore,
    collection: str,
    points: Sequence[Point],
    seen: Mapping[PointId, Point],
) -> None:
    """Write each point where the store still has the point of its id in `seen`, or none.

    A point that somebody else wrote meanwhile stays, without an error: read it back to know.
    """
    absent = [each for each in points if each.id not in seen]
    if absent:
        vectors.upsert(collection, absent, only_absent=True)
    digested: list[Point] = []
    digests: set[str] = set()
    for each in points:
        old = seen.get(each.id)
        if old is None:
            continue
        digest = old.payload.get(DIGEST)
        if isinstance(digest, str):
            digested.append(each)
            digests.add(digest)
        else:
            vectors.upsert(collection, [each], only_where=_whole(old))
    if digested:
        # A digest is one point's only, because the point's id is in it: so one write does for all.
        vectors.upsert(collection, digested, only_where={DIGEST: frozenset(digests)})


def _whole(point: Point) -> Where:
    """Every text and whole number of a payload that has no digest."""
    return {
        key: value
        for key, value in point.payload.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }
