"""Plants faults in a world, each where nothing else was planted, and counts what must be found."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from memsync.model.ids import MessageId, point_order
from memsync.model.records import Exchange, Place
from support.lab import NOBODY, A, C, as_told
from support.worlds.clean import SNAKE, beside, deployed
from support.worlds.world import HOME, MUTE, OTHERS, START_MS, TOLERANCE_MS, USERS, Spot, World


def lost(world: World) -> bool:
    each = world.spot()
    if each is None:
        return False
    del world.points[each.place.collection][each.place.point_id]
    each.is_memory = False
    copies = _copies_of(world, each)
    if copies:
        return _is_elsewhere(world, copies)
    world.expect("missing-point", None, each.row.anchor_id)
    return True


def _copies_of(world: World, each: Spot) -> list[Place]:
    """The copies of a memory in collections that the layout does not read."""
    said = f"User (Al): {each.row.user_text}\nAda: {each.row.assistant_text}"
    return [
        Place(name, point_id)
        for name, points in world.points.items()
        if name not in {world.home(persona) for persona in USERS}
        for point_id, payload in points.items()
        if payload.get("content") == said
    ]


def _is_elsewhere(world: World, copies: list[Place]) -> bool:
    """One of its copies is now the only memory of an exchange; a world makes no second one."""
    (copy,) = copies
    world.copies -= 1
    world.expect("missing-point", copy)
    return True


def elsewhere(world: World) -> bool:
    each = world.spot(lambda spot: not _copies_of(world, spot))
    if each is None:
        return False
    del world.points[each.place.collection][each.place.point_id]
    each.is_memory = False
    place, payload = beside(world, each.row)
    world.put(place, payload)
    world.expect("missing-point", place)
    return True


def unsaid(world: World) -> bool:
    each = world.spot(lambda spot: world.amid(spot) and not _copies_of(world, spot))
    if each is None:
        return False
    world.keep_beside(each)
    each.pruned, each.is_memory = True, False
    world.nameless += world.per_persona and "personaId" not in each.payload
    world.expect("orphan-point", each.place)
    return True


def never_said(world: World) -> bool:
    each = world.spot(world.amid)
    if each is None:
        return False
    world.keep_beside(each)
    row = _invented(world, each.row, each.row.created_at_ms + 7)
    place = Place(world.home(row.persona_id), world.id())
    _put_without_row(world, place, row)
    world.expect("orphan-point", place)
    return True


def never_said_beside(world: World) -> bool:
    each = world.spot(world.amid)
    if each is None:
        return False
    world.keep_beside(each)
    place, payload = beside(
        world, _invented(world, each.row, each.row.created_at_ms + 7), by_name=True
    )
    world.put(place, payload)
    world.expect("orphan-point", place)
    return True


def _invented(world: World, like: Exchange, at: int) -> Exchange:
    """An exchange that was never said."""
    number = f"never{world.rng.randrange(10**6)}"
    anchor, said = MessageId(world.id()), MessageId(world.id())
    return replace(
        like,
        anchor_id=anchor,
        said_id=said,
        created_at_ms=at,
        user_text=f"q {number}",
        assistant_text=f"a {number}",
    )


def _put_without_row(world: World, place: Place, row: Exchange, **changes: Any) -> None:
    """Write a memory that has no row, in the form of the layout."""
    if world.per_persona:
        world.put(place, deployed(row) | changes)
        return
    payload: dict[str, Any] = {
        "persona_id": str(row.persona_id),
        "personality_id": str(row.personality_id),
        "channel_id": row.channel_id,
        "created_at": row.created_at_ms,
        "content": as_told(row),
        "text_form": "deployed",
        "embedder": "test/8",
    }
    world.put(place, payload | changes)


def _old(world: World, like: Exchange) -> Exchange:
    """An exchange from long before the history, of which the app has no rows."""
    before = world.rng.randrange(1, 10**6) * 1000
    return _invented(world, like, START_MS - 86_400_000 - before)


def _archived(
    name: str = "", change: Callable[[World, Exchange], dict[str, Any]] = lambda *_: {}
) -> Callable[[World], bool]:
    """Plants a memory from before the history where it belongs; changed, it is this fault."""

    def plant(world: World) -> bool:
        each = world.spot()
        if each is None:
            return False
        row = _old(world, each.row)
        place = Place(world.home(row.persona_id), world.id())
        _put_without_row(world, place, row, **change(world, row))
        world.archived += 1
        if name:
            world.expect(name, place)
        return True

    return plant


archived = _archived()


def misplaced(world: World) -> bool:
    each = world.spot()
    if each is None:
        return False
    place, payload = beside(world, _old(world, each.row))
    world.put(place, payload)
    if _names_somebody(payload, place):
        world.archived += 1
        world.expect("misplaced-point", place)
    else:
        world.expect("nobodys-point", place)
    return True


def _names_somebody(payload: Mapping[str, Any], place: Place) -> bool:
    by_name = place.collection.startswith("persona-") and place.collection != "persona-legacy-1"
    return by_name or "personaId" in payload or "userId" in payload


def newer(world: World) -> bool:
    """The newest rows are lost, as after a restore."""
    newest = max(
        [each.row for each in world.spots if not each.pruned or each.half_pruned]
        + world.unremembered,
        key=lambda row: row.created_at_ms,
        default=None,
    )
    each = world.spot(
        lambda spot: (
            spot.row is newest
            and not _copies_of(world, spot)
            and any(not other.pruned and world.older(other, spot) for other in world.spots)
        )
    )
    if each is None:
        return False
    world.keep_beside(each)
    each.pruned, each.is_memory = True, False
    for other in world.spots:
        # Nothing may be planted after the newest row that is left.
        other.touched |= other is world.spots[-1]
    world.expect("newer-than-history", each.place)
    return True


def mismatch(world: World) -> bool:
    each = world.spot(lambda spot: "messageIds" not in spot.payload)
    if each is None:
        return False
    row, other = each.row, world.rng.choice(OTHERS[each.row.persona_id])
    copied = world.rng.random() < 0.4
    place = Place(world.home(other), world.id())
    if world.per_persona:
        world.put(place, deployed(row) | {"personaId": str(other)})
    else:
        world.put(place, SNAKE.encode(row, "test/8") | {"persona_id": str(other)})
    if not copied:
        del world.points[each.place.collection][each.place.point_id]
        each.is_memory = False
        if copies := _copies_of(world, each):
            for copy in copies:
                del world.points[copy.collection][copy.point_id]
            world.copies -= len(copies)
    world.expect("persona-mismatch", place)
    return True


def unknown(world: World) -> bool:
    each = world.spot()
    if each is None:
        return False
    said = world.rng.random() < 0.5
    row = each.row if said else _old(world, each.row)
    place = Place(f"persona-{NOBODY}", world.id())
    world.put(place, deployed(row) | {"personaId": world.rng.choice((None, str(NOBODY)))})
    world.expect("unknown-persona", place)
    return True


def contradicting(world: World) -> bool:
    """The payload of a memory at home names a persona who does not exist."""
    each = world.spot()
    if each is None:
        return False
    key = "personaId" if world.per_persona else "persona_id"
    world.put(each.place, each.payload | {key: str(NOBODY)})
    each.is_memory = False
    world.expect("unknown-persona", each.place)
    return True


def twice(world: World) -> bool:
    each = world.spot()
    if each is None:
        return False
    copy = Place(each.place.collection, world.rng.choice((world.id(), world.rng.getrandbits(40))))
    world.put(copy, each.payload)

    def keeps(place: Place) -> tuple[object, ...]:
        return (
            (place.point_id == each.row.anchor_id) is world.per_persona,
            point_order(place.point_id),
        )

    kept, other = sorted((each.place, copy), key=keeps)
    each.place = kept
    world.expect("duplicate-point", other)
    return True


# ---------------------------------------------------------------------- faults of one layout


def _respelled(
    name: str,
    change: Callable[[World, Spot], dict[str, Any]],
    suits: Callable[[Spot], bool] = lambda _: True,
) -> Callable[[World], bool]:
    """Plants a fault by changing the payload of a memory."""

    def plant(world: World) -> bool:
        each = world.spot(suits)
        if each is None:
            return False
        changes = change(world, each)
        each.payload = {
            key: value for key, value in (each.payload | changes).items() if value is not None
        }
        world.put(each.place, each.payload)
        world.expect(name, each.place)
        if name == "stale-content":
            each.enriched = False
        if "createdAt" in changes and "timestamp" not in changes:
            each.skewed = False
        return True

    return plant


def _named(row: Exchange) -> list[str]:
    return [str(row.said_id), str(row.anchor_id)]


APP: Mapping[str, Callable[[World], bool]] = {
    "stale": _respelled(
        "stale-content",
        lambda _, s: {"content": "User (Al): x\nAda: draft", "createdAt": s.row.created_at_ms},
    ),
    "text": _respelled(
        "wrong-payload-key", lambda _, s: {"text": s.payload["content"], "content": None}
    ),
    "timestamp": _respelled(
        "wrong-payload-key",
        lambda _, s: {"timestamp": s.payload["createdAt"], "createdAt": None},
    ),
    "seconds": _respelled(
        "wrong-time-unit", lambda _, s: {"createdAt": s.row.created_at_ms // 1000}
    ),
    "fraction": _respelled(
        "wrong-time-unit", lambda _, s: {"createdAt": float(s.row.created_at_ms)}
    ),
    "date": _respelled(
        "wrong-time-unit",
        lambda *_: {"createdAt": "2025-05-01"},
        # Without a time, a longer text is not looked for.
        lambda spot: not spot.enriched or "messageIds" in spot.payload,
    ),
    "no time": _respelled(
        "payload-drift", lambda _, s: {"createdAt": None, "messageIds": _named(s.row)}
    ),
    "another time": _respelled(
        "payload-drift",
        lambda _, s: {
            "createdAt": s.row.created_at_ms + TOLERANCE_MS + 1,
            "messageIds": _named(s.row),
        },
    ),
    "another persona": _respelled(
        "payload-drift",
        lambda w, s: {"personaId": str(w.rng.choice(OTHERS[s.row.persona_id]))},
    ),
    "two personas": _respelled(
        "payload-drift",
        lambda _, s: {"personaId": [str(s.row.persona_id), str(OTHERS[s.row.persona_id][0])]},
    ),
    "its user": _respelled(
        "payload-drift", lambda _, s: {"personaId": str(USERS[s.row.persona_id])}
    ),
    "no id": _respelled(
        "payload-drift", lambda w, _: {"personaId": w.rng.choice(("", "x", 7, False, {}))}
    ),
    "another channel": _respelled("payload-drift", lambda *_: {"channelId": "9"}),
    "another personality": _respelled(
        "payload-drift", lambda _, s: {"personalityId": str(MUTE), "messageIds": _named(s.row)}
    ),
    "disputed": _archived(
        "misplaced-point", lambda w, row: {"personaId": str(w.rng.choice(OTHERS[row.persona_id]))}
    ),
    "archived, its user": _archived(
        "misplaced-point", lambda _, row: {"personaId": str(USERS[row.persona_id])}
    ),
}

SHARED: Mapping[str, Callable[[World], bool]] = {
    "no persona": _respelled("missing-persona", lambda *_: {"persona_id": None}),
    "two personas": _respelled("missing-persona", lambda *_: {"persona_id": [str(A), str(C)]}),
    "stale": _respelled(
        "stale-content",
        lambda _, s: (
            {"content": "User (Al): x\nAda: y"} if "content" in s.payload else {"user_text": "x"}
        ),
    ),
    "channel": _respelled("payload-drift", lambda *_: {"channel_id": "9"}),
    "personality": _respelled("payload-drift", lambda *_: {"personality_id": str(MUTE)}),
    "time": _respelled("payload-drift", lambda _, s: {"created_at": s.row.created_at_ms + 1}),
    "digest": _respelled("payload-drift", lambda *_: {"digest": "0" * 64}),
    "bucket": _respelled("payload-drift", lambda *_: {"fp1": -1}),
    "other style": _respelled(
        "wrong-payload-key",
        lambda _, s: {"channelId": s.row.channel_id, "channel_id": None},
    ),
    "seconds": _respelled(
        "wrong-time-unit", lambda _, s: {"created_at": s.row.created_at_ms // 1000}
    ),
    "fraction": _respelled(
        "wrong-time-unit", lambda _, s: {"created_at": float(s.row.created_at_ms)}
    ),
    "tampered": _archived("archived-tampered", lambda *_: {"digest": "1" * 64}),
    "archived, a user": _archived("misplaced-point", lambda *_: {"persona_id": str(USERS[C])}),
    "archived, in capitals": _archived(
        "", lambda _, row: {"persona_id": str(row.persona_id).upper()}
    ),
}


def foreign_id(world: World) -> bool:
    each = world.spot()
    if each is None:
        return False
    del world.points[HOME][each.place.point_id]
    each.place = Place(HOME, world.id())
    world.put(each.place, each.payload)
    world.expect("foreign-point-id", each.place)
    return True
