"""Keeps the trouble of one persona's collection from the memories of the others.

It decides what is held with such a collection, and when the store itself counts as down: where it
does not answer a question about no collection, or where several collections keep a batch waiting.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from memsync.errors import EmbedderUnreachable, MemsyncError, SchemaMismatch, StoreUnreachable
from memsync.stores.vectors import VectorStore

_SLOW_S = 1.0
_SLOW_MAX = 3
"""Of collections that fail only after so long, so many in one batch are a store that is down."""


class Apart:
    """The collections that fail in one batch. `held` has why the memories of each of them wait.

    With `is_shared` all memories lie in one collection, and its trouble is everybody's. `forget`
    makes the store be asked about a collection the next time.
    """

    def __init__(
        self, vectors: VectorStore, forget: Callable[[str], None], *, is_shared: bool
    ) -> None:
        self.held: dict[UUID, MemsyncError] = {}
        self._vectors, self._forget, self._is_shared = vectors, forget, is_shared
        self._slow = 0

    @contextmanager
    def alone(self, collection: str, anchors: Iterable[UUID]) -> Iterator[None]:
        """Around work on one collection: where it fails, the memories of these anchors are held.

        Raises: StoreUnreachable where the store is down; in the shared layout whatever is raised.
        """
        began = time.monotonic()
        try:
            yield
        except (SchemaMismatch, StoreUnreachable) as error:
            if self._is_shared or isinstance(error, EmbedderUnreachable):
                raise
            if isinstance(error, StoreUnreachable):
                self._slow += time.monotonic() - began > _SLOW_S
                if self._slow >= _SLOW_MAX:
                    raise
                self._vectors.collections()
            self._forget(collection)
            self.held |= dict.fromkeys(anchors, error)
