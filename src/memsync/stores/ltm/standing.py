"""Finds the memory that an exchange has already, before the relay writes one per persona.

The app and the relay may both have written it, so it is looked for by what it names (the id of the
anchor, or `messageIds`), and else by the same text at the same time, or within the tolerance. It
decides which memory stays. One read of the collection serves all exchanges of a batch.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import chain, islice, pairwise
from uuid import UUID

from memsync.errors import InvalidInput, SettingsError
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point, StoredMemory
from memsync.stores.history.exchanges import Moment, exchanges_at, standing_messages
from memsync.stores.ltm.contents import require_shown
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.ltm.payload import DEPLOYED
from memsync.stores.ltm.recalling import memory_of
from memsync.stores.ltm.texts import said
from memsync.stores.ltm.values import uuids_of
from memsync.stores.postgres import Session
from memsync.stores.vectors import AnyOf, VectorStore, scan

_ROWS = "messageIds"
_STRETCHES_MAX = 8
"""Each is a condition that the store compares with every point of the collection."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What lies in a persona's collection for some exchanges.

    `kept` are the anchors whose memory stays as it is; `own` has, by anchor, those memories of them
    that have its id. `replaced` are points at an anchor's id whose memory is no longer that of the
    exchange.
    """

    kept: frozenset[UUID] = frozenset()
    replaced: Mapping[PointId, Point] = field(default_factory=dict)
    own: Mapping[UUID, Point] = field(default_factory=dict)


def in_question(
    vectors: VectorStore, collection: str, exchanges: Sequence[Exchange], tolerance_ms: int
) -> Iterator[Point]:
    """The points of a persona's collection that may be memories of these exchanges of the persona.

    They name one of the exchanges, or are as old as some of them, within the tolerance. A time in
    seconds counts from the first exchange to the last. A point without the app's key of the time is
    always among them: its time may be under another key. A store that refuses to filter by a key
    without an index, or by so many values, returns every point.

    Raises: SchemaMismatch when there is no such collection; StoreUnreachable also where the store
    does not show every point yet.
    """
    info = vectors.describe(collection)
    if info:
        require_shown(vectors, collection)
    any_of = None
    if exchanges and not (info and info.needs_indexes):
        times = [each.created_at_ms for each in exchanges]
        key = DEPLOYED.key("created_at")
        stretches = _stretches(times, tolerance_ms)
        in_seconds = (stretches[0][0] // 1000, stretches[-1][1] // 1000 + 1)
        any_of = AnyOf(
            ids=[each.anchor_id for each in exchanges],
            texts={_ROWS: {str(row) for row in _by_row(exchanges)}},
            ranges={key: [*stretches, in_seconds]},
            lacking=[key],
        )
    found = scan(vectors, collection, any_of=any_of)
    try:
        first = list(islice(found, 1))
    except SettingsError:
        raise
    except InvalidInput:
        first, found = [], scan(vectors, collection)
    yield from chain(first, found)


def look(
    session: Session,
    collection: str,
    exchanges: Sequence[Exchange],
    points: Iterable[Point],
    *,
    tolerance_ms: int,
) -> Standing:
    """What lies in the collection for these exchanges, which are all of its persona.

    `points` are those of it that are in question.
    """
    by_row = _by_row(exchanges)
    kept: set[UUID] = set()
    own: dict[UUID, Point] = {}
    replaced: dict[PointId, Point] = {}
    others: list[_Found] = []
    for point in points:
        memory = memory_of(DEPLOYED, point, is_own=True, persona_id=exchanges[0].persona_id)
        rows = _rows(point)
        found = next((by_row[row] for row in rows if row in by_row), None)
        if found is None:
            others.append(_Found(Place(collection, point.id), memory, rows))
        elif point.id != found.anchor_id or _is_of(memory, found):
            # The app's own stays even where its text is stale: the audit keeps a copy of a point
            # before it mends it, and the relay does not.
            kept.add(found.anchor_id)
            if point.id == found.anchor_id:
                own[found.anchor_id] = point
        else:
            replaced[point.id] = point
    left = [each for each in exchanges if each.anchor_id not in kept | replaced.keys()]
    kept |= _by_text(session, left, others, tolerance_ms)
    return Standing(frozenset(kept), {i: p for i, p in replaced.items() if i not in kept}, own)


def _by_row(exchanges: Sequence[Exchange]) -> dict[UUID, Exchange]:
    """The exchanges by the ids of their messages."""
    return {row: each for each in exchanges for row in (each.anchor_id, each.said_id)}


def _stretches(times: Sequence[int], reach: int) -> list[tuple[int, int]]:
    """The stretches in which these times lie, and as much as `reach` around each of them.

    They are parted where most lies between them, and are no more than _STRETCHES_MAX.
    """
    ordered = sorted(times)
    gaps = [(b - a, at) for at, (a, b) in enumerate(pairwise(ordered), 1) if b - a > 2 * reach]
    cuts = sorted(at for _, at in nlargest(_STRETCHES_MAX - 1, gaps))
    return [
        (ordered[begin] - reach, ordered[end - 1] + reach)
        for begin, end in pairwise([0, *cuts, len(ordered)])
    ]


@dataclass(frozen=True, slots=True)
class _Found:
    """A memory that names none of the exchanges, and the uuids that it does name."""

    place: Place
    memory: StoredMemory
    rows: Sequence[UUID]


def _by_text(
    session: Session, exchanges: Sequence[Exchange], found: Sequence[_Found], tolerance_ms: int
) -> set[UUID]:
    """The anchors whose exchange one of these memories says, at its time or near it.

    A memory is one exchange's only: that of its own time, else the only one near it. One that the
    ledger has of an exchange which is gone is that of its own time only, as in an audit.
    """
    ordered = sorted(exchanges, key=_written_at)
    candidates = [each for each in found if _spoken(each.memory, ordered, tolerance_ms)]
    if not candidates:
        return set()
    rows = {row for each in candidates for row in each.rows}
    anothers = standing_messages(session, list(rows))
    candidates = [each for each in candidates if not anothers & set(each.rows)]
    moments = [
        Moment(each.memory.personality_id, at - tolerance_ms, at + tolerance_ms)
        for each in candidates
        if each.memory.personality_id and (at := each.memory.created_at_ms) is not None
    ]
    near = sorted(exchanges_at(session, moments, [ordered[0].persona_id]), key=_written_at)
    noted = Ledger(session).at(each.place for each in candidates)
    gone = {place for place, entry in noted.items() if not entry.has_rows}
    taken: set[UUID] = set()
    for each in candidates:
        spoken = _spoken(each.memory, near, tolerance_ms)
        free = [one for one in spoken if one.anchor_id not in taken]
        same = [one for one in free if one.created_at_ms == each.memory.created_at_ms]
        if same or (len(spoken) == 1 and each.place not in gone):
            taken.add((same or spoken)[0].anchor_id)
    return taken & {each.anchor_id for each in exchanges}


def _is_of(memory: StoredMemory, exchange: Exchange) -> bool:
    """Whether the memory is this persona's, of this personality, and says the exchange."""
    return (
        memory.persona_id == exchange.persona_id
        and memory.personality_id == exchange.personality_id
        and said(memory, exchange.user_text, exchange.assistant_text) is not None
    )


def _spoken(
    memory: StoredMemory, exchanges: Sequence[Exchange], tolerance_ms: int
) -> list[Exchange]:
    """Those of these exchanges, in the order of time, that the memory may be of: it says them, at
    about their time.
    """
    at = memory.created_at_ms
    if at is None:
        return []
    begin = bisect_left(exchanges, at - tolerance_ms, key=_written_at)
    end = bisect_right(exchanges, at + tolerance_ms, lo=begin, key=_written_at)
    return [each for each in exchanges[begin:end] if _is_of(memory, each)]


def _written_at(exchange: Exchange) -> int:
    return exchange.created_at_ms


def _rows(point: Point) -> list[UUID]:
    """The uuids that the point names: its own id, and those among its `messageIds`."""
    named = point.payload.get(_ROWS)
    return list(uuids_of([point.id, *(named if isinstance(named, list) else [named])]))
