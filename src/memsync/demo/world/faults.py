"""Plants faults in the points of a world, in known numbers; no two share an exchange or a point.

It decides what is wrong with the long-term memory of a world, and how many findings an audit must
therefore report. Each fault is a small function on the shared `Ground`. The module must not know
the codes of findings, nor how an audit finds anything.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from memsync.demo.world.cast import Cast
from memsync.demo.world.memories import made_up_point, persona_collection, personality_collection
from memsync.demo.world.recipe import random_uuid
from memsync.demo.world.rows import Persona
from memsync.demo.world.talk import LANES, MADE_UP
from memsync.demo.world.text import made_line
from memsync.errors import InvalidInput
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Point

_HOUR_MS = 3_600_000
_ARCHIVE_HOURS = 720


@dataclass(frozen=True, slots=True)
class Healthy:
    """An exchange with its one point, which is in the right collection and has no fault."""

    exchange: Exchange
    collection: str
    point: Point


@dataclass
class Ground:
    """The state that the faults are planted in.

    `healthy` are the exchanges not yet taken by a fault; `history_ms` the times of the oldest and
    the newest row.
    """

    rng: random.Random
    cast: Cast
    points: dict[str, dict[PointId, Point]]
    healthy: list[Healthy]
    history_ms: tuple[int, int]

    def take(self, count: int, fault: str) -> list[Healthy]:
        """Take `count` exchanges, so that no other fault gets them.

        Raises: InvalidInput when too few are left.
        """
        if count > len(self.healthy):
            raise InvalidInput(
                f"the world is too small: {fault} wants {count} exchanges with a point of their "
                f"own, {len(self.healthy)} are left; plant fewer faults or hold more dialogues",
                fault=fault,
            )
        taken = self.healthy[len(self.healthy) - count :]
        del self.healthy[len(self.healthy) - count :]
        return taken

    def hosts(self, fault: str, *, besides: UUID | None = None) -> list[Persona]:
        """The personas that have a collection, except those of the user `besides`.

        Raises: InvalidInput when there are none.
        """
        found = [
            each
            for each in self.cast.personas
            if persona_collection(each.id) in self.points and each.owner_id != besides
        ]
        if not found:
            raise InvalidInput(
                f"the world is too small: {fault} wants a persona with memories"
                f"{' of another user' if besides else ''}; add users",
                fault=fault,
            )
        return found

    def put(self, collection: str, point: Point) -> None:
        """Add the point, and the collection where it is missing."""
        self.points.setdefault(collection, {})[point.id] = point

    def remove(self, victim: Healthy) -> None:
        """Take the victim's point away; its collection stays."""
        del self.points[victim.collection][victim.point.id]

    def respell(self, victim: Healthy, **payload: object) -> None:
        """Write the victim's point again with other values; None leaves the key out."""
        changed = {k: v for k, v in {**victim.point.payload, **payload}.items() if v is not None}
        self.put(victim.collection, replace(victim.point, payload=changed))

    def made_up(self, persona_id: UUID, called: str, at_ms: int) -> Point:
        """A point of an exchange that never happened, at a millisecond that no row has."""
        personality = self.rng.choice(self.cast.personalities)
        at_ms = at_ms // LANES * LANES + MADE_UP
        return made_up_point(self.rng, persona_id, called, personality, at_ms)

    def before_all(self) -> int:
        """A time before the oldest row."""
        return self.history_ms[0] - self.rng.randrange(_HOUR_MS, _ARCHIVE_HOURS * _HOUR_MS)


def alone(exchanges: Iterable[Exchange]) -> Callable[[Exchange], bool]:
    """A test for exchanges that are the only one of their personality in their second.

    Only such exchanges get faults. A point with a time in seconds or a wrong persona then still
    matches exactly one exchange, so the expected findings are certain.
    """
    seconds = Counter((each.personality_id, each.created_at_ms // 1000) for each in exchanges)
    return lambda each: seconds[each.personality_id, each.created_at_ms // 1000] == 1


def _missing_point(ground: Ground, count: int) -> None:
    for victim in ground.take(count, "missing-point"):
        ground.remove(victim)


def _orphan_point(ground: Ground, count: int) -> None:
    # Each has a stretch between two rows to itself: two in one would look like a lost stretch of
    # the history, and one after the newest row like a restored database.
    named = {each.id: each for each in ground.cast.personas}
    personalities = {each.id: each for each in ground.cast.personalities}
    ground.healthy.sort(key=lambda each: each.exchange.created_at_ms < ground.history_ms[1])
    for victim in ground.take(count, "orphan-point"):
        row = victim.exchange
        at_ms = row.created_at_ms // LANES * LANES + MADE_UP
        called = named[row.persona_id].called
        personality = personalities[row.personality_id]
        point = made_up_point(ground.rng, row.persona_id, called, personality, at_ms)
        payload = {**point.payload, "channelId": row.channel_id}
        ground.put(victim.collection, replace(point, payload=payload))


def _duplicate_point(ground: Ground, count: int) -> None:
    for victim in ground.take(count, "duplicate-point"):
        ground.put(victim.collection, replace(victim.point, id=random_uuid(ground.rng)))


def _persona_mismatch(ground: Ground, count: int) -> None:
    owners = {each.id: each.owner_id for each in ground.cast.personas}
    for victim in ground.take(count, "persona-mismatch"):
        owner = owners[victim.exchange.persona_id]
        other = ground.rng.choice(ground.hosts("persona-mismatch", besides=owner))
        ground.remove(victim)
        payload = {**victim.point.payload, "personaId": str(other.id)}
        ground.put(persona_collection(other.id), replace(victim.point, payload=payload))


def _unknown_persona(ground: Ground, count: int) -> None:
    persona_id = random_uuid(ground.rng)
    for _ in range(count):
        point = ground.made_up(persona_id, "Nobody", ground.before_all())
        ground.put(persona_collection(persona_id), point)


def _stale_content(ground: Ground, count: int) -> None:
    for victim in ground.take(count, "stale-content"):
        head = str(victim.point.payload["content"]).removesuffix(victim.exchange.assistant_text)
        draft = f"{made_line(ground.rng, 'assistant')} (first draft)"
        ground.respell(victim, content=head + draft)


def _wrong_payload_key(ground: Ground, count: int) -> None:
    for number, victim in enumerate(ground.take(count, "wrong-payload-key")):
        right, wrong = (("content", "text"), ("createdAt", "timestamp"))[number % 2]
        ground.respell(victim, **{right: None, wrong: victim.point.payload[right]})


def _wrong_time_unit(ground: Ground, count: int) -> None:
    for victim in ground.take(count, "wrong-time-unit"):
        ground.respell(victim, createdAt=victim.exchange.created_at_ms // 1000)


def _missing_persona(ground: Ground, count: int) -> None:
    for victim in ground.take(count, "missing-persona"):
        ground.respell(victim, personaId=None)


def _misplaced_point(ground: Ground, count: int) -> None:
    for _ in range(count):
        host = ground.rng.choice(ground.hosts("misplaced-point"))
        point = ground.made_up(host.id, host.called, ground.before_all())
        payload = {k: v for k, v in point.payload.items() if k != "personaId"}
        payload["userId"] = str(host.owner_id)
        collection = personality_collection(UUID(str(payload["personalityId"])))
        ground.put(collection, replace(point, payload=payload))


def _older_layout(ground: Ground, count: int) -> None:
    owners = {each.id: each.owner_id for each in ground.cast.personas}
    for victim in ground.take(count, "older-layout"):
        ground.remove(victim)
        payload = {k: v for k, v in victim.point.payload.items() if k != "personaId"}
        payload["userId"] = str(owners[victim.exchange.persona_id])
        collection = personality_collection(victim.exchange.personality_id)
        ground.put(collection, replace(victim.point, payload=payload))


# Faults are planted in this order, whatever the order of the counts, so that equal counts give
# equal worlds.
FAULTS: Mapping[str, Callable[[Ground, int], None]] = {
    "orphan-point": _orphan_point,
    "misplaced-point": _misplaced_point,
    "persona-mismatch": _persona_mismatch,
    "missing-point": _missing_point,
    "duplicate-point": _duplicate_point,
    "stale-content": _stale_content,
    "wrong-payload-key": _wrong_payload_key,
    "wrong-time-unit": _wrong_time_unit,
    "missing-persona": _missing_persona,
    "older-layout": _older_layout,
    "unknown-persona": _unknown_persona,
}


def plant(ground: Ground, counts: Mapping[str, int]) -> None:
    """Plant each fault as often as `counts` says.

    Raises: InvalidInput for an unknown fault, a negative count, or a world that is too small.
    """
    for name, count in counts.items():
        if name not in FAULTS:
            raise InvalidInput(f"no fault is called {name!r}; there are {', '.join(FAULTS)}")
        if count < 0:
            raise InvalidInput(f"{name} cannot be planted {count} times")
    ground.rng.shuffle(ground.healthy)
    for name, put in FAULTS.items():
        if counts.get(name):
            put(ground, counts[name])


def expected_findings(counts: Mapping[str, int], *, pointless: int) -> dict[str, int]:
    """The faults, by name, that an audit must report for a world with these planted.

    `pointless` counts the exchanges that had no point before the planting. Zero counts are left
    out. A payload without a persona is none: the app reads the memory by its collection.
    """
    planted = {name: counts.get(name, 0) for name in FAULTS}
    del planted["missing-persona"]
    elsewhere = planted.pop("older-layout")
    found = planted | {"missing-point": planted["missing-point"] + elsewhere + pointless}
    return {name: count for name, count in sorted(found.items()) if count}
