"""Reads and writes memories in Qdrant. All other modules use `LongTermMemory` for that.

This module decides which collection memories belong in (home), how a collection's payloads are
spelled, and that a persona gets its own memories only. A read creates no collection and no index,
and loads the embedder only to search for a text; only `prepare` creates what is missing. Nothing
here removes a memory because its exchange is gone; the audit decides that.
"""

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Self
from uuid import UUID

from memsync import forks
from memsync.errors import SchemaMismatch
from memsync.model.ids import PersonaId, PersonalityId, PointId
from memsync.model.records import Exchange, Place, Point, Recollection
from memsync.settings import Settings
from memsync.stores.ltm import contents
from memsync.stores.ltm.apart import Apart, Troubles
from memsync.stores.ltm.embedders import Embedder, load_embedder
from memsync.stores.ltm.fence import write_as_seen
from memsync.stores.ltm.fingerprints import PointPrints
from memsync.stores.ltm.layouts import CollectionKind, Layout, collection_of_persona, kind_of
from memsync.stores.ltm.made import Embedded, Made, Written
from memsync.stores.ltm.making import made_per_persona, made_shared
from memsync.stores.ltm.marks import Mark
from memsync.stores.ltm.payload import DEPLOYED, PayloadCodec
from memsync.stores.ltm.project import Held, Keep, Projection
from memsync.stores.ltm.recalling import Aliases, Shelf, search
from memsync.stores.ltm.record import Decision, decide, record, recorded, require_layout
from memsync.stores.ltm.repairs import Repairs
from memsync.stores.ltm.writer import why_app_writes
from memsync.stores.postgres import Session
from memsync.stores.vectors import CollectionInfo, VectorStore, open_vectors, require_folder, scan

_GIVEN = "memsync was opened with it"
_PREPARED_FOR_S = 60.0


class LongTermMemory:
    """The memories in one vector store. Threads may share it.

    `layout` says where memories belong: in the shared layout in `collection`, whose payloads
    `codec` reads and writes; in the per-persona layout in a collection for each persona.
    `why_layout` says how that is known.
    """

    def __init__(
        self,
        vectors: VectorStore,
        settings: Settings,
        embedder: Embedder | None = None,
        layout: Layout = Layout.SHARED,
        why_layout: str = _GIVEN,
    ) -> None:
        """Use a store that is open already; `open` is the usual way.

        Without `embedder` the one of the settings is loaded when it is first needed. `why_layout`
        is for the record.
        """
        self.layout, self.why_layout = layout, why_layout
        self._settings, self._vectors, self.collection = settings, vectors, settings.collection
        self.codec = PayloadCodec(settings.payload_style)
        self.repairs = Repairs(vectors, self.collection, self.codec)
        self.mark = Mark(vectors)
        self._aliases = Aliases(vectors)
        self.fingerprints = PointPrints(vectors, self.collection, self.codec)
        self._embedder_name = settings.embedder
        self._bounds = {
            "batch_texts": settings.embedder_batch_texts,
            "batch_chars": settings.embedder_batch_chars,
        }
        self._embedder = embedder.within(**self._bounds) if embedder else None
        self._loading, self._prepared_until = threading.Lock(), 0.0
        self._ready: set[str] = set()
        self._troubles: Troubles = {}
        forks.watch(self)

    @classmethod
    def open(cls, settings: Settings, session: Session) -> Self:
        """Open the vector store that the settings name, in the layout that is in force.

        Raises: SettingsError when its driver is not installed; StoreBusy; StoreUnreachable;
        SchemaMismatch where the layout is not clear.
        """
        vectors = open_vectors(settings)
        try:
            decided = decide(session, vectors, settings)
            return cls(vectors, settings, layout=decided.layout, why_layout=decided.why)
        except BaseException:
            vectors.close()
            raise

    def followed(self, session: Session) -> Self:
        """This, or the same memories in the layout that is recorded by now; see `in_layout`.

        Whoever still uses this one may finish. Raises: SchemaMismatch where the setting contradicts
        the record.
        """
        if recorded(session) in {None, self.layout}:
            return self
        now = decide(session, self._vectors, self._settings)
        return self.in_layout(now.layout, now.why)

    @property
    def why_app_writes(self) -> str | None:
        """Why new memories are not memsync's to write, and what changes that; None if they are."""
        return why_app_writes(self.layout, self._settings)

    @staticmethod
    def require_folder(settings: Settings) -> None:
        """Refuse settings that name an embedded store without a folder. Opens nothing.

        Raises: SettingsError.
        """
        if settings.qdrant_url is not None:
            require_folder(settings.qdrant_url)

    def in_layout(self, layout: Layout, why: str) -> Self:
        """The same memories in another layout. Both use one store, so only one is closed."""
        other = copy.copy(self)
        other.layout, other.why_layout = layout, why
        other._prepared_until = 0.0  # noqa: SLF001  of the same class
        forks.watch(other)
        return other

    def begin_anew(self) -> None:
        """Make a new lock in a forked process; the vector store sees to its own connection."""
        self._loading = threading.Lock()

    def close(self) -> None:
        """Close the vector store."""
        self._vectors.close()

    def record_layout(self, session: Session) -> None:
        """Record the layout in which this writes. Effects: Postgres, where none is recorded.

        Raises: SchemaMismatch when another one is recorded.
        """
        record(session, Decision(self.layout, self.why_layout))
        require_layout(session, self.layout, self.label)

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

        A point that is not this persona's alone, or has no text, is left out, and the log warns of
        it. More are asked for in its place, up to a bound. In a collection of the persona's own a
        point that names no persona is this persona's, but not where the name is an alias.

        Raises: DimensionMismatch when the collection was made for another embedder.
        """
        home = self.home_of(persona_id)
        is_own = self.layout is Layout.PER_PERSONA and home not in self._aliases
        try:
            return search(
                Shelf(self._vectors, home, self.codec_of(home), is_own),
                self.embedder.query(text),
                persona_id=persona_id,
                personality_id=personality_id,
                limit=limit,
                score_threshold=score_threshold,
            )
        except SchemaMismatch:
            if self.stands(home):
                raise
            return []

    @property
    def label(self) -> str:
        """The vector store in a word or two for messages, without secrets."""
        return self._vectors.label

    def collections(self) -> list[str]:
        """The names of all collections of the store, memsync's or not, sorted."""
        return self._vectors.collections()

    def aliases(self) -> dict[str, str]:
        """Other names of collections, each with the collection that it stands for."""
        return self._vectors.aliases()

    def describe(self, collection: str) -> CollectionInfo | None:
        """The collection's size, distance and indexes; None when there is none of that name."""
        return self._vectors.describe(collection)

    def stands(self, collection: str) -> bool:
        """Whether there is a collection of that name."""
        return self.describe(collection) is not None

    def home_of(self, persona_id: UUID) -> str:
        """The collection where the persona's memories belong."""
        if self.layout is Layout.SHARED:
            return self.collection
        return collection_of_persona(persona_id)

    def kind_of(self, collection: str) -> CollectionKind:
        """What the collection was made for, by its name."""
        return kind_of(collection, self.collection)

    def codec_of(self, collection: str) -> PayloadCodec:
        """The codec for a collection: that of the settings for the shared one, else the app's."""
        return self.codec if collection == self.collection else DEPLOYED

    def scan(self, collection: str, *, vectors: bool = False) -> Iterator[Point]:
        """Every point of the collection in id order, read page by page.

        Raises, when the first point is asked for: SchemaMismatch where there is no such collection;
        StoreUnreachable also where the store does not show every point yet.
        """
        contents.require_shown(self._vectors, collection)
        yield from scan(self._vectors, collection, vectors=vectors)

    def points(
        self, collection: str, ids: Iterable[PointId], *, vectors: bool = False
    ) -> dict[PointId, Point]:
        """The points that exist among `ids`, in id order; none if the collection is missing."""
        if not self.stands(collection):
            return {}
        found = self._vectors.retrieve(collection, list(ids), vectors=vectors)
        return {point.id: point for point in found}

    def count(self, collection: str) -> int:
        """How many points it has, exactly. Raises: SchemaMismatch when there is no such one."""
        return self._vectors.count(collection)

    def embedders_of_a_page(self, collection: str) -> Counter[str]:
        """The embedders that memories of one page name, a sample, and how many name each."""
        return contents.embedders_of_a_page(self._vectors, collection, self.codec_of(collection))

    def remembered(self, personas: Collection[UUID]) -> set[UUID]:
        """Those of whom the shared collection, or one of the app's own, has a memory."""
        return contents.remembered(self._vectors, personas, self.collection, self.codec)

    # ------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Create the shared collection and its payload indexes if they are missing.

        One call a minute asks the store, and one after a write that found no fitting collection. In
        the per-persona layout a collection is made with its first memory.

        Raises: DimensionMismatch when the collection was made for another embedder.
        """
        if self.layout is Layout.SHARED and time.monotonic() >= self._prepared_until:
            self._vectors.create(self.collection, self.embedder.dims, self.codec.indexes)
            self._prepared_until = time.monotonic() + _PREPARED_FOR_S

    def make(
        self,
        session: Session,
        exchanges: Sequence[Exchange],
        ids: Mapping[UUID, PointId] | None = None,
        *,
        over: Mapping[Place, Point] | None = None,
    ) -> list[Made]:
        """The memories that these exchanges must have. Writes nothing and embeds nothing.

        A memory gets its anchor's id, or the one that `ids` has for the anchor. One that will be
        written over a point in `over` keeps its note of the app's point of which it is a copy.
        """
        if self.layout is Layout.PER_PERSONA:
            return made_per_persona(session, exchanges, ids or {})
        name = self.embedder.name
        return made_shared(exchanges, self.collection, self.codec, name, ids or {}, over or {})

    def write(
        self,
        made: Sequence[Made],
        *,
        seen: Mapping[Place, Point] | None = None,
        before: Callable[[Sequence[Made]], Held] = lambda _: {},
        apart: Apart | None = None,
    ) -> Written:
        """Embed these memories and write them; a collection that is missing is made.

        A point is written where it is as it was `seen`, or where none was. `before` gets those that
        are about to be written, and says which are held; `apart` holds those of a persona's
        collection that fails. Errors are by anchor id.

        Raises: StoreUnreachable when the vector store does not answer; DimensionMismatch for a
        collection of another size than the embedder's.
        """
        if not made:
            return Written([], {})
        self.prepare()
        embedded = self.embedded(made)
        waiting = before([each for each, _ in embedded.points])
        written = Written([], embedded.failed, waiting)
        apart = apart or Apart(self._vectors, self._troubles, self.forget, is_shared=True)
        for collection, some in embedded.by_collection().items():
            points = [(m.anchor_id, point) for m, point in some if m.anchor_id not in waiting]
            with apart.alone(collection, [anchor for anchor, _ in points]):
                if self.layout is Layout.PER_PERSONA and collection not in self._ready:
                    self.ensure(collection, self.embedder.dims)
                    self._ready.add(collection)
                written = self._written(collection, points, seen or {}, written, apart)
        return written

    def _written(
        self,
        collection: str,
        points: Sequence[tuple[UUID, Point]],
        seen: Mapping[Place, Point],
        before: Written,
        apart: Apart,
    ) -> Written:
        """Write the points of one collection, each with its anchor."""
        here = {at.point_id: old for at, old in seen.items() if at.collection == collection}

        def send(some: Sequence[Point]) -> None:
            write_as_seen(self._vectors, collection, some, here)

        failed = apart.send(collection, points, send)
        not_sent = {*failed, *apart.held}
        sent = [point for anchor, point in points if anchor not in not_sent]
        return Written([*before.points, *sent], {**before.failed, **failed}, before.held)

    def project(self, session: Session, anchor_ids: Sequence[UUID], keep: Keep) -> Written:
        """Write the memories of these anchors as Postgres has them now.

        An anchor that forms no exchange (any more) is skipped. A point that somebody else writes at
        the same time is never replaced by an older text; one that was changed goes to `keep` first.
        In the per-persona layout a memory that the app has written stays. Raises: StoreUnreachable.
        """
        shared = self.collection if self.layout is Layout.SHARED else None
        apart = Apart(self._vectors, self._troubles, self.forget, is_shared=shared is not None)
        tolerance_ms = round(self._settings.match_tolerance_s * 1000)
        self.prepare()
        try:
            work = Projection(self, self._vectors, session, shared, tolerance_ms, keep, apart)
            return work.project(anchor_ids)
        except SchemaMismatch:
            # Somebody dropped the collection, or made it anew: the next `prepare` asks again.
            self._prepared_until = 0.0
            raise

    def is_ready(self, collection: str, *, make: bool = False) -> bool:
        """Whether a persona's collection stands and takes the embedder's vectors; False where there
        is none, and none to `make`.

        Raises: DimensionMismatch, SchemaMismatch where it cannot take them.
        """
        if collection in self._ready:
            return True
        info = self.describe(collection)
        if info:
            contents.require_size(collection, info.dims, self.embedder)
        elif make:
            self.ensure(collection, self.embedder.dims)
        else:
            return False
        self._ready.add(collection)
        return True

    def forget(self, collection: str) -> None:
        """Ask the store about this collection the next time."""
        self._ready.discard(collection)

    def ask_again(self) -> None:
        """Leave no collection alone that failed a moment ago: it may be mended."""
        for each in self._troubles.values():
            each.until = 0.0

    def embedded(self, made: Sequence[Made]) -> Embedded:
        """These memories with their vectors. Writes nothing."""
        return Embedded.of(made, self.embedder.each([each.text for each in made]))

    def ensure(self, collection: str, dims: int) -> None:
        """Create the collection if it is missing, the shared one with its payload indexes.

        Raises: DimensionMismatch when it has vectors of another size.
        """
        indexes = self.codec.indexes if collection == self.collection else {}
        self._vectors.create(collection, dims, indexes)
