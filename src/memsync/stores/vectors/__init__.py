"""The vector store: what it promises, the drivers that keep the promise, and which one is opened.

Decides how points are stored and found; knows no memory. No other room imports a client of Qdrant.
"""

from memsync.stores.vectors.open import open_standing, open_vectors
from memsync.stores.vectors.protocol import (
    CollectionInfo,
    IndexKind,
    VectorStore,
    Where,
    scan,
)

__all__ = [
    "CollectionInfo",
    "IndexKind",
    "VectorStore",
    "Where",
    "open_standing",
    "open_vectors",
    "scan",
]
