"""Reads and writes memories in Qdrant. All other modules use `LongTermMemory` for that.

This module decides which collection memories belong in (home), how a collection's payloads are
spelled, and that a persona gets its own memories only. A read creates no collection and no index,
and loads the embedder only to search for a text; only `prepare` creates what is missing. Nothing
here removes a memory because its exchange is gone; the audit decides that.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self
from uuid import UUID

from memsync import forks
from memsync.errors import InvalidInput, SchemaMismatch, SettingsError
from memsync.model.ids import PersonaId, PersonalityId, PointId
from memsync.model.records import Exchange, Hit, Point, Recollection, StoredMemory, from_ms
from memsync.model.wording import count, listed
from memsync.settings import Settings
from memsync.stores.history.exchanges import exchanges_by_anchor
from memsync.stores.ltm.embedders import Embedder, Failure, load_embedder
from memsync.stores.ltm.layouts import is_deployed, persona_of_collection
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Session
from memsync.stores.vectors import (
    CollectionInfo,
    VectorStore,
    open_vectors,
    require_folder,
    scan,
)

_DEPLOYED = PayloadCodec("camel")
_PAGE_POINTS = 1000
_ASKED_MAX = 16_000
"""A recall asks for at most so many points when those of its persona are hidden among others."""
_NAMED_MAX = 3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write: the points that were written, and the error of each other memory.

    InvalidInput means that the embedder or the store refuses this memory, EmbedderUnreachable that
    the embedder is down, so that it was not tried.
    """

    points: Sequence[Point]
    failed: Mapping[PointId, Failure]


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
        self._embedder_name = settings.embedder
        self._bounds = {
            "batch_texts": settings.embedder_batch_texts,
            "batch_chars": settings.embedder_batch_chars,
        }
        self._embedder = embedder.within(**self._bounds) if embedder else None
        self._loading = threading.Lock()
        self._prepared = False
        forks.watch(self)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the vector store that the settings name.

        Raises: SettingsError when its driver is not installed; StoreBusy; StoreUnreachable.
        """
        return cls(open_vectors(settings), settings)

    @staticmethod
    def require_folder(settings: Settings) -> None:
        """Refuse settings that name an embedded store without a folder. Opens nothing.

        Raises: SettingsError.
        """
        if settings.qdrant_url is not None:
            require_folder(settings.qdrant_url)

    def begin_anew(self) -> None:
        """Make a new lock in a forked process; the vector store sees to its own connection."""
        self._loading = threading.Lock()

    def close(self) -> None:
        """Close the vector store."""
        self._vectors.close()

    @property
    def embedder(self) -> Embedder:
        """The embedder, loaded by the first thread that needs it.

        Raises: SettingsError when it cannot be loaded; EmbedderUnreachable when it does not answer.
        """
        with self._loading:
            if self._embedder is None:
                self._embedder = load_embedder(self._embedder_name).within(**self._bounds)
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

        A point that does not name this persona alone, or has no text, is left out, and the log
        warns of it. More are asked for in its place, up to a bound.

        Raises: DimensionMismatch when the collection was made for another embedder.
        """
        where = {self.codec.key("persona_id"): str(persona_id)}
        if personality_id is not None:
            where[self.codec.key("personality_id")] = str(personality_id)
        vector, asked = self.embedder.query(text), limit
        while True:
            try:
                hits = self._vectors.query(
                    self.collection,
                    vector,
                    where=where,
                    limit=asked,
                    score_threshold=score_threshold,
                )
            except SchemaMismatch:
                if self.stands(self.collection):
                    raise
                return []
            found = [(hit, self.codec.decode(hit.point.payload).memory) for hit in hits]
            recalled = (_recollection(hit, memory, persona_id) for hit, memory in found)
            own = [each for each in recalled if each]
            if len(own) >= limit or len(hits) < asked or asked >= _ASKED_MAX:
                break
            asked = min(2 * asked, _ASKED_MAX)
        _warn_of(found, persona_id)
        return own[:limit]

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

    def embedders_of_a_page(self, collection: str) -> Counter[str]:
        """The embedders that memories of one page say they were made by, and how many each made.

        Ids are random, so a page is a sample. Memories that do not say it are left out.
        """
        key = self.codec_of(collection).key("embedder")
        page = self._vectors.scroll(collection, start=None, limit=_PAGE_POINTS)
        said = (point.payload.get(key) for point in page.points)
        return Counter(each for each in said if isinstance(each, str))

    def remembers(self, persona_id: PersonaId) -> bool:
        """Whether home or one of the app's own collections has a memory of the persona."""
        for name in self.collections():
            if persona_of_collection(name) == persona_id and self.count(name):
                return True
            if name == self.collection or is_deployed(name):
                where = {self.codec_of(name).key("persona_id"): str(persona_id)}
                if self._vectors.count(name, where):
                    return True
        return False

    # ------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Create the home collection and its payload indexes if they are missing.

        Only the first call asks the store, and one after a write that found no fitting collection.

        Raises: DimensionMismatch when the collection was made
        for another embedder.
        """
        if not self._prepared:
            self._vectors.create(self.collection, self.embedder.dims, self.codec.indexes)
            self._prepared = True

    def project(self, session: Session, anchor_ids: Sequence[UUID]) -> Written:
        """Write the memories of these anchors as Postgres has them now.

        An anchor that forms no exchange (any more) is skipped. Raises: StoreUnreachable when the
        vector store does not answer.
        """
        self.prepare()
        made = self._made_of(list(exchanges_by_anchor(session, anchor_ids).values()))
        return self._sent(made, lambda points: self._vectors.upsert(self.collection, points))

    def put(self, exchanges: Sequence[Exchange], *, standing: Collection[PointId]) -> Written:
        """Write the memories of these exchanges at home.

        `standing` are the ids of points seen before, which are replaced. For other ids a point that
        exists by now is left as it is, without an error; read back to know.
        """

        def send(points: Sequence[Point]) -> None:
            absent = [point for point in points if point.id not in standing]
            replacing = [point for point in points if point.id in standing]
            if absent:
                self._vectors.upsert(self.collection, absent, only_absent=True)
            if replacing:
                self._vectors.upsert(self.collection, replacing)

        return self._sent(self._made_of(exchanges), send)

    def bring_home(self, collection: str, points: Sequence[Point]) -> Written:
        """Copy archived memories of another collection to home, under their ids.

        Each keeps its text, is embedded again, and is written only if no point has its id.
        The points of the result are as they should be now; read them back to know. The old points
        stay.
        """
        codec, embedder, persona = self.codec, self.embedder, persona_of_collection(collection)
        texts = [codec.decode(each.payload).memory.text or "" for each in points]
        moved = [
            Point(old.id, codec.archived(old, persona_id=persona, embedder=embedder.name))
            for old in points
        ]
        return self._sent(
            self._with_vectors(moved, texts),
            lambda some: self._vectors.upsert(self.collection, some, only_absent=True),
        )

    def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Remove points; ids that are not there are no error."""
        self._vectors.delete(collection, ids)

    def drop(self, collection: str) -> None:
        """Remove a collection with all its points; nothing happens when there is none."""
        self._vectors.drop(collection)

    def _made_of(self, exchanges: Sequence[Exchange]) -> Written:
        """The points of these exchanges, with their vectors."""
        name = self.embedder.name
        points = [Point(each.anchor_id, self.codec.encode(each, name)) for each in exchanges]
        return self._with_vectors(points, [each.text for each in exchanges])

    def _with_vectors(self, points: Sequence[Point], texts: Sequence[str]) -> Written:
        """The points with the vectors of the texts, and the errors of those without."""
        outcomes = list(zip(points, self.embedder.each(texts), strict=True))
        return Written(
            [replace(each, vector=v) for each, v in outcomes if not isinstance(v, Failure)],
            {each.id: v for each, v in outcomes if isinstance(v, Failure)},
        )

    def _sent(self, made: Written, send: Callable[[Sequence[Point]], None]) -> Written:
        """Send the points. A batch that the store refuses is halved until the bad one is found."""
        if not made.points:
            return made
        try:
            send(made.points)
        except SchemaMismatch:
            # Somebody dropped the collection, or made it anew: the next `prepare` asks again.
            self._prepared = False
            raise
        except SettingsError:
            raise
        except InvalidInput as refusal:
            if len(made.points) == 1:
                return Written([], {**made.failed, made.points[0].id: refusal})
            middle = len(made.points) // 2
            first = self._sent(Written(made.points[:middle], made.failed), send)
            rest = self._sent(Written(made.points[middle:], first.failed), send)
            return Written([*first.points, *rest.points], rest.failed)
        return made


def _recollection(hit: Hit, memory: StoredMemory, persona: PersonaId) -> Recollection | None:
    """The recollection of the point; None unless it is this persona's alone and has a text."""
    if memory.persona_id != persona or (text := memory.text) is None:
        return None
    parted = memory.user_text is not None and memory.assistant_text is not None
    return Recollection(
        id=hit.point.id,
        score=hit.score,
        persona_id=persona,
        personality_id=memory.personality_id,
        channel_id=memory.channel_id,
        created_at=None if memory.created_at_ms is None else from_ms(memory.created_at_ms),
        text=text,
        user_text=memory.user_text or "" if parted else "",
        assistant_text=memory.assistant_text or "" if parted else "",
    )


def _warn_of(found: Sequence[tuple[Hit, StoredMemory]], persona: PersonaId) -> None:
    """Log the ids of what the store returned and recall cannot hand out, and why it cannot."""
    foreign = [hit for hit, memory in found if memory.persona_id != persona]
    wordless = [
        hit for hit, memory in found if memory.persona_id == persona and memory.text is None
    ]
    for hits, why in (
        (foreign, "not of this persona alone"),
        (wordless, "without a text"),
    ):
        if hits:
            _LOG.warning(
                "recall for persona %s left out %s %s: %s. Run `memsync check`",
                persona,
                count(len(hits), "point"),
                why,
                listed([str(hit.point.id) for hit in hits], _NAMED_MAX),
            )
