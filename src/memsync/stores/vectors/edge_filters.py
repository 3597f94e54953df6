"""Turns the conditions of the protocol into filters of the engine."""

from collections.abc import Iterable

import qdrant_edge as engine

from memsync.model.ids import PointId
from memsync.stores.vectors.points import checked_id
from memsync.stores.vectors.protocol import AnyOf, Where


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


def _match_of(value: str | int | frozenset[str]) -> "engine.MatchValue | engine.MatchAny":
    if isinstance(value, frozenset):
        return engine.MatchAny(sorted(value))
    return engine.MatchValue(value)


def filter_of_any(any_of: AnyOf) -> engine.Filter:
    """A filter for the points that match any of these."""
    conditions = [
        engine.FieldCondition(key, match=engine.MatchAny(sorted(texts)))
        for key, texts in any_of.texts.items()
    ] + [
        engine.FieldCondition(key, range=engine.RangeFloat(gte=low, lte=high))
        for key, (low, high) in any_of.ranges.items()
    ]
    # Ids are always a condition: without any, the engine would take every point.
    ids = engine.HasIdCondition({checked_id(each) for each in any_of.ids})
    return engine.Filter(should=[ids, *conditions])
