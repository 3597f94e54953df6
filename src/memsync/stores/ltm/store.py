"""Writes memories: what an exchange says in Postgres becomes its point, whole.

The one place that makes points, so that a memory is the same whoever asks for it: the relay, a
repair. It never deletes: a memory whose exchange is gone is for the audit to judge.
"""

from collections.abc import Sequence
from uuid import UUID

from memsync.model.records import Exchange, Point
from memsync.settings import Settings
from memsync.stores.history.exchanges import exchanges_by_anchor
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Session
from memsync.stores.vectors.protocol import VectorStore


class Projector:
    """Makes the memories of exchanges in the settings' collection."""

    def __init__(self, vectors: VectorStore, settings: Settings, embedder: Embedder) -> None:
        self.vectors = vectors
        self.collection = settings.collection
        self.codec = PayloadCodec(settings.payload_style)
        self.embedder = embedder
        self._prepared = False

    def prepare(self) -> None:
        """Make the collection and its indexes if they are missing; only the first call asks.

        Raises: DimensionMismatch when the collection was made for another embedder.
        """
        if not self._prepared:
            self.vectors.create(self.collection, self.embedder.dims, self.codec.indexes)
            self._prepared = True

    def points(self, exchanges: Sequence[Exchange]) -> list[Point]:
        """The points of these exchanges, vectors included."""
        made = self.embedder.documents([each.content for each in exchanges])
        return [
            Point(each.anchor_id, self.codec.encode(each, self.embedder.name), vector)
            for each, vector in zip(exchanges, made, strict=True)
        ]

    def project(self, session: Session, anchor_ids: Sequence[UUID]) -> int:
        """Write the memories of these anchors as they are now; how many there were to write.

        An anchor that forms no exchange (any more) is passed over.
        """
        self.prepare()
        exchanges = list(exchanges_by_anchor(session, anchor_ids).values())
        if exchanges:
            self.vectors.upsert(self.collection, self.points(exchanges))
        return len(exchanges)
