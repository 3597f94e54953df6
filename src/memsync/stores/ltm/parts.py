"""Reads a shared collection part by part, and says which of its memories are not exactly right.

A part is a range of ids with the digests of its exchanges. Looking at one needs only the vector
store, so that other processes, on this machine or on others, can do it. What it returns is small:
a number and ids. It decides nothing about them.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from socket import gethostname
from uuid import UUID

from memsync.errors import StoreUnreachable
from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.model.sequences import rows_of
from memsync.settings import Settings
from memsync.stores.ltm.contents import require_shown
from memsync.stores.ltm.exact import Exact
from memsync.stores.ltm.marks import Mark
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.vectors import VectorStore, open_vectors, pages

ID_BYTES, DIGEST_BYTES = 16, 32
ROW_BYTES = ID_BYTES + DIGEST_BYTES
"""An exchange: the id of its anchor, and its digest."""
POINT_BYTES = 1 + ID_BYTES
"""A point's id: whether it is a uuid, and its bytes."""
_INTEGER, _UUID = b"\0", b"\1"


@dataclass(frozen=True, slots=True)
class Part:
    """A range of ids. `first` is None for the first part, `end`, not included, for the last one.

    `rows` are the exchanges of the range, in order, of `ROW_BYTES` each. Integer ids come before
    all uuids, so the first part has them.
    """

    number: int
    first: UUID | None
    end: UUID | None
    rows: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen in a part: how many points, and the ids of what is not exactly right, in order.

    `ids` has `POINT_BYTES` for each: of exchanges without a point, of points without an exchange,
    and of pairs in which the memory is not what memsync writes.
    """

    number: int
    points: int
    ids: bytes


class Pace:
    """Keeps the rate of points below a limit. It makes up for no time that was lost before."""

    def __init__(self, points_per_s: float | None = None) -> None:
        self._per_s = points_per_s
        self._free_at = time.monotonic()

    def took(self, points: int) -> None:
        """Wait until so many points more may have been read."""
        if self._per_s is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + points / self._per_s
        time.sleep(max(0.0, self._free_at - now))


def look_at(
    vectors: VectorStore,
    collection: str,
    codec: PayloadCodec,
    part: Part,
    took: Callable[[int], object],
) -> Seen:
    """Compare the points of a part with its exchanges. `took` is called after each page.

    Raises: StoreUnreachable, SchemaMismatch.
    """
    require_shown(vectors, collection)
    exact = Exact(codec)
    wanted = {_UUID + row[:ID_BYTES]: row[ID_BYTES:] for row in rows_of(part.rows, ROW_BYTES)}
    points, others = 0, list[bytes]()
    for id_, point in _points_of(vectors, collection, part, took):
        points += 1
        digest = wanted.pop(id_, None)
        if digest is None or not exact.holds(point.id, point.payload, digest):
            others.append(id_)
    return Seen(part.number, points, b"".join(sorted([*others, *wanted])))


def _points_of(
    vectors: VectorStore, collection: str, part: Part, took: Callable[[int], object]
) -> Iterator[tuple[bytes, Point]]:
    """The points of the part, each after its id as `packed` packs it."""
    end = None if part.end is None else packed(part.end)
    for page in pages(vectors, collection, start=part.first):
        took(len(page.points))
        for each in page.points:
            id_ = packed(each.id)
            if end is not None and id_ >= end:
                return
            yield id_, each


# ---------------------------------------------------------------------- in another process


@dataclass(frozen=True, slots=True)
class KnownBy:
    """What another process must find, so that it reads what the audit does: the mark `store` of the
    database `instance`, as far as there is one, with at least the number `settled`, because batches
    only raise it; and this version of memsync.
    """

    instance: UUID
    store: str | None
    settled: int = 0
    version: str = field(default_factory=lambda: version("memsync"))

    def require(self, vectors: VectorStore) -> None:
        """Raises: StoreUnreachable in a process that finds something else."""
        here = version("memsync")
        if here != self.version:
            raise StoreUnreachable(
                f"a worker on {gethostname()} has memsync {here}, and the audit {self.version}; "
                "install the same version there"
            )
        if self.store is None:
            return
        settled, found = Mark(vectors).in_store(self.instance)
        if found != self.store:
            raise StoreUnreachable(
                f"a worker on {gethostname()} reads another vector store at {vectors.label}: its "
                f"mark is {found or 'none'}, and that of the audit's {self.store}. Name the store "
                "in the settings so that every machine reaches the same one"
            )
        if (settled or 0) < self.settled:
            raise StoreUnreachable(
                f"a worker on {gethostname()} reads an older copy of the vector store at "
                f"{vectors.label}: its mark has the number {settled or 0}, and the audit saw "
                f"{self.settled}. Name the store in the settings so that every machine reaches the "
                "same one"
            )


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """How another process reads the collection. It opens the store once, and keeps it open.

    `settings` need nothing of Postgres.
    """

    settings: Settings
    points_per_s: float | None
    known_by: KnownBy

    def __call__(self, part: Part) -> Seen:
        """As `look_at`. Raises: StoreUnreachable also where it is another store."""
        vectors = _opened(self.settings)
        self.known_by.require(vectors)
        codec = PayloadCodec(self.settings.payload_style)
        pace = Pace(self.points_per_s)
        return look_at(vectors, self.settings.collection, codec, part, pace.took)


_OPEN: dict[tuple[int, str], VectorStore] = {}


def _opened(settings: Settings) -> VectorStore:
    key = os.getpid(), str(settings.qdrant_url)
    if key not in _OPEN:
        _OPEN[key] = open_vectors(settings)
    return _OPEN[key]


# ---------------------------------------------------------------------- ids


def anchor_of(row: bytes) -> UUID:
    """The anchor of an exchange."""
    return UUID(bytes=row[:ID_BYTES])


def packed(point_id: PointId) -> bytes:
    """A point's id in `POINT_BYTES`; their order is that of the ids."""
    if isinstance(point_id, UUID):
        return _UUID + point_id.bytes
    return _INTEGER + point_id.to_bytes(ID_BYTES, "big")


def unpacked(data: bytes) -> PointId:
    """The id that `packed` has packed."""
    if data[0]:
        return UUID(bytes=data[1:])
    return int.from_bytes(data[1:], "big")


def is_packed(data: bytes) -> bool:
    """Whether this is what `packed` makes of an id: a uuid, or a number of 64 bits."""
    return data[:1] == _UUID or data.startswith(_INTEGER + bytes(8))
