"""Keeps the trouble of one persona's collection from the memories of the others.

It decides what is held where a collection fails, and when the store itself counts as down: where it
takes no write to memsync's own collection either, or where several collections keep a batch
waiting. A collection that fails is left alone for a while and then gets one memory, so that texts
are not embedded in vain. Where one point is at fault, that one alone is held.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from memsync.errors import EmbedderUnreachable, MemsyncError, SchemaMismatch, StoreUnreachable
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Point
from memsync.stores.ltm.embedders import Failure
from memsync.stores.ltm.made import sent_in_parts
from memsync.stores.ltm.marks import require_writes
from memsync.stores.vectors import VectorStore

HELD_S = 60.0
"""How long memories are left alone that wait for something to be mended."""
_SLOW_S = 1.0
_SLOW_MAX = 3
"""Of collections that fail only after so long, so many in one batch are a store that is down."""
_FAILURES_MAX = 16
"""So many failed writes in a row are the collection's fault. To find one bad point takes nine."""
_PARTS_S = 10.0
"""After so long with one collection its points are not tried in smaller parts."""


@dataclass(slots=True)
class Trouble:
    """A collection that fails: how many writes in a row, and until when it is left alone."""

    error: StoreUnreachable
    failures: int = 0
    until: float = 0.0


Troubles = dict[str, Trouble]
"""The collections that fail, as long as a relay lives."""


class Apart:
    """The collections that fail in one batch. `held` has why the memories of each of them wait.

    With `is_shared` all memories lie in one collection, and its trouble is everybody's. `troubles`
    outlives the batch. `forget` makes the store be asked about a collection the next time.
    """

    def __init__(
        self,
        vectors: VectorStore,
        troubles: Troubles,
        forget: Callable[[str], None],
        *,
        is_shared: bool,
    ) -> None:
        self.held: dict[UUID, MemsyncError] = {}
        self._vectors, self._troubles, self._forget = vectors, troubles, forget
        self._is_shared = is_shared
        self._slow, self._began = 0, 0.0
        self._outage: StoreUnreachable | None = None

    def leaves_alone(self, collection: str, anchors: Iterable[UUID]) -> bool:
        """Whether it failed a moment ago. Then the memories of these anchors are held."""
        trouble = self._troubles.get(collection)
        if trouble is None or time.monotonic() >= trouble.until:
            return False
        self.held |= dict.fromkeys(anchors, trouble.error)
        return True

    def is_suspect(self, collection: str) -> bool:
        """Whether it failed, and has not taken a write since."""
        trouble = self._troubles.get(collection)
        return trouble is not None and trouble.failures >= _FAILURES_MAX

    def first(self, collection: str, exchanges: Sequence[Exchange]) -> slice:
        """Which of these are to be embedded now: all, or any one where it is suspect."""
        if exchanges and self.is_suspect(collection):
            # Always the same one might be a bad point.
            at = secrets.randbelow(len(exchanges))
            return slice(at, at + 1)
        return slice(None)

    @contextmanager
    def alone(self, collection: str, anchors: Iterable[UUID]) -> Iterator[None]:
        """Around calls of the vector store for one collection: where they fail, the memories of
        these anchors are held.

        Raises: StoreUnreachable where the store is down; in the shared layout whatever is raised.
        """
        self._began = time.monotonic()
        try:
            yield
        except (SchemaMismatch, StoreUnreachable) as error:
            if self._is_shared or isinstance(error, EmbedderUnreachable):
                raise
            if isinstance(error, StoreUnreachable):
                self._slow += time.monotonic() - self._began > _SLOW_S
                self._require_store()
                until = time.monotonic() + HELD_S
                self._troubles[collection] = Trouble(error, _FAILURES_MAX, until)
                if self._slow >= _SLOW_MAX:
                    raise
            self._forget(collection)
            self.held |= dict.fromkeys(anchors, error)

    def send(
        self,
        collection: str,
        points: Sequence[tuple[UUID, Point]],
        write: Callable[[Sequence[Point]], None],
    ) -> dict[PointId, Failure]:
        """Write points, each with its anchor, and return the refusals by anchor. Within `alone`.

        A single point at which the collection fails is held. Raises: StoreUnreachable where that
        is not for one point.
        """
        anchors = {point.id: anchor for anchor, point in points}

        def send(some: Sequence[Point]) -> None:
            write(some)
            self._troubles.pop(collection, None)

        def failed(some: Sequence[Point], error: StoreUnreachable) -> None:
            if self._is_shared:
                raise error
            self._require_store()
            trouble = self._troubles.setdefault(collection, Trouble(error))
            trouble.failures += 1
            if trouble.failures >= _FAILURES_MAX or time.monotonic() - self._began > _PARTS_S:
                raise error
            if len(some) == 1:
                self.held[anchors[some[0].id]] = error

        refused = sent_in_parts([point for _, point in points], send, failed)
        return {anchors[each]: why for each, why in refused.items()}

    def _require_store(self) -> None:
        """Raises: StoreUnreachable where the store takes no writes."""
        if self._outage is None:
            try:
                require_writes(self._vectors)
            except StoreUnreachable as outage:
                self._outage = outage
        if self._outage:
            raise self._outage
