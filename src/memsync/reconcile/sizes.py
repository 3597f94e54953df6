"""Tells in which size a copy may make a collection, because the app has to write there afterwards.

A copy keeps the vector of its point, and an old collection may be of an older embedder. The other
collections of the layout tell the size, and where there is none, the embedder that the settings
name. It decides nothing of a collection that stands.
"""

import contextlib
from collections.abc import Collection
from itertools import islice

from memsync.errors import MemsyncError, SchemaMismatch
from memsync.model.wording import count, listed
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import CollectionKind, Layout

_HOMES_MAX = 16
"""So many of them are looked at. An app has one for each persona."""


def why_not_made(
    ltm: LongTermMemory, settings: Settings, collection: str, dims: int, sources: Collection[str]
) -> str | None:
    """Why no collection of this name and size may be made; None if it may, or if it stands.

    `sources` are the collections that are copied from.
    """
    if ltm.stands(collection):
        return None
    sizes = _sizes_of_homes(ltm, sources) or _size_of_embedder(ltm, settings)
    if not sizes or dims in sizes:
        return None
    others = listed([f"{each:,}" for each in sorted(sizes)])
    given = count(dims, "dimension")
    return (
        f"{collection} does not stand, and would get vectors of {given}, where new memories have "
        f"{others}, so that none could be written there. Acknowledge the finding, or let the app "
        "embed the memory anew"
    )


def _sizes_of_homes(ltm: LongTermMemory, sources: Collection[str]) -> set[int]:
    if ltm.layout is Layout.SHARED:
        return set()
    homes = (
        each
        for each in ltm.collections()
        if ltm.kind_of(each) is CollectionKind.PERSONA and each not in sources
    )
    sizes = set()
    for each in islice(homes, _HOMES_MAX):
        with contextlib.suppress(SchemaMismatch):
            if info := ltm.describe(each):
                sizes.add(info.dims)
    return sizes


def _size_of_embedder(ltm: LongTermMemory, settings: Settings) -> set[int]:
    """Of the embedder, if the settings name one. Without it a copy is made as ever."""
    with contextlib.suppress(MemsyncError):
        if "embedder" in settings.model_fields_set:
            return {ltm.embedder.dims}
    return set()
