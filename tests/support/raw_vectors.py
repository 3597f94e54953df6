"""Writes vectors that memsync writes to no store, and collections that it does not make.

That is zeros, numbers that are none, and no vector; vectors under names, and several for a point.
"""

import math
import warnings
from typing import Any

import qdrant_edge as engine
from qdrant_client import models

from memsync.model.records import Exchange, Point
from memsync.stores.vectors.edge import EdgeStore
from memsync.stores.vectors.protocol import VectorStore, scan
from memsync.stores.vectors.qdrant_wire import wire_id
from support.lab import DIMS, Lab

ZERO = [0.0] * DIMS
SHORT = [1e-5, *ZERO[1:]]
INFINITE = [math.inf, 1.0, *ZERO[2:]]
"""Each store makes NaN of its first number."""
_IN_JSON = 1e39
"""JSON has no infinity; this is infinite in 32 bits. The local mode computes with 64."""
NONE: list[float] = []


def with_vector(lab: Lab, exchange: Exchange, vector: list[float]) -> None:
    """Give the memory of an exchange another vector, or none, and leave its payload as it is."""
    place = lab.place(exchange)
    [point] = lab.vectors.retrieve(place.collection, [place.point_id])
    write_raw(lab.vectors, place.collection, point, vector)


def write_raw(to: VectorStore, collection: str, point: Point, vector: list[float]) -> None:
    """Write a point with this vector, or without one, past the checks of the driver."""
    store: Any = to
    spelled: Any = vector or {}
    if isinstance(store, EdgeStore):
        written = engine.Point(point.id, spelled, dict(point.payload))
        shard = store._shard(collection)
        shard.update(engine.UpdateOperation.upsert_points([written]))
        return
    if not store._local:
        spelled = _in_json(vector)
    struct = models.PointStruct(id=wire_id(point.id), vector=spelled, payload=dict(point.payload))
    with warnings.catch_warnings():
        # numpy says of the local mode that it computes with infinity.
        warnings.simplefilter("ignore", RuntimeWarning)
        store._client.upsert(collection, [struct], wait=True)


def _in_json(vector: Any) -> Any:
    if isinstance(vector, dict):
        return vector
    return [_IN_JSON if each == math.inf else each for each in vector] or {}


def misform(store: VectorStore, collection: str, dims: int, *, named: bool) -> None:
    """Make a collection for vectors under the name `text`, or for several vectors of each point.

    Its points, if it stands, have the vectors that they had, in that form.
    """
    stands = store.describe(collection) is not None
    kept = list(scan(store, collection, vectors=True)) if stands else []
    store.drop(collection)
    (_misform_edge if isinstance(store, EdgeStore) else _misform)(store, collection, dims, named)
    for each in kept:
        vector: Any = list(each.vector or ())
        write_raw(store, collection, each, {"text": vector} if named else [vector])  # type: ignore[arg-type]  # of that form


def _misform_edge(store: Any, collection: str, dims: int, named: bool) -> None:
    several = None if named else engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim)
    size = engine.EdgeVectorParams(
        size=dims, distance=engine.Distance.Cosine, multivector_config=several
    )
    folder = store._folder(collection)
    folder.mkdir()
    config = engine.EdgeConfig(vectors={"text": size} if named else size)
    shard = engine.EdgeShard.create(str(folder), config)
    shard.flush()
    shard.close()


def _misform(store: Any, collection: str, dims: int, named: bool) -> None:
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    size = models.VectorParams(
        size=dims,
        distance=models.Distance.COSINE,
        multivector_config=None if named else several,
    )
    store._client.create_collection(collection, vectors_config={"text": size} if named else size)
