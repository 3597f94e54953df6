"""Long-term memory: its form in Qdrant, the embedders, and the class that reads and writes it."""

from memsync.stores.ltm.embedders import Embedder, Failure
from memsync.stores.ltm.store import LongTermMemory, Written

__all__ = ["Embedder", "Failure", "LongTermMemory", "Written"]
