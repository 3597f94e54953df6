"""Makes points as the app wrote them: camelCase payloads, names in the content, random ids.

It decides how the app spells a memory without faults; `faults` changes some of them. It must not
know which exchanges get a point.
"""

import random
from uuid import UUID

from memsync.demo.world.recipe import random_uuid, snowflake
from memsync.demo.world.rows import Personality
from memsync.demo.world.text import made_line
from memsync.model.records import Exchange, Point


def persona_collection(persona_id: UUID) -> str:
    """The collection that holds the memories of one persona."""
    return f"persona-{persona_id}"


def personality_collection(personality_id: UUID) -> str:
    """The collection of the older layout: the memories of all users with one personality."""
    return f"personality-{personality_id}"


def content_of(called: str, personality: Personality, user_text: str, reply: str) -> str:
    """The text of a memory; `called` is the persona's name in it."""
    return f"User ({called}): {user_text}\n{personality.called}: {reply}"


def text_of(point: Point) -> str:
    """The text that the point's vector is made from."""
    return str(point.payload.get("content", point.payload.get("text", "")))


def memory_point(
    rng: random.Random,
    exchange: Exchange,
    called: str,
    personality: Personality,
    sender: str,
    *,
    in_group: bool,
) -> Point:
    """The point that the app made from `exchange`; `sender` is the user's account id."""
    content = content_of(called, personality, exchange.user_text, exchange.assistant_text)
    return _point(
        rng,
        exchange.persona_id,
        personality,
        content,
        exchange.created_at_ms,
        sender,
        exchange.channel_id if rng.random() < 0.9 else None,
        snowflake(rng) if in_group and rng.random() < 0.6 else None,
    )


def made_up_point(
    rng: random.Random, persona_id: UUID, called: str, personality: Personality, at_ms: int
) -> Point:
    """A point in the app's form, of an exchange that never happened."""
    content = content_of(called, personality, made_line(rng, "user"), made_line(rng, "assistant"))
    channel = snowflake(rng) if rng.random() < 0.9 else None
    return _point(
        rng, persona_id, personality, content, at_ms, snowflake(rng), channel, guild_id=None
    )


def _point(
    rng: random.Random,
    persona_id: UUID,
    personality: Personality,
    content: str,
    created_at_ms: int,
    sender: str,
    channel_id: str | None,
    guild_id: str | None,
) -> Point:
    scope = rng.choices(("personal", "global", "session"), (8, 1, 1))[0]
    payload: dict[str, object] = {
        "personalityId": str(personality.id),
        "personalityName": personality.name,
        "personaId": str(persona_id),
        "content": content,
        "canonScope": scope,
        "summaryType": "conversation",
        "createdAt": created_at_ms,
        "messageIds": [snowflake(rng), snowflake(rng)],
        "senders": [sender],
    }
    if scope == "session":
        payload["sessionId"] = str(random_uuid(rng))
    if channel_id is not None:
        payload["channelId"] = channel_id
    if guild_id is not None:
        payload["guildId"] = guild_id
    return Point(id=random_uuid(rng), payload=payload)
