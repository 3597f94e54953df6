"""Tests that a made-up app has every case a migration must handle, and is the same for a seed."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from memsync.demo.world import Recipe, World, make_world
from memsync.demo.world.rows import HistoryRow
from memsync.errors import InvalidInput
from memsync.model.records import thread_order, to_ms

RECIPE = Recipe()
Thread = tuple[str, UUID, UUID]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(RECIPE)


def threads(world: World) -> dict[Thread, list[HistoryRow]]:
    """The rows of each (channel, personality, user), in the thread's order."""
    found = defaultdict(list)
    for row in world.history():
        found[row.channel_id, row.personality_id, row.user_id].append(row)
    return {
        key: sorted(rows, key=lambda r: thread_order(r.created_at, r.role, r.id))
        for key, rows in found.items()
    }


def pairs(world: World) -> Iterator[tuple[HistoryRow, HistoryRow]]:
    """Question and reply of every exchange."""
    for rows in threads(world).values():
        for before, row in pairwise(rows):
            if (before.role, row.role) == ("user", "assistant"):
                yield before, row


def everything(world: World) -> list[object]:
    return [*((name, [*rows]) for name, _, rows in world.tables()), world.points, world.manifest]


def test_equal_recipes_make_equal_worlds(world: World) -> None:
    assert everything(world) == everything(make_world(Recipe()))
    assert everything(world) != everything(make_world(Recipe(seed=2)))


def test_the_manifest_counts_what_is_there(world: World) -> None:
    rows = {name: len([*rows]) for name, _, rows in world.tables()}
    manifest = world.manifest
    assert rows["conversation_history"] == manifest.messages
    assert (rows["users"], rows["personas"]) == (manifest.users, manifest.personas)
    assert rows["personalities"] == manifest.personalities
    assert len([*pairs(world)]) == manifest.exchanges
    assert sum(map(len, world.points.values())) == manifest.points
    assert len(world.points) == manifest.collections
    assert all(rows.values())


def test_ids_and_accounts_are_unique(world: World) -> None:
    ids = [row.id for row in world.history()]
    points = [point.id for points in world.points.values() for point in points]
    accounts = [user.discord_id for user in world.cast.users]
    for each in (ids, points, accounts):
        assert len(set(each)) == len(each)
    assert all(account.isdigit() and 17 <= len(account) <= 19 for account in accounts)


def test_there_are_users_of_every_kind(world: World) -> None:
    owned = Counter(each.owner_id for each in world.cast.personas)
    assert {0, 1, 2, 3} == {owned[each.id] for each in world.cast.users}
    settings = defaultdict(list)
    for each in world.cast.settings:
        settings[each.user_id].append(each.persona_id)
    unresolved = [each.id for each in world.cast.users if each.global_persona_id is None]
    assert RECIPE.unresolved_users == len(unresolved) == world.manifest.unresolved_users
    assert all(set(settings[each]) <= {None} for each in unresolved)
    assert {True, False} == {bool(settings[each]) for each in unresolved}


def test_overrides_are_used_and_null_ones_fall_through(world: World) -> None:
    default = {each.id: each.global_persona_id for each in world.cast.users}
    talked = {(row.user_id, row.personality_id) for row in world.history()}
    kinds = Counter[str]()
    for each in world.cast.settings:
        resolved = world.resolved(each.user_id, each.personality_id)
        if (each.user_id, each.personality_id) not in talked:
            continue
        if each.persona_id is None:
            assert default[each.user_id] == resolved
            kinds["bare" if resolved else "unresolved"] += 1
        else:
            assert default[each.user_id] != each.persona_id == resolved
            kinds["override"] += 1
    assert {"bare", "override", "unresolved"} == set(kinds)


def test_every_user_has_history_and_the_unresolved_have_exchanges(world: World) -> None:
    assert {row.user_id for row in world.history()} == {each.id for each in world.cast.users}
    lost = {row.user_id for _, row in pairs(world) if default_of(world, row) is None}
    assert RECIPE.unresolved_users == len(lost)


def default_of(world: World, row: HistoryRow) -> UUID | None:
    return world.resolved(row.user_id, row.personality_id)


def test_users_interleave_in_group_channels(world: World) -> None:
    channels = defaultdict(list)
    for row in world.history():
        channels[row.channel_id, row.personality_id].append(row.user_id)
    changes = [sum(a != b for a, b in pairwise(users)) for users in channels.values()]
    shared = [len(set(users)) for users in channels.values()]
    assert max(shared) >= 3
    assert max(changes) > 10
    assert 1 in shared
    groups = {channel for channel, users in channels.items() if len(set(users)) > 1}
    assert groups <= {(a.channel_id, a.personality_id) for a in world.activated_channels}


def test_a_persona_meets_a_personality_in_two_channels_but_never_in_one_millisecond(
    world: World,
) -> None:
    channels, moments = defaultdict(set), Counter[tuple[UUID, UUID, datetime]]()
    for _, row in pairs(world):
        channels[row.user_id, row.personality_id].add(row.channel_id)
        moments[row.user_id, row.personality_id, row.created_at] += 1
    assert max(map(len, channels.values())) > 1
    assert {1} == set(moments.values())


def test_equal_times_stand_across_users_and_between_question_and_reply_only(world: World) -> None:
    across = Counter((row.channel_id, row.created_at) for row in world.history())
    tied = 0
    for rows in threads(world).values():
        assert len({row.created_at for row in rows}) >= len(rows) / 2
        for before, row in pairwise(rows):
            if before.created_at == row.created_at:
                assert ("user", "assistant") == (before.role, row.role)
                tied += 1
    assert tied > 5
    assert max(across.values()) > 1
    assert len([n for n in across.values() if n > 1]) > tied


def test_some_threads_are_one_sided_and_some_roles_repeat(world: World) -> None:
    roles = [[row.role for row in rows] for rows in threads(world).values()]
    assert any(a == b for each in roles for a, b in pairwise(each))
    one_sided = make_world(Recipe(users=80, dialogues=90))
    assert any({"user"} == {row.role for row in rows} for rows in threads(one_sided).values())


def test_history_ends_a_day_before_now_in_whole_milliseconds_and_in_order() -> None:
    now = datetime(2026, 3, 1, 17, 30, 12, 345_678, tzinfo=UTC)
    moments = [row.created_at for row in make_world(Recipe(now=now)).history()]
    end = now.replace(tzinfo=None) - timedelta(days=1)
    assert sorted(moments) == moments
    assert end - timedelta(days=90) <= moments[0]
    assert end - timedelta(days=4) <= moments[-1] <= end
    assert all(each.microsecond % 1000 == 0 and each.tzinfo is None for each in moments)


def test_every_resolved_exchange_has_its_point_in_the_deployed_form(world: World) -> None:
    personas = {each.id: each for each in world.cast.personas}
    names = {each.id: each for each in world.cast.personalities}
    expected = {}
    for before, row in pairs(world):
        persona_id = world.resolved(row.user_id, row.personality_id)
        if persona_id is None:
            continue
        persona, personality = personas[persona_id], names[row.personality_id]
        called = persona.preferred_name or persona.name
        speaker = personality.display_name or personality.name
        expected[f"persona-{persona_id}", str(personality.id), to_ms(row.created_at)] = (
            f"User ({called}): {before.content}\n{speaker}: {row.content}"
        )
    actual = {
        (name, point.payload["personalityId"], point.payload["createdAt"]): point.payload["content"]
        for name, points in world.points.items()
        for point in points
    }
    assert expected == actual
    assert len(actual) == world.manifest.points


def test_payloads_carry_the_deployed_keys_and_omit_absent_ones(world: World) -> None:
    always = {"personalityId", "personalityName", "personaId", "content", "canonScope"}
    always |= {"summaryType", "createdAt", "messageIds", "senders"}
    sometimes = Counter[str]()
    for name, points in world.points.items():
        for point in points:
            keys = set(point.payload)
            assert always <= keys
            assert name == f"persona-{point.payload['personaId']}"
            assert (point.payload["canonScope"] == "session") == ("sessionId" in keys)
            assert None not in point.payload.values()
            assert point.vector is None
            sometimes.update(keys - always)
    assert {"sessionId", "channelId", "guildId"} == set(sometimes)
    assert sometimes["guildId"] < sometimes["channelId"] < world.manifest.points


def test_pending_memories_refer_to_rows(world: World) -> None:
    replies = {row.id: row for _, row in pairs(world)}
    assert RECIPE.pending_memories == len(world.pending_memories)
    for each in world.pending_memories:
        row = replies[each.conversation_history_id]
        assert each.persona_id == world.resolved(row.user_id, row.personality_id)
    assert not make_world(Recipe(pending_memories=0)).pending_memories


def test_a_world_without_points_has_the_same_rows(world: World) -> None:
    bare = make_world(replace(RECIPE, points=False))
    assert [*world.history()] == [*bare.history()]
    assert not bare.points
    assert {"missing-point": bare.manifest.exchanges} == bare.manifest.expected


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"users": 0}, "users must be at least 1"),
        ({"group_share": 1.5}, "group_share must be from 0 to 1"),
        ({"several_share": 0.9, "unresolved_share": 0.9}, "exceed all users"),
        ({"override_share": 0.9}, "exceeds several_share"),
        ({"dialogues": 3}, "3 dialogues are too few for 24 users"),
        ({"now": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - the fault that is tested
        ({"points": False, "faults": {"missing-point": 1}}, "without points"),
    ],
)
def test_a_recipe_without_sense_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        Recipe(**changes)  # type: ignore[arg-type]


def test_more_talk_than_fits_into_a_channel_is_refused() -> None:
    recipe = Recipe(users=1, personalities=1, days=1, dialogues=600_000, several_share=0,
                    override_share=0, unresolved_share=0, group_share=0, points=False)  # fmt: skip
    with pytest.raises(InvalidInput, match="do not fit into 1 day of"):
        make_world(recipe)


def test_the_smallest_world_stands() -> None:
    recipe = Recipe(users=1, personalities=1, dialogues=1, several_share=0, override_share=0)
    assert 1 == make_world(recipe).manifest.users
