"""Memories whose time is the app's own clock, and whose text says more than the rows."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

import pytest

from memsync import migrate
from memsync.migrate.attribution import Evidence
from memsync.model.records import Point
from memsync.stores.history.phases import Phase
from memsync.stores.ltm.texts import says_as_deployed, says_more_as_deployed
from memsync.stores.postgres import Postgres
from support.evidence import (
    VECTOR,
    Said,
    at,
    exchanges,
    first_of,
    personas,
    reasons,
    remember,
    remember_as,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from memsync.stores.vectors.protocol import VectorStore
    from support.app import App


def talk(app: App, second: float, question: str = "hi there", answer: str = "yo") -> Said:
    """An exchange of a user with two personas; its reply is of this second."""
    user, personality, now, other = first_of(exchanges(app))
    message = write(app, user, personality, "user", question, second - 0.1)
    anchor = write(app, user, personality, "assistant", answer, second)
    return Said(anchor, message, user, personality, question, answer, at(second), now, other)


def report(app: App, store: VectorStore) -> migrate.EvidenceReport:
    found = app.plan(store).evidence
    assert found
    return found


# ------------------------------------------------------------------ what is recognised


@pytest.mark.parametrize("skew_ms", [-10_000, -2_300, 1, 2_300, 10_000])
def test_a_memory_of_the_apps_clock_decides(app: App, store: VectorStore, skew_ms: int) -> None:
    """A memory some seconds beside its exchange says who spoke, up to the tolerance."""
    said = talk(app, 100)
    remember_as(store, said, said.other, createdAt=said.at_ms + skew_ms)
    app.run(Phase.BACKFILL, vectors=store)

    assert [said.other] * 2 == personas(app, *said.rows)
    assert ["evidence"] * 2 == reasons(app, *said.rows)
    assert app.verify().ok


@pytest.mark.parametrize("skew_ms", [0, 2_300])
@pytest.mark.parametrize(
    "content",
    ["User (A): hi there\n\n[Image: a cat]\nBot: yo", "User (A): hi there\nBot: yo\n(edited)"],
)
def test_an_enriched_memory_decides(
    app: App, store: VectorStore, content: str, skew_ms: int
) -> None:
    """A memory that says more than the rows, behind either text, is that of the exchange."""
    said = talk(app, 100)
    remember_as(store, said, said.other, content=content, createdAt=said.at_ms + skew_ms)
    app.run(Phase.BACKFILL, vectors=store)

    assert [said.other] * 2 == personas(app, *said.rows)


@pytest.mark.parametrize("skew_ms", [0, 2_300])
def test_a_memory_of_two_texts_decides(app: App, store: VectorStore, skew_ms: int) -> None:
    """A memory that keeps both texts apart is that of the exchange; its copy is no second one."""
    said = talk(app, 100)
    for _ in range(2):
        remember_as(
            store,
            said,
            said.other,
            content=None,
            userText=said.question,
            assistantText=said.answer,
            createdAt=said.at_ms + skew_ms,
        )
    found = report(app, store)

    assert (2, 0) == (found.rows, found.repeated)
    app.run(Phase.BACKFILL, vectors=store)
    assert [said.other] * 2 == personas(app, *said.rows)


def test_two_memories_whose_texts_only_join_to_the_same(app: App, store: VectorStore) -> None:
    """They are two memories, and each decides its own exchange, though both join to one text."""
    whole = talk(app, 100, "a\nassistant: b", "c")
    parted = talk(app, 103, "a", "b\nassistant: c")
    for said in (whole, parted):
        remember_as(
            store,
            said,
            said.other,
            content=None,
            userText=said.question,
            assistantText=said.answer,
            createdAt=at(101),
        )

    assert 4 == report(app, store).rows
    app.run(Phase.BACKFILL, vectors=store)
    assert [whole.other] * 4 == personas(app, *whole.rows, *parted.rows)


@pytest.mark.parametrize("skew_ms", [0, 2_300])
def test_an_exchange_of_one_moment(app: App, store: VectorStore, skew_ms: int) -> None:
    """Messages with one time are in the thread's order, whatever their ids are."""
    user, personality, _, other = first_of(exchanges(app))
    pairs = []
    for second in range(100, 500, 50):
        rows = [
            write(app, user, personality, role, f"{role} {second}", second)
            for role in ("assistant", "user")
        ]
        pairs.append(rows)
        content = f"User (N): user {second}\nBot: assistant {second}"
        payload = {"personalityId": str(personality), "content": content}
        remember(store, f"persona-{other}", payload | {"createdAt": at(second) + skew_ms})

    assert 2 * len(pairs) == report(app, store).rows
    app.run(Phase.BACKFILL, vectors=store)
    assert {other} == {persona for rows in pairs for persona in personas(app, *rows)}


@pytest.mark.parametrize("dirt", ["seconds", "float", "no persona", "text", "copies"])
def test_a_skewed_memory_may_be_dirty(app: App, store: VectorStore, dirt: str) -> None:
    """The payload's dirt and the clock's skew come together."""
    said = talk(app, 100)
    payload: dict[str, object] = {"createdAt": said.at_ms + 2_300}
    if dirt == "seconds":
        payload["createdAt"] = (said.at_ms + 2_300) // 1000
    elif dirt == "float":
        payload["createdAt"] = float(said.at_ms + 2_300)
    elif dirt == "no persona":
        payload["personaId"] = None
    elif dirt == "text":
        payload |= {"content": None, "text": "User (Renamed): hi there\nAlso: yo"}
    for _ in range(1 + (dirt == "copies")):
        remember_as(store, said, said.other, **payload)

    assert 2 == report(app, store).rows
    app.run(Phase.BACKFILL, vectors=store)
    assert [said.other] * 2 == personas(app, *said.rows)


# ------------------------------------------------------------------ what is not


@pytest.mark.parametrize(
    "changed",
    [
        {"createdAt": at(110.001)},
        {"createdAt": at(89.999)},
        {"createdAt": at(101), "content": "User (A): hi there!\nBot: yo"},
        {"createdAt": at(101), "content": "User (A): hi there\nBot: yo you"},
        {"createdAt": at(101), "content": "User (A): oh, hi there\nBot: yo"},
        {"createdAt": at(101), "userText": "hi there", "assistantText": "yo you"},
        {"createdAt": at(101), "userText": "hi", "assistantText": "yo"},
        {"createdAt": at(101), "persona_id": "00000000-0000-4000-8000-000000000001"},
        {"createdAt": at(101), "personalityId": "00000000-0000-4000-8000-000000000001"},
    ],
    ids=[
        *("late", "early", "question", "reply", "before", "reply apart", "question apart"),
        *("several personas", "personality"),
    ],
)
def test_a_near_miss_decides_nothing(
    app: App, store: VectorStore, changed: Mapping[str, object]
) -> None:
    """Just outside the tolerance, another text and another personality are no evidence.

    The reply that goes on in the same line is taken for an addition.
    """
    said = talk(app, 100)
    remember_as(store, said, said.other, **changed)
    expected = 2 if "you" in str(changed.get("content")) else 0

    assert expected == report(app, store).rows


def test_another_users_persona_is_not_taken(app: App, store: VectorStore) -> None:
    """A memory of the same text within the tolerance, but of another user's persona, is foreign."""
    said = talk(app, 100)
    stranger = app.query("SELECT id FROM personas WHERE owner_id <> %s LIMIT 1", said.user)[0][0]
    remember_as(store, said, stranger, createdAt=said.at_ms + 500)
    remember_as(store, said, said.other, createdAt=said.at_ms + 2_300)
    app.run(Phase.BACKFILL, vectors=store)

    assert [said.other] * 2 == personas(app, *said.rows)


def test_what_was_said_repeatedly_is_no_evidence(app: App, store: VectorStore) -> None:
    """Fifty times "ok" within seconds: no memory is taken for any of them, and they are counted."""
    said = [talk(app, 100 + n / 5, "ok", "ok") for n in range(50)]
    for n, each in enumerate(said):
        persona = each.other if n % 2 else each.now
        remember_as(store, each, persona, createdAt=each.at_ms + 700)
    lone = talk(app, 200)
    remember_as(store, lone, lone.other, createdAt=lone.at_ms + 700)
    found = report(app, store)

    assert 2 == found.rows
    assert 50 == found.ambiguous + found.repeated
    app.run(Phase.BACKFILL, vectors=store)
    assert {said[0].now} == {row for each in said for row in personas(app, *each.rows)}


@pytest.mark.parametrize(("rows", "memories"), [(2, 1), (1, 2)])
def test_one_memory_and_one_row_must_be_each_others_only_choice(
    app: App, store: VectorStore, rows: int, memories: int
) -> None:
    """Two rows for a memory, or two memories for a row, are repeated, though one persona spoke."""
    said, *_ = [talk(app, 100 + 3 * n) for n in range(rows)]
    for n in range(memories):
        remember_as(store, said, said.other, createdAt=said.at_ms + 1_000 + 100 * n)
    found = report(app, store)

    assert (0, rows) == (found.rows, found.repeated)


def test_equal_time_goes_first(app: App, store: VectorStore) -> None:
    """A memory of the exact time decides, and another one nearby neither does nor disturbs it."""
    exact, skewed = talk(app, 100), talk(app, 105)
    remember_as(store, exact, exact.other)
    remember_as(store, exact, exact.now, createdAt=exact.at_ms - 8_000)
    remember_as(store, skewed, skewed.other, createdAt=skewed.at_ms + 1_000)
    found = report(app, store)
    app.run(Phase.BACKFILL, vectors=store)

    assert [exact.other] * 2 == personas(app, *exact.rows)
    # Its memory might be another one of the first exchange.
    assert (2, 1) == (found.rows, found.repeated)
    assert [skewed.now] * 2 == personas(app, *skewed.rows)


@pytest.mark.parametrize(("tolerance_s", "rows"), [(0, 0), (2, 0), (2.5, 2), (10, 2)])
def test_the_tolerance_is_a_setting(
    app: App, store: VectorStore, tolerance_s: float, rows: int
) -> None:
    """match_tolerance_s says how far times may differ; 0 asks for equal times."""
    said = talk(app, 100)
    remember_as(store, said, said.other, createdAt=said.at_ms + 2_300)
    settings = app.settings(match_tolerance_s=tolerance_s)
    with Postgres.open(app.url) as postgres:
        found = migrate.plan(postgres, settings, lambda: store).evidence

    assert found
    assert rows == found.rows


# ------------------------------------------------------------------ compared with an oracle


@dataclass(frozen=True)
class Spoken:
    """An exchange that a row tells of."""

    anchor: UUID
    user: UUID
    personality: UUID
    at_ms: int
    question: str
    answer: str


@dataclass(frozen=True)
class Remembered:
    """A memory as its point tells it."""

    persona: UUID
    personality: UUID
    at_ms: int
    content: str


def distance(memory: Remembered, spoken: Spoken, owners: Mapping[UUID, UUID]) -> int | None:
    """How little the two resemble each other; None where they do not."""
    if owners[memory.persona] != spoken.user or memory.personality != spoken.personality:
        return None
    apart_ms = abs(memory.at_ms - spoken.at_ms)
    texts = (memory.content, spoken.question, spoken.answer)
    if apart_ms > 10_000 or not says_more_as_deployed(*texts):
        return None
    return 2 * (apart_ms > 0) + (not says_as_deployed(*texts))


def by_oracle(
    said: Iterable[Spoken], remembered: Iterable[Remembered], owners: Mapping[UUID, UUID]
) -> dict[UUID, UUID]:
    """The persona of each anchor, by looking at every pair of exchange and memory."""
    choices: dict[Spoken, list[tuple[Remembered, int, int]]] = {}
    spoken = list(said)
    for memory in set(remembered):
        near = [(each, d) for each in spoken if (d := distance(memory, each, owners)) is not None]
        least = min((d for _, d in near), default=None)
        nearest = [each for each, d in near if d == least]
        for each in nearest:
            choices.setdefault(each, []).append((memory, least or 0, len(nearest)))
    found = {}
    for each, chosen in choices.items():
        exact = [memory.persona for memory, d, _ in chosen if d < 2]
        if len(set(exact)) == 1:
            found[each.anchor] = exact[0]
        elif not exact and len(chosen) == 1 and chosen[0][2] == 1:
            found[each.anchor] = chosen[0][0].persona
    return found


TEXTS = ("ok", "ok then", "hi", "hi there\nyou", "what is it")


def made_world(
    app: App, rng: random.Random, talks: int
) -> tuple[list[Spoken], list[Remembered], dict[UUID, UUID]]:
    """Replace the history by lively talks, and make memories of some of them."""
    app.do("TRUNCATE conversation_history CASCADE")
    personalities = [row[0] for row in app.query("SELECT id FROM personalities ORDER BY id")][:2]
    owners: dict[UUID, UUID] = dict(
        app.query("SELECT id, owner_id FROM personas WHERE owner_id IS NOT NULL ORDER BY id")
    )
    many = [user for user, count in Counter(owners.values()).items() if count > 1][:4]
    spoken, remembered, rows = [], [], []
    clock_ms = {user: at(0) for user in many}
    for _ in range(talks):
        user, personality = rng.choice(many), rng.choice(personalities)
        clock_ms[user] += rng.choice((200, 1_500, 4_000, 12_000, 40_000)) + rng.randrange(50)
        question, answer = rng.choice(TEXTS), rng.choice(TEXTS)
        anchor = UUID(int=rng.getrandbits(128), version=4)
        each = Spoken(anchor, user, personality, clock_ms[user], question, answer)
        spoken.append(each)
        message = UUID(int=rng.getrandbits(128), version=4)
        channel = str(rng.randrange(2))
        rows.append((message, channel, personality, user, "user", question, each.at_ms - 100))
        rows.append((anchor, channel, personality, user, "assistant", answer, each.at_ms))
        whose = rng.choice([persona for persona, owner in owners.items() if owner == user])
        for _ in range(rng.choices((0, 1, 2), (2, 7, 1))[0]):
            persona = whose if rng.random() < 0.9 else rng.choice(list(owners))
            skew_ms = rng.choice((0, 0, 1, 700, 2_900, -400, 9_000, 10_000, 10_001))
            more = rng.choice(("", "", "", "\n\n[Image: ok]", " then"))
            content = f"User (N): {question}{more}\nBot: {answer}{rng.choice(('', '', ' then'))}"
            made = Remembered(persona, personality, each.at_ms + skew_ms, content)
            remembered += [made] * rng.choice((1, 1, 1, 2))
    with app.connected() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO conversation_history"
            " (id, channel_id, personality_id, user_id, role, content, created_at) VALUES"
            " (%s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0) AT TIME ZONE 'UTC')",
            rows,
        )
    return spoken, remembered, owners


def put(store: VectorStore, rng: random.Random, remembered: Iterable[Remembered]) -> None:
    """Write the memories as the app does, into the collections of their personas."""
    for memory in remembered:
        name = f"persona-{memory.persona}"
        store.create(name, len(VECTOR), {})
        payload = {
            "personalityId": str(memory.personality),
            "content": memory.content,
            "createdAt": memory.at_ms,
        }
        point = Point(UUID(int=rng.getrandbits(128), version=4), payload, VECTOR)
        store.upsert(name, [point])


@pytest.mark.parametrize("number", range(6))
def test_sql_finds_what_an_oracle_finds(
    app: App, store: VectorStore, seed: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On seeded talks the joins decide exactly as a look at every pair does, in batches too."""
    rng = random.Random(f"{seed}/{number}")
    spoken, remembered, owners = made_world(app, rng, talks=150)
    put(store, rng, remembered)
    if number % 2:
        monkeypatch.setattr("memsync.migrate.attribution.evidence._COPIED_POINTS", 20)
        monkeypatch.setattr("memsync.migrate.attribution.evidence._JOINED_POINTS", 40)
    with Postgres.open(app.url) as postgres:
        session = postgres.dedicated()
        with contextlib.closing(session.connection) as connection:
            Evidence(session).read(store, app.settings())
            found = dict(
                connection.execute("SELECT history_id, persona_id FROM memsync_evidence").fetchall()
            )
    expected = by_oracle(spoken, remembered, owners)

    assert expected == {each.anchor: found[each.anchor] for each in spoken if each.anchor in found}
    assert 2 * len(expected) == len(found)
    assert 20 < len(expected) < len(spoken)


@pytest.mark.parametrize("apart", [timedelta(seconds=7), timedelta()], ids=["apart", "together"])
def test_a_long_thread_is_read_once(app: App, store: VectorStore, apart: timedelta) -> None:
    """The messages that are looked up grow with the thread, not with its square.

    A question and its reply may have one time, so that their order is not that of an index.
    """
    _, personality, _, other = first_of(exchanges(app))
    app.do("TRUNCATE conversation_history CASCADE")
    # Each user has a channel, so that the planner is tempted to read whole threads by user.
    app.do(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, user_id, role, content, created_at)"
        " SELECT gen_random_uuid(), left(u.id::text, 18), %s, u.id,"
        " CASE WHEN n %% 2 = 0 THEN 'user' ELSE 'assistant' END, 'said ' || n / 2,"
        " timestamp '2025-01-01 00:00:07' + n / 2 * interval '14 seconds'"
        " - (1 - n %% 2) * %s::interval FROM users u, generate_series(0, 1199) n",
        personality,
        apart,
    )
    app.do("ANALYZE conversation_history")
    store.create(f"persona-{other}", len(VECTOR), {})
    points = [
        Point(
            number + 1,
            {
                "personalityId": str(personality),
                "content": f"User (N): said {number}\nBot: said {number}",
                "createdAt": 1_735_689_607_000 + 14_000 * number + 1_500 * (number % 2),
            },
            VECTOR,
        )
        for number in range(600)
    ]
    store.upsert(f"persona-{other}", points)
    fetched: LiteralString = (
        "SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'conversation_history'"
    )
    ((before,),) = app.query(fetched)
    with Postgres.open(app.url) as postgres:
        session = postgres.dedicated()
        with contextlib.closing(session.connection) as connection:
            evidence = Evidence(session)
            evidence.read(store, app.settings())
            assert 1200 == evidence.report().rows
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.execute("SELECT 1")
    ((after,),) = app.query(fetched)

    ((rows,),) = app.query("SELECT count(*) FROM conversation_history")
    assert after - (before or 0) < 2 * rows
