"""From exchanges to memories: embedders, and the one place that writes memories."""

from memsync.stores.ltm.embedders import Embedder, load_embedder
from memsync.stores.ltm.store import Projector

__all__ = ["Embedder", "Projector", "load_embedder"]
