"""Evidence: memories made from the old exchanges say who spoke then, not who would now."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from memsync import migrate
from memsync.demo.world import Recipe, World, load_points, make_world
from memsync.errors import GateClosed, StoreBusy, StoreUnreachable
from memsync.migrate.attribution import evidence
from memsync.model.records import Point
from memsync.settings import Settings
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.ltm.layouts import says_as_deployed
from memsync.stores.postgres import Postgres, Session
from memsync.stores.vectors import open_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from conftest import PostgresCluster
    from memsync.model.progress import Tell
    from memsync.stores.vectors.protocol import VectorStore
    from migrate.conftest import App

    Eventually = Callable[[Callable[[], bool], str], None]
    When = Callable[[str, Callable[[], object]], Tell]
    WhenFilled = Callable[[float, Callable[[], object]], Tell]

NOWHERE = "http://127.0.0.1:1"
UNHINDERED = ("--quiet-minutes", "0", "--backup-confirmed", "test")
VECTOR = (1.0, 2.0, 3.0, 4.0)

EXCHANGES: LiteralString = """
    SELECT a.id AS anchor, u.id AS message, a.user_id, a.personality_id, u.content, a.content,
           (extract(epoch FROM a.created_at) * 1000)::bigint
    FROM conversation_history a
    CROSS JOIN LATERAL (
        SELECT * FROM conversation_history b
        WHERE b.channel_id = a.channel_id AND b.personality_id = a.personality_id
          AND b.user_id = a.user_id AND (b.created_at, b.id) < (a.created_at, a.id)
        ORDER BY b.created_at DESC, b.id DESC LIMIT 1) u
    WHERE a.role = 'assistant' AND u.role = 'user' ORDER BY a.id"""

# The script that people used, and the same with overrides: who would speak now.
RULE_3: LiteralString = "SELECT h.id, u.global_persona_id"
RULES_2_3: LiteralString = "SELECT h.id, coalesce(s.persona_id, u.global_persona_id)"
OF_ROWS: LiteralString = """
    FROM conversation_history h JOIN users u ON u.id = h.user_id
    LEFT JOIN user_personality_settings s
           ON s.user_id = h.user_id AND s.personality_id = h.personality_id"""


@dataclass(frozen=True)
class Said:
    """An exchange of the old app, and two personas of its user."""

    anchor: UUID
    message: UUID
    user: UUID
    personality: UUID
    question: str
    answer: str
    at_ms: int
    now: UUID
    other: UUID

    @property
    def rows(self) -> tuple[UUID, UUID]:
        """Both messages."""
        return self.anchor, self.message

    def payload(self, persona: UUID, **changed: object) -> dict[str, object]:
        """What the app remembered of it; None leaves a key out."""
        whole = {
            "personalityId": str(self.personality),
            "personaId": str(persona),
            "content": f"User (Somebody): {self.question}\nSomething: {self.answer}",
            "createdAt": self.at_ms,
            "canonScope": "personal",
        }
        return {key: value for key, value in {**whole, **changed}.items() if value is not None}


def remember(store: VectorStore, collection: str, payload: Mapping[str, object]) -> UUID:
    """Write one point; its id."""
    point = uuid4()
    store.create(collection, len(VECTOR), {})
    store.upsert(collection, [Point(point, payload, VECTOR)])
    return point


def remember_as(store: VectorStore, said: Said, persona: UUID, **changed: object) -> UUID:
    """Write the exchange down as this persona's, as the app did."""
    return remember(store, f"persona-{persona}", said.payload(persona, **changed))


@pytest.fixture
def store() -> Iterator[VectorStore]:
    """An empty vector store."""
    with contextlib.closing(open_vectors(Settings(qdrant_url=":memory:"))) as opened:
        yield opened


@pytest.fixture(params=["memory", "edge"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    """An empty vector store of each kind."""
    url = ":memory:" if request.param == "memory" else f"edge:{tmp_path / 'qdrant'}"
    with contextlib.closing(open_vectors(Settings(qdrant_url=url))) as opened:
        yield opened


@pytest.fixture(scope="session")
def remembered() -> World:
    """The same world as `world`, with the memories that its app made."""
    return make_world(Recipe())


def load(remembered: World, store: VectorStore) -> None:
    load_points(remembered, store, lambda texts: [VECTOR] * len(texts))


def exchanges(app: App) -> list[Said]:
    """Exchanges whose user has several personas, and speaks by their default."""
    several: dict[UUID, str] = dict(
        app.query(
            "SELECT u.id, min(p.id::text) FROM users u JOIN personas p ON p.owner_id = u.id"
            " AND p.id <> u.global_persona_id GROUP BY u.id"
        )
    )
    found = []
    for anchor, message, user, personality, question, answer, at_ms in app.query(EXCHANGES):
        now = app.world.resolved(user, personality)
        if user in several and now == app.world.cast.defaults[user]:
            other = UUID(several[user])
            found.append(
                Said(anchor, message, user, personality, question, answer, at_ms, now, other)
            )
    return found


def personas(app: App, *rows: UUID) -> list[UUID | None]:
    """The personas of these messages."""
    of = app.personas()
    return [of[row] for row in rows]


def reasons(app: App, *rows: UUID) -> list[Any]:
    """Why these messages have a decision of their own."""
    why: dict[UUID, str] = dict(app.query("SELECT history_id, reason FROM memsync.row_archive"))
    return [why.get(row) for row in rows]


def move_on(app: App) -> None:
    """Every user with several personas speaks as another one now, to everybody."""
    app.do(
        "UPDATE users u SET global_persona_id = (SELECT max(p.id::text)::uuid FROM personas p"
        " WHERE p.owner_id = u.id AND p.id <> u.global_persona_id)"
        " WHERE (SELECT count(*) FROM personas p WHERE p.owner_id = u.id) > 1"
    )
    app.do(
        "UPDATE user_personality_settings s SET persona_id = (SELECT min(p.id::text)::uuid"
        " FROM personas p WHERE p.owner_id = s.user_id AND p.id <> s.persona_id)"
        " WHERE persona_id IS NOT NULL"
    )


# ------------------------------------------------------------------ what it is for


def test_who_spoke_then_not_who_would_speak_now(
    app: App, any_store: VectorStore, remembered: World
) -> None:
    """Users changed their settings after the talk: only the memories know, and they decide."""
    load(remembered, any_store)
    then = {
        row: app.world.resolved(user, personality)
        for anchor, message, user, personality, *_ in app.query(EXCHANGES)
        for row in (anchor, message)
        if app.world.resolved(user, personality)
    }
    move_on(app)
    by_default: dict[UUID, UUID | None] = dict(app.query(RULE_3 + OF_ROWS))
    by_settings: dict[UUID, UUID | None] = dict(app.query(RULES_2_3 + OF_ROWS))

    assert Stage.CONTRACTED == app.run(vectors=any_store)

    after = app.personas()
    assert then == {row: after[row] for row in then}
    # What is in no exchange has no memory: there the settings decide, as they are now.
    rest = {row: by_settings[row] for row in by_settings.keys() - then.keys() if by_settings[row]}
    assert rest == {row: after[row] for row in rest}
    wrong = Counter(
        {
            "rule 3": sum(by_default[row] != persona for row, persona in then.items()),
            "rules 2 and 3": sum(by_settings[row] != persona for row, persona in then.items()),
        }
    )
    assert min(wrong["rule 3"], wrong["rules 2 and 3"]) > len(then) // 4
    assert {"evidence": len(then)} == dict(
        app.query("SELECT reason, count(*) FROM memsync.row_archive GROUP BY reason")
    )
    assert app.verify().ok


def test_ignored_evidence_decides_nothing(app: App, store: VectorStore, remembered: World) -> None:
    """With `ignore` the store is not even looked at."""
    load(remembered, store)
    move_on(app)
    by_settings = {row: who for row, who in app.query(RULES_2_3 + OF_ROWS) if who}
    store.close()

    app.run(vectors=store, options={"evidence": "ignore"})

    after = app.personas()
    assert by_settings == {row: after[row] for row in by_settings}


def test_the_source_is_kept(app: App, store: VectorStore) -> None:
    """Which point decided stands beside the decision until the archive goes."""
    said = exchanges(app)[0]
    point = remember_as(store, said, said.other)
    app.run(vectors=store)

    assert {(row, f"persona-{said.other}/{point}") for row in said.rows} == set(
        app.query("SELECT history_id, source FROM memsync.row_archive WHERE reason = 'evidence'")
    )
    with Postgres.open(app.url) as postgres:
        assert 2 == migrate.archive(postgres).rows


def test_only_the_message_directly_before_is_of_the_exchange(app: App, store: VectorStore) -> None:
    """Of two questions in a row the second is; others in the channel do not come between."""
    user, personality, now, other = first_of(exchanges(app))
    stranger = app.query("SELECT id FROM users WHERE id <> %s LIMIT 1", user)[0][0]
    rows = [
        write(app, who, personality, role, text, second)
        for who, role, text, second in (
            (user, "user", "first", 1),
            (user, "user", "second", 2),
            (stranger, "user", "not me", 3),
            (user, "assistant", "reply", 4),
        )
    ]
    said = Said(rows[3], rows[1], user, personality, "second", "reply", at(4), now, other)
    remember_as(store, said, other)
    app.run(vectors=store)

    assert [now, other, other] == personas(app, rows[0], rows[1], rows[3])


def first_of(found: list[Said]) -> tuple[UUID, UUID, UUID, UUID]:
    return found[0].user, found[0].personality, found[0].now, found[0].other


def at(second: float) -> int:
    """Milliseconds of a time that no other row has."""
    return 1_000_000_000_000 + int(second * 1000)


def write(app: App, user: UUID, personality: UUID, role: str, text: str, second: float) -> UUID:
    """A message of the old app."""
    row = uuid4()
    app.do(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, user_id, role, content, created_at)"
        " VALUES (%s, 'talk', %s, %s, %s, %s, to_timestamp(%s / 1000.0) AT TIME ZONE 'UTC')",
        row,
        personality,
        user,
        role,
        text,
        at(second),
    )
    return row


# ------------------------------------------------------------------ what is no evidence


def test_two_personas_of_one_user_are_ambiguous(app: App, store: VectorStore) -> None:
    """Both say that they said it: the settings decide, and the case is counted."""
    doubted, sure = exchanges(app)[:2]
    remember_as(store, doubted, doubted.now)
    remember_as(store, doubted, doubted.other)
    for _ in range(2):
        remember_as(store, sure, sure.other)
    report = app.outlook(store).evidence
    app.run(vectors=store)

    assert report
    assert (4, 1, 2) == (report.points, report.ambiguous, report.rows)
    assert [doubted.now] * 2 == personas(app, *doubted.rows)
    assert [sure.other] * 2 == personas(app, *sure.rows)


def test_a_persona_of_another_user_is_foreign(app: App, store: VectorStore) -> None:
    """It never gets the row; beside one of the user's own it does not count."""
    said, disputed = exchanges(app)[:2]
    stranger = app.query("SELECT id FROM personas WHERE owner_id <> %s LIMIT 1", said.user)[0][0]
    remember_as(store, said, stranger)
    foreign = app.query(
        "SELECT id FROM personas WHERE owner_id <> %s ORDER BY id LIMIT 1", disputed.user
    )[0][0]
    remember_as(store, disputed, foreign)
    remember_as(store, disputed, disputed.other)
    report = app.outlook(store).evidence
    app.run(vectors=store)

    assert report
    assert (1, 0, 2) == (report.foreign, report.ambiguous, report.rows)
    assert [said.now] * 2 == personas(app, *said.rows)
    assert [disputed.other] * 2 == personas(app, *disputed.rows)


def test_a_persona_that_is_gone_or_nobodys_is_no_evidence(app: App, store: VectorStore) -> None:
    """It is counted as vanished; one without an owner speaks for no user."""
    gone, orphaned = exchanges(app)[:2]
    remember_as(store, gone, uuid4())
    nobodys = uuid4()
    app.do(
        "INSERT INTO personas (id, name, content, updated_at) VALUES (%s, 'n', '', now())", nobodys
    )
    remember_as(store, orphaned, nobodys)
    report = app.outlook(store).evidence
    # Whoever gets the one without an owner, it is not who spoke.
    stranger = app.world.cast.users[-1].id
    app.run(vectors=store, options={"orphan_owners": f"assign:{stranger}"})

    assert report
    assert (1, 1, 0) == (report.vanished, report.foreign, report.rows)
    assert [gone.now] * 2 == personas(app, *gone.rows)
    assert app.verify().ok


@pytest.mark.parametrize(
    "changed",
    [
        {"content": "User (Somebody): something else\nSomething: entirely"},
        {"createdAt": 5},
        {"personalityId": str(uuid4())},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_does_not_agree_is_no_evidence(
    app: App, store: VectorStore, changed: dict[str, object]
) -> None:
    """Text, time and personality must all be the exchange's."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other, **changed)
    app.run(vectors=store)

    assert [said.now] * 2 == personas(app, *said.rows)


# ------------------------------------------------------------------ dirt


@pytest.mark.parametrize(
    "dirt",
    ["text", "timestamp", "seconds", "float", "float seconds", "no persona", "older", "canonical"],
)
def test_dirt_is_read_through(app: App, store: VectorStore, dirt: str) -> None:
    """What is found in the wild says who spoke all the same."""
    said = exchanges(app)[0]
    collection = f"persona-{said.other}"
    payload = said.payload(said.other)
    if dirt == "text":
        payload["text"] = payload.pop("content")
    elif dirt == "timestamp":
        payload["timestamp"] = payload.pop("createdAt")
    elif dirt == "seconds":
        payload["createdAt"] = said.at_ms // 1000
    elif dirt == "float":
        payload["createdAt"] = float(said.at_ms)
    elif dirt == "float seconds":
        payload["createdAt"] = said.at_ms / 1000
    elif dirt == "no persona":
        del payload["personaId"]
    elif dirt == "older":
        collection = f"personality-{said.personality}"
        del payload["personalityId"]
    else:
        collection = "memories"
        payload = {
            "persona_id": str(said.other),
            "personality_id": str(said.personality),
            "created_at": said.at_ms,
            "content": f"user: {said.question}\nassistant: {said.answer}",
        }
    remember(store, collection, payload)
    app.run(vectors=store)

    assert [said.other] * 2 == personas(app, *said.rows)


def test_points_that_say_too_little_are_counted(app: App, store: VectorStore) -> None:
    """No persona, no time, no text, text that Postgres cannot hold, names that contradict."""
    said = exchanges(app)[0]
    older = f"personality-{said.personality}"
    remember(store, older, said.payload(said.other, personaId=None, userId=str(said.user)))
    for changed in (
        {"createdAt": None},
        {"createdAt": True},
        {"createdAt": "yesterday"},
        {"content": None},
        {"content": f"{said.question}\0{said.answer}"},
        {"personaId": str(said.now)},
        {"personalityId": None},
    ):
        remember_as(store, said, said.other, **changed)
    remember(store, "somebody-elses", said.payload(said.other))
    report = app.outlook(store).evidence
    app.run(vectors=store)

    assert report
    assert (8, 8, 0) == (report.points, report.points_unusable, report.rows)
    assert [said.now] * 2 == personas(app, *said.rows)


def test_a_time_in_seconds_lets_the_text_decide(app: App, store: VectorStore) -> None:
    """Within one second what was said tells exchanges apart; the same words twice are ambiguous."""
    user, personality, now, other = first_of(exchanges(app))
    talk = [
        (
            write(app, user, personality, "user", question, second),
            write(app, user, personality, "assistant", answer, second + 0.1),
        )
        for question, answer, second in (
            ("what?", "this", 1.0),
            ("and?", "that", 1.2),
            ("hi", "hello", 5.0),
            ("hi", "hello", 5.2),
        )
    ]
    for (message, anchor), question, answer, second, persona in (
        (talk[0], "what?", "this", 1, other),
        (talk[1], "and?", "that", 1, now),
        (talk[2], "hi", "hello", 5, now),
        (talk[3], "hi", "hello", 5, other),
    ):
        said = Said(anchor, message, user, personality, question, answer, at(second), now, other)
        remember_as(store, said, persona, createdAt=at(second) // 1000)
    report = app.outlook(store).evidence
    app.run(vectors=store)

    assert report
    assert (4, 2) == (report.rows, report.ambiguous)
    assert [other, other, now, now, now, now, now, now] == personas(
        app, *(row for pair in talk for row in pair)
    )


# ------------------------------------------------------------------ before running


def test_plan_tells_what_evidence_decides(app: App, store: VectorStore) -> None:
    """Rows by rule, and those where the settings say otherwise, with both personas and point."""
    differs, same = exchanges(app)[:2]
    point = remember_as(store, differs, differs.other)
    remember_as(store, same, same.now)
    rows: LiteralString = "SELECT * FROM conversation_history ORDER BY id"
    before = app.catalog(), app.query(rows)
    without, ahead = app.outlook(), app.outlook(store)

    assert before == (app.catalog(), app.query(rows))
    assert without.rows_by_decision
    assert ahead.rows_by_decision
    assert 4 == ahead.rows_by_decision["evidence"]
    assert sum(without.rows_by_decision.values()) == sum(ahead.rows_by_decision.values())
    assert without.rows_by_decision["default"] - 4 == ahead.rows_by_decision["default"]
    assert ahead.evidence
    assert 2 == ahead.evidence.disagreeing
    assert {
        migrate.Disagreement(
            str(row), str(differs.other), str(differs.now), f"persona-{differs.other}", str(point)
        )
        for row in differs.rows
    } == set(ahead.evidence.samples)
    assert None is without.evidence


def test_the_command_line_opens_the_store(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan prints the disagreement for people and machines; run decides by it."""
    qdrant = f"edge:{tmp_path / 'qdrant'}"
    said = exchanges(app)[0]
    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant))) as store:
        point = remember_as(store, said, said.other)

    assert 0 == app.command("plan", qdrant=qdrant)
    out = capsys.readouterr().out
    assert "evidence and settings disagree on 2 messages" in out
    assert (
        f"{said.anchor}  evidence {said.other}  settings {said.now}  persona-{said.other}/{point}"
    ) in out
    assert 0 == app.command("plan", "--evidence", "ignore", "--json", qdrant=qdrant)
    assert None is json.loads(capsys.readouterr().out)["evidence"]
    assert 0 == app.command("plan", "--json", qdrant=qdrant)
    found = json.loads(capsys.readouterr().out)
    assert (2, 2) == (found["rows_by_decision"]["evidence"], found["evidence"]["disagreeing"])
    assert str(point) == found["evidence"]["samples"][0]["point_id"]

    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant))):
        assert 11 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=qdrant)
    assert "--evidence ignore" in capsys.readouterr().err
    assert 0 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=qdrant)
    assert [said.other] * 2 == personas(app, *said.rows)


def test_plan_shows_at_most_ten_samples(app: App, store: VectorStore, remembered: World) -> None:
    """All are counted, ten are shown."""
    load(remembered, store)
    move_on(app)
    report = app.outlook(store).evidence

    assert report
    assert 10 == len(report.samples) < report.disagreeing


def test_users_whom_evidence_decides_need_no_default(app: App, store: VectorStore) -> None:
    """Every message of theirs is told by a memory: nobody has to choose, no persona is made up."""
    user, _, _, other = first_of(exchanges(app))
    theirs = [said for said in exchanges(app) if said.user == user]
    kept = [row for said in theirs for row in said.rows]
    app.do("DELETE FROM conversation_history WHERE user_id = %s AND id <> ALL(%s)", user, kept)
    app.do("DELETE FROM users WHERE global_persona_id IS NULL")
    app.do("UPDATE users SET global_persona_id = NULL WHERE id = %s", user)
    app.do("DELETE FROM user_personality_settings WHERE user_id = %s", user)
    for said in theirs:
        remember_as(store, said, other)

    assert [str(user)] == [each.user_id for each in app.outlook().unresolved]
    with pytest.raises(GateClosed):
        app.run(unresolved="fail")
    assert () == app.outlook(store).unresolved
    assert Stage.CONTRACTED == app.run(unresolved="fail", vectors=store)
    assert {other} == set(personas(app, *kept))
    status = app.status()
    assert status.rows_total == status.rows_done
    assert [] == app.query("SELECT FROM personas WHERE description = 'Default persona'")


# ------------------------------------------------------------------ stores that do not answer


def test_a_store_that_does_not_answer_stops_the_run_before_it_changes_anything(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way without is named; plan says why it does not know, and the rest."""
    before = app.catalog()
    with (
        contextlib.closing(open_vectors(Settings(qdrant_url=NOWHERE))) as nowhere,
        pytest.raises(StoreUnreachable, match="--evidence ignore"),
    ):
        app.run(vectors=nowhere)
    assert 10 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=NOWHERE)
    assert "--evidence ignore" in capsys.readouterr().err
    assert 0 == app.command("plan", qdrant=NOWHERE)
    out = capsys.readouterr().out
    assert f"evidence: not read: Qdrant at {NOWHERE}" in out
    assert "persona by default" in out
    assert before == app.catalog()

    without = ("run", *UNHINDERED, "--unresolved", "create", "--evidence", "ignore")
    assert 0 == app.command(*without, qdrant=NOWHERE)
    assert app.expected() == app.personas()
    # What is done needs no evidence any more.
    assert 0 == app.command("run", qdrant=NOWHERE)
    assert 0 == app.command("plan", qdrant=NOWHERE)


def test_what_blocks_the_backfill_is_told_without_reading_the_memories(
    app: App, store: VectorStore, remembered: World
) -> None:
    """Reading may take long, and what blocks is mended first. What blocks contract alone waits."""
    load(remembered, store)
    app.do("CREATE VIEW by_user AS SELECT user_id FROM conversation_history")
    ahead = app.outlook(store)
    assert ahead.blockers
    assert ahead.evidence
    assert ahead.evidence.points

    name = sql.Identifier(app.query("SELECT current_database()")[0][0])
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
        )
    ahead = app.outlook(store)
    assert "what blocks a run comes first" == (ahead.evidence and ahead.evidence.not_read)


def test_half_of_the_points_are_no_evidence(
    app: App, store: VectorStore, remembered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails in the middle decides nothing, in plan as in run."""
    load(remembered, store)
    last = max(remembered.points)
    scroll = type(store).scroll

    def failing(self: Any, collection: str, **given: Any) -> Any:
        if collection == last:
            raise StoreUnreachable("the store went away")
        return scroll(self, collection, **given)

    monkeypatch.setattr(type(store), "scroll", failing)
    ahead, without = app.outlook(store), app.outlook()

    assert ahead.evidence
    assert "the store went away" == ahead.evidence.not_read
    # The checks tell of the moment, too.
    assert replace(without, checks=()) == replace(ahead, evidence=None, checks=())
    with pytest.raises(StoreUnreachable):
        app.run(vectors=store)
    assert Stage.LEGACY == app.outlook().stage


@pytest.mark.parametrize("kind", ["edge", "local"])
def test_no_store_is_made(app: App, kind: str, tmp_path: Path) -> None:
    """Where the embedded store has no folder there are no points, and no folder afterwards."""
    folder = tmp_path / "not" / "there"

    assert 0 == app.command("plan", qdrant=f"{kind}:{folder}")
    assert 0 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=f"{kind}:{folder}")
    assert not folder.parent.exists()
    assert app.expected() == app.personas()


def test_nothing_is_written_into_the_store(app: App, store: VectorStore) -> None:
    """A run leaves collections and points as they are."""
    said = exchanges(app)[0]
    point = remember_as(store, said, said.other)
    app.run(vectors=store)

    assert [f"persona-{said.other}"] == store.collections()
    assert said.payload(said.other) == store.retrieve(store.collections()[0], [point])[0].payload


# ------------------------------------------------------------------ cut short, live, and back


STEPS = ("match_points", "keep_evidence", "freeze_map", "fill_archived")


def finished(app: App, store: VectorStore) -> bool:
    """Run again, unless the server has not noticed yet that the last one ended."""
    try:
        return app.run(vectors=store) is Stage.CONTRACTED
    except StoreBusy:
        return False


@pytest.mark.parametrize("step", STEPS)
def test_a_run_cut_short_is_finished_by_the_next(
    app: App,
    store: VectorStore,
    remembered: World,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    step: str,
) -> None:
    """Ended right after any of its steps, the next run ends where an undisturbed one does."""
    load(remembered, store)
    move_on(app)
    expected = by_evidence(app, remembered)
    monkeypatch.setattr(evidence, "_KEPT_ROWS", 50)
    with monkeypatch.context() as patched:
        run, run_with = Session.run, Session.run_with

        def cut(self: Session, name: str, /, **params: Any) -> int:
            touched = run(self, name, **params)
            if name == step:
                self.connection.close()
            return touched

        def cut_with(self: Session, fragments: dict[str, str], name: str, /, **params: Any) -> int:
            touched = run_with(self, fragments, name, **params)
            if name == step:
                self.connection.close()
            return touched

        patched.setattr(Session, "run", cut)
        patched.setattr(Session, "run_with", cut_with)
        with pytest.raises(StoreUnreachable):
            app.run(vectors=store, batch_target_ms=1)
    eventually(lambda: finished(app, store), "the ended session lets go of its lock")

    after = app.personas()
    assert expected == {row: after[row] for row in expected}
    assert app.verify().ok


def by_evidence(app: App, remembered: World) -> dict[UUID, UUID]:
    """The persona of then of every message that the made world remembers."""
    assert app.world.manifest.messages == remembered.manifest.messages
    return {
        row: persona
        for anchor, message, user, personality, *_ in app.query(EXCHANGES)
        if (persona := app.world.resolved(user, personality))
        for row in (anchor, message)
    }


def test_running_twice_decides_once(app: App, store: VectorStore) -> None:
    """What was decided stays decided, though the memory changed in between."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, vectors=store)
    store.drop(f"persona-{said.other}")
    remember_as(store, said, said.now)
    app.run(vectors=store)

    assert [said.other] * 2 == personas(app, *said.rows)


def test_what_was_written_live_is_not_overwritten(app: App, store: VectorStore) -> None:
    """Rows that the bridge decided after expand keep its decision, whatever a point says."""
    user, personality, now, other = first_of(exchanges(app))
    app.run(Phase.EXPAND)
    message = write(app, user, personality, "user", "live", 1)
    anchor = write(app, user, personality, "assistant", "too", 2)
    said = Said(anchor, message, user, personality, "live", "too", at(2), now, other)
    remember_as(store, said, other)
    app.run(vectors=store)

    assert [now, now] == personas(app, message, anchor)
    assert ["written-live"] * 2 == reasons(app, message, anchor)


@pytest.mark.parametrize("moment", ["expand", "backfill"])
def test_an_old_row_that_is_edited_meanwhile_gets_its_persona(
    app: App, store: VectorStore, when: When, moment: str
) -> None:
    """Between expand and the freeze an edit decides nothing, whatever the settings say."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)

    def edit() -> None:
        app.do("UPDATE conversation_history SET content = 'edited' WHERE id = %s", said.anchor)

    if moment == "expand":
        app.run(Phase.EXPAND)
        app.do("UPDATE conversation_history SET channel_id = channel_id || '' ")
        app.run(vectors=store)
    else:
        app.run(vectors=store, tell=when("backfill", edit))

    assert [said.other] * 2 == personas(app, *said.rows)
    assert ["evidence"] * 2 == reasons(app, *said.rows)


@pytest.mark.parametrize("method", ["in-place", "copy"])
@pytest.mark.usefixtures("small_batches")
def test_an_old_row_that_is_edited_before_its_batch_takes_what_was_decided(
    app: App, store: VectorStore, when_filled: WhenFilled, method: str
) -> None:
    """The bridge goes by the evidence too, before the map, while the row waits for the fill."""
    block: LiteralString = (
        "SELECT id FROM conversation_history ORDER BY (ctid::text::point)[0] DESC LIMIT 20"
    )
    last = {row for (row,) in app.query(block)}
    said = next(each for each in exchanges(app) if each.anchor in last)
    remember_as(store, said, said.other)
    edited: list[Any] = []

    def edit() -> None:
        assert [None] == personas(app, said.anchor)
        edited.extend(
            app.query(
                "UPDATE conversation_history SET content = 'edited' WHERE id = %s"
                " RETURNING persona_id",
                said.anchor,
            )
        )

    app.run(vectors=store, tell=when_filled(0, edit), options={"method": method})

    assert [(said.other,)] == edited
    assert [("edited",)] == app.query(
        "SELECT content FROM conversation_history WHERE id = %s", said.anchor
    )
    assert [said.other] * 2 == personas(app, *said.rows)
    assert ["evidence"] * 2 == reasons(app, *said.rows)


@pytest.mark.parametrize("moment", ["read", "judged"])
def test_what_changes_between_reading_and_keeping_counts(
    app: App, store: VectorStore, when: When, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A persona goes, one gets another owner, a row its persona from the app: verify agrees."""
    gone = exchanges(app)[0]
    moved = next(said for said in exchanges(app) if said.user != gone.user)
    spoken = next(each for each in exchanges(app) if each.user not in {gone.user, moved.user})
    for said in (gone, moved, spoken):
        remember_as(store, said, said.other)

    def change() -> None:
        app.do("DELETE FROM personas WHERE id = %s", gone.other)
        app.do("UPDATE personas SET owner_id = %s WHERE id = %s", gone.user, moved.other)

    def speak() -> None:
        app.do(
            "UPDATE conversation_history SET persona_id = %s WHERE id = ANY(%s)",
            spoken.now,
            [*spoken.rows],
        )

    asked = Session.row

    def row(session: Session, name: str, /, **params: Any) -> Any:
        if name == "evidence_rows":
            if moment == "judged":
                change()
            speak()
        return asked(session, name, **params)

    monkeypatch.setattr(Session, "row", row)
    app.run(vectors=store, tell=when("expand", change if moment == "read" else lambda: None))

    for said in (gone, moved, spoken):
        assert [said.now] * 2 == personas(app, *said.rows)
        assert [None] * 2 == reasons(app, *said.rows)
    assert app.verify().ok


@pytest.mark.parametrize("again", [True, False], ids=["read again", "not read again"])
def test_back_and_forward_keeps_the_persona(app: App, store: VectorStore, again: bool) -> None:
    """Evidence rows as they were, also without the memories, and one that the app changed since."""
    kept, changed, by_map = exchanges(app)[:3]
    for said in (kept, changed):
        remember_as(store, said, said.other)
    app.run(vectors=store)
    # It comes too late: what a run decided stands.
    remember_as(store, by_map, by_map.other)
    app.do(
        "UPDATE conversation_history SET persona_id = %s WHERE id = %s", changed.now, changed.anchor
    )
    before = app.personas()
    with Postgres.open(app.url) as postgres:
        migrate.rollback(postgres, app.settings(), to=None)
    assert Stage.CONTRACTED == app.run(vectors=store if again else None)

    assert before == app.personas()
    assert [by_map.now] * 2 == personas(app, *by_map.rows)
    assert ["evidence", "evidence"] == reasons(app, *kept.rows)
    assert ["kept", "evidence"] == reasons(app, *changed.rows)
    assert [(None,)] == app.query(
        "SELECT source FROM memsync.row_archive WHERE history_id = %s", changed.anchor
    )


def test_evidence_speaks_of_what_was_written_after_the_way_back(
    app: App, store: VectorStore
) -> None:
    """A pair that was decided before is asked about again, for its messages since."""
    said = exchanges(app)[0]
    app.run(Phase.BACKFILL)
    with Postgres.open(app.url) as postgres:
        migrate.rollback(postgres, app.settings(), to=None)
    app.do(
        "UPDATE conversation_history SET created_at = created_at"
        " + (timezone('UTC', now())::date - created_at::date + 1) * interval '1 day'"
        " WHERE id = ANY(%s)",
        list(said.rows),
    )
    later = next(each for each in exchanges(app) if each.anchor == said.anchor)
    remember_as(store, later, later.other)
    app.run(Phase.BACKFILL, vectors=store)
    assert [later.other] * 2 == personas(app, *later.rows)
    assert app.verify().ok


# ------------------------------------------------------------------ the proof


def test_a_wrong_persona_is_found_though_the_row_has_evidence(app: App, store: VectorStore) -> None:
    """Planted after the fill: what the settings say is wrong here, and so is the archive's own."""
    planted, forged = exchanges(app)[:2]
    stranger = app.query("SELECT id FROM personas WHERE owner_id <> %s LIMIT 1", forged.user)[0][0]
    for said in (planted, forged):
        remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, vectors=store)
    assert app.verify().ok
    change = "UPDATE conversation_history SET persona_id = %s WHERE id = %s"
    app.do(change, planted.now, planted.anchor)
    # The archive was tampered with, and the row with it: they agree, and are wrong.
    app.do(change, stranger, forged.anchor)
    app.do(
        "UPDATE memsync.row_archive SET persona_id = %s WHERE history_id = %s",
        stranger,
        forged.anchor,
    )
    before = app.catalog()
    with pytest.raises(GateClosed):
        app.run(vectors=store)

    assert before == app.catalog()
    assert {
        f"message {planted.anchor} has persona {planted.now}, its evidence says {planted.other}",
        f"message {forged.anchor} has persona {stranger}, which is not its user's; the settings "
        f"say {forged.now}",
    } == set(app.verify().problems)


def test_a_filled_row_whose_evidence_is_lost_is_found(app: App, store: VectorStore) -> None:
    """Without its entry nothing but the settings speaks for the row, and they say another."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, vectors=store)
    app.do("DELETE FROM memsync.row_archive WHERE history_id = %s", said.anchor)

    assert (f"message {said.anchor} has persona {said.other}, the settings say {said.now}",) == (
        app.verify().problems
    )


# ------------------------------------------------------------------ what agrees


texts = st.text(
    st.sampled_from("ab: ()\n\\%é") | st.characters(exclude_characters="\0", codec="utf-8"),
    max_size=12,
)
names = st.text(st.sampled_from("ab: ()é"), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def agrees(postgres_cluster: PostgresCluster) -> Iterator[Callable[[str, str, str], bool]]:
    """What the database says of a text and an exchange."""
    with Postgres.open(postgres_cluster.url) as postgres, postgres.session() as session:
        yield (
            lambda content, user_text, assistant_text: (
                session.row(
                    "text_agrees",
                    content=content,
                    user_text=user_text,
                    assistant_text=assistant_text,
                ).agrees
            )
        )


@given(user=texts, reply=texts, name=names, personality=names)
def test_a_memory_agrees_with_its_exchange(
    agrees: Callable[[str, str, str], bool], user: str, reply: str, name: str, personality: str
) -> None:
    """Whatever is said and whatever the names are."""
    for content in (
        f"User ({name}): {user}\n{personality}: {reply}",
        f"user: {user}\nassistant: {reply}",
    ):
        assert agrees(content, user, reply)


@given(
    user=texts,
    reply=texts,
    name=names,
    personality=names,
    other=texts,
    content=texts,
    seed=st.randoms(),
)
def test_both_languages_agree_on_what_agrees(
    agrees: Callable[[str, str, str], bool],
    user: str,
    reply: str,
    name: str,
    personality: str,
    other: str,
    content: str,
    seed: random.Random,
) -> None:
    """SQL and Python say the same of texts that were cut, joined and mixed up."""
    whole = f"User ({name}): {user}\n{personality}: {reply}"
    cut = seed.randrange(len(whole) + 1)
    for text in (whole, content, whole[:cut] + other + whole[cut:], whole[cut:], whole[:cut]):
        for question, answer in ((user, reply), (other, reply), (user, other), (reply, user)):
            canonical = text == f"user: {question}\nassistant: {answer}"
            expected = canonical or says_as_deployed(text, question, answer)
            assert expected == agrees(text, question, answer), (text, question, answer)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("User (A): hi\nBot: yo", False),
        ("User (A): oh, hi\nBot: yo", False),
        ("User (A): hi\nBot: hi\nBot: yo", False),
        ("User (A): hi there\nBot: yo", True),
        ("User (A (aka B): x): hi there\nBot 2: yo", True),
        ("hi there\nBot: yo", False),
        ("User (A\nB): hi there\nBot: yo", False),
        ("User (A): hi there\n: yo", False),
        ("User (A): hi there: yo", False),
    ],
)
def test_other_texts_do_not_agree(
    agrees: Callable[[str, str, str], bool], content: str, said: bool
) -> None:
    """A part of the message, another message, a missing line."""
    assert said == agrees(content, "hi there", "yo")
    assert said == says_as_deployed(content, "hi there", "yo")
