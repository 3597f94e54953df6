"""A vector store that fails at one call, before or after it did what was asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from memsync.errors import StoreUnreachable
from memsync.model.ids import PointId
from memsync.model.records import Hit, Point, Vector
from memsync.stores.vectors.protocol import (
    AnyOf,
    CollectionInfo,
    Ids,
    Indexes,
    Page,
    VectorStore,
    Where,
)


class Crash(BaseException):
    """The process dies here; nothing catches it."""


@dataclass
class Failing:
    """Passes every call on; raises at call `at` (from 1), `after` doing it or before.

    `calls` are the names of the calls so far. `meanwhile` is run before every call.
    """

    store: VectorStore
    at: int = 0
    after: bool = False
    error: type[BaseException] = StoreUnreachable
    meanwhile: Callable[[str], object] | None = None

    def __post_init__(self) -> None:
        self.calls: list[str] = []

    def writes(self) -> list[int]:
        """The numbers of the calls that write."""
        writing = {"create", "drop", "upsert", "overwrite_payloads", "delete"}
        return [number for number, name in enumerate(self.calls, 1) if name in writing]

    def _now(self, name: str) -> bool:
        self.calls.append(name)
        if self.meanwhile:
            self.meanwhile(name)
        fails = len(self.calls) == self.at
        if fails and not self.after:
            raise self.error(f"fails at call {self.at}, {name}")
        return fails

    def _then(self, *, fails: bool) -> None:
        if fails:
            raise self.error(f"fails after call {self.at}, {self.calls[-1]}")

    @property
    def label(self) -> str:
        return self.store.label

    def collections(self) -> list[str]:
        fails = self._now("collections")
        found = self.store.collections()
        self._then(fails=fails)
        return found

    def describe(self, collection: str) -> CollectionInfo | None:
        fails = self._now("describe")
        found = self.store.describe(collection)
        self._then(fails=fails)
        return found

    def held_back(self, collection: str) -> int:
        fails = self._now("held_back")
        found = self.store.held_back(collection)
        self._then(fails=fails)
        return found

    def catch_up(self, collection: str) -> None:
        fails = self._now("catch_up")
        self.store.catch_up(collection)
        self._then(fails=fails)

    def aliases(self) -> dict[str, str]:
        fails = self._now("aliases")
        found = self.store.aliases()
        self._then(fails=fails)
        return found

    def create(self, collection: str, dims: int, indexes: Indexes) -> None:
        fails = self._now("create")
        self.store.create(collection, dims, indexes)
        self._then(fails=fails)

    def drop(self, collection: str) -> None:
        fails = self._now("drop")
        self.store.drop(collection)
        self._then(fails=fails)

    def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        *,
        only_absent: bool = False,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        fails = self._now("upsert")
        self.store.upsert(collection, points, only_absent=only_absent, only_where=only_where)
        self._then(fails=fails)

    def overwrite_payloads(
        self,
        collection: str,
        payloads: Mapping[PointId, Mapping[str, object]],
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        fails = self._now("overwrite_payloads")
        self.store.overwrite_payloads(collection, payloads, only_where=only_where)
        self._then(fails=fails)

    def delete(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        fails = self._now("delete")
        self.store.delete(collection, ids, only_where=only_where)
        self._then(fails=fails)

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        fails = self._now("retrieve")
        found = self.store.retrieve(collection, ids, vectors=vectors)
        self._then(fails=fails)
        return found

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
        fails = self._now("scroll")
        found = self.store.scroll(
            collection, start=start, limit=limit, vectors=vectors, any_of=any_of, where=where
        )
        self._then(fails=fails)
        return found

    def facet(self, collection: str, key: str, *, limit: int) -> dict[str | int, int]:
        fails = self._now("facet")
        found = self.store.facet(collection, key, limit=limit)
        self._then(fails=fails)
        return found

    def query(
        self,
        collection: str,
        vector: Vector,
        *,
        where: Where,
        limit: int,
        score_threshold: float | None = None,
    ) -> list[Hit]:
        fails = self._now("query")
        found = self.store.query(
            collection, vector, where=where, limit=limit, score_threshold=score_threshold
        )
        self._then(fails=fails)
        return found

    def count(self, collection: str, where: Where | None = None, *, ids: Ids = None) -> int:
        fails = self._now("count")
        found = self.store.count(collection, where, ids=ids)
        self._then(fails=fails)
        return found

    def close(self) -> None:
        self.store.close()
