"""Evidence: the memory of an old exchange decides its persona, before today's settings do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, LiteralString
from uuid import UUID, uuid4

import pytest

from memsync import migrate
from memsync.demo.world import World
from memsync.errors import GateClosed
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from support.evidence import (
    EXCHANGES,
    Said,
    at,
    exchanges,
    first_of,
    load,
    move_on,
    personas,
    remember,
    remember_as,
    write,
)

if TYPE_CHECKING:
    from memsync.stores.vectors.protocol import VectorStore
    from support.app import App

# The personas that today's settings say: by the default alone, and with overrides.
RULE_3: LiteralString = "SELECT h.id, u.global_persona_id"
RULES_2_3: LiteralString = "SELECT h.id, coalesce(s.persona_id, u.global_persona_id)"
OF_ROWS: LiteralString = """
    FROM conversation_history h JOIN users u ON u.id = h.user_id
    LEFT JOIN user_personality_settings s
           ON s.user_id = h.user_id AND s.personality_id = h.personality_id"""


# ------------------------------------------------------------------ what it is for


def test_times_that_python_cannot_hold(app: App, any_store: VectorStore, remembered: World) -> None:
    """Messages of an infinite or BC time cost their own evidence; the migration goes on."""
    load(remembered, any_store)
    said = app.query(EXCHANGES)
    odd = [anchor for anchor, *_ in said[:2]] + [message for _, message, *_ in said[2:4]]
    for row, moment in zip(
        odd, ("infinity", "-infinity", "0044-01-01 BC", "infinity"), strict=True
    ):
        app.do("UPDATE conversation_history SET created_at = %s WHERE id = %s", moment, row)
    assert Stage.CONTRACTED == app.run(vectors=any_store)
    assert None not in app.personas().values()
    decided = {row for (row,) in app.query("SELECT history_id FROM memsync.row_archive")}
    assert decided.isdisjoint(odd)
    assert not decided.isdisjoint(anchor for anchor, *_ in said[4:])
    assert app.verify().ok


def test_who_spoke_then_not_who_would_speak_now(
    app: App, any_store: VectorStore, remembered: World
) -> None:
    """After settings changed, messages with a memory get its persona, not that of the settings."""
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
    # A message outside every exchange has no memory, so today's settings decide it.
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
    """With --evidence ignore the vector store is not even read."""
    load(remembered, store)
    move_on(app)
    by_settings = {row: who for row, who in app.query(RULES_2_3 + OF_ROWS) if who}
    store.close()

    app.run(vectors=store, options={"evidence": "ignore"})

    after = app.personas()
    assert by_settings == {row: after[row] for row in by_settings}


def test_the_source_is_kept(app: App, store: VectorStore) -> None:
    """The archive keeps, beside a decision, the point that made it."""
    said = exchanges(app)[0]
    point = remember_as(store, said, said.other)
    app.run(vectors=store)

    assert {(row, f"persona-{said.other}/{point}") for row in said.rows} == set(
        app.query("SELECT history_id, source FROM memsync.row_archive WHERE reason = 'evidence'")
    )
    with Postgres.open(app.url) as postgres:
        assert 2 == migrate.archive(postgres).rows


def test_only_the_message_directly_before_is_of_the_exchange(app: App, store: VectorStore) -> None:
    """Of two questions in a row only the second counts, even if a stranger spoke after it."""
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


# ------------------------------------------------------------------ what is no evidence


def test_two_personas_of_one_user_are_ambiguous(app: App, store: VectorStore) -> None:
    """Memories of two personas of one user are ambiguous: counted, and the settings decide."""
    doubted, sure = exchanges(app)[:2]
    remember_as(store, doubted, doubted.now)
    remember_as(store, doubted, doubted.other)
    for _ in range(2):
        remember_as(store, sure, sure.other)
    report = app.plan(store).evidence
    app.run(vectors=store)

    assert report
    assert (4, 1, 2) == (report.points, report.ambiguous, report.rows)
    assert [doubted.now] * 2 == personas(app, *doubted.rows)
    assert [sure.other] * 2 == personas(app, *sure.rows)


def test_a_persona_of_another_user_is_foreign(app: App, store: VectorStore) -> None:
    """Another user's persona never gets the row, and does not make the user's own ambiguous."""
    said, disputed = exchanges(app)[:2]
    stranger = app.query("SELECT id FROM personas WHERE owner_id <> %s LIMIT 1", said.user)[0][0]
    remember_as(store, said, stranger)
    foreign = app.query(
        "SELECT id FROM personas WHERE owner_id <> %s ORDER BY id LIMIT 1", disputed.user
    )[0][0]
    remember_as(store, disputed, foreign)
    remember_as(store, disputed, disputed.other)
    report = app.plan(store).evidence
    app.run(vectors=store)

    assert report
    assert (1, 0, 2) == (report.foreign, report.ambiguous, report.rows)
    assert [said.now] * 2 == personas(app, *said.rows)
    assert [disputed.other] * 2 == personas(app, *disputed.rows)


def test_a_persona_that_is_gone_or_nobodys_is_no_evidence(app: App, store: VectorStore) -> None:
    """A deleted persona counts as vanished, an ownerless one as foreign; neither decides."""
    gone, orphaned = exchanges(app)[:2]
    remember_as(store, gone, uuid4())
    nobodys = uuid4()
    app.do(
        "INSERT INTO personas (id, name, content, updated_at) VALUES (%s, 'n', '', now())", nobodys
    )
    remember_as(store, orphaned, nobodys)
    report = app.plan(store).evidence
    # The ownerless persona is assigned to a user who did not speak.
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
    """A memory with another text, time or personality than the exchange's is no evidence."""
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
    """A memory in a form that real apps left behind decides all the same."""
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
    """Points without persona, time or storable text, or with two personas, count as unusable."""
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
    report = app.plan(store).evidence
    app.run(vectors=store)

    assert report
    assert (8, 8, 0) == (report.points, report.points_unusable, report.rows)
    assert [said.now] * 2 == personas(app, *said.rows)


def test_a_time_in_seconds_lets_the_text_decide(app: App, store: VectorStore) -> None:
    """With a time in seconds the text decides; the same text twice in a second is ambiguous."""
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
    report = app.plan(store).evidence
    app.run(vectors=store)

    assert report
    assert (4, 2) == (report.rows, report.ambiguous)
    assert [other, other, now, now, now, now, now, now] == personas(
        app, *(row for pair in talk for row in pair)
    )


# ------------------------------------------------------------------ the proof


def test_a_wrong_persona_is_found_though_the_row_has_evidence(app: App, store: VectorStore) -> None:
    """A wrong persona is found, though the settings say the same, or a forged archive does."""
    planted, forged = exchanges(app)[:2]
    stranger = app.query("SELECT id FROM personas WHERE owner_id <> %s LIMIT 1", forged.user)[0][0]
    for said in (planted, forged):
        remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, vectors=store)
    assert app.verify().ok
    change = "UPDATE conversation_history SET persona_id = %s WHERE id = %s"
    app.do(change, planted.now, planted.anchor)
    # Archive and row were tampered with alike: they agree, and both are wrong.
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
    """Once its archive entry is lost, a row whose persona the settings do not say is reported."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, vectors=store)
    app.do("DELETE FROM memsync.row_archive WHERE history_id = %s", said.anchor)

    assert (f"message {said.anchor} has persona {said.other}, the settings say {said.now}",) == (
        app.verify().problems
    )
