"""Checks and batches points, the same for all drivers.

Decides which points every driver can store without change: those with a uuid or unsigned integer
for an id, a finite vector and a JSON payload. It compares points with conditions where a store does
not. Does not know how a driver stores them.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from typing import TypeVar

from memsync.errors import DimensionMismatch, InvalidInput, SchemaMismatch, StoreBusy
from memsync.model.ids import PointId
from memsync.model.records import Point, Vector
from memsync.stores.vectors.protocol import AnyOf, Indexes, IndexKind, Page, Where

BATCH_POINTS_MAX = 256
BATCH_BYTES_MAX = 8 * 2**20
"""Far below the 32 MiB that a server accepts in one request, whatever the encoding adds."""

_FLOAT_BYTES = 24
"""A float spelled out in JSON, with its comma."""
_LONG_NUMBER = re.compile(r"\d{19}")
_INT64 = range(-(2**63), 2**63)

T = TypeVar("T")


def checked_id(point_id: PointId) -> PointId:
    """Return `point_id` when Qdrant can store it.

    Raises: InvalidInput for an integer that does not fit into 64 bits without a sign.
    """
    if isinstance(point_id, int) and not 0 <= point_id < 2**64:
        raise InvalidInput(f"a point's id must be a uuid or 0 to 2**64 - 1, not {point_id}")
    return point_id


def float32(values: Sequence[float]) -> Vector:
    """`values` rounded to 32 bits as in the store, so that REST and gRPC return the same."""
    return tuple(array("f", values))


def another_size(collection: str, held: int, given: int) -> DimensionMismatch:
    """The error for vectors of `given` dimensions where the collection holds `held`."""
    return DimensionMismatch(
        f"{collection!r} holds vectors of {held} dimensions, not {given}; use the embedder that "
        "it was made with, or another collection",
        expected=held,
        actual=given,
    )


def misformed(collection: str, names: Iterable[str] | None) -> SchemaMismatch:
    """The error for a collection with vectors under these names; None: with several for a point."""
    form = "several vectors for a point" if names is None else "its vectors under names"
    said = ", ".join(names or ())
    return SchemaMismatch(
        f"{collection!r} keeps {form}{said and f' ({said})'}; memsync keeps one without a name. "
        "Check the collection's name",
        form=form,
    )


def embeddable(indexes: Indexes) -> dict[str, IndexKind]:
    """Those of these indexes that an embedded store can have."""
    return {key: kind for key, kind in indexes.items() if isinstance(kind, IndexKind)}


def forked(label: str, owner: int) -> StoreBusy:
    """The error of a forked process that would use its parent's embedded store."""
    return StoreBusy(
        f"{label} belongs to process {owner}, which opened it before it forked this one. Open it "
        "after the fork, in one process only, or run a Qdrant server",
        pids=[owner],
    )


def matches(payload: object, where: Where) -> bool:
    """Whether a payload matches by Qdrant's rule: a list matches if any of its members does."""
    if not isinstance(payload, dict):
        return False
    for key, wanted in where.items():
        value = payload.get(key)
        members = value if isinstance(value, list) else [value]
        allowed = wanted if isinstance(wanted, frozenset) else (wanted,)
        if not any(type(a) is type(each) and a == each for a in allowed for each in members):
            return False
    return True


def by_condition(
    points: Iterable[Point], only_where: Mapping[PointId, Where] | None
) -> list[tuple[Where | None, list[Point]]]:
    """The points, together those of one condition; None: there are no conditions."""
    groups: dict[object, tuple[Where | None, list[Point]]] = {}
    for each in points:
        where = None if only_where is None else only_where.get(each.id, {})
        key = None if where is None else frozenset(where.items())
        groups.setdefault(key, (where, []))[1].append(each)
    return list(groups.values())


def picked(
    read: Callable[[PointId | None], Page], start: PointId | None, limit: int, any_of: AnyOf
) -> Page:
    """Up to `limit` points that match, of the pages that `read` returns from an id on.

    For a store that compares slowly. A value at a key is that of a payload's own key.
    """
    found: list[Point] = []
    ids, texts = set(any_of.ids), {key: set(some) for key, some in any_of.texts.items()}
    following = start
    while len(found) <= limit:
        page = read(following)
        found += [p for p in page.points if p.id in ids or _meets(p.payload, any_of, texts)]
        following = page.next_start
        if following is None:
            break
    return Page(found[:limit], found[limit].id if len(found) > limit else following)


def _meets(payload: Mapping[str, object], any_of: AnyOf, texts: Mapping[str, set[str]]) -> bool:
    """Whether a payload meets a condition. `texts` are those of `any_of`, as sets."""

    def members(key: str) -> Sequence[object]:
        value = payload.get(key)
        return value if isinstance(value, list) else [value]

    return (
        any(
            isinstance(each, str) and each in some
            for key, some in texts.items()
            for each in members(key)
        )
        or any(payload.get(key) in (None, []) for key in any_of.lacking)
        or any(
            isinstance(each, int | float) and not isinstance(each, bool) and low <= each <= high
            for key, ranges in any_of.ranges.items()
            for each in members(key)
            for low, high in ranges
        )
    )


def batches(points: Iterable[Point]) -> Iterator[list[Point]]:
    """`points` in batches of bounded size. Of several points with one id, the last is taken.

    Raises: InvalidInput for a point that some driver could not store as it is.
    """
    # All points are checked before any is sent, so that a bad one does not leave half of them.
    sized = [(point, _bytes(point)) for point in {point.id: point for point in points}.values()]
    return _batched(sized)


def payload_batches(
    payloads: Mapping[PointId, Mapping[str, object]],
) -> Iterator[list[tuple[PointId, Mapping[str, object]]]]:
    """Payloads by point in batches of bounded size.

    Raises: InvalidInput for a payload that some driver could not store as it is.
    """
    sized = [((each, payload), _payload_bytes(each, payload)) for each, payload in payloads.items()]
    return _batched(sized)


def condition_batches(
    conditions: Mapping[PointId, Where],
) -> Iterator[list[tuple[PointId, Where]]]:
    """Conditions by point in batches of bounded size: one may repeat the text of its point."""
    sized = [
        ((each, where), sum(len(str(it).encode(errors="replace")) for it in where.values()))
        for each, where in conditions.items()
    ]
    return _batched(sized)


def _batched(sized: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    batch: list[T] = []
    size_bytes = 0
    for each, each_bytes in sized:
        full = len(batch) == BATCH_POINTS_MAX or size_bytes + each_bytes > BATCH_BYTES_MAX
        if batch and full:
            yield batch
            batch, size_bytes = [], 0
        batch.append(each)
        size_bytes += each_bytes
    if batch:
        yield batch


def _bytes(point: Point) -> int:
    # As numbers of 32 bits: 1e39 is infinite there, and a store would make NaN of it.
    if point.vector is None or not all(map(isfinite, float32(point.vector))):
        raise InvalidInput(f"point {point.id} needs a vector of finite numbers", point=point.id)
    return _payload_bytes(point.id, point.payload) + _FLOAT_BYTES * len(point.vector)


def _payload_bytes(point_id: PointId, payload: Mapping[str, object]) -> int:
    checked_id(point_id)
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False)
        size_bytes = len(text.encode())
        if _LONG_NUMBER.search(text):
            json.loads(text, parse_int=_int64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"the payload of point {point_id} cannot be kept as it is: {error}", point=point_id
        ) from None
    return size_bytes


def _int64(digits: str) -> int:
    if int(digits) not in _INT64:
        raise ValueError(f"integer {digits} does not fit 64 bits")
    return int(digits)
