"""The vector store on qdrant-edge: Qdrant's engine in this process, with a folder per collection.

One lock for the whole directory keeps other processes out. A collection's folder is created and
removed by renaming, so that a crash leaves it whole or absent. The driver does not know what a
payload means.
"""

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from threading import RLock
from typing import cast
from urllib.parse import quote, unquote

import qdrant_edge as engine

from memsync import forks
from memsync.errors import (
    DimensionMismatch,
    InvalidInput,
    MemsyncError,
    SchemaMismatch,
    StoreUnreachable,
)
from memsync.model.ids import PointId, point_order
from memsync.model.records import Hit, Point, Vector
from memsync.stores.folder_lock import FolderLock, busy, hold
from memsync.stores.vectors.edge_wire import (
    SCHEMAS,
    filter_of,
    filter_of_any,
    filter_of_one,
    kind_of,
    point_of,
)
from memsync.stores.vectors.points import (
    another_size,
    batches,
    by_condition,
    checked_id,
    embeddable,
    forked,
    misformed,
    payload_batches,
)
from memsync.stores.vectors.protocol import AnyOf, CollectionInfo, Ids, Indexes, Page, Where

LOCK_FILE = ".lock"
_PASSING = ".passing-"
"""Prefix of folders that are being made or removed. No collection's folder starts with a dot."""
_FOLDER_CHARS_MAX = 255
_OPEN_MAX = 16
"""At most so many collections are open at once: the engine maps 34 MB or more of each into memory,
and its files count against the limits of the process. The one not used for longest is closed.
"""


def open_edge(directory: Path) -> "EdgeStore":
    """The store in `directory`, which is created if it is missing.

    Raises: StoreBusy when it is open elsewhere; StoreUnreachable when it cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = hold(directory / LOCK_FILE, _label(directory), server="Qdrant")
    except OSError as error:
        raise StoreUnreachable(
            f"cannot use {directory}: {error.strerror}; name another folder or mend this one"
        ) from None
    for left_over in directory.glob(f"{_PASSING}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    return EdgeStore(directory, lock)


def _label(directory: Path) -> str:
    return f"the embedded Qdrant engine in {directory}"


class EdgeStore:
    """A `VectorStore` on qdrant-edge. `lock` is the directory's, held until `close`.

    A write that has returned is in the engine's log and survives a crash of the process; `close`
    flushes it.
    """

    def __init__(self, directory: Path, lock: FolderLock) -> None:
        self._directory = directory
        self._lock = lock
        self._shards: OrderedDict[str, engine.EdgeShard] = OrderedDict()
        self._guard = RLock()
        self._forked_from: int | None = None
        forks.watch(self)

    @property
    def label(self) -> str:
        """The store in a word or two for messages, without secrets."""
        return _label(self._directory)

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        with self._translated():
            folders = (each for each in self._directory.iterdir() if each.is_dir())
            return sorted(unquote(each.name) for each in folders if each.name[0] != ".")

    def describe(self, collection: str) -> CollectionInfo | None:
        """See the protocol. Indexes of kinds that memsync never makes are left out."""
        with self._translated(collection):
            folder = self._folder(collection)
            if not folder.is_dir():
                return None
            schema = self._shard(collection).info().payload_schema
            config = json.loads((folder / "edge_config.json").read_text())["vectors"].get("")
            if config is None or config.get("multivector_config"):
                raise misformed(collection, None if config else ())
            kinds = {key: kind_of(index) for key, index in schema.items()}
            indexes = {key: kind for key, kind in kinds.items() if kind}
            return CollectionInfo(config["size"], config["distance"], indexes)

    def held_back(self, collection: str) -> int:  # noqa: ARG002  of the protocol
        """How many points no read shows yet. The engine has none."""
        return 0

    def catch_up(self, collection: str) -> None:
        """Nothing: each call returns when its write is done."""

    def aliases(self) -> dict[str, str]:
        """Other names of collections. The engine has none."""
        return {}

    def create(self, collection: str, dims: int, indexes: Indexes) -> None:
        """Make the collection and its payload indexes where they are missing; else do nothing."""
        with self._translated(collection):
            if not self._folder(collection).is_dir():
                self._make(collection, dims)
            info = self.describe(collection)
            if info is not None and info.dims != dims:
                raise another_size(collection, info.dims, dims)
            held = info.indexes if info else {}
            for key, kind in embeddable(indexes).items():
                if held.get(key) != kind:
                    self._shard(collection).update(
                        engine.UpdateOperation.create_field_index(key, SCHEMAS[kind])
                    )

    def _make(self, collection: str, dims: int) -> None:
        config = engine.EdgeConfig(
            vectors=engine.EdgeVectorParams(size=dims, distance=engine.Distance.Cosine)
        )
        # The engine loads a folder in which files are missing as a collection with fewer points,
        # so the folder must appear whole or not at all.
        passing = self._passing()
        shard = engine.EdgeShard.create(str(passing), config)
        shard.flush()
        shard.close()
        passing.rename(self._folder(collection))

    def drop(self, collection: str) -> None:
        """Remove the collection with all its points; nothing happens when there is none."""
        with self._translated(collection):
            folder = self._folder(collection)
            if shard := self._shards.pop(collection, None):
                shard.close()
            if folder.is_dir():
                passing = self._passing()
                folder.rename(passing)
                shutil.rmtree(passing)

    def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        *,
        only_absent: bool = False,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Write points whole; see the protocol."""
        if only_absent and only_where is not None:
            raise InvalidInput("only_absent and only_where exclude each other")
        mode = engine.UpdateMode.Upsert
        if only_absent:
            mode = engine.UpdateMode.InsertOnly
        elif only_where is not None:
            mode = engine.UpdateMode.UpdateOnly
        with self._translated(collection):
            shard = self._shard(collection)
            for batch in batches(points):
                for where, some in by_condition(batch, only_where):
                    edge_points = [
                        engine.Point(each.id, list(each.vector or ()) or {}, dict(each.payload))
                        for each in some
                    ]
                    shard.update(
                        engine.UpdateOperation.upsert_points(
                            edge_points, condition=filter_of(where), update_mode=mode
                        )
                    )

    def overwrite_payloads(
        self,
        collection: str,
        payloads: Mapping[PointId, Mapping[str, object]],
        *,
        only_where: Mapping[PointId, Where] | None = None,
    ) -> None:
        """Replace the payloads of existing points; see the protocol."""
        only_where = only_where or {}
        with self._translated(collection):
            shard = self._shard(collection)
            for batch in payload_batches(payloads):
                for point_id, payload in batch:
                    # By filter, because the engine takes an id that is not there for an error.
                    those = filter_of_one(point_id, only_where.get(point_id))
                    shard.update(
                        engine.UpdateOperation.overwrite_payload_by_filter(those, dict(payload))
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
        wired: list[engine.PointId] = [checked_id(each) for each in ids if not only_where.get(each)]
        with self._translated(collection):
            shard = self._shard(collection)
            shard.update(engine.UpdateOperation.delete_points(wired))
            for each in ids:
                if where := only_where.get(each):
                    those = filter_of_one(each, where)
                    shard.update(engine.UpdateOperation.delete_points_by_filter(those))

    def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        """The points that exist among `ids`, in id order."""
        wired: list[engine.PointId] = [checked_id(each) for each in dict.fromkeys(ids)]
        with self._translated(collection):
            records = self._shard(collection).retrieve(wired, True, vectors)  # noqa: FBT003  positional in the engine
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
        request = engine.ScrollRequest(
            offset=None if start is None else checked_id(start),
            limit=_checked_limit(limit),
            filter=filter_of(where) if any_of is None else filter_of_any(any_of),
            with_payload=True,
            with_vector=vectors,
        )
        with self._translated(collection):
            records, following = self._shard(collection).scroll(request)
            return Page([point_of(each) for each in records], cast("PointId | None", following))

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
        request = engine.QueryRequest(
            limit=_checked_limit(limit),
            query=engine.Query.Nearest(list(vector)),
            filter=filter_of(where),
            score_threshold=score_threshold,
            with_payload=True,
            with_vector=False,
        )
        with self._translated(collection):
            found = self._shard(collection).query(request)
            return [Hit(point_of(each), each.score) for each in found]

    def count(self, collection: str, where: Where | None = None, *, ids: Ids = None) -> int:
        """How many points match, exactly."""
        with self._translated(collection):
            request = engine.CountRequest(exact=True, filter=filter_of(where, ids))
            return self._shard(collection).count(request)

    def facet(self, collection: str, key: str, *, limit: int) -> dict[str | int, int]:
        """How many points have each value at this payload key, exactly."""
        with self._translated(collection):
            request = engine.FacetRequest(key, limit, exact=True)
            hits = self._shard(collection).facet(request).hits
            # The engine goes on listing values whose points are gone.
            return {each.value: each.count for each in hits if each.count}

    def close(self) -> None:
        """Write everything to disk and release the store. Closing twice is no error."""
        with self._guard:
            if self._lock.is_released or self._forked_from is not None:
                return
            try:
                with self._translated():
                    for shard in self._shards.values():
                        shard.flush()
                        shard.close()
            finally:
                self._shards.clear()
                self._lock.release()

    def begin_anew(self) -> None:
        """Leave the store to the parent of a forked process: the engine serves one process."""
        forks.keep_for_ever((self._shards, self._lock))
        self._guard = RLock()
        self._forked_from = os.getppid()

    def _folder(self, collection: str) -> Path:
        # quote() does not escape dots, and "." and ".." would name other folders.
        name = quote(collection, safe="").replace(".", "%2E")
        if not 0 < len(name) <= _FOLDER_CHARS_MAX:
            raise InvalidInput(f"collection {collection!r:.80} is too long to name a folder")
        return self._directory / name

    def _passing(self) -> Path:
        return Path(mkdtemp(prefix=_PASSING, dir=self._directory))

    def _shard(self, collection: str) -> engine.EdgeShard:
        """The collection's shard, opened. Every use holds the guard, so none is closed in use."""
        shard = self._shards.get(collection)
        if shard is None:
            folder = self._folder(collection)
            if not folder.is_dir():
                raise SchemaMismatch(
                    f"{self.label} has no collection {collection!r}; check the directory and the "
                    "name, or create it",
                    collection=collection,
                )
            while len(self._shards) >= _OPEN_MAX:
                self._close_oldest()
            shard = self._shards[collection] = engine.EdgeShard.load(str(folder))
        self._shards.move_to_end(collection)
        return shard

    def _close_oldest(self) -> None:
        collection, shard = self._shards.popitem(last=False)
        with self._translated(collection):
            try:
                shard.flush()
            finally:
                shard.close()

    @contextmanager
    def _translated(self, collection: str | None = None) -> Iterator[None]:
        with self._guard:
            if self._forked_from is not None:
                raise forked(self.label, self._forked_from)
            if self._lock.is_released:
                raise StoreUnreachable(f"{self.label} is closed; open it again to use it")
            try:
                yield
            except MemsyncError:
                raise
            except Exception as error:  # noqa: BLE001  the engine raises nothing narrower
                raise self._meaning(error, collection) from None

    def _meaning(self, error: Exception, collection: str | None) -> MemsyncError:
        text = str(error)
        if "expected dim:" in text:
            return DimensionMismatch(
                f"vectors for {collection!r} differ in size from those it holds ({text}); use the "
                "embedder that it was made with",
                collection=collection,
            )
        if "WouldBlock" in text:
            return busy(self.label, server="Qdrant")
        if isinstance(error, TypeError | ValueError | OverflowError):
            return InvalidInput(f"{self.label} cannot do that: {text:.300}")
        where = f"at {collection!r}" if collection else "as a whole"
        return StoreUnreachable(
            f"{self.label} failed {where}: {text:.300}; check the disk, or drop the collection "
            "and fill it again"
        )


def _checked_limit(limit: int) -> int:
    if limit < 1:
        raise InvalidInput(f"limit must be 1 or more, not {limit}")
    return limit
