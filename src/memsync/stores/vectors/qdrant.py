"""The vector store on qdrant-client: a server by REST or gRPC, or the client's own local mode.

It implements `stores.vectors.protocol` and does not know what a payload means. `qdrant_errors`
translates the client's failures.

The local mode has no payload indexes: every filter reads every point. The driver therefore notes
the indexes that it was asked to create in the collection's metadata, and `describe` reports those,
so that an audit finds the same index missing here and on a server.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from qdrant_client import QdrantClient, models

from memsync import forks
from memsync.errors import InvalidInput, MemsyncError, StoreUnreachable
from memsync.model.ids import PointId, point_order
from memsync.model.records import Hit, Point, Vector
from memsync.stores.vectors.points import (
    BATCH_POINTS_MAX,
    another_size,
    batches,
    by_condition,
    condition_batches,
    embeddable,
    forked,
    payload_batches,
    picked,
)
from memsync.stores.vectors.protocol import AnyOf, CollectionInfo, Ids, Indexes, Page, Where
from memsync.stores.vectors.qdrant_errors import DRIVER_ERRORS, is_not_found, meaning
from memsync.stores.vectors.qdrant_wire import (
    LOCAL_INDEXES,
    filter_of,
    filter_of_any,
    filter_of_one,
    info_of,
    is_allowed,
    nothing,
    point_id_of,
    point_of,
    schema_of,
    upsert_of,
    wire_id,
)

_LOCAL_PAGE = 1000
CONDITIONAL_SINCE = (1, 17)
"""The first server version that knows update_mode; older ones ignore the field."""


class QdrantStore:
    """A `VectorStore` on qdrant-client.

    From 1.17 on, the server itself checks the condition of a write, and so does the local mode. For
    an older server the points are read and compared first, and another writer can come between.
    """

    def __init__(
        self,
        client: QdrantClient,
        label: str,
        again: Callable[[], QdrantClient] = QdrantClient,
        *,
        on_close: ExitStack | None = None,
    ) -> None:
        """`again` makes another client of the same server; the local mode never needs one.

        `on_close` is closed with the store, which releases the folder of the local mode.
        """
        self._made: QdrantClient | None = client
        self._label = label
        self._again = again
        self._on_close = on_close or ExitStack()
        self._local = client.init_options["path"] or client.init_options["location"] == ":memory:"
        self._secret = client.init_options["api_key"]
        self._closed = False
        self._forked_from: int | None = None
        self._conditional: bool | None = None
        forks.watch(self)

    @property
    def _client(self) -> QdrantClient:
        """The client of this process, made by the first call after a fork."""
        if self._made is None:
            self._made = self._again()
        return self._made

    @property
    def label(self) -> str:
        """The store in a word or two for messages, without secrets."""
        return self._label

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        with self._translated():
            return sorted(each.name for each in self._client.get_collections().collections)

    def describe(self, collection: str) -> CollectionInfo | None:
        """See the protocol.

        Raises: SchemaMismatch when it keeps vectors under names, or several for a point.
        """
        with self._translated(collection):
            try:
                info = self._client.get_collection(collection)
            except DRIVER_ERRORS as error:
                if not is_not_found(error):
                    raise
                # A proxy may say so, too, and only the store's own word is taken.
                if not self._client.collection_exists(collection):
                    return None
                info = self._client.get_collection(collection)
            return info_of(collection, info, is_local=bool(self._local))

    def held_back(self, collection: str) -> int:
        """How many points are written, and shown to no read before they are indexed."""
        if self._local:
            return 0
        with self._translated(collection):
            queue = self._client.get_collection(collection).update_queue
            return (queue and queue.deferred_points) or 0

    def catch_up(self, collection: str) -> None:
        """Send writes that change nothing, and wait for them, because a server writes in turn.

        They are as many as a request may have, because those of two requests come by turns.
        """
        if not self._local:
            self._update(collection, [nothing()] * BATCH_POINTS_MAX)

    def aliases(self) -> dict[str, str]:
        """Other names of collections, each with the collection that it stands for."""
        with self._translated():
            found = self._client.get_aliases().aliases
            return {each.alias_name: each.collection_name for each in found}

    def create(self, collection: str, dims: int, indexes: Indexes) -> None:
        """Make the collection and its payload indexes where they are missing; else do nothing."""
        info = self.describe(collection)
        if info is None:
            info = self._create(collection, dims)
        if info.dims != dims:
            raise another_size(collection, info.dims, dims)
        held = (info.indexes, info.other_indexes)
        missing = {k: kind for k, kind in indexes.items() if all(h.get(k) != kind for h in held)}
        if not missing:
            return
        with self._translated(collection):
            if self._local:
                kept = embeddable({**info.indexes, **missing})
                noted = {LOCAL_INDEXES: {key: str(kind) for key, kind in kept.items()}}
                self._client.update_collection(collection, metadata=noted)
                return
            for key, kind in missing.items():
                self._completed(
                    self._client.create_payload_index(
                        collection, key, field_schema=schema_of(kind), wait=True
                    )
                )

    def _create(self, collection: str, dims: int) -> CollectionInfo:
        vectors = models.VectorParams(size=dims, distance=models.Distance.COSINE)
        try:
            with self._translated(collection):
                self._client.create_collection(collection, vectors_config=vectors)
        except MemsyncError:
            # Another process may have created it after `describe`.
            made = self.describe(collection)
            if made is None:
                raise
            return made
        return CollectionInfo(dims, models.Distance.COSINE.value, {})

    def drop(self, collection: str) -> None:
        """Remove the collection with all its points; nothing happens when there is none."""
        with self._translated(collection):
            self._client.delete_collection(collection)

    def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        *,
        only_absent: bool = False,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Write points whole; see the protocol. A filter's keys must be indexed (strict mode)."""
        if only_absent and only_where is not None:
            raise InvalidInput("only_absent and only_where exclude each other")
        mode = None
        if only_absent:
            mode = models.UpdateMode.INSERT_ONLY
        elif only_where is not None:
            # Without this mode the filter applies to existing points only, and others are inserted.
            mode = models.UpdateMode.UPDATE_ONLY
        for batch in batches(points):
            groups = by_condition(batch, only_where)
            if mode and not self._is_conditional():
                standing = {p.id: p for p in self.retrieve(collection, [p.id for p in batch])}
                allowed = [
                    each
                    for where, some in groups
                    for each in some
                    if is_allowed(standing.get(each.id), where)
                ]
                groups = [(None, allowed)] if allowed else []
            sent = mode if self._conditional else None
            if groups:
                self._update(collection, [upsert_of(some, where, sent) for where, some in groups])

    def overwrite_payloads(
        self,
        collection: str,
        payloads: Mapping[PointId, Mapping[str, object]],
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Replace the payloads of existing points; see the protocol.

        Every server checks these conditions itself. A filter's keys must be indexed (strict mode).
        """
        only_where = only_where or {}
        for batch in payload_batches(payloads):
            # By filter, because the server takes an id that is not there for an error.
            self._update(
                collection,
                [
                    models.OverwritePayloadOperation(
                        overwrite_payload=models.SetPayload(
                            payload=dict(payload), filter=filter_of_one(each, only_where.get(each))
                        )
                    )
                    for each, payload in batch
                ],
            )

    def delete(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Remove the points; ids that are not there are no error."""
        only_where = only_where or {}
        plain = [wire_id(each) for each in ids if not only_where.get(each)]
        if plain:
            with self._translated(collection):
                selector = models.PointIdsList(points=plain)
                self._completed(self._client.delete(collection, selector, wait=True))
        conditional = {each: where for each in ids if (where := only_where.get(each))}
        for some in condition_batches(conditional):
            self._update(
                collection,
                [
                    models.DeleteOperation(
                        delete=models.FilterSelector(filter=filter_of_one(*each))
                    )
                    for each in some
                ],
            )

    def _update(self, collection: str, operations: Sequence[models.UpdateOperation]) -> None:
        with self._translated(collection):
            for result in self._client.batch_update_points(collection, operations, wait=True):
                self._completed(result)

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        """The points that exist among `ids`, in id order."""
        if not ids:
            return []
        wired = list(dict.fromkeys(wire_id(each) for each in ids))
        with self._translated(collection):
            records = self._client.retrieve(
                collection, wired, with_payload=True, with_vectors=vectors
            )
            return sorted(map(point_of, records), key=lambda point: point_order(point.id))

    def scroll(
        self,
        collection: str,
        *,
        start: PointId | None,
        limit: int,
        vectors: bool = False,
        any_of: AnyOf | None = None,
        where: Where | None = None,
    ) -> Page:
        """Up to `limit` points in id order, from the first whose id is `start` or after it."""
        if self._local and any_of:
            # It would compare each value with hundreds of texts, one after the other.
            read = partial(self.scroll, collection, limit=_LOCAL_PAGE, vectors=vectors)
            return picked(lambda at: read(start=at), start, limit, any_of)
        with self._translated(collection):
            records, following = self._client.scroll(
                collection,
                scroll_filter=filter_of(where) if any_of is None else filter_of_any(any_of),
                limit=limit,
                offset=None if start is None else wire_id(start),
                with_payload=True,
                with_vectors=vectors,
            )
            next_start = None if following is None else point_id_of(following)
            return Page([point_of(each) for each in records], next_start)

    def query(
        self,
        collection: str,
        vector: Vector,
        *,
        where: Where,
        limit: int,
        score_threshold: float | None = None,
    ) -> list[Hit]:
        """The `limit` points nearest to `vector` among those that match, best first."""
        if self._local:
            self._fits(collection, vector)
        with self._translated(collection):
            found = self._client.query_points(
                collection,
                query=list(vector),
                query_filter=filter_of(where),
                limit=limit,
                score_threshold=score_threshold,
                with_payload=True,
            )
            return [Hit(point_of(each), each.score) for each in found.points]

    def _fits(self, collection: str, vector: Vector) -> None:
        # For a vector of another size the local mode raises only an error of numpy's.
        info = self.describe(collection)
        if info and info.dims != len(vector):
            raise another_size(collection, info.dims, len(vector))

    def count(self, collection: str, where: Where | None = None, *, ids: Ids = None) -> int:
        """How many points match, exactly."""
        with self._translated(collection):
            return self._client.count(collection, filter_of(where, ids), exact=True).count

    def facet(self, collection: str, key: str, *, limit: int) -> dict[str | int, int]:
        """How many points have each value at this payload key, exactly."""
        with self._translated(collection):
            hits = self._client.facet(collection, key, limit=limit, exact=True).hits
            # A server goes on listing values whose points are gone.
            return {each.value: each.count for each in hits if each.count}

    def close(self) -> None:
        """Write everything to disk and release the store. Closing twice is no error."""
        if not self._closed:
            self._closed = True
            if self._forked_from is None and self._made is not None:
                with self._on_close:
                    self._made.close()

    def begin_anew(self) -> None:
        """Use a client of its own in a forked process; a local store stays the parent's."""
        forks.keep_for_ever((self._made, self._on_close))
        if self._local:
            self._forked_from = os.getppid()
        else:
            self._made = None

    def _is_conditional(self) -> bool:
        if self._conditional is None:
            with self._translated():
                version = self._client.info().version
            numbers = version.split(".")[:2]
            known = len(numbers) == len(CONDITIONAL_SINCE) and all(map(str.isdecimal, numbers))
            self._conditional = known and tuple(map(int, numbers)) >= CONDITIONAL_SINCE
        return self._conditional

    def _completed(self, result: models.UpdateResult) -> None:
        if result.status is not models.UpdateStatus.COMPLETED:
            raise StoreUnreachable(
                f"{self._label} took a write but did not finish it in time; repeat it when the "
                "server is less busy"
            )

    @contextmanager
    def _translated(self, collection: str | None = None) -> Iterator[None]:
        if self._closed:
            raise StoreUnreachable(f"{self._label} is closed; open it again to use it")
        if self._forked_from is not None:
            raise forked(self._label, self._forked_from)
        try:
            yield
        except MemsyncError:
            raise
        except DRIVER_ERRORS as error:
            # The chain is cut, because the driver's own text may quote the headers that it sent.
            raise meaning(
                error, label=self._label, collection=collection, secret=self._secret
            ) from None
