"""Makes clean worlds, of all that an app does by design."""

from dataclasses import replace
from random import Random
from typing import Any

from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange, Place
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.payload import PayloadCodec
from support.lab import ADA, BASIL, A, B, C, as_told
from support.worlds.world import (
    HOME,
    MINUTE_MS,
    MUTE,
    START_MS,
    TOLERANCE_MS,
    USERS,
    Spot,
    World,
    thread_of,
)

SNAKE = PayloadCodec("snake")
_CHANNELS = ("1", "5")
"""In either half of those that two sessions compare; see stores/ltm/against_history.py."""
_ODD = ("", " and): more", "\nx: y", ": ", " (z): ", "\n\nsee: this\n", " é ✓", "\t")
_ADDED = (" [a cat]", "\n[image: a dog]", "\n\nseen: a bird")


def clean_world(seed: int, layout: Layout, size: int) -> World:
    """A world in which an audit finds nothing. `size` is how often somebody speaks."""
    world = World(Random(seed), layout)
    rng = world.rng
    for number in range(size):
        kind = rng.choice(("alone", "alone", "alone", "one time", "often", "mute"))
        at = START_MS + number * MINUTE_MS
        if kind == "alone":
            _say(world, _exchange(world, number, at + rng.choice((0, 1, 501, 999))))
        elif kind == "one time":
            _say_at_one_time(world, number, at)
        elif kind == "often":
            _say_often(world, number, at)
        else:
            row = _exchange(world, number, at + 1)
            world.unremembered.append(replace(row, personality_id=PersonalityId(MUTE)))
    _prune(world)
    if not world.rows:
        # An audit of an empty history is not complete.
        row = _exchange(world, "last", START_MS)
        world.unremembered.append(replace(row, personality_id=PersonalityId(MUTE)))
    for each in world.spots:
        world.put(each.place, each.payload)
        if each.pruned:
            each.is_memory = False
            world.archived += 1
            world.nameless += world.per_persona and "personaId" not in each.payload
    _leave_behind(world)
    return world


def _exchange(world: World, number: object, at: int, **given: Any) -> Exchange:
    rng = world.rng
    values: dict[str, Any] = {
        "persona_id": PersonaId(rng.choice((A, B, C))),
        "personality_id": PersonalityId(rng.choice((ADA, BASIL))),
        "channel_id": rng.choice(_CHANNELS),
        "user_text": f"q{number}{rng.choice(_ODD)}",
        "assistant_text": f"a{number}{rng.choice(_ODD)}",
    }
    anchor, said = MessageId(world.id()), MessageId(world.id())
    return Exchange(anchor_id=anchor, said_id=said, created_at_ms=at, **(values | given))


def _say_at_one_time(world: World, number: int, at: int) -> None:
    """Exchanges of several threads at one time, to the second; some say the same."""
    rng, threads = world.rng, set()
    same = rng.random() < 0.5
    for each in range(rng.randint(2, 4)):
        row = _exchange(world, number if same else f"{number}.{each}", at)
        row = replace(row, user_text=f"hi {number}", assistant_text="yo") if same else row
        if thread_of(row) not in threads:
            threads.add(thread_of(row))
            _say(world, row, alone=False, moved_by=0)
            world.spots[-1].shares_words = same


def _say_often(world: World, number: int, at: int) -> None:
    """The same words several times in one thread, by a clock that is off by as much each time."""
    rng = world.rng
    first = _exchange(world, number, at)
    # No pause is as long as that: a memory would have the time of another exchange.
    skew = rng.choice((0, 0, 1, 700, -1500, 9876))
    when = at
    for _ in range(rng.randint(2, 4)):
        row = _exchange(
            world,
            number,
            when + 1,
            persona_id=first.persona_id,
            personality_id=first.personality_id,
            channel_id=first.channel_id,
            user_text="hi",
            assistant_text="yo",
        )
        _say(world, row, alone=False, moved_by=skew)
        when += rng.choice((1000, 2500, 9000))


def _say(world: World, row: Exchange, *, alone: bool = True, moved_by: int | None = None) -> None:
    place, payload, skewed, enriched = _remembered(world, row, alone, moved_by)
    world.spots.append(Spot(row, place, payload, alone, skewed=skewed, enriched=enriched))


def _remembered(
    world: World, row: Exchange, alone: bool, moved_by: int | None
) -> tuple[Place, dict[str, Any], bool, bool]:
    """Place and payload of the row's memory, whether its time is off, and its text longer."""
    rng = world.rng
    enriched = alone and rng.random() < 0.2
    added = {rng.choice(("user", "reply")): rng.choice(_ADDED)} if enriched else {}
    if not world.per_persona:
        payload = SNAKE.encode(row, "test/8")
        if enriched or rng.random() < 0.2:
            payload = SNAKE.encode_deployed(row, as_told(row, **added)) | {"embedder": "test/8"}
        return Place(HOME, row.anchor_id), payload, False, enriched
    skew = rng.choice((0, 0, 0, 1, -40, 2500, TOLERANCE_MS, -TOLERANCE_MS))
    skew = skew if moved_by is None else moved_by
    payload = deployed(row, **added) | {"createdAt": row.created_at_ms + skew}
    for key in ("senders", "personaId", "channelId"):
        if rng.random() < 0.15 and (alone or key != "channelId"):
            del payload[key]
    if alone and rng.random() < 0.2:
        payload["messageIds"] = [str(row.said_id), str(row.anchor_id)]
    point_id = rng.choice((world.id(), world.id(), row.anchor_id))
    return Place(world.home(row.persona_id), point_id), payload, skew != 0, enriched


def deployed(row: Exchange, **added: str) -> dict[str, Any]:
    """The payload of the row's memory as the app writes it."""
    return {
        "personalityId": str(row.personality_id),
        "personalityName": "Ada",
        "personaId": str(row.persona_id),
        "content": as_told(row, **added),
        "createdAt": row.created_at_ms,
        "channelId": row.channel_id,
        "senders": ["1"],
    }


def _prune(world: World) -> None:
    """Let the app remove rows by design: from the old end of a thread, or all of one."""
    for thread in sorted({thread_of(each.row) for each in world.spots}, key=str):
        if world.rng.random() < 0.7:
            continue
        of = [each for each in world.spots if thread_of(each.row) == thread]
        kept_from = world.rng.randint(1, len(of))
        old, rest = of[:kept_from], of[kept_from:]
        if rest and rest[0].row.created_at_ms - old[-1].row.created_at_ms <= 3 * TOLERANCE_MS:
            continue
        # Nothing tells a memory that lost its row from a copy of what another one said.
        if any(each.shares_words for each in old):
            continue
        # Without a channel nothing says that the thread is the one that was pruned.
        if any("channelId" not in each.payload for each in old) and world.per_persona:
            continue
        for each in old:
            each.pruned = True
        # The cut may go between a message and its reply.
        old[-1].half_pruned = world.rng.random() < 0.4


def _leave_behind(world: World) -> None:
    """Put copies into collections that the layout does not read."""
    rng = world.rng
    for each in world.spots:
        if rng.random() < 0.8 or each.pruned or not each.alone:
            continue
        place, payload = beside(world, each.row)
        world.put(place, payload)
        world.copies += 1


def beside(world: World, row: Exchange, *, by_name: bool = False) -> tuple[Place, dict[str, Any]]:
    """A place in a collection that the layout does not read, and the row's payload there.

    `by_name`: the persona is named, and not only the user, or nobody.
    """
    user, persona = str(USERS[row.persona_id]), str(row.persona_id)
    older = f"personality-{row.personality_id}"
    names: list[tuple[str, dict[str, object]]] = [
        (older, {}),
        ("persona-legacy-1", {}),
        (f"persona-legacy-{persona}", {"personaId": None}),
    ]
    if not world.per_persona:
        names.append((f"persona-{persona}", {}))
    if not by_name:
        names += [
            (older, {"personaId": None, "userId": user}),
            (older, {"personaId": None}),
            (f"persona-{user}", {"personaId": user}),
            (f"persona-{user}", {"personaId": None}),
            ("persona-legacy-1", {"personaId": None}),
        ]
    collection, changes = world.rng.choice(names)
    payload = {key: v for key, v in (deployed(row) | changes).items() if v is not None}
    return Place(collection, world.id()), payload
