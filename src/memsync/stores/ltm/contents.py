"""Asks what collections hold: whose memories, by which embedder, of which size."""

from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from memsync.errors import DimensionMismatch, StoreUnreachable
from memsync.model.wording import count
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.layouts import is_deployed, persona_of_collection
from memsync.stores.ltm.payload import DEPLOYED, PayloadCodec
from memsync.stores.vectors import VectorStore, pages

COSINE = "Cosine"
"""The one distance by which memsync compares vectors, as Qdrant calls it."""


def embedders_of_a_page(vectors: VectorStore, collection: str, codec: PayloadCodec) -> Counter[str]:
    """The embedders that memories of one page name, and how many memories name each."""
    page = next(pages(vectors, collection))
    said = (point.payload.get(codec.key("embedder")) for point in page.points)
    return Counter(each for each in said if isinstance(each, str))


def remembered(
    vectors: VectorStore, personas: Collection[UUID], shared: str, codec: PayloadCodec
) -> set[UUID]:
    """Those of these personas of whom a collection of memories has one; `codec` is the shared
    one's. Each collection is asked about all of them at once.
    """
    found: set[UUID] = set()
    for name in vectors.collections():
        owner = persona_of_collection(name)
        if owner and owner in personas and owner not in found and vectors.count(name):
            found.add(owner)
        if name == shared or is_deployed(name):
            key = (codec if name == shared else DEPLOYED).key("persona_id")
            found |= _named(vectors, name, key, [each for each in personas if each not in found])
    return found


def _named(vectors: VectorStore, collection: str, key: str, personas: Sequence[UUID]) -> set[UUID]:
    """Those of these personas whom a payload names there. A half of them is asked about where
    somebody is named, and so on.
    """
    where = {key: frozenset(map(str, personas))}
    if not personas or not vectors.count(collection, where):
        return set()
    if len(personas) == 1:
        return set(personas)
    middle = len(personas) // 2
    halves = (personas[:middle], personas[middle:])
    return set().union(*(_named(vectors, collection, key, half) for half in halves))


def require_shown(vectors: VectorStore, collection: str) -> None:
    """Refuse to read a collection of which the store does not show every point.

    Raises: StoreUnreachable.
    """
    if held_back := vectors.held_back(collection):
        raise StoreUnreachable(
            f"{vectors.label} holds {count(held_back, 'point')} of {collection!r} back, and shows "
            "them to no read before they are indexed. Wait until the collection is green"
        )


def require_size(collection: str, dims: int, embedder: Embedder) -> None:
    """Refuse a persona's collection of another size than the embedder's vectors.

    Raises: DimensionMismatch.
    """
    if dims != embedder.dims:
        raise DimensionMismatch(
            f"{collection!r} holds vectors of {dims} dimensions, and the embedder {embedder.name} "
            f"makes {embedder.dims}: its new memories wait. Set `embedder` to the one that the app "
            "uses",
            expected=dims,
            actual=embedder.dims,
        )
