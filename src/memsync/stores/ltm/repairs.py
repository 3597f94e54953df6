"""Writes, mends and removes single points, for repairs: each only while it is what was seen.

It decides what the store itself checks before such a write, and how a mended or a copied payload is
spelled. It reads what a memory that is to be made may stand as already. It knows no finding and no
plan.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point
from memsync.stores.ltm.embedders import Failure
from memsync.stores.ltm.fence import conditions
from memsync.stores.ltm.layouts import persona_of_collection
from memsync.stores.ltm.ledger import Entry
from memsync.stores.ltm.made import Made, sent_in_parts
from memsync.stores.ltm.payload import DEPLOYED, PayloadCodec
from memsync.stores.ltm.standing import in_question
from memsync.stores.ltm.texts import is_as_deployed, said
from memsync.stores.vectors import IndexKind, Schema, VectorStore


class Repairs:
    """The points of one vector store. `shared` is the name of the shared layout's collection."""

    def __init__(self, vectors: VectorStore, shared: str, codec: PayloadCodec) -> None:
        """`codec` spells the payloads of the shared collection."""
        self._vectors = vectors
        self._shared = shared
        self._codec = codec

    def in_question(
        self, collection: str, exchanges: Sequence[Exchange], tolerance_ms: int
    ) -> Iterator[Point]:
        """The points of a persona's collection that may be memories of these exchanges of its
        persona; see `standing.in_question`.
        """
        return in_question(self._vectors, collection, exchanges, tolerance_ms)

    def _codec_of(self, collection: str) -> PayloadCodec:
        return self._codec if collection == self._shared else DEPLOYED

    def patched(
        self, collection: str, point: Point, exchange: Exchange | None
    ) -> dict[str, object]:
        """The payload of this point of the collection, mended; see `PayloadCodec.patched`.

        Without a row, the collection's name says whose it is, where something stands for that.
        """
        deployed, key = collection != self._shared, DEPLOYED.key("persona_id")
        payload = self._codec_of(collection).patched(point, exchange, as_deployed=deployed)
        persona = persona_of_collection(collection) if deployed and exchange is None else None
        return payload | {key: str(persona)} if persona and key in payload else payload

    def has_apps_text(self, collection: str, point: Point, exchange: Exchange) -> bool:
        """Whether this point of the collection has the app's text of the exchange.

        The app may have added to it what no row has.
        """
        memory = self._codec_of(collection).decode(point.payload).memory
        if memory.content is None or not is_as_deployed(memory.content):
            return False
        return said(memory, exchange.user_text, exchange.assistant_text) is not None

    def kept(self, made: Made, point: Point, exchange: Exchange) -> Made:
        """The memory that stands as `point`, to be embedded anew: it keeps the text that it has.

        Its payload is mended as by `patched`, and in the shared layout it names the embedder of
        `made`, which is the exchange's memory, and the form of its text. A point without a text
        becomes that memory.
        """
        collection = made.place.collection
        payload = self.patched(collection, point, exchange)
        text = self._codec_of(collection).decode(payload).memory.text
        if not text:
            return made
        if collection == self._shared:
            payload[self._codec.key("embedder")] = made.payload[self._codec.key("embedder")]
            if self.has_apps_text(collection, point, exchange):
                payload[self._codec.key("text_form")] = "deployed"
        return replace(made, payload=payload, text=text)

    def copied(
        self,
        point: Point,
        source: str,
        target: Place,
        persona_id: UUID | None,
        row: Exchange | None = None,
        noted: Entry | None = None,
    ) -> dict[str, object]:
        """The payload of a copy of the point of `source`, spelled as its new collection is.

        The persona is that of the new collection, else the one given. In a collection of the app's
        the copy of a memory that has a `row` has that one's time, personality and channel. `noted`
        is what the ledger says of the target: where that is this memory, it comes back as it was
        written down.
        """
        copy = Point(target.point_id, point.payload)
        if target.collection == self._shared:
            if source == self._shared:
                return dict(point.payload)
            if noted and noted.says(DEPLOYED.decode(point.payload).memory):
                copy = replace(copy, payload=self._as_noted(copy, noted))
            return self._codec.archived(copy, persona_id=persona_id)
        payload = DEPLOYED.patched(copy, row, as_deployed=True)
        persona = persona_of_collection(target.collection) or persona_id
        if persona is not None:
            payload[DEPLOYED.key("persona_id")] = str(persona)
        return payload

    def _as_noted(self, point: Point, noted: Entry) -> dict[str, object]:
        """The payload with the channel and the time that the ledger has."""
        payload = self._codec.patched(point, None, as_deployed=True)
        values = {"channel_id": noted.channel_id, "created_at": noted.created_at_ms}
        payload |= {self._codec.key(k): v for k, v in values.items() if v is not None}
        return payload

    def restore(self, collection: str, dims: int, indexes: Mapping[str, str | Schema]) -> None:
        """Create a collection that was dropped, with its payload indexes, if it is missing.

        Raises: DimensionMismatch when it exists with vectors of another size.
        """
        kinds = {k: IndexKind(it) if isinstance(it, str) else it for k, it in indexes.items()}
        self._vectors.create(collection, dims, kinds)

    def put(
        self, collection: str, points: Sequence[Point], seen: Mapping[PointId, Point]
    ) -> Mapping[PointId, Failure]:
        """Write points whole: each over the point that was seen under its id, or where none was.

        A point that another writer put there or removed since is left as it is, without an error;
        read it back to know. How sure this is: see `conditions`. Returns the refusals by id.
        """
        where_seen = conditions(self._vectors, collection, seen.values())
        new = [each for each in points if each.id not in seen]
        over = [each for each in points if each.id in seen]
        absent = partial(self._vectors.upsert, collection, only_absent=True)
        as_seen = partial(self._vectors.upsert, collection, only_where=where_seen)
        return sent_in_parts(new, absent) | sent_in_parts(over, as_seen)

    def overwrite(
        self, collection: str, points: Sequence[Point], seen: Mapping[PointId, Point]
    ) -> Mapping[PointId, Failure]:
        """Give points that were seen the payloads of these, and leave their vectors as they are.

        As `put`, also in what it returns.
        """
        where_seen = conditions(self._vectors, collection, seen.values())

        def send(some: Sequence[Point]) -> None:
            self._vectors.overwrite_payloads(
                collection, {each.id: each.payload for each in some}, only_where=where_seen
            )

        return sent_in_parts(points, send)

    def remove(self, collection: str, seen: Mapping[PointId, Point]) -> Mapping[PointId, Failure]:
        """Remove points that were seen. As `put`, and a point that is gone is no error."""
        points = list(seen.values())
        where_seen = conditions(self._vectors, collection, points)

        def send(some: Sequence[Point]) -> None:
            self._vectors.delete(collection, [each.id for each in some], only_where=where_seen)

        return sent_in_parts(points, send)

    def catch_up(self, collection: str) -> None:
        """Wait until the store has done the writes to the collection that it had taken before.

        Raises: StoreUnreachable where it does not come to it in time.
        """
        self._vectors.catch_up(collection)

    def drop(self, collection: str) -> None:
        """Remove a collection with all its points; nothing happens when there is none."""
        self._vectors.drop(collection)
