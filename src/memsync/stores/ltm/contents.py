"""Asks what collections hold: whose memories, by which embedder, of which size."""

from collections import Counter

from memsync.errors import DimensionMismatch
from memsync.model.ids import PersonaId
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.layouts import is_deployed, persona_of_collection
from memsync.stores.ltm.payload import DEPLOYED, PayloadCodec
from memsync.stores.vectors import VectorStore

_PAGE_POINTS = 1000
COSINE = "Cosine"
"""The one distance by which memsync compares vectors, as Qdrant calls it."""


def embedders_of_a_page(vectors: VectorStore, collection: str, codec: PayloadCodec) -> Counter[str]:
    """The embedders that memories of one page name, and how many memories name each."""
    page = vectors.scroll(collection, start=None, limit=_PAGE_POINTS)
    said = (point.payload.get(codec.key("embedder")) for point in page.points)
    return Counter(each for each in said if isinstance(each, str))


def remembers(
    vectors: VectorStore, persona_id: PersonaId, shared: str, codec: PayloadCodec
) -> bool:
    """Whether a collection of memories has one of the persona; `codec` is the shared one's."""
    for name in vectors.collections():
        if persona_of_collection(name) == persona_id and vectors.count(name):
            return True
        if name == shared or is_deployed(name):
            key = (codec if name == shared else DEPLOYED).key("persona_id")
            if vectors.count(name, {key: str(persona_id)}):
                return True
    return False


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
