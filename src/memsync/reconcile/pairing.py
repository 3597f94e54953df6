"""Pairing joins exchanges with points into cases, for the audit's rules.

Exchanges and the points of the home collection are two streams in id order, so one pass merges
them. Points of deployed collections have random ids. They are matched with the exchanges of their
own persona first, then with those of all personas. The memory needed grows with the number of
points and exchanges that are not paired by id, not with the stores.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from memsync.model.ids import point_order
from memsync.model.records import Exchange, Point, Thread
from memsync.model.sequences import batched
from memsync.reconcile.cases import (
    Case,
    ExchangeIndex,
    Found,
    says,
)
from memsync.stores.history.exchanges import (
    Moment,
    exchanges_at,
    exchanges_in_order,
    exchanges_of_persona,
    known_personas,
    unreadable_threads,
)
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import (
    PERSONA_PREFIX,
    PERSONALITY_PREFIX,
    persona_of_collection,
)
from memsync.stores.postgres import Session

_BATCH = 1000


@dataclass
class Pairing:
    """The pairing of one audit. Call `read_deployed`, then `merge_home`, then `rest`.

    `horizon_ms` is the time before which no message is kept; None when the history is empty.
    `unread` are the deployed collections that could not be read to their end.
    """

    session: Session
    ltm: LongTermMemory
    horizon_ms: int | None
    rows: int = 0
    points: int = 0
    unread: set[str] = field(default_factory=set)
    _claims: dict[UUID, list[tuple[Found, Exchange]]] = field(default_factory=dict)
    _unclaimed: list[Found] = field(default_factory=list)
    _missing: list[Exchange] = field(default_factory=list)
    _odd_threads: set[Thread] | None = None

    def read_deployed(self, collection: str) -> int:
        """Match a deployed collection's points with its persona's exchanges; count the points."""
        persona = persona_of_collection(collection)
        index = ExchangeIndex(exchanges_of_persona(self.session, persona) if persona else [])
        count = 0
        self.unread.add(collection)
        for point in self.ltm.scan(collection):
            count += 1
            found = self._found(collection, point)
            self._claim(found, index.match(found))
        self.unread.remove(collection)
        self.points += count
        return count

    def merge_home(self) -> Iterator[Case]:
        """Merge the home collection with all exchanges; yields the pairs that have the same id."""
        home = self.ltm.collection
        points = self.ltm.scan(home) if self.ltm.stands(home) else iter(())
        for exchange, point in merged(exchanges_in_order(self.session), points):
            self.rows += exchange is not None
            self.points += point is not None
            found = point and self._found(home, point)
            if found and exchange:
                yield Case(exchange, found)
            elif found:
                self._unclaimed.append(found)
            elif exchange:
                self._missing.append(exchange)

    def rest(self) -> Iterator[Case]:
        """The cases of all points and exchanges that were not paired by id."""
        self._claim_from_anybody()
        for anchors in batched(self._claims, _BATCH):
            standing = self.ltm.points(self.ltm.collection, anchors)
            for anchor in anchors:
                yield from _claimants(self._claims[anchor], anchor if anchor in standing else None)
        for some in batched(self._unclaimed, _BATCH):
            personas = {each.persona_id for each in some if each.persona_id}
            known = known_personas(self.session, personas)
            for found in some:
                archived = self._is_archived(found)
                if not archived and self._may_lack_a_message(found):
                    continue
                yield Case(
                    found=found,
                    persona_is_known=found.persona_id is None or found.persona_id in known,
                    archived=archived,
                )
        for exchange in self._missing:
            if exchange.anchor_id not in self._claims and not self._may_be_unread(exchange):
                yield Case(exchange)

    def _claim(self, found: Found, exchange: Exchange | None) -> None:
        if exchange is None:
            self._unclaimed.append(found)
        else:
            self._claims.setdefault(exchange.anchor_id, []).append((found, exchange))

    def _claim_from_anybody(self) -> None:
        left, self._unclaimed = self._unclaimed, []
        for some in batched(left, _BATCH):
            moments = [
                Moment(each.personality_id, *each.reading.time_window_ms)
                for each in some
                if each.personality_id and each.reading.time_window_ms
            ]
            index = ExchangeIndex(exchanges_at(self.session, moments))
            for found in some:
                self._claim(found, _match_of_anybody(found, index))

    def _found(self, collection: str, point: Point) -> Found:
        at_home = collection == self.ltm.collection
        return Found.read(collection, point, self.ltm.codec_of(collection), home=at_home)

    def _may_be_unread(self, exchange: Exchange) -> bool:
        """Whether its memory may lie in an unread collection; it is not called missing then."""
        return not self.unread.isdisjoint(
            {
                f"{PERSONA_PREFIX}{exchange.persona_id}",
                f"{PERSONALITY_PREFIX}{exchange.personality_id}",
            }
        )

    def _may_lack_a_message(self, found: Found) -> bool:
        """Whether its exchange may be missing because a message of its thread cannot be read."""
        if self._odd_threads is None:
            self._odd_threads = unreadable_threads(self.session)
        memory = found.reading.memory
        return any(
            (each.persona_id, each.personality_id) == (found.persona_id, found.personality_id)
            and memory.channel_id in {None, each.channel_id}
            for each in self._odd_threads
        )

    def _is_archived(self, found: Found) -> bool:
        """Whether the point is a memory from before the horizon. Without a text it is not one."""
        memory = found.reading.memory
        if memory.created_at_ms is None or not memory.text:
            return False
        return self.horizon_ms is None or memory.created_at_ms < self.horizon_ms


def _match_of_anybody(found: Found, index: ExchangeIndex) -> Exchange | None:
    """The point's exchange among those of all personas.

    Across personas the text must be equal too, because two personas may write at the same time.
    """
    exchange = index.match(found)
    if exchange and exchange.persona_id != found.persona_id and not says(found, exchange):
        return None
    return exchange


def merged(
    exchanges: Iterator[Exchange], points: Iterator[Point]
) -> Iterator[tuple[Exchange | None, Point | None]]:
    """Merge two streams that are ordered by id: items of the same id come as a pair."""
    exchange, point = next(exchanges, None), next(points, None)
    while exchange or point:
        # False sorts before True, so a stream that is exhausted counts as the larger one.
        left = (exchange is None, point_order(exchange.anchor_id) if exchange else ())
        right = (point is None, point_order(point.id) if point else ())
        yield (exchange if left <= right else None), (point if right <= left else None)
        takes_left, takes_right = left <= right, right <= left
        if takes_left:
            exchange = next(exchanges, None)
        if takes_right:
            point = next(points, None)


def _claimants(claims: list[tuple[Found, Exchange]], standing: UUID | None) -> Iterator[Case]:
    """The cases of all points that claim one exchange.

    The memory at home (`standing`) is kept, else the best point of the exchange's own persona.
    """
    own = [found for found, exchange in claims if found.persona_id in {None, exchange.persona_id}]
    best = min(own, key=lambda each: (not each.home, point_order(each.point.id)), default=None)
    for found, exchange in claims:
        kept = standing or (best.point.id if best and found is not best else None)
        # A memory that was written after the rows were read has the right place and id.
        itself = found.home and found.point.id == exchange.anchor_id
        agrees = found.persona_id in {None, exchange.persona_id}
        yield Case(
            exchange,
            found,
            kept=kept if agrees and not itself else None,
            memory_stands=standing is not None and not itself,
        )
