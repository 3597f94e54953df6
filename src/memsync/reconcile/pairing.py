"""Pairing: brings exchanges and points together into cases.

Memories at home and exchanges are two streams in id order, so one pass merges them. Points of
deployed collections have random ids. They are matched with the exchanges of their own persona
first; those that none of these explains are matched with everybody's. The memory that this takes
grows with the deployed and foreign points, not with the stores.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from memsync.model.ids import point_order
from memsync.model.records import Exchange, Point
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
    """One audit's pairing, from its sources to its cases.

    `horizon_ms` is the time before which no row is kept; None when the history is empty. `unread`
    are the deployed collections that could not be read to their end.
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

    def read_deployed(self, collection: str) -> int:
        """Match a deployed collection's points with its persona's exchanges; how many there are."""
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
        """Compare the memories at home with all exchanges; yields those that meet by id."""
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
        """Everything that did not meet by id: foreign, duplicate, orphaned, missing."""
        self._claim_from_anybody()
        for anchors in batched(self._claims, _BATCH):
            standing = self.ltm.points(self.ltm.collection, anchors)
            for anchor in anchors:
                yield from _claimants(self._claims[anchor], anchor if anchor in standing else None)
        for some in batched(self._unclaimed, _BATCH):
            personas = {each.persona_id for each in some if each.persona_id}
            known = known_personas(self.session, personas)
            for found in some:
                yield Case(
                    found=found,
                    persona_is_known=found.persona_id is None or found.persona_id in known,
                    archived=self._is_archived(found),
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
        """Whether its memory may lie in a collection that could not be read: it is not missing."""
        return not self.unread.isdisjoint(
            {
                f"{PERSONA_PREFIX}{exchange.persona_id}",
                f"{PERSONALITY_PREFIX}{exchange.personality_id}",
            }
        )

    def _is_archived(self, found: Found) -> bool:
        """Whether the point is a memory from before the oldest row. Without text it is none."""
        memory = found.reading.memory
        if memory.created_at_ms is None or not memory.content:
            return False
        return self.horizon_ms is None or memory.created_at_ms < self.horizon_ms


def _match_of_anybody(found: Found, index: ExchangeIndex) -> Exchange | None:
    """Across personas time alone proves nothing: only an exchange that says the same counts.

    Within the point's own persona the time is enough, as it is in its own collection.
    """
    exchange = index.match(found)
    if exchange and exchange.persona_id != found.persona_id and not says(found, exchange):
        return None
    return exchange


def merged(
    exchanges: Iterator[Exchange], points: Iterator[Point]
) -> Iterator[tuple[Exchange | None, Point | None]]:
    """Both streams, ordered by id, side by side: what has the same id comes together."""
    exchange, point = next(exchanges, None), next(points, None)
    while exchange or point:
        # False sorts before True: the side that is exhausted comes last.
        left = (exchange is None, point_order(exchange.anchor_id) if exchange else ())
        right = (point is None, point_order(point.id) if point else ())
        yield (exchange if left <= right else None), (point if right <= left else None)
        takes_left, takes_right = left <= right, right <= left
        if takes_left:
            exchange = next(exchanges, None)
        if takes_right:
            point = next(points, None)


def _claimants(claims: list[tuple[Found, Exchange]], standing: UUID | None) -> Iterator[Case]:
    """The cases of all points about one exchange; of its own persona's points one is kept."""
    own = [found for found, exchange in claims if found.persona_id in {None, exchange.persona_id}]
    best = min(own, key=lambda each: (not each.home, point_order(each.point.id)), default=None)
    for found, exchange in claims:
        kept = standing or (best.point.id if best and found is not best else None)
        # A memory that was written after the rows were read stands where it belongs.
        itself = found.home and found.point.id == exchange.anchor_id
        agrees = found.persona_id in {None, exchange.persona_id}
        yield Case(
            exchange,
            found,
            kept=kept if agrees and not itself else None,
            memory_stands=standing is not None and not itself,
        )
