"""A world: exchanges with their memories, other points, and what an audit must say of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, to_ms
from memsync.stores.ltm.layouts import Layout
from support.lab import LONG_AGO, A, B, C

HOME = "memories"
MUTE = UUID("bbbbbbbb-0000-4000-8000-00000000000f")
"""A personality whose memory is switched off."""
USERS = {
    A: UUID("cccccccc-0000-4000-8000-000000000001"),
    B: UUID("cccccccc-0000-4000-8000-000000000001"),
    C: UUID("cccccccc-0000-4000-8000-000000000002"),
}
"""The users of the personas. A and C are the default ones."""
OTHERS = {A: (B, C), B: (A, C), C: (A, B)}

START_MS = to_ms(LONG_AGO)
MINUTE_MS = 60_000
TOLERANCE_MS = 10_000


@dataclass(eq=False)
class Spot:
    """An exchange and its memory. `alone`: no other has its text or its time. `shares_words`: one
    of another thread has both.

    `is_memory`: the point is still what an audit takes for the memory of the exchange.
    """

    row: Exchange
    place: Place
    payload: dict[str, Any]
    alone: bool = True
    shares_words: bool = False
    pruned: bool = False
    half_pruned: bool = False
    is_memory: bool = True
    skewed: bool = False
    enriched: bool = False
    touched: bool = False


@dataclass
class World:
    """A world in one layout. `expected` counts the faults by name, collection and key."""

    rng: Random
    layout: Layout
    spots: list[Spot] = field(default_factory=list)
    unremembered: list[Exchange] = field(default_factory=list)
    points: dict[str, dict[PointId, Mapping[str, Any]]] = field(default_factory=dict)
    expected: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    archived: int = 0
    copies: int = 0
    nameless: int = 0
    planted: list[str] = field(default_factory=list)

    @property
    def per_persona(self) -> bool:
        """Whether the layout is the app's."""
        return self.layout is Layout.PER_PERSONA

    def id(self) -> UUID:
        """A random id."""
        return UUID(int=self.rng.getrandbits(128), version=4)

    def home(self, persona: UUID) -> str:
        """Where memories of this persona belong."""
        return f"persona-{persona}" if self.per_persona else HOME

    def put(self, place: Place, payload: Mapping[str, Any]) -> None:
        """Write a point; None leaves a key out."""
        whole = {key: value for key, value in payload.items() if value is not None}
        self.points.setdefault(place.collection, {})[place.point_id] = whole

    def expect(self, name: str, place: Place | None, key: object = None) -> None:
        """A fault that an audit must report."""
        store = f"qdrant:{place.collection}" if place else "postgres:conversation_history"
        self.expected[name, store, str(key if place is None else place.point_id)] += 1

    @property
    def facts(self) -> dict[str, int]:
        """How many points each fact is about."""
        memories = [each for each in self.spots if each.is_memory]
        homes = {self.home(persona) for persona in USERS}
        foreign = sum(each.place.point_id != each.row.anchor_id for each in memories)
        found = {
            "foreign-point-id": foreign if self.per_persona else 0,
            "time-skew": sum(each.skewed for each in memories) if self.per_persona else 0,
            "enriched-content": sum(each.enriched for each in memories),
            "missing-persona": self.nameless
            + sum("personaId" not in each.payload for each in memories)
            if self.per_persona
            else 0,
            "legacy-copy": self.copies,
            "legacy-layout": sum(name not in homes for name in self.points),
        }
        return {name: number for name, number in found.items() if number}

    @property
    def rows(self) -> list[tuple[object, ...]]:
        """The messages: id, channel, personality, persona, role, text and time."""
        made: list[tuple[object, ...]] = []
        halves = {each.row.said_id for each in self.spots if each.half_pruned}
        standing = [each.row for each in self.spots if not each.pruned or each.half_pruned]
        for number, row in enumerate([*standing, *self.unremembered]):
            whose = (row.channel_id, row.personality_id, row.persona_id)
            # A time to the second is that of both messages.
            before = row.created_at_ms % 1000 and 1 + number % 900
            if row.said_id not in halves:
                said = (row.said_id, *whose, "user", row.user_text, row.created_at_ms - before)
                made.append(said)
            made.append((row.anchor_id, *whose, "assistant", row.assistant_text, row.created_at_ms))
        return made

    # ------------------------------------------------------------------ places for faults

    def spot(self, suits: Callable[[Spot], bool] = lambda _: True) -> Spot | None:
        """An exchange that stands alone, for one fault; no other one will get it."""
        free = [
            each
            for each in self.spots
            if each.alone and not each.pruned and not each.touched and suits(each)
        ]
        if not free:
            return None
        chosen = self.rng.choice(free)
        chosen.touched = True
        return chosen

    def amid(self, each: Spot) -> bool:
        """Whether rows stand directly before and after it, and an older exchange of its thread."""
        at = self.spots.index(each)
        if not 0 < at < len(self.spots) - 1:
            return False
        beside = self.spots[at - 1], self.spots[at + 1]
        if any(other.pruned or other.touched for other in beside):
            return False
        return any(not other.pruned and self.older(other, each) for other in self.spots[:at])

    def older(self, other: Spot, each: Spot) -> bool:
        """Whether the first is the older one in the thread of the second."""
        apart = each.row.created_at_ms - other.row.created_at_ms
        return thread_of(other.row) == thread_of(each.row) and apart > 3 * TOLERANCE_MS

    def keep_beside(self, each: Spot) -> None:
        """Keep the exchanges directly before and after it as they are."""
        at = self.spots.index(each)
        for other in self.spots[max(0, at - 1) : at + 2]:
            other.touched = True


def thread_of(row: Exchange) -> tuple[str, UUID, UUID]:
    """The thread of an exchange."""
    return row.channel_id, row.personality_id, row.persona_id
