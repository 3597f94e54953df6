"""A whole legacy app as values: the rows of every table, the points, and the expected counts.

It decides how the parts are put together and counted. It writes to no store: `load` does that. The
history is generated at each reading and not kept, so the memory that a world without points needs
does not grow with the number of messages.
"""

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from uuid import UUID

from memsync.demo.world import rows
from memsync.demo.world.cast import Cast, make_cast
from memsync.demo.world.faults import Ground, Healthy, alone, expected_findings, plant
from memsync.demo.world.memories import memory_point, persona_collection
from memsync.demo.world.recipe import Recipe, random_uuid
from memsync.demo.world.talk import GROUP, Room, make_rooms, room_rows
from memsync.model.ids import MessageId, PersonaId, PersonalityId, PointId
from memsync.model.records import Exchange, Message, Point, exchanges, from_ms, to_ms


@dataclass(frozen=True)
class Manifest:
    """The true sizes of a world, and the faults by name that an audit must report.

    `exchanges` includes those of users without a persona, as if each had the one persona that the
    migration makes. `points` and `collections` are counted after the faults were planted.
    """

    users: int
    unresolved_users: int
    personas: int
    personalities: int
    messages: int
    exchanges: int
    points: int
    collections: int
    expected: Mapping[str, int]


@dataclass(frozen=True)
class World:
    """A legacy app. `points` are by collection and have no vectors yet."""

    recipe: Recipe
    cast: Cast
    rooms: Sequence[Room]
    activated_channels: Sequence[rows.ActivatedChannel]
    pending_memories: Sequence[rows.PendingMemory]
    points: Mapping[str, Sequence[Point]]
    manifest: Manifest

    def history(self) -> Iterator[rows.HistoryRow]:
        """Every row of `conversation_history`, ordered by created_at."""
        said = (room_rows(self.recipe, room) for room in self.rooms)
        return heapq.merge(*said, key=attrgetter("created_at"))

    def resolved(self, user_id: UUID, personality_id: UUID) -> UUID | None:
        """The persona that the user has with the personality; None when the user has none."""
        return self.cast.resolved(user_id, personality_id)

    def tables(self) -> Iterator[tuple[str, Sequence[str], Iterable[Sequence[object]]]]:
        """Name, columns and rows of each table."""
        cast = self.cast
        yield "users", rows.User._fields, cast.users
        yield "personas", rows.Persona._fields, cast.personas
        yield "system_prompts", rows.SystemPrompt._fields, cast.system_prompts
        yield "llm_configs", rows.LlmConfig._fields, cast.llm_configs
        yield "personalities", rows.Personality._fields, cast.personalities
        yield "personality_owners", rows.PersonalityOwner._fields, cast.personality_owners
        yield "user_personality_settings", rows.UserPersonalitySettings._fields, cast.settings
        yield "activated_channels", rows.ActivatedChannel._fields, self.activated_channels
        yield "conversation_history", rows.HistoryRow._fields, self.history()
        yield "pending_memories", rows.PendingMemory._fields, self.pending_memories


def make_world(recipe: Recipe) -> World:
    """The world that `recipe` describes; equal recipes give equal worlds.

    Raises: InvalidInput when the recipe's faults, or its dialogues in one channel, do not fit.
    """
    cast = make_cast(recipe)
    rooms = make_rooms(recipe, cast)
    survey = _Survey(recipe, cast)
    for room in rooms:
        survey.read(room)
    if recipe.points:
        lone = alone(survey.kept)
        found = [each for each in survey.healthy if lone(each.exchange)]
        spare = [each for each in found if each.exchange.anchor_id not in survey.pending]
        history_ms = survey.oldest_ms, survey.newest_ms
        plant(Ground(recipe.rng("faults"), cast, survey.points, spare, history_ms), recipe.faults)
    points = {name: tuple(survey.points[name].values()) for name in sorted(survey.points)}
    return World(
        recipe=recipe,
        cast=cast,
        rooms=rooms,
        activated_channels=_activated(recipe, cast, rooms),
        pending_memories=[*survey.pending.values()],
        points=points,
        manifest=Manifest(
            users=len(cast.users),
            unresolved_users=recipe.unresolved_users,
            personas=len(cast.personas),
            personalities=len(cast.personalities),
            messages=survey.messages,
            exchanges=survey.exchanges,
            points=sum(map(len, points.values())),
            collections=len(points),
            expected=expected_findings(recipe.faults, pointless=survey.exchanges - survey.pointed),
        ),
    )


class _Survey:
    """Reads the history once, counts it, and makes the points of its exchanges."""

    def __init__(self, recipe: Recipe, cast: Cast) -> None:
        self._recipe = recipe
        self._cast = cast
        self._rng = recipe.rng("points")
        self._users = {each.id: each for each in cast.users}
        self._personas = {each.id: each for each in cast.personas}
        self._personalities = {each.id: each for each in cast.personalities}
        self.messages = self.exchanges = self.pointed = 0
        self.newest_ms, self.oldest_ms = recipe.history_ms
        self.points: dict[str, dict[PointId, Point]] = {}
        self.kept: list[Exchange] = []
        self.healthy: list[Healthy] = []
        self.pending: dict[UUID, rows.PendingMemory] = {}

    def read(self, room: Room) -> None:
        """Count the messages and exchanges of one room, and make their points."""
        messages = [self._message(row) for row in room_rows(self._recipe, room)]
        self.messages += len(messages)
        self.oldest_ms = min(self.oldest_ms, to_ms(messages[0].created_at))
        self.newest_ms = max(self.newest_ms, to_ms(messages[-1].created_at))
        for exchange in exchanges(messages):
            self.exchanges += 1
            if self._recipe.points:
                self.kept.append(exchange)
            if exchange.persona_id in self._personas:
                self._remember(exchange, in_group=room.lane == GROUP)

    def _message(self, row: rows.HistoryRow) -> Message:
        # For a user without a persona, the user's id is used in place of the id of the persona that
        # the migration will make.
        persona_id = self._cast.resolved(row.user_id, row.personality_id) or row.user_id
        return Message(
            id=MessageId(row.id),
            channel_id=row.channel_id,
            personality_id=PersonalityId(row.personality_id),
            persona_id=PersonaId(persona_id),
            role=row.role,
            content=row.content,
            created_at=row.created_at,
        )

    def _remember(self, exchange: Exchange, *, in_group: bool) -> None:
        persona = self._personas[exchange.persona_id]
        wants_pending = len(self.pending) < self._recipe.pending_memories
        if not (self._recipe.points or wants_pending):
            return
        point = memory_point(
            self._rng,
            exchange,
            persona.called,
            self._personalities[exchange.personality_id],
            self._users[persona.owner_id].discord_id,
            in_group=in_group,
        )
        if wants_pending:
            self.pending[exchange.anchor_id] = self._pending(exchange, point)
        if self._recipe.points:
            collection = persona_collection(persona.id)
            self.points.setdefault(collection, {})[point.id] = point
            self.healthy.append(Healthy(exchange, collection, point))
            self.pointed += 1

    def _pending(self, exchange: Exchange, point: Point) -> rows.PendingMemory:
        """The app's own note of a memory to write, which it did not remove after writing."""
        said = from_ms(exchange.created_at_ms).replace(tzinfo=None)
        return rows.PendingMemory(
            id=random_uuid(self._rng),
            conversation_history_id=exchange.anchor_id,
            persona_id=exchange.persona_id,
            personality_id=exchange.personality_id,
            personality_name=self._personalities[exchange.personality_id].name,
            text=str(point.payload["content"]),
            metadata=json.dumps(dict(point.payload), ensure_ascii=False),
            created_at=said,
            attempts=1,
            last_attempt_at=said + timedelta(seconds=5),
            error="timeout of 5000 ms exceeded",
        )


def _activated(recipe: Recipe, cast: Cast, rooms: Sequence[Room]) -> list[rows.ActivatedChannel]:
    rng = recipe.rng("activated")
    return [
        rows.ActivatedChannel(
            id=random_uuid(rng),
            channel_id=room.channel_id,
            personality_id=room.personality_id,
            auto_respond=rng.random() < 0.8,
            created_by=rng.choice((None, *room.held)),
            created_at=cast.users[0].created_at,
        )
        for room in rooms
        if room.lane == GROUP
    ]
