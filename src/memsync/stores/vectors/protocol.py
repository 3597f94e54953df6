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

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from memsync.errors import InvalidInput, SettingsError
from memsync.model.ids import PointId
from memsync.model.records import Hit, Point, Vector

Ids = Collection[PointId] | None
Where = Mapping[str, str | int | frozenset[str] | frozenset[int]]
"""Payload keys and the values they must equal, all of them; of a set, one."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Matches a point that meets one of these conditions at least.

    Its id is among `ids`; or the value at a key of `texts` is one of those texts; or the number at
    a key of `ranges` lies in one of those ranges, both ends included; or it has no value at a key
    that is `lacking`, where null and an empty list are none. A list meets a condition if one of its
    members does. Without a condition no point matches. Where a key has no index, the store reads
    the payload of every point, once for each condition.
    """

    ids: Collection[PointId] = ()
    texts: Mapping[str, Collection[str]] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    lacking: Collection[str] = ()


class IndexKind(StrEnum):
    """How a payload key is indexed."""

    TENANT = "tenant"
    """A uuid that every query filters by; the server stores each tenant's points together."""
    UUID = "uuid"
    KEYWORD = "keyword"
    INTEGER = "integer"


Schema = Mapping[str, object]
"""A payload index as the store itself describes it, in values of JSON."""
Indexes = Mapping[str, IndexKind | Schema]
"""How payload keys are to be indexed."""


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """The form of a collection. `indexes` maps payload keys to how they are indexed.

    `other_indexes` has those that memsync never makes: of other kinds, or with other parameters.
    `needs_indexes`: a condition may name indexed keys only, or the read or write is refused.
    `why_unindexed` says why its vectors get no index; None where they do.
    """

    dims: int
    distance: str
    indexes: Mapping[str, IndexKind]
    needs_indexes: bool = False
    why_unindexed: str | None = None
    other_indexes: Mapping[str, Schema] = field(default_factory=dict)


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

    def held_back(self, collection: str) -> int:
        """How many points are written, and shown to no read before they are indexed."""
        ...

    def catch_up(self, collection: str) -> None:
        """Wait until the store has done what it had taken of writes to the collection before.

        Raises: StoreUnreachable where it does not come to it in time.
        """
        ...

    def aliases(self) -> dict[str, str]:
        """Other names of collections, each with the collection that it stands for.

        A read or a write under such a name reaches that collection; `collections` leaves it out.
        """
        ...

    def create(self, collection: str, dims: int, indexes: Indexes) -> None:
        """Make the collection and its payload indexes where they are missing; else do nothing.

        A schema is that of a server. An embedded store has no such index, and leaves it out.

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
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Write points whole, each with its vector, replacing any point with its id.

        A point whose vector is empty is written without one, as such a point is read.
        With `only_absent` a point is written only if no point has its id; with `only_where`, which
        has conditions by point, only if the existing point's payload matches: one without a
        condition if there is an existing point. The two exclude each other. A point that is not
        written is no error: read it back to know.
        """
        ...

    def overwrite_payloads(
        self,
        collection: str,
        payloads: Mapping[PointId, Mapping[str, object]],
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Replace the payloads of existing points, and leave their vectors as they are.

        `only_where` has conditions by point: such a point is written only if its payload matches. A
        point that is not there or does not match is no error: read it back to know.
        """
        ...

    def delete(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Remove the points; ids that are not there are no error.

        `only_where` has conditions by point, as in `overwrite_payloads`.
        """
        ...

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        """The points that exist among `ids`, in id order."""
        ...

    def scroll(
        self,
        collection: str,
        *,
        start: PointId | None,
        limit: int,
        vectors: bool = False,
        any_of: AnyOf | None = None,
        where: Where | None = None,
    ) -> Page:
        """Up to `limit` points in id order, from the first whose id is `start` or after it.

        With `any_of` or `where` only points that match; the two exclude each other.
        """
        ...

    def facet(self, collection: str, key: str, *, limit: int) -> dict[str | int, int]:
        """How many points have each value at this payload key, exactly; of many the most frequent.

        A point whose value is a list counts for each member. The key must be indexed. A value that
        its index does not take, such as a text where numbers are, is left out.
        """
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

    def count(self, collection: str, where: Where | None = None, *, ids: Ids = None) -> int:
        """How many points match, exactly; with `ids` only of these."""
        ...

    def close(self) -> None:
        """Write everything to disk and release the store. Closing twice is no error."""
        ...


def pages(
    store: VectorStore,
    collection: str,
    *,
    start: PointId | None = None,
    vectors: bool = False,
    page_points: int = 1000,
    any_of: AnyOf | None = None,
    where: Where | None = None,
) -> Iterator[Page]:
    """The points of the collection that match, in id order, from the id `start` on, page by page.

    A page that is refused is halved, because a server may bound what one request asks for.
    """
    limit = page_points
    while True:
        try:
            page = store.scroll(
                collection, start=start, limit=limit, vectors=vectors, any_of=any_of, where=where
            )
        except SettingsError:
            raise
        except InvalidInput:
            if limit == 1:
                raise
            limit //= 2
            continue
        yield page
        if page.next_start is None:
            return
        start = page.next_start


def scan(
    store: VectorStore,
    collection: str,
    *,
    vectors: bool = False,
    page_points: int = 1000,
    any_of: AnyOf | None = None,
    where: Where | None = None,
) -> Iterator[Point]:
    """Every point of the collection that matches, in id order, read page by page."""
    found = pages(
        store, collection, vectors=vectors, page_points=page_points, any_of=any_of, where=where
    )
    for page in found:
        yield from page.points
