"""Finds the memory that an exchange has already, before the relay writes one per persona.

The app and the relay may both have written it, so it is looked for by what it names (the id of the
anchor, or `messageIds`), and else by the same text at the same time, or within the tolerance. It
decides which memory stays. One read of the collection serves all exchanges of a batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model import ids
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Point, StoredMemory
from memsync.stores.history.exchanges import Moment, exchanges_at, standing_messages
from memsync.stores.ltm.payload import DEPLOYED
from memsync.stores.ltm.recalling import memory_of
from memsync.stores.ltm.texts import said
from memsync.stores.postgres import Session
from memsync.stores.vectors import AnyOf, VectorStore, scan

_ROWS = "messageIds"


@dataclass(frozen=True, slots=True)
class Standing:
    """What lies in a persona's collection for some exchanges.

    `kept` are the anchors whose memory stays as it is. `replaced` are points at an anchor's id
    whose memory is no longer that of the exchange.
    """

    kept: frozenset[UUID]
    replaced: Mapping[PointId, Point]


def in_question(
    vectors: VectorStore, collection: str, exchanges: Sequence[Exchange], tolerance_ms: int
) -> Iterator[Point]:
    """The points of a persona's collection that may be memories of these exchanges of the persona.

    They name one of the exchanges, or are as old as some of them, within the tolerance. A store
    that refuses to filter by a key without an index returns every point.

    Raises: SchemaMismatch when there is no such collection.
    """
    info = vectors.describe(collection)
    any_of = None
    if exchanges and not (info and info.needs_indexes):
        times = [each.created_at_ms for each in exchanges]
        near = (min(times) - tolerance_ms, max(times) + tolerance_ms)
        any_of = AnyOf(
            ids=[each.anchor_id for each in exchanges],
            texts={_ROWS: {str(row) for row in _by_row(exchanges)}},
            ranges={DEPLOYED.key("created_at"): near},
        )
    yield from scan(vectors, collection, any_of=any_of)


def look(
    session: Session,
    vectors: VectorStore,
    collection: str,
    exchanges: Sequence[Exchange],
    *,
    tolerance_ms: int,
) -> Standing:
    """What lies in the collection for these exchanges, which are all of its persona.

    Raises: SchemaMismatch when there is no such collection.
    """
    by_row = _by_row(exchanges)
    kept: set[UUID] = set()
    replaced: dict[PointId, Point] = {}
    others: list[_Found] = []
    for point in in_question(vectors, collection, exchanges, tolerance_ms):
        memory = memory_of(DEPLOYED, point, is_own=True, persona_id=exchanges[0].persona_id)
        rows = _rows(point)
        found = next((by_row[row] for row in rows if row in by_row), None)
        if found is None:
            others.append(_Found(memory, rows))
        elif point.id != found.anchor_id or _is_of(memory, found):
            # The app's own stays even where its text is stale: the audit keeps a copy of a point
            # before it mends it, and the relay does not.
            kept.add(found.anchor_id)
        else:
            replaced[point.id] = point
    left = [each for each in exchanges if each.anchor_id not in kept | replaced.keys()]
    kept |= _by_text(session, left, others, tolerance_ms)
    return Standing(frozenset(kept), {i: p for i, p in replaced.items() if i not in kept})


def _by_row(exchanges: Sequence[Exchange]) -> dict[UUID, Exchange]:
    """The exchanges by the ids of their messages."""
    return {row: each for each in exchanges for row in (each.anchor_id, each.said_id)}


@dataclass(frozen=True, slots=True)
class _Found:
    """A memory that names none of the exchanges, and the uuids that it does name."""

    memory: StoredMemory
    rows: Sequence[UUID]


def _by_text(
    session: Session, exchanges: Sequence[Exchange], found: Sequence[_Found], tolerance_ms: int
) -> set[UUID]:
    """The anchors whose exchange one of these memories says, at its time or near it.

    A memory is one exchange's only: that of its own time, else the only one near it.
    """
    candidates = [
        each
        for each in found
        if any(
            _is_near(each.memory, one, tolerance_ms) and _is_of(each.memory, one)
            for one in exchanges
        )
    ]
    if not candidates:
        return set()
    rows = {row for each in candidates for row in each.rows}
    anothers = standing_messages(session, list(rows))
    candidates = [each for each in candidates if not anothers & set(each.rows)]
    near = exchanges_at(
        session,
        [
            Moment(each.memory.personality_id, at - tolerance_ms, at + tolerance_ms)
            for each in candidates
            if each.memory.personality_id and (at := each.memory.created_at_ms) is not None
        ],
    )
    taken: set[UUID] = set()
    for each in candidates:
        spoken = [
            one
            for one in near
            if _is_near(each.memory, one, tolerance_ms) and _is_of(each.memory, one)
        ]
        free = [one for one in spoken if one.anchor_id not in taken]
        same = [one for one in free if _is_near(each.memory, one, 0)]
        if same or len(spoken) == 1:
            taken.add((same or spoken)[0].anchor_id)
    return taken & {each.anchor_id for each in exchanges}


def _is_of(memory: StoredMemory, exchange: Exchange) -> bool:
    """Whether the memory is this persona's, of this personality, and says the exchange."""
    return (
        memory.persona_id == exchange.persona_id
        and memory.personality_id == exchange.personality_id
        and said(memory, exchange.user_text, exchange.assistant_text) is not None
    )


def _is_near(memory: StoredMemory, exchange: Exchange, tolerance_ms: int) -> bool:
    at = memory.created_at_ms
    return at is not None and abs(at - exchange.created_at_ms) <= tolerance_ms


def _rows(point: Point) -> list[UUID]:
    """The uuids that the point names: its own id, and those among its `messageIds`."""
    named = point.payload.get(_ROWS)
    found: list[UUID] = []
    for each in (point.id, *(named if isinstance(named, list) else [named])):
        try:
            found.append(ids.persona_id(each))
        except InvalidInput:
            continue
    return found
