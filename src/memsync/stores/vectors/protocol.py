"""What a vector store must promise. Every driver passes one conformance suite.

The relational store is Postgres and nothing else, so its promises are the methods of
`stores.postgres`; this page is for the side that has several drivers.

Promises that hold for every method:

- Order: points come by id, integers first, then uuids bytewise, as `model.ids.point_order` sorts.
- Paging: a page starts at an id that need not exist; consecutive pages are no snapshot.
- Atomicity: one point is written whole or not at all; a batch may be written in part.
- Visibility: what a returned write wrote is seen by the next read of the same process.
- Unknown outcomes: a write that raises StoreUnreachable may have happened. Every write is
  idempotent, so repeating it is safe.
- Errors: StoreUnreachable when the store does not answer, StoreBusy when another process holds
  its directory, SchemaMismatch for a collection that is not there, DimensionMismatch for vectors
  of another size. Drivers' own exceptions never pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from memsync.model.ids import PointId
from memsync.model.records import Hit, Point, Vector

Where = Mapping[str, str | int]
"""Payload keys and the values they must equal, all of them."""


class IndexKind(StrEnum):
    """How a payload key is indexed."""

    TENANT = "tenant"
    """A uuid that every query filters by; the server stores each tenant's points together."""
    UUID = "uuid"
    KEYWORD = "keyword"
    INTEGER = "integer"


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What a collection says of itself. `indexes` maps payload keys to how they are indexed."""

    dims: int
    distance: str
    indexes: Mapping[str, IndexKind]


@dataclass(frozen=True, slots=True)
class Page:
    """Points in id order, and the id at which the next page starts; None after the last."""

    points: Sequence[Point]
    next_start: PointId | None


class VectorStore(Protocol):
    """A store of points in named collections, compared by cosine."""

    @property
    def label(self) -> str:
        """The store in a word or two for messages, without secrets."""
        ...

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        ...

    def describe(self, collection: str) -> CollectionInfo | None:
        """What the collection says of itself; None when there is none of that name."""
        ...

    def create(self, collection: str, dims: int, indexes: Mapping[str, IndexKind]) -> None:
        """Make the collection and its payload indexes where they are missing; else do nothing.

        Raises: DimensionMismatch when it stands with vectors of another size.
        """
        ...

    def drop(self, collection: str) -> None:
        """Remove the collection with all its points; nothing happens when there is none."""
        ...

    def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        *,
        only_absent: bool = False,
        only_where: Where | None = None,
    ) -> None:
        """Write points whole, each with its vector, replacing what stood under its id.

        With `only_absent` a point is written only where no point has its id; with `only_where`
        only where the standing point's payload matches. A point that is not written is no error:
        read it back to know. The two exclude each other.
        """
        ...

    def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Remove the points; ids that are not there are no error."""
        ...

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        """The points that exist among `ids`, in id order."""
        ...

    def scroll(
        self, collection: str, *, start: PointId | None, limit: int, vectors: bool = False
    ) -> Page:
        """Up to `limit` points in id order, from the first whose id is `start` or after it."""
        ...

    def query(
        self,
        collection: str,
        vector: Vector,
        *,
        where: Where,
        limit: int,
        score_threshold: float | None = None,
    ) -> list[Hit]:
        """The `limit` points nearest to `vector` among those that match, best first."""
        ...

    def count(self, collection: str, where: Where | None = None) -> int:
        """How many points match, exactly."""
        ...

    def close(self) -> None:
        """Put everything on disk and let go of the store. Closing twice is no error."""
        ...


def scan(
    store: VectorStore, collection: str, *, vectors: bool = False, page_points: int = 1000
) -> Iterator[Point]:
    """Every point of the collection in id order, read page by page."""
    start: PointId | None = None
    while True:
        page = store.scroll(collection, start=start, limit=page_points, vectors=vectors)
        yield from page.points
        if page.next_start is None:
            return
        start = page.next_start
