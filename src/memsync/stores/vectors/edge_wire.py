"""Spells conditions and indexes as the engine does, and reads its points."""

from collections.abc import Iterable, Mapping
from typing import cast

import qdrant_edge as engine

from memsync.model.ids import PointId
from memsync.model.records import Point
from memsync.stores.vectors.points import checked_id, float32
from memsync.stores.vectors.protocol import AnyOf, IndexKind, Where

SCHEMAS: Mapping[IndexKind, engine.PayloadSchemaType | engine.UuidIndexParams] = {
    IndexKind.TENANT: engine.UuidIndexParams(is_tenant=True),
    IndexKind.UUID: engine.PayloadSchemaType.Uuid,
    IndexKind.KEYWORD: engine.PayloadSchemaType.Keyword,
    IndexKind.INTEGER: engine.PayloadSchemaType.Integer,
}
_KINDS = {
    engine.PayloadSchemaType.Uuid: IndexKind.UUID,
    engine.PayloadSchemaType.Keyword: IndexKind.KEYWORD,
    engine.PayloadSchemaType.Integer: IndexKind.INTEGER,
}


def filter_of(where: Where | None, ids: Iterable[PointId] | None = None) -> engine.Filter | None:
    """A filter for points whose payload matches, with `ids` among these; None for every point."""
    if ids is not None:
        return _filter_of_ids(ids, where)
    return None if where is None else engine.Filter(must=[*_conditions_of(where)])


def filter_of_one(point_id: PointId, where: Where | None) -> engine.Filter:
    """A filter for one point, if it matches."""
    return _filter_of_ids([point_id], where)


def _filter_of_ids(ids: Iterable[PointId], where: Where | None) -> engine.Filter:
    condition = engine.HasIdCondition({checked_id(each) for each in ids})
    return engine.Filter(must=[condition, *_conditions_of(where or {})])


def _conditions_of(where: Where) -> list[engine.FieldCondition]:
    return [engine.FieldCondition(key, match=_match_of(value)) for key, value in where.items()]


def _match_of(
    value: str | int | frozenset[str] | frozenset[int],
) -> "engine.MatchValue | engine.MatchAny":
    if isinstance(value, frozenset):
        return engine.MatchAny(cast("list[str]", list(value)))
    return engine.MatchValue(value)


def filter_of_any(any_of: AnyOf) -> engine.Filter:
    """A filter for the points that match any of these."""
    conditions = [
        engine.FieldCondition(key, match=engine.MatchAny(sorted(texts)))
        for key, texts in any_of.texts.items()
    ] + [
        engine.FieldCondition(key, range=engine.RangeFloat(gte=low, lte=high))
        for key, ranges in any_of.ranges.items()
        for low, high in ranges
    ]
    lacking = [engine.IsEmptyCondition(key) for key in any_of.lacking]
    # Ids are always a condition: without any, the engine would take every point.
    ids = engine.HasIdCondition({checked_id(each) for each in any_of.ids})
    return engine.Filter(should=[ids, *conditions, *lacking])


def kind_of(index: "engine.PayloadIndexInfo") -> IndexKind | None:
    """The kind of a payload index; None for one that memsync never makes."""
    if getattr(index.params, "is_tenant", None):
        return IndexKind.TENANT
    return _KINDS.get(index.data_type)


def point_of(record: "engine.Record | engine.ScoredPoint") -> Point:
    """The point of a record."""
    # The declared types are wider than what a collection with one unnamed vector returns.
    vector = None if record.vector is None else float32(cast("list[float]", record.vector))
    return Point(cast("PointId", record.id), record.payload or {}, vector)
