"""Spells ids, points, conditions and indexes as qdrant-client does, and reads them."""

from collections.abc import Iterable, Mapping
from math import nan
from typing import cast
from uuid import UUID, uuid4

from pydantic import TypeAdapter
from qdrant_client import models

from memsync.errors import SchemaMismatch
from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.vectors.points import checked_id, float32, matches, misformed
from memsync.stores.vectors.protocol import AnyOf, CollectionInfo, IndexKind, Schema, Where

SCHEMAS: Mapping[IndexKind, models.PayloadSchemaType | models.UuidIndexParams] = {
    IndexKind.TENANT: models.UuidIndexParams(type=models.UuidIndexType.UUID, is_tenant=True),
    IndexKind.UUID: models.PayloadSchemaType.UUID,
    IndexKind.KEYWORD: models.PayloadSchemaType.KEYWORD,
    IndexKind.INTEGER: models.PayloadSchemaType.INTEGER,
}
LOCAL_INDEXES = "memsync_indexes"
"""The key of a collection's metadata under which the local mode notes its indexes."""
_AS_MADE = (
    {"type": "uuid", "is_tenant": True},
    *({"type": each} for each in ("uuid", "keyword", "integer")),
)
_PARAMS: TypeAdapter[models.PayloadSchemaParams] = TypeAdapter(models.PayloadSchemaParams)
_KINDS = {
    models.PayloadSchemaType.UUID: IndexKind.UUID,
    models.PayloadSchemaType.KEYWORD: IndexKind.KEYWORD,
    models.PayloadSchemaType.INTEGER: IndexKind.INTEGER,
}


def wire_id(point_id: PointId) -> str | int:
    """The id as qdrant-client takes it. Raises: InvalidInput."""
    checked = checked_id(point_id)
    return str(checked) if isinstance(checked, UUID) else checked


def filter_of(where: Where | None, ids: Iterable[PointId] | None = None) -> models.Filter | None:
    """A filter for points whose payload matches, with `ids` among these; None for every point."""
    if ids is not None:
        return _filter_of_ids(ids, where)
    return None if where is None else models.Filter(must=_conditions_of(where))


def filter_of_one(point_id: PointId, where: Where | None) -> models.Filter:
    """A filter for one point, if it matches."""
    return _filter_of_ids([point_id], where)


def _filter_of_ids(ids: Iterable[PointId], where: Where | None) -> models.Filter:
    condition = models.HasIdCondition(has_id=[wire_id(each) for each in ids])
    return models.Filter(must=[condition, *_conditions_of(where or {})])


def _conditions_of(where: Where) -> list[models.Condition]:
    return [models.FieldCondition(key=key, match=_match_of(value)) for key, value in where.items()]


def _match_of(
    value: str | int | frozenset[str] | frozenset[int],
) -> models.MatchValue | models.MatchAny:
    if isinstance(value, frozenset):
        return models.MatchAny(any=sorted(value))
    return models.MatchValue(value=value)


def filter_of_any(any_of: AnyOf) -> models.Filter:
    """A filter for the points that match any of these."""
    conditions: list[models.Condition] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=sorted(texts)))
        for key, texts in any_of.texts.items()
    ]
    conditions += [
        models.FieldCondition(key=key, range=models.Range(gte=low, lte=high))
        for key, ranges in any_of.ranges.items()
        for low, high in ranges
    ]
    conditions += [
        models.IsEmptyCondition(is_empty=models.PayloadField(key=key)) for key in any_of.lacking
    ]
    # Ids are always a condition: without any, the store would take every point.
    ids = models.HasIdCondition(has_id=[wire_id(each) for each in any_of.ids])
    return models.Filter(should=[ids, *conditions])


def upsert_of(
    points: Iterable[Point], where: Where | None, mode: models.UpdateMode | None
) -> models.UpsertOperation:
    """The write of these points, in this mode, where what stands matches."""
    structs = [
        models.PointStruct(
            id=wire_id(each.id), vector=list(each.vector or ()) or {}, payload=dict(each.payload)
        )
        for each in points
    ]
    return models.UpsertOperation(
        upsert=models.PointsList(points=structs, update_mode=mode, update_filter=filter_of(where))
    )


def nothing() -> models.DeletePayloadOperation:
    """A write that changes nothing: it is for a key of no memory, of a point that is not there.

    By a filter, so that each shard gets it.
    """
    nowhere = models.DeletePayload(keys=["memsync_nothing"], filter=filter_of_one(uuid4(), None))
    return models.DeletePayloadOperation(delete_payload=nowhere)


def plain_params(collection: str, params: object) -> models.VectorParams:
    """The form of a collection's vectors: one without a name for each point.

    Raises: SchemaMismatch for another form.
    """
    if isinstance(params, models.VectorParams) and params.multivector_config is None:
        return params
    several = isinstance(params, models.VectorParams)
    raise misformed(collection, None if several else params if isinstance(params, dict) else ())


def point_id_of(wired: object) -> PointId:
    """The id that qdrant-client gave."""
    return wired if isinstance(wired, int) else UUID(str(wired))


def point_of(record: models.Record | models.ScoredPoint) -> Point:
    """The point of a record. Raises: SchemaMismatch for vectors under names.

    The vector of a point that has none is empty: Qdrant gives names without one. Where JSON has
    null for a number, the number is NaN.
    """
    vector = record.vector or (None if record.vector is None else [])
    if isinstance(vector, dict):
        raise SchemaMismatch(
            f"point {record.id} has vectors under names ({', '.join(vector)}); memsync keeps one "
            "without a name. Check the collection's name"
        )
    # The declared type also allows vectors of vectors, which a collection with one unnamed
    # vector never returns.
    numbers = cast("list[float | None] | None", vector)
    if numbers is not None and None in numbers:
        numbers = [nan if each is None else each for each in numbers]
    values = None if numbers is None else float32(cast("list[float]", numbers))
    return Point(point_id_of(record.id), record.payload or {}, values)


def is_allowed(standing: Point | None, only_where: Where | None) -> bool:
    """Whether a conditional write may replace what stands, for servers that cannot tell."""
    if only_where is None:
        return standing is None
    return standing is not None and matches(standing.payload, only_where)


def kind_of(index: models.PayloadIndexInfo) -> IndexKind | None:
    """The kind of a payload index; None for one that memsync never makes, such as an index of
    numbers that serves ranges alone.
    """
    if getattr(index.params, "is_tenant", None):
        return IndexKind.TENANT
    finds_values = getattr(index.params, "lookup", None) is not False
    return _KINDS.get(index.data_type) if finds_values else None


def info_of(collection: str, info: models.CollectionInfo, *, is_local: bool) -> CollectionInfo:
    """The form of a collection of this name; the local mode notes its indexes.

    Raises: SchemaMismatch when it keeps vectors under names, or several for a point.
    """
    config, schema = info.config, info.payload_schema
    params = plain_params(collection, config.params.vectors)
    indexes = {key: kind for key, each in schema.items() if (kind := kind_of(each))}
    noted = (config.metadata or {}).get(LOCAL_INDEXES, {}) if is_local else {}
    return CollectionInfo(
        params.size,
        params.distance.value,
        indexes | {key: IndexKind(kind) for key, kind in noted.items()},
        needs_indexes=wants_indexes(config.strict_mode_config),
        why_unindexed=why_unindexed(config, params),
        other_indexes={key: it for key, each in schema.items() if (it := other_schema(each))},
    )


def other_schema(index: models.PayloadIndexInfo) -> Schema | None:
    """The schema of a payload index that memsync never makes so; None for one that it makes."""
    params = index.params.model_dump(mode="json", exclude_none=True) if index.params else {}
    schema = {"type": index.data_type.value, **params}
    return None if schema in _AS_MADE else schema


def schema_of(kind: IndexKind | Schema) -> models.PayloadSchemaType | models.PayloadSchemaParams:
    """A payload index as qdrant-client takes it."""
    return SCHEMAS[kind] if isinstance(kind, IndexKind) else _PARAMS.validate_python(kind)


def wants_indexes(strict: models.StrictModeConfigOutput | None) -> bool:
    """Whether the server refuses a read or a write whose filter has a key without an index."""
    if strict is None or not strict.enabled:
        return False
    return False in {strict.unindexed_filtering_update, strict.unindexed_filtering_retrieve}


def why_unindexed(config: models.CollectionConfig, params: models.VectorParams) -> str | None:
    """Why a collection builds no index of its vectors; None where it does."""
    if config.optimizer_config.indexing_threshold == 0:
        return "indexing_threshold 0"
    whole, own = config.hnsw_config, params.hnsw_config
    links = whole.m if own is None or own.m is None else own.m
    by_tenant = whole.payload_m or (own and own.payload_m)
    return None if links or by_tenant else "hnsw m 0"
