"""The library and the relay in the per-persona layout, the app's own."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import models

from memsync import NewExchange, SettingsError
from memsync.errors import PartlyDone, StoreUnreachable
from memsync.memory import Drained, Memory, outbox_status
from memsync.model.records import Exchange, to_ms
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Ledger
from support.counting import Counting
from support.failing import Failing
from support.lab import ADA, BASIL, CHANNEL, DIMS, LONG_AGO, STORES, A, B, C, Lab, embed
from support.ledger import agrees
from support.releasing import drain

HOME = f"persona-{A}"


@pytest.fixture(params=STORES)
def any_lab(request: pytest.FixtureRequest, open_lab: "partial[Lab]") -> Lab:
    """A lab on each kind of store, whose app has handed its memories over."""
    return open_lab(request.param, layout="per-persona", writer="memsync")


@pytest.fixture
def lab(open_lab: "partial[Lab]") -> Lab:
    """The same on the store in memory."""
    return open_lab(layout="per-persona", writer="memsync")


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The records of the logger `memsync`."""
    with caplog.at_level(logging.WARNING, logger="memsync"):
        yield caplog


def recalled(lab: Lab, persona: UUID = A, **options: Any) -> list[object]:
    """The ids of the persona's memories, best first."""
    return [each.id for each in lab.memory.recall("x", persona_id=persona, **options)]


def ids(lab: Lab, collection: str = HOME) -> set[object]:
    """The ids of the collection's points."""
    return {each[0] for each in lab.points()[collection]}


# ---------------------------------------------------------------------- recall


def test_a_persona_recalls_from_its_own_collection(any_lab: Lab) -> None:
    """Points of the collection are the persona's, named or not; a personality is filtered by."""
    [mine, unnamed, other] = any_lab.say(2) + any_lab.say(personality=BASIL)
    [yours] = any_lab.say(persona=C)
    first = any_lab.deploy(mine)
    second = any_lab.deploy(unnamed, personaId=None, channelId=None)
    third = any_lab.deploy(other)
    theirs = any_lab.deploy(yours)
    assert {first.id, second.id, third.id} == set(recalled(any_lab))
    assert {first.id, second.id} == set(recalled(any_lab, personality_id=ADA))
    assert [third.id] == recalled(any_lab, personality_id=BASIL)
    assert [theirs.id] == recalled(any_lab, C)
    assert [] == recalled(any_lab, B)
    assert not any_lab.vectors.describe(f"persona-{B}")
    [found] = any_lab.memory.recall("x", persona_id=A, personality_id=BASIL)
    assert (A, BASIL, other.user_text in found.text) == (
        found.persona_id,
        found.personality_id,
        True,
    )


@pytest.mark.parametrize("named", [str(C), [str(A), str(C)], [str(A)], "nobody", 7], ids=repr)
def test_a_point_that_is_not_the_personas_alone_is_left_out(
    any_lab: Lab, named: object, warned: pytest.LogCaptureFixture
) -> None:
    """It costs itself only: the next memories take its place, and the log has its id."""
    said = any_lab.say(6)
    for each in said:
        any_lab.deploy(each)
    nearest = recalled(any_lab)
    for number in (0, 1):
        point = any_lab.point(nearest[number], HOME)  # type: ignore[arg-type]
        any_lab.put(point.id, {**point.payload, "personaId": named}, HOME)
    assert nearest[2:4] == recalled(any_lab, limit=2)
    assert str(nearest[0]) in warned.text
    assert said[0].user_text not in warned.text


def test_an_alias_hands_out_no_memory_that_names_nobody(lab: Lab) -> None:
    """What lies in another persona's collection and names nobody is that persona's."""
    [mine] = lab.say()
    [said, nameless] = lab.say(2, persona=C)
    theirs = {lab.deploy(said).id, lab.deploy(nameless, personaId=None).id}
    named = lab.deploy(mine)
    lab.put(named.id, named.payload, f"persona-{C}")
    lab.vectors.drop(HOME)
    lab.vectors._client.update_collection_aliases(  # type: ignore[attr-defined]
        [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=f"persona-{C}", alias_name=HOME)
            )
        ]
    )
    assert [named.id] == recalled(lab)
    assert theirs == set(recalled(lab, C))


def test_a_user_id_in_another_spelling_of_the_key_counts_too(lab: Lab) -> None:
    """A payload that names one persona here and another there is nobody's."""
    [said] = lab.say()
    lab.deploy(said, persona_id=str(C))
    assert [] == recalled(lab)


# ---------------------------------------------------------------------- remember


SAID = NewExchange(CHANNEL, ADA, A, "a question", "an answer")


def test_where_the_app_writes_nothing_is_remembered(open_lab: "partial[Lab]") -> None:
    """The call is refused, says what to do, and leaves both stores as they were."""
    lab = open_lab(layout="per-persona", writer="app")
    before = lab.tables()
    with pytest.raises(SettingsError, match=r"writer = memsync.*layout set shared") as caught:
        lab.memory.remember(SAID)
    assert (2, "writer") == (caught.value.exit_status, caught.value.fields["field"])
    assert before == lab.tables()


@pytest.mark.parametrize("known", ["setting", "record"])
@pytest.mark.parametrize(("layout", "refuses"), [("shared", False), ("per-persona", True)])
def test_a_remember_asks_no_qdrant(
    open_lab: "partial[Lab]", known: str, layout: str, *, refuses: bool
) -> None:
    """Where the layout is recorded or named, remember needs Postgres only."""
    lab = open_lab(writer="app")
    if known == "record":
        lab.sql("INSERT INTO memsync.layout (layout, why) VALUES (%(l)s, 'test')", l=layout)
    # Nobody answers at this address, and nobody is asked.
    named = layout if known == "setting" else "auto"
    given = {"qdrant_url": "http://127.0.0.1:1", "layout": named}
    memory = Memory(lab.postgres, lab.settings.model_copy(update=given))
    if refuses:
        with pytest.raises(SettingsError):
            memory.remember(SAID)
    else:
        memory.remember(SAID)
    assert int(not refuses) == outbox_status(lab.postgres).pending


def test_a_remember_that_cannot_know_the_layout_is_queued(
    open_lab: "partial[Lab]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qdrant is asked where it is a server, once a minute while it is down, and never embedded."""
    asked: list[str | None] = []

    def refuse(settings: Any) -> Any:
        asked.append(settings.qdrant_url)
        raise StoreUnreachable("down")

    monkeypatch.setattr("memsync.stores.ltm.store.open_vectors", refuse)
    lab = open_lab(writer="app")
    for url in ("http://127.0.0.1:1", "edge:/nowhere"):
        given = {"qdrant_url": url, "layout": "auto"}
        memory = Memory(lab.postgres, lab.settings.model_copy(update=given))
        for _ in range(3):
            memory.remember(SAID)
    assert (6, ["http://127.0.0.1:1"]) == (outbox_status(lab.postgres).pending, asked)


# ---------------------------------------------------------------------- the relay


def test_the_relay_writes_as_the_app_does(any_lab: Lab) -> None:
    """Each persona's memories lie in its own collection, with the app's keys and both names."""
    any_lab.sql("UPDATE personas SET preferred_name = 'Al' WHERE id = %(a)s", a=A)
    [mine] = any_lab.say()
    [yours] = any_lab.say(persona=C, personality=BASIL)
    assert Drained(2, 2) == drain(any_lab.postgres, any_lab.ltm)
    found = any_lab.points()
    assert {HOME, f"persona-{C}"} == {name for name in found if name.startswith("persona-")}
    assert not any_lab.vectors.describe(any_lab.home)
    point = any_lab.point(mine.anchor_id, HOME)
    assert {
        "personalityId": str(ADA),
        "personalityName": "Ada",
        "personaId": str(A),
        "content": f"User (Al): {mine.user_text}\nAda: {mine.assistant_text}",
        "canonScope": "global",
        "summaryType": "conversation",
        "createdAt": mine.created_at_ms,
        "channelId": CHANNEL,
        "messageIds": [str(mine.said_id), str(mine.anchor_id)],
    } == point.payload
    assert pytest.approx(embed([str(point.payload["content"])])[0], abs=1e-6) == point.vector
    assert [yours.anchor_id] == recalled(any_lab, C)
    assert [("per-persona",)] == any_lab.sql("SELECT layout FROM memsync.layout")
    assert Drained(0, 0) == drain(any_lab.postgres, any_lab.ltm)


def test_where_the_app_writes_the_relay_holds_what_it_has(open_lab: "partial[Lab]") -> None:
    """It writes and records nothing, spends no attempt, and says why; a status says it as well."""
    lab = open_lab(layout="per-persona", writer="app")
    assert Drained(0, 0) == drain(lab.postgres, lab.ltm)
    lab.sql("INSERT INTO memsync.outbox (point_id) SELECT gen_random_uuid()"
            " FROM generate_series(1, 3)")  # fmt: skip
    before = lab.tables()
    with pytest.raises(PartlyDone, match=r"3 outbox entries are held: .*writer = memsync") as left:
        drain(lab.postgres, lab.ltm)
    assert (3, 0) == (left.value.fields["held"], left.value.fields["done"])
    assert (before, []) == (lab.tables(), lab.vectors.collections())
    assert [] == lab.sql("SELECT layout FROM memsync.layout")
    status = outbox_status(lab.postgres, lab.settings)
    assert (3, 3) == (status.pending, status.held)
    assert "writer = memsync" in str(status.held_error)
    assert 0 == outbox_status(lab.postgres).held


class _HoldingBack(Failing):
    """A store that has points which it does not show yet."""

    def held_back(self, collection: str) -> int:
        return 2 if collection == HOME else 0


def test_no_memory_is_written_beside_what_is_held_back(lab: Lab) -> None:
    """The relay sees none of what the app has just loaded, so it waits for the store."""
    lab.vectors.create(HOME, DIMS, {})
    lab.say()
    with pytest.raises(PartlyDone, match=r"1 outbox entry is held.* holds 2 points"):
        drain(lab.postgres, lab.with_store(_HoldingBack(lab.vectors)), outage_wait_s=0)
    assert 0 == lab.vectors.count(HOME)
    assert Drained(1, 1) == drain(lab.postgres, lab.ltm)


def test_a_collection_of_another_size_holds_its_own_entries_only(any_lab: Lab) -> None:
    """No attempt is spent, the others are written, and with the app's embedder these follow."""
    any_lab.vectors.create(HOME, DIMS + 1, {})
    any_lab.say(2)
    any_lab.say(persona=C)
    with pytest.raises(
        PartlyDone, match=f"2 outbox entries are held: .*{DIMS + 1} dimensions"
    ) as left:
        drain(any_lab.postgres, any_lab.ltm)
    assert (1, 2) == (left.value.fields["done"], left.value.fields["held"])
    assert [(0, False)] * 2 == any_lab.sql("SELECT attempts, dead FROM memsync.outbox")
    assert 2 == outbox_status(any_lab.postgres).held
    any_lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")
    wider = Embedder("wider", lambda texts: [[*each, 1.0] for each in embed(texts)])
    ltm = LongTermMemory(any_lab.vectors, any_lab.settings, wider, Layout.PER_PERSONA)
    assert Drained(2, 2) == drain(any_lab.postgres, ltm)
    assert 2 == any_lab.vectors.count(HOME)


def test_a_collection_that_is_dropped_is_made_again(any_lab: Lab) -> None:
    """A relay that goes on meets it once; its entries are due again later."""
    any_lab.say()
    any_lab.sync()
    any_lab.vectors.drop(HOME)
    any_lab.say()
    any_lab.say(persona=C)
    with pytest.raises(PartlyDone, match="no collection"):
        drain(any_lab.postgres, any_lab.ltm)
    assert 1 == any_lab.vectors.count(f"persona-{C}")
    any_lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")
    assert Drained(1, 1) == drain(any_lab.postgres, any_lab.ltm)
    assert 1 == any_lab.vectors.count(HOME)


def test_an_edited_exchange_is_written_anew(any_lab: Lab) -> None:
    """The relay's own memory follows the text."""
    [said] = any_lab.say()
    any_lab.sync()
    any_lab.sql(
        "UPDATE conversation_history SET content = 'new' WHERE id = %(i)s", i=said.anchor_id
    )
    any_lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=said.anchor_id)
    assert Drained(1, 1) == drain(any_lab.postgres, any_lab.ltm)
    assert {said.anchor_id} == ids(any_lab)
    assert str(any_lab.point(said.anchor_id, HOME).payload["content"]).endswith("new")


# ---------------------------------------------------------------------- double writing


@dataclass
class Case:
    """How the app wrote the memory of an exchange."""

    changes: dict[str, object]
    stays: bool = True
    at_anchor: bool = False
    time: tuple[str, int] | None = None  # its key, and how many milliseconds one of it is


APPS = {
    "as it does": Case({}),
    "without a persona": Case({"personaId": None, "channelId": None}),
    "by its own clock": Case({"createdAt": 9_500}),
    "with an older key of the time": Case({"createdAt": None}, time=("timestamp", 1)),
    "in memsync's spelling": Case({"createdAt": None}, time=("created_at", 1)),
    "in seconds": Case({}, time=("createdAt", 1000)),
    "in seconds, with an older key": Case({"createdAt": None}, time=("timestamp", 1000)),
    "enriched": Case({"content": "User (Al): {user} (he smiles)\nAda: {assistant}"}),
    "by rows, at another time": Case({"createdAt": 3_600_000, "messageIds": True}),
    "by rows, with a stale text": Case({"content": "User (Al): old\nAda: old", "messageIds": True}),
    "as its backfill does": Case({}, at_anchor=True),
    "too early": Case({"createdAt": -10_500}, stays=False),
    "another text": Case({"content": "User (Al): {user}!\nAda: {assistant}"}, stays=False),
    "another personality": Case({"personalityId": str(BASIL)}, stays=False),
    "another persona": Case({"personaId": str(C)}, stays=False),
}


@pytest.mark.parametrize("case", APPS.values(), ids=list(APPS))
def test_where_the_app_has_written_its_memory_stays(any_lab: Lab, case: Case) -> None:
    """The entry is settled, and nothing is made twice; else the relay writes its own beside it."""
    [said] = any_lab.say()
    changes = case.changes | {}
    if isinstance(at := changes.get("createdAt"), int):
        changes["createdAt"] = said.created_at_ms + at
    if case.time:
        changes[case.time[0]] = said.created_at_ms // case.time[1]
    if "messageIds" in changes:
        changes["messageIds"] = [str(said.anchor_id)]
    if isinstance(text := changes.get("content"), str):
        changes["content"] = text.format(user=said.user_text, assistant=said.assistant_text)
    point_id = said.anchor_id if case.at_anchor else None
    point = any_lab.deploy(said, collection=HOME, point_id=point_id, **changes)
    before = any_lab.points()
    assert Drained(1, int(not case.stays)) == drain(any_lab.postgres, any_lab.ltm)
    if case.stays:
        assert before == any_lab.points()
    else:
        assert {point.id, said.anchor_id} == ids(any_lab)


def repeated(lab: Lab, *seconds: float) -> list[Exchange]:
    """The same words, said at these seconds."""
    said = []
    for second in seconds:
        at = LONG_AGO + timedelta(seconds=second)
        wrote = lab.memory.remember(NewExchange(CHANNEL, ADA, A, "again", "and again", at, at))
        said.append(lab.exchange(wrote.assistant_message_id))
    return said


def test_one_memory_stands_for_one_exchange(any_lab: Lab) -> None:
    """Of the same words, said thrice in a few seconds, the app's one is its moment's only."""
    first, second, third = repeated(any_lab, 0, 3, 6)
    point = any_lab.deploy(second, collection=HOME)
    assert Drained(3, 2) == drain(any_lab.postgres, any_lab.ltm)
    assert {point.id, first.anchor_id, third.anchor_id} == ids(any_lab)


def test_a_memory_of_another_exchange_is_not_taken(any_lab: Lab) -> None:
    """Words that are said again get a memory of their own, whichever batch writes them."""
    (first,) = repeated(any_lab, 0)
    any_lab.sync()
    (second,) = repeated(any_lab, 4)
    any_lab.sync()
    assert {first.anchor_id, second.anchor_id} == ids(any_lab)


def test_two_memories_of_one_moment_are_of_two_exchanges(lab: Lab) -> None:
    """The same words at the same time in two channels: each has one of the two memories."""
    for channel in ("1", "2"):
        said = NewExchange(channel, ADA, A, "again", "and again", LONG_AGO, LONG_AGO)
        lab.deploy(lab.exchange(lab.memory.remember(said).assistant_message_id), channelId=None)
    assert Drained(2, 0) == drain(lab.postgres, lab.ltm)


def test_a_memory_that_names_another_exchange_is_not_taken(lab: Lab) -> None:
    """The rows that it names count more than its time."""
    (first,) = repeated(lab, 0)
    lab.sql("DELETE FROM memsync.outbox")
    at = first.created_at_ms + 4000
    point = lab.deploy(first, messageIds=[str(first.anchor_id)], createdAt=at)
    (second,) = repeated(lab, 4)
    lab.sync()
    assert {point.id, second.anchor_id} == ids(lab)


def test_near_two_exchanges_a_memory_is_neithers(any_lab: Lab) -> None:
    """Between two of the same words, at the time of neither, nobody knows whose it is."""
    repeated(any_lab, 0, 4)
    any_lab.deploy(repeated(any_lab, 2000)[0], collection=HOME, createdAt=to_ms(LONG_AGO) + 2000)
    any_lab.sync()
    assert 4 == any_lab.vectors.count(HOME)


def test_a_batch_looks_once_and_reads_what_is_near(lab: Lab) -> None:
    """One read of the collection serves a batch, and returns the points of its time only."""
    for number, each in enumerate(lab.say(40)):
        lab.deploy(each, createdAt=1_600_000_000_000 + number)
    counting = Counting(lab.vectors)
    drain(lab.postgres, lab.with_store(counting))
    assert (1, 0) == (counting.calls.count("scroll"), counting.returned)
    assert 80 == lab.vectors.count(HOME)


def test_a_batch_of_two_times_reads_what_is_near_one(lab: Lab) -> None:
    """An old message that was edited, beside a new one, brings none of those between."""
    for each in lab.say(40):
        lab.deploy(each)
    lab.sql(
        "DELETE FROM memsync.outbox WHERE NOT point_id = ANY(%(ids)s)",
        ids=[lab.said[at].anchor_id for at in (0, -1)],
    )
    counting = Counting(lab.vectors)
    drain(lab.postgres, lab.with_store(counting))
    assert (1, 2) == (counting.calls.count("scroll"), counting.returned)
    assert 40 == lab.vectors.count(HOME)


# ---------------------------------------------------------------------- the ledger


def test_a_memory_whose_note_was_lost_is_noted_by_the_next_run(
    open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends behind the write. What memsync wrote is in the ledger in the end."""
    lab = open_lab(layout="per-persona")
    lab.say(3)
    with monkeypatch.context() as patch:

        def ends(*_: object) -> None:
            raise StoreUnreachable("gone")

        patch.setattr(Ledger, "note", ends)
        with pytest.raises(StoreUnreachable):
            lab.sync()
    assert (0, 3) == (agrees(lab), lab.vectors.count(f"persona-{A}"))
    lab.sync()
    assert 3 == agrees(lab)
    lab.deploy(lab.said[0], point_id=lab.said[0].anchor_id, liked=True)
    lab.sql("TRUNCATE memsync.memories")
    lab.sql("INSERT INTO memsync.outbox (point_id) SELECT %(id)s", id=lab.said[0].anchor_id)
    lab.sync()
    assert 0 == agrees(lab), "what the app has written is not taken for memsync's"


def test_the_memory_of_what_was_deleted_is_not_that_of_what_is_said_again(
    open_lab: partial[Lab],
) -> None:
    """The same words, a few seconds later: the audit wants a memory of them, too."""
    lab = open_lab(layout="per-persona")
    lab.say(1)
    (first,) = lab.say(1)
    lab.sync()
    lab.unsay(first)
    at = LONG_AGO + timedelta(minutes=1, seconds=5)
    texts = (first.user_text, first.assistant_text)
    lab.memory.remember(NewExchange(first.channel_id, ADA, A, *texts, at, at))
    lab.sync()
    assert "missing-point" not in lab.audit().counts
    assert 3 == lab.vectors.count(f"persona-{A}")


def test_held_entries_count_as_held_whatever_came_before(open_lab: partial[Lab]) -> None:
    """An earlier process was killed at them, and by now the collection has other vectors."""
    lab = open_lab(layout="per-persona")
    lab.say(2)
    lab.sql("UPDATE memsync.outbox SET attempts = 1")
    lab.vectors.create(f"persona-{A}", DIMS + 1, {})
    with pytest.raises(PartlyDone, match="2 outbox entries are held"):
        lab.sync()
    assert 2 == outbox_status(lab.postgres).held
