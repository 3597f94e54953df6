"""The vector store: its protocol, the drivers that implement it, and how one is opened.

It stores and finds points, and does not know what a memory is. No other package imports a client of
Qdrant.
"""

from memsync.stores.vectors.open import open_vectors, require_folder
from memsync.stores.vectors.protocol import (
    AnyOf,
    CollectionInfo,
    IndexKind,
    Schema,
    VectorStore,
    Where,
    pages,
    scan,
)

__all__ = [
    "AnyOf",
    "CollectionInfo",
    "IndexKind",
    "Schema",
    "VectorStore",
    "Where",
    "open_vectors",
    "pages",
    "require_folder",
    "scan",
]
