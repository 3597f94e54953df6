"""The protocol of a vector store. Every driver implements it and passes one conformance suite.

These promises hold for every method:

- Order: points come by id, integers first, then uuids bytewise, as `model.ids.point_order` sorts.
- Paging: a page starts at an id that need not exist; consecutive pages are no snapshot.
- Atomicity: one point is written whole or not at all; a batch may be written in part.
- Visibility: the next read in the same process sees a write that has returned.
- Unknown outcomes: a write that raises StoreUnreachable may have happened. Every write is
  idempotent, so repeating it is safe.
- Errors: StoreUnreachable when the store does not answer, StoreBusy when another process holds
  its directory, SchemaMismatch for a missing collection, DimensionMismatch for vectors of another
  size. A driver's own exceptions never leave it.
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
    """The form of a collection. `indexes` maps payload keys to how they are indexed."""

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
        """The form of the collection; None when there is none of that name."""
        ...

    def create(self, collection: str, dims: int, indexes: Mapping[str, IndexKind]) -> None:
        """Make the collection and its payload indexes where they are missing; else do nothing.

        Raises: DimensionMismatch when it exists with vectors of another size.
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
        """Write points whole, each with its vector, replacing any point with its id.

        With `only_absent` a point is written only if no point has its id; with `only_where` only
        if the existing point's payload matches. The two exclude each other. A point that is not
        written is no error: read it back to know.
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
        """Write everything to disk and release the store. Closing twice is no error."""
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
