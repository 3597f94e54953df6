"""Writes points only where the store still has what was seen there.

So a relay that lost its lock cannot overwrite what a newer one wrote. It decides which part of a
payload stands for the whole in the condition of a write.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.ltm.values import uuid_of
from memsync.stores.vectors import IndexKind, VectorStore, Where

DIGEST = "digest"
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
"""A store takes any other key for a path into the payload."""
_WHOLE = range(-(2**63), 2**63)
"""The numbers that a condition can compare."""


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
    replacing = [each for each in points if each.id in seen]
    if not replacing:
        return
    where = conditions(vectors, collection, [seen[each.id] for each in replacing])
    # A digest is one point's only, because the point's id is in it: so one condition does for all.
    digests = {i: each[DIGEST] for i, each in where.items() if isinstance(each.get(DIGEST), str)}
    one_of: Where = {DIGEST: frozenset(map(str, digests.values()))}
    vectors.upsert(collection, replacing, only_where={**where, **dict.fromkeys(digests, one_of)})


def conditions(
    vectors: VectorStore, collection: str, seen: Iterable[Point]
) -> dict[PointId, Where]:
    """What the store itself checks when a point that was seen is written or removed.

    That is every text and whole number of its payload. Where the collection is in strict mode, the
    server refuses a filter for a value without an index of its kind, and the whole request with it.
    So only indexed values are compared: in the shared collection whose memory it is, and the
    fingerprint, 24 bits of the digest, which every other memory under the id has otherwise. A
    collection of the app's may have no index; then a point that another writer puts there between
    the last look and the write is overwritten. The app gives each of its points a new id.
    """
    info = vectors.describe(collection)
    if info is None or not info.needs_indexes:
        return {each.id: as_seen(each.payload) for each in seen}
    return {
        each.id: {
            key: value
            for key, value in as_seen(each.payload).items()
            if _is_indexed(value, info.indexes.get(key))
        }
        for each in seen
    }


def _is_indexed(value: object, kind: IndexKind | None) -> bool:
    """Whether an index of this kind finds a text or a whole number."""
    if isinstance(value, int):
        return kind is IndexKind.INTEGER
    if kind in {IndexKind.TENANT, IndexKind.UUID}:
        return uuid_of(value) is not None
    return kind is IndexKind.KEYWORD


def as_seen(payload: Mapping[str, object]) -> Where:
    """Every text and whole number of a payload, as the condition of a write over it."""
    return {
        key: value
        for key, value in payload.items()
        if _PLAIN_KEY.fullmatch(key)
        and (isinstance(value, str) or (type(value) is int and value in _WHOLE))
    }
