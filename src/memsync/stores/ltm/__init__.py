"""Long-term memory: its form in Qdrant, the embedders, and the class that reads and writes it."""

from memsync.stores.ltm.contents import COSINE
from memsync.stores.ltm.embedders import Embedder, Failure
from memsync.stores.ltm.made import Made, Written
from memsync.stores.ltm.store import LongTermMemory
from memsync.stores.vectors import CollectionInfo

__all__ = ["COSINE", "CollectionInfo", "Embedder", "Failure", "LongTermMemory", "Made", "Written"]
