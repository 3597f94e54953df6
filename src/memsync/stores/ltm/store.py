"""Reads and writes memories in Qdrant. All other modules use `LongTermMemory` for that.

This module decides which collection memories belong in (home), how a collection's payloads are
spelled, and that a persona gets its own memories only. A read creates no collection and no index,
and loads the embedder only to search for a text; only `prepare` creates what is missing. Nothing
here removes a memory because its exchange is gone; the audit decides that.
"""

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from memsync.errors import MemsyncError, SchemaMismatch
from memsync.model.ids import PersonaId, PersonalityId, PointId
from memsync.model.records import Exchange, Memory, Point
from memsync.settings import Settings
from memsync.stores.history.exchanges import exchanges_by_anchor
from memsync.stores.ltm.embedders import Embedder, load_embedder
from memsync.stores.ltm.layouts import persona_of_collection
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Session
from memsync.stores.vectors import CollectionInfo, VectorStore, open_vectors, scan

_DEPLOYED = PayloadCodec("camel")


@dataclass(frozen=True, slots=True)
class Recollection:
    """A memory that `recall` found, and its cosine similarity to the query."""

    id: UUID | int
    memory: Memory
    score: float


class LongTermMemory:
    """The memories in one vector store. Threads may share it.

    `collection` is home, the collection where memories belong. `codec` reads and writes its
    payloads.
    """

    def __init__(
        self,
        vectors: VectorStore,
        settings: Settings,
        embedder: Embedder | None = None,
    ) -> None:
        """Use a store that is open already; `open` is the usual way.

        Without `embedder` the one that the settings name is loaded when it is first needed.
        """
        self.collection = settings.collection
        self.codec = PayloadCodec(settings.payload_style)
        self._vectors = vectors
        self._embedder = embedder
        self._embedder_name = settings.embedder
        self._loading = threading.Lock()
        self._prepared = False

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the vector store that the settings name.

        Raises: SettingsError when its driver is not installed; StoreBusy; StoreUnreachable.
        """
        return cls(open_vectors(settings), settings)

    def close(self) -> None:
        """Close the vector store."""
        self._vectors.close()

    @property
    def embedder(self) -> Embedder:
        """The embedder, loaded by the first thread that needs it.

        Raises: SettingsError when it cannot be loaded.
        """
        with self._loading:
            if self._embedder is None:
                self._embedder = load_embedder(self._embedder_name)
            return self._embedder

    # ------------------------------------------------------------------ reading

    def recall(
        self,
        text: str,
        *,
        persona_id: PersonaId,
        personality_id: PersonalityId | None = None,
        limit: int,
        score_threshold: float | None = None,
    ) -> list[Recollection]:
        """The persona's memories most like `text`, best first; none if home does not exist.

        Raises: DimensionMismatch when the collection was made for another embedder; MemsyncError
        when the store returns a point of another persona.
        """
        where = {self.codec.key("persona_id"): str(persona_id)}
        if personality_id is not None:
            where[self.codec.key("personality_id")] = str(personality_id)
        vector = self.embedder.query(text)
        try:
            hits = self._vectors.query(
                self.collection, vector, where=where, limit=limit, score_threshold=score_threshold
            )
        except SchemaMismatch:
            if self.stands(self.collection):
                raise
            return []
        found = [
            Recollection(hit.point.id, self.codec.decode(hit.point.payload).memory, hit.score)
            for hit in hits
        ]
        _require_own(found, persona_id)
        return found

    def collections(self) -> list[str]:
        """The names of all collections of the store, memsync's or not, sorted."""
        return self._vectors.collections()

    def describe(self, collection: str) -> CollectionInfo | None:
        """The collection's size, distance and indexes; None when there is none of that name."""
        return self._vectors.describe(collection)

    def stands(self, collection: str) -> bool:
        """Whether there is a collection of that name."""
        return self.describe(collection) is not None

    def codec_of(self, collection: str) -> PayloadCodec:
        """The codec for a collection: that of the settings at home, the app's for any other."""
        return self.codec if collection == self.collection else _DEPLOYED

    def scan(self, collection: str) -> Iterator[Point]:
        """Every point of the collection in id order, without vectors, read page by page.

        Raises: SchemaMismatch, when the first point is asked for and there is no such collection.
        """
        return scan(self._vectors, collection)

    def points(
        self, collection: str, ids: Iterable[PointId], *, vectors: bool = False
    ) -> dict[PointId, Point]:
        """The points that exist among `ids`, in id order; none if the collection is missing."""
        if not self.stands(collection):
            return {}
        found = self._vectors.retrieve(collection, list(ids), vectors=vectors)
        return {point.id: point for point in found}

    def count(self, collection: str) -> int:
        """How many points the collection has, exactly.

        Raises: SchemaMismatch when there is no such collection.
        """
        return self._vectors.count(collection)

    # ------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Create the home collection and its payload indexes if they are missing.

        Only the first call asks the store. Raises: DimensionMismatch when the collection was made
        for another embedder.
        """
        if not self._prepared:
            self._vectors.create(self.collection, self.embedder.dims, self.codec.indexes)
            self._prepared = True

    def project(self, session: Session, anchor_ids: Sequence[UUID]) -> int:
        """Write the memories of these anchors as Postgres has them now; return how many.

        An anchor that forms no exchange (any more) is skipped.
        """
        self.prepare()
        exchanges = list(exchanges_by_anchor(session, anchor_ids).values())
        if exchanges:
            self._vectors.upsert(self.collection, self._made_of(exchanges))
        return len(exchanges)

    def put(self, exchanges: Sequence[Exchange], *, standing: Collection[PointId]) -> None:
        """Write the memories of these exchanges at home.

        `standing` are the ids of points seen before, which are replaced. For other ids a point that
        exists by now is left as it is, without an error; read back to know.
        """
        made = self._made_of(exchanges)
        absent = [point for point in made if point.id not in standing]
        replacing = [point for point in made if point.id in standing]
        if absent:
            self._vectors.upsert(self.collection, absent, only_absent=True)
        if replacing:
            self._vectors.upsert(self.collection, replacing)

    def bring_home(self, collection: str, points: Sequence[Point]) -> list[Point]:
        """Copy archived memories of another collection to home, under their ids.

        Each keeps its text, is embedded again, and is written only if no point has its id.
        Returns the points as they should be now; read them back to know. The old points stay.
        """
        codec, embedder, persona = self.codec, self.embedder, persona_of_collection(collection)
        texts = [codec.decode(each.payload).memory.content or "" for each in points]
        moved = [
            Point(old.id, codec.archived(old, persona_id=persona, embedder=embedder.name), vector)
            for old, vector in zip(points, embedder.documents(texts), strict=True)
        ]
        if moved:
            self._vectors.upsert(self.collection, moved, only_absent=True)
        return moved

    def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Remove points; ids that are not there are no error."""
        self._vectors.delete(collection, ids)

    def drop(self, collection: str) -> None:
        """Remove a collection with all its points; nothing happens when there is none."""
        self._vectors.drop(collection)

    def _made_of(self, exchanges: Sequence[Exchange]) -> list[Point]:
        """The points of these exchanges, with their vectors."""
        embedder = self.embedder
        vectors = embedder.documents([each.content for each in exchanges])
        return [
            Point(each.anchor_id, self.codec.encode(each, embedder.name), vector)
            for each, vector in zip(exchanges, vectors, strict=True)
        ]


def _require_own(found: Sequence[Recollection], persona: PersonaId) -> None:
    """Raise if the store returned a memory of another persona."""
    foreign = [each.id for each in found if each.memory.persona_id != persona]
    if foreign:
        raise MemsyncError(
            f"Qdrant returned memories of another persona than {persona}: {foreign[:3]}. They were "
            "not handed out; run `memsync check`"
        )
