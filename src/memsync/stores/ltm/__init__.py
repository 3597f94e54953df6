"""Long-term memory: what a memory is in Qdrant, the embedders, and the one reader and writer."""

from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.store import LongTermMemory, Recollection

__all__ = ["Embedder", "LongTermMemory", "Recollection"]
