"""Turns dialogues into rows of `conversation_history`.

It decides the rooms (one personality in one channel), how users interleave in them, and every
timestamp. Timestamps increase strictly within a thread, except that a reply may have its question's
millisecond. The rows of a room are made when asked for, from their own random
stream, so they need not be kept. The module must not know personas or memories.
"""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from uuid import UUID

from memsync.demo.world.cast import Cast
from memsync.demo.world.recipe import Recipe, random_uuid, snowflake
from memsync.demo.world.rows import HistoryRow
from memsync.demo.world.text import Dialogue, Turn, made_dialogues
from memsync.errors import InvalidInput
from memsync.model.records import from_ms, to_ms
from memsync.model.wording import count

# A time in milliseconds, modulo LANES, tells which of the kinds below made it. So a user's private
# and group exchanges with one personality never share a time, and no made-up memory has a row's.
LANES = 4
PRIVATE, GROUP, MADE_UP = range(3)

_POOL_DIALOGUES = 2000
_MEMBERS = 4
_TIE_SHARE = 0.12
_GAP_MS_MAX = 90_000
_GAP_MS_MIN = 40


@dataclass
class Room:
    """One personality in one channel, and the dialogues that each user holds there, in order."""

    channel_id: str
    personality_id: UUID
    lane: int
    held: dict[UUID, list[Dialogue]] = field(default_factory=dict)


def make_rooms(recipe: Recipe, cast: Cast) -> list[Room]:
    """Distribute all dialogues over users and rooms; every user gets at least one."""
    rng = recipe.rng("rooms")
    pool = recipe.source or made_dialogues(recipe.rng("text"), min(recipe.held, _POOL_DIALOGUES))
    private = {user.id: snowflake(rng) for user in cast.users}
    groups = _groups(recipe, cast, rng)
    rooms: dict[tuple[str, UUID], Room] = {}
    for number in range(recipe.held):
        dialogue = pool[number % len(pool)]
        personality = cast.by_scenario.get(dialogue.scenario) or rng.choice(cast.personalities)
        if number >= len(cast.users) and rng.random() < recipe.group_share:
            channel, members = rng.choice(groups[personality.id])
            user_id, lane = rng.choice(members), GROUP
        else:
            user = cast.users[number] if number < len(cast.users) else rng.choice(cast.users)
            user_id, channel, lane = user.id, private[user.id], PRIVATE
        key = channel, personality.id
        room = rooms.setdefault(key, Room(channel, personality.id, lane))
        room.held.setdefault(user_id, []).append(dialogue)
    return list(rooms.values())


def _groups(
    recipe: Recipe, cast: Cast, rng: random.Random
) -> Mapping[UUID, Sequence[tuple[str, Sequence[UUID]]]]:
    """The group channels of each personality with their members; a user is in one at most."""
    count = max(1, recipe.users // (_MEMBERS * len(cast.personalities)))
    everyone = [user.id for user in cast.users]
    groups = {}
    for personality in cast.personalities:
        members = rng.sample(everyone, min(len(everyone), count * _MEMBERS))
        groups[personality.id] = [(snowflake(rng), members[at::count]) for at in range(count)]
    return groups


def room_rows(recipe: Recipe, room: Room) -> Iterator[HistoryRow]:
    """The room's messages by created_at; users who hold a dialogue at the same time interleave.

    Raises: InvalidInput when the dialogues of the room do not fit into the recipe's days.
    """
    rng = recipe.rng("room", room.channel_id, room.personality_id)
    start_ms, end_ms = recipe.history_ms
    rounds = list(zip_longest(*room.held.values()))
    slot_ms = (end_ms - start_ms) / len(rounds)
    for number, dialogues in enumerate(rounds):
        talking = [
            (user_id, deque(dialogue.turns))
            for user_id, dialogue in zip(room.held, dialogues, strict=True)
            if dialogue
        ]
        turns = sum(len(left) for _, left in talking)
        gap_ms = min(_GAP_MS_MAX, int(0.9 * slot_ms / turns))
        if gap_ms < _GAP_MS_MIN:
            raise InvalidInput(
                f"{count(len(rounds), 'dialogue does', 'dialogues do')} not fit into "
                f"{count(recipe.days, 'day')} of one channel; "
                "ask for more users, personalities or days"
            )
        spare_ms = slot_ms - turns * gap_ms
        at_ms = int(start_ms + number * slot_ms + rng.random() * spare_ms)
        yield from _round(rng, room, talking, at_ms // LANES * LANES + room.lane, gap_ms)


def _round(
    rng: random.Random,
    room: Room,
    talking: list[tuple[UUID, deque[Turn]]],
    at_ms: int,
    gap_ms: int,
) -> list[HistoryRow]:
    rows: list[HistoryRow] = []
    last: dict[UUID, int] = {}
    while talking:
        speaker = rng.randrange(len(talking))
        user_id, left = talking[speaker]
        turn = left.popleft()
        if not left:
            talking.pop(speaker)
        own = rows[last[user_id]] if user_id in last else None
        tied = rows and rng.random() < _TIE_SHARE and _may_tie(own, turn, at_ms)
        if rows and not tied:
            at_ms += int(gap_ms * rng.uniform(0.2, 1)) // LANES * LANES
        last[user_id] = len(rows)
        rows.append(
            HistoryRow(
                id=random_uuid(rng),
                channel_id=room.channel_id,
                personality_id=room.personality_id,
                user_id=user_id,
                role=turn.role,
                content=turn.text,
                created_at=from_ms(at_ms).replace(tzinfo=None),
            )
        )
    return rows


def _may_tie(own: HistoryRow | None, turn: Turn, at_ms: int) -> bool:
    """Whether the turn may have the time `at_ms`: only its question may have it in its thread."""
    if own is None or to_ms(own.created_at) < at_ms:
        return True
    return own.role == "user" and turn.role == "assistant"
