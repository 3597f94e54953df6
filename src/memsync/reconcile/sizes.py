"""Tells in which size a copy may make a collection: the app has to write there afterwards.

A copy keeps the vector of its point, and an old collection may be of an older embedder. The
embedder that the settings name tells the size, and without one the other collections of the layout,
where they agree. It decides nothing of a collection that stands.
"""

import contextlib
from collections.abc import Collection

from memsync.errors import MemsyncError, SchemaMismatch
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import CollectionKind, Layout


class Sizes:
    """The sizes of collections, each looked at once."""

    def __init__(self, ltm: LongTermMemory, settings: Settings) -> None:
        self._ltm = ltm
        self._settings = settings
        self._homes: dict[str, int | None] = {}

    def why_not_made(self, collection: str, dims: int, sources: Collection[str]) -> str | None:
        """Why no collection of this name and size may be made; None if it may, or if it stands.

        `sources` are the collections that are copied from.
        """
        if self._ltm.stands(collection):
            return None
        whose, size = "the embedder has", self._of_embedder()
        if size is None:
            whose, size = "other collections have", self._of_homes(sources)
        if size in {None, dims}:
            return None
        return (
            f"{collection} does not stand, and would get vectors of {count(dims, 'dimension')}, "
            f"where {whose} {size:,}, so that no new memory could be written there. Acknowledge "
            "the finding, or let the app embed the memory anew"
        )

    def _of_embedder(self) -> int | None:
        """Of the one that the settings name; None, too, where it does not tell."""
        with contextlib.suppress(MemsyncError):
            if "embedder" in self._settings.model_fields_set:
                return self._ltm.embedder.dims
        return None

    def _of_homes(self, sources: Collection[str]) -> int | None:
        """The one that all the app's collections have; None where there is none, or several."""
        if self._ltm.layout is Layout.SHARED:
            return None
        for name in self._ltm.collections():
            if self._ltm.kind_of(name) is CollectionKind.PERSONA and name not in self._homes:
                self._homes[name] = self._of(name)
        sizes = {size for name, size in self._homes.items() if size and name not in sources}
        return sizes.pop() if len(sizes) == 1 else None

    def _of(self, name: str) -> int | None:
        with contextlib.suppress(SchemaMismatch):
            if info := self._ltm.describe(name):
                return info.dims
        return None
