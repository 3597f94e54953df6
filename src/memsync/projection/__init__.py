"""From exchanges to memories: embedders, and the one place that writes memories."""

from memsync.projection.embedders import Embedder, load_embedder
from memsync.projection.projector import Projector

__all__ = ["Embedder", "Projector", "load_embedder"]
