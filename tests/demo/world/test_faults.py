"""Tests that a made-up app has the faults that were asked for, as often as asked, and no others.

`audited` counts faults independently of the generator: it reads rows and points as an audit would,
in a slow and simple way.
"""

from collections import Counter, defaultdict
from itertools import pairwise
from uuid import UUID

import pytest

from memsync.demo.world import FAULTS, Recipe, World, make_world
from memsync.errors import InvalidInput
from memsync.model.records import Point, to_ms

SECONDS_BELOW = 10**11
Key = tuple[UUID, UUID, int]
"""Persona (the user's id where there is none), personality, time of the reply in ms."""


def exchanges(world: World) -> dict[Key, str]:
    """The text of every exchange, as the app writes it into a memory."""
    personas = {each.id: each for each in world.cast.personas}
    names = {each.id: each for each in world.cast.personalities}
    rows = defaultdict(list)
    for row in world.history():
        rows[row.channel_id, row.personality_id, row.user_id].append(row)
    found = {}
    for (_, personality_id, user_id), thread in rows.items():
        thread.sort(key=lambda row: (row.created_at, row.role != "user", row.id))
        persona_id = world.resolved(user_id, personality_id)
        persona, personality = personas.get(persona_id or user_id), names[personality_id]
        called = persona and (persona.preferred_name or persona.name)
        speaker = personality.display_name or personality.name
        for before, row in pairwise(thread):
            if (before.role, row.role) == ("user", "assistant"):
                key = persona_id or user_id, personality_id, to_ms(row.created_at)
                found[key] = f"User ({called}): {before.content}\n{speaker}: {row.content}"
    return found


def audited(world: World) -> dict[str, int]:
    """How many faults of each name an audit of the world must report."""
    said = exchanges(world)
    by_second = {(a, b, ms // 1000): (a, b, ms) for a, b, ms in said}
    by_content = {(b, ms, content): (a, b, ms) for (a, b, ms), content in said.items()}
    horizon = min(to_ms(row.created_at) for row in world.history())
    known = {each.id for each in world.cast.personas}
    seen: set[Key] = set()
    elsewhere: set[Key] = set()
    found: Counter[str] = Counter()
    for collection, points in world.points.items():
        for point in points:
            persona_id = persona_of(world, collection, point)
            personality_id = UUID(str(point.payload["personalityId"]))
            content = str(point.payload.get("content", point.payload.get("text")))
            at = point.payload.get("createdAt", point.payload.get("timestamp"))
            assert isinstance(at, int)
            if persona_id not in known:
                found["unknown-persona"] += 1
                continue
            coarse = at < SECONDS_BELOW
            is_old = (at * 1000 if coarse else at) < horizon
            if collection.startswith("personality-"):
                found["misplaced-point"] += is_old
                if not is_old:
                    elsewhere.add((persona_id, personality_id, at))
                continue
            assert not is_old
            found["wrong-time-unit"] += coarse
            found["wrong-payload-key"] += bool({"text", "timestamp"} & set(point.payload))
            key = persona_id, personality_id, at
            if coarse:
                key = by_second.get(key, key)
            other = by_content.get((personality_id, at, content))
            if key in said:
                found["duplicate-point"] += key in seen
                found["stale-content"] += said[key] != content
            elif other:
                found["persona-mismatch"] += 1
                key = other
            else:
                found["orphan-point"] += 1
            seen.add(key)
    assert elsewhere.isdisjoint(seen)
    found["missing-point"] = len(set(said) - seen)
    return {name: count for name, count in found.items() if count}


def persona_of(world: World, collection: str, point: Point) -> UUID:
    kind, _, owner = collection.partition("-")
    if kind == "persona":
        assert point.payload.get("personaId", owner) == owner
        return UUID(owner)
    assert point.payload["personalityId"] == owner
    persona_id = world.resolved(UUID(str(point.payload["userId"])), UUID(owner))
    assert persona_id
    return persona_id


NAMED = {"older-layout": "missing-point"}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_kind_of_fault_is_found_as_often_as_it_was_planted(fault: str) -> None:
    clean, world = make_world(Recipe()), make_world(Recipe(faults={fault: 5}))
    assert dict(world.manifest.expected) == audited(world)
    name = NAMED.get(fault, fault)
    planted = 0 if fault == "missing-persona" else 5
    assert planted == audited(world).get(name, 0) - audited(clean).get(name, 0)
    lacking = [
        p for points in world.points.values() for p in points if "personaId" not in p.payload
    ]
    assert len(lacking) == (
        5 if fault in {"missing-persona", "older-layout", "misplaced-point"} else 0
    )


@pytest.mark.parametrize("seed", range(8))
def test_all_faults_together_stay_apart(seed: int) -> None:
    world = make_world(Recipe(seed=seed, faults=dict.fromkeys(FAULTS, 7)))
    assert dict(world.manifest.expected) == audited(world)


def test_expected_counts_add_up() -> None:
    clean = make_world(Recipe()).manifest
    counts = {name: at for at, name in enumerate(FAULTS, start=2)}
    manifest = make_world(Recipe(faults=counts)).manifest
    lost = clean.expected["missing-point"]
    expected = {**counts, "missing-point": counts["missing-point"] + counts["older-layout"] + lost}
    for no_fault in ("missing-persona", "older-layout"):
        del expected[no_fault]
    assert expected == dict(manifest.expected)
    added = ("orphan-point", "misplaced-point", "duplicate-point", "unknown-persona")
    more = sum(counts[name] for name in added) - counts["missing-point"]
    assert clean.points + more == manifest.points


def test_a_clean_world_has_no_faults() -> None:
    world = make_world(Recipe(unresolved_share=0))
    assert {} == dict(world.manifest.expected) == audited(world)


def test_a_mismatched_point_lies_with_another_user() -> None:
    clean, world = (make_world(Recipe(faults=each)) for each in ({}, {"persona-mismatch": 9}))
    owner = {f"persona-{each.id}": each.owner_id for each in world.cast.personas}
    before = {point.id: name for name, points in clean.points.items() for point in points}
    moved = [
        (owner[before[point.id]], owner[name])
        for name, points in world.points.items()
        for point in points
        if before[point.id] != name
    ]
    assert 9 == len(moved)
    assert all(a != b for a, b in moved)


def test_wrong_keys_are_half_of_each_kind() -> None:
    world = make_world(Recipe(faults={"wrong-payload-key": 6}))
    keys = Counter(key for points in world.points.values() for p in points for key in p.payload)
    assert (3, 3) == (keys["text"], keys["timestamp"])


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"unknown-persona"}))
def test_a_world_that_is_too_small_says_so(fault: str) -> None:
    nobody = Recipe(users=2, dialogues=4, several_share=0, override_share=0, unresolved_share=1)
    with pytest.raises(InvalidInput, match=f"too small: {fault}"):
        make_world(Recipe(**{**vars(nobody), "faults": {fault: 1}}))


def test_victims_run_out() -> None:
    with pytest.raises(InvalidInput, match="too small"):
        make_world(Recipe(faults={"missing-point": 200, "stale-content": 250}))


@pytest.mark.parametrize(
    ("faults", "why"), [({"typo": 1}, "no fault is called 'typo'"), ({"orphan-point": -1}, "-1")]
)
def test_faults_that_cannot_be_planted_are_refused(faults: dict[str, int], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        make_world(Recipe(faults=faults))
