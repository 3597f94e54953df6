"""Long-term memory: its form in Qdrant, the embedders, and the class that reads and writes it."""

from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.store import LongTermMemory, Recollection

__all__ = ["Embedder", "LongTermMemory", "Recollection"]
