"""A case is the unit that rules judge: an exchange, a point, or one of each that belong together.

This module decides how a point's text and time are compared with an exchange's. Only the rules
decide whether a difference is a fault.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from memsync.model.digests import exchange_digest, point_state
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Point
from memsync.reconcile.findings import Witness
from memsync.stores.ltm.layouts import persona_of_collection
from memsync.stores.ltm.layouts import says as memory_says
from memsync.stores.ltm.payload import PayloadCodec, Reading


@dataclass(frozen=True, slots=True)
class Found:
    """A point as it was found, and the codec that reads its collection.

    `home` is True when the point lies in the home collection, where memories belong.
    """

    collection: str
    home: bool
    point: Point
    reading: Reading
    codec: PayloadCodec

    @classmethod
    def read(cls, collection: str, point: Point, codec: PayloadCodec, *, home: bool) -> Self:
        """Decode the payload of `point`, which lies in `collection`."""
        return cls(collection, home, point, codec.decode(point.payload), codec)

    @property
    def persona_id(self) -> UUID | None:
        """The persona that the app takes it for: the deployed collection's, else the payload's."""
        of_collection = None if self.home else persona_of_collection(self.collection)
        return of_collection or self.reading.memory.persona_id

    @property
    def personality_id(self) -> UUID | None:
        """The personality that the payload names."""
        return self.reading.memory.personality_id


@dataclass(frozen=True, slots=True)
class Case:
    """An exchange without a point, a point without an exchange, or a pair.

    `kept` is the id of another point of the same exchange, the one that stays. `memory_stands`:
    another point already has the id that the exchange's memory must have. `archived`: the point is
    from before the horizon, so it has no exchange by design. `persona_is_known` is asked only for
    points without an exchange, because an exchange's persona exists.
    """

    exchange: Exchange | None = None
    found: Found | None = None
    persona_is_known: bool = True
    kept: PointId | None = None
    memory_stands: bool = False
    archived: bool = False

    @property
    def is_anchored(self) -> bool:
        """Whether the point is at home under the id that the exchange's memory must have."""
        return (
            self.exchange is not None
            and self.found is not None
            and self.found.home
            and self.found.point.id == self.exchange.anchor_id
        )

    @property
    def persona_agrees(self) -> bool:
        """Whether point and exchange have the same persona. A point that names none agrees."""
        if self.exchange is None or self.found is None:
            return False
        return self.found.persona_id in {None, self.exchange.persona_id}

    @property
    def content_agrees(self) -> bool:
        """Whether the point's text is that of the exchange, in the form of its collection."""
        if self.exchange is None or self.found is None:
            return False
        return says(self.found, self.exchange)

    @property
    def witness(self) -> Witness:
        """The states of the exchange and the point that this case was made from."""
        row, found = self.exchange, self.found
        return Witness(
            anchor_id=row.anchor_id if row else None,
            row_digest=exchange_digest(row) if row else None,
            collection=found.collection if found else None,
            point_id=found.point.id if found else None,
            point_state=point_state(found.point) if found else None,
            memory_stands=self.memory_stands,
        )

    @property
    def persona_id(self) -> UUID | None:
        """The persona that the case is about: the row's, else the point's."""
        if self.exchange is not None:
            return self.exchange.persona_id
        return self.found.persona_id if self.found is not None else None


def says(found: Found, exchange: Exchange) -> bool:
    """Whether the point's text is that of the exchange; outside home the app's form counts too."""
    return memory_says(
        found.reading.memory,
        exchange.user_text,
        exchange.assistant_text,
        as_deployed=not found.home,
    )


class ExchangeIndex:
    """Exchanges by personality and second, to find the exchange that a point was made from."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self._by_second: dict[tuple[UUID, int], list[Exchange]] = {}
        for each in exchanges:
            key = (each.personality_id, each.created_at_ms // 1000)
            self._by_second.setdefault(key, []).append(each)

    def match(self, found: Found) -> Exchange | None:
        """The exchange whose time and personality the point has; among several, one of equal text.

        When the point's time is exact and only one exchange has it, the text need not agree, so
        that a stale text can be found. When the time is given in seconds, the text must agree.
        """
        window, personality_id = found.reading.time_window_ms, found.personality_id
        if window is None or personality_id is None:
            return None
        near = self._by_second.get((personality_id, window[0] // 1000), [])
        timely = [each for each in near if window[0] <= each.created_at_ms <= window[1]]
        # Exchanges of the point's persona come first: two personas may say the same at one time.
        timely.sort(key=lambda each: each.persona_id != found.persona_id)
        agreeing = [each for each in timely if says(found, each)]
        if agreeing:
            return agreeing[0]
        return timely[0] if len(timely) == 1 and window[0] == window[1] else None
