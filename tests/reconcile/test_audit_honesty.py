"""Tests that the audit reports no false finding, misses no difference and writes nothing."""

import threading
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from memsync import reconcile
from memsync.errors import MemsyncError, StoreUnreachable
from memsync.memory import NewExchange
from memsync.model.records import Exchange, joined, to_ms
from memsync.reconcile import state
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.vectors import CollectionInfo
from memsync.stores.vectors.protocol import Page, VectorStore
from support.failing import Failing
from support.lab import (
    ADA,
    BASIL,
    CHANNEL,
    DIMS,
    LONG_AGO,
    STORES,
    A,
    B,
    C,
    Lab,
)
from support.live import PACE_S
from support.releasing import drain


def now_exchange(text: str, persona: object = A) -> NewExchange:
    """An exchange that is said now."""
    return NewExchange(CHANNEL, ADA, str(persona), text, f"reply to {text}")


@pytest.fixture(params=Layout)
def lab_of(request: pytest.FixtureRequest, open_lab: "partial[Lab]") -> "partial[Lab]":
    """Call it for a lab in each of the layouts."""
    return partial(open_lab, layout=request.param.value)


@pytest.fixture
def either_lab(lab_of: "partial[Lab]") -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return lab_of()


class _HoldingBack(Failing):
    """A store that has points which it does not show yet."""

    def held_back(self, collection: str) -> int:
        return 2 if collection in self.store.collections() else 0


@pytest.mark.parametrize("how", [None, False, True], ids=str)
def test_points_that_are_held_back_are_unknown(either_lab: Lab, how: bool | None) -> None:
    """A point that the store does not show yet is no missing one, and nothing is called clean."""
    lab = either_lab
    said = lab.settled()
    lab.ltm = lab.with_store(_HoldingBack(lab.vectors))
    found = lab.audit(deep=how)
    homes = {lab.place(each).collection for each in said}
    assert {f"collection {each}" for each in homes} == {
        each.partition(": ")[0] for each in found.not_checked
    }
    assert all("holds 2 points" in each for each in found.not_checked)
    assert {} == found.counts


def test_collections_of_other_names_are_told(either_lab: Lab) -> None:
    """Nobody knows what is in them, and the report says that nobody has looked."""
    either_lab.settled()
    assert () == either_lab.check().left_out
    for name in ("images", "persona-", "memories-2"):
        either_lab.vectors.create(name, DIMS, {})
    told = ("3 collections of other names: images, memories-2, persona-",)
    for found in (either_lab.check(), either_lab.audit()):
        assert (told, {}, True) == (found.left_out, found.counts, found.complete)


def deployed_world(lab: Lab) -> list[Exchange]:
    """Memories at home and in collections that the layout does not read, with several faults."""
    said = lab.settled(6)
    if lab.ltm.layout is Layout.PER_PERSONA:
        older = f"personality-{ADA}"
        for each in said[:3]:
            lab.lose(each)
        lab.deploy(said[0], collection=older)
        lab.deploy(said[3], collection=older)
        lab.deploy(said[4], collection=f"persona-{B}", personaId=str(B))
        lab.deploy(said[0], createdAt=to_ms(LONG_AGO) - 86_400_000)
        lab.deploy(said[0], createdAt=said[0].created_at_ms + 7, content="User (Al): a\nAda: b")
        lab.respell(said[5], content="User (Al): x\nAda: y")
        return said
    for each in said[:3]:
        lab.vectors.delete(lab.home, [each.anchor_id])
        lab.deploy(each)
    lab.deploy(said[3])
    lab.deploy(said[4], collection=f"persona-{B}", personaId=str(B))
    lab.deploy(said[0], createdAt=to_ms(LONG_AGO) - 86_400_000)
    lab.respell(said[5].anchor_id, user_text="x")
    lab.vectors.delete(lab.home, [said[6].anchor_id])
    lab.respell(said[7].anchor_id, persona_id=str(B))
    return said


@pytest.mark.parametrize("store", STORES)
def test_an_audit_writes_nothing(lab_of: "partial[Lab]", store: str) -> None:
    """Audit, gate and plan leave every row and every point as it was."""
    lab = lab_of(store)
    deployed_world(lab)
    lab.memory.remember(now_exchange("young"))
    before = lab.points(), lab.tables()
    lab.audit()
    lab.check()
    lab.plan()
    assert before == (lab.points(), lab.tables())


@pytest.mark.parametrize("store", STORES)
def test_an_audit_of_nothing_makes_nothing(lab_of: "partial[Lab]", store: str) -> None:
    """Where no collection exists, audit, gate and plan create none and load no embedder."""
    lab = lab_of(store)
    lab.say()
    lab.sql("DELETE FROM memsync.outbox")
    before = lab.vectors.collections()
    unread = Settings(**{**lab.settings.model_dump(), "embedder": "no_such_package:embed"})
    ltm = LongTermMemory(lab.vectors, unread, layout=lab.ltm.layout)
    shared = lab.ltm.layout is Layout.SHARED
    expected = {"collection-missing" if shared else "missing-point": 1}
    for looked in (reconcile.audit, reconcile.check):
        assert expected == looked(lab.postgres, ltm, unread).counts
    lab.plan()
    assert before == lab.vectors.collections()
    assert lab.home not in before


def test_an_audit_makes_no_index(any_lab: Lab) -> None:
    """A collection without indexes is reported, and none is created."""
    any_lab.vectors.create(any_lab.home, DIMS, {})
    wanted = len(any_lab.ltm.codec.indexes)
    assert {"missing-payload-index": wanted} == any_lab.check().counts
    assert CollectionInfo(DIMS, "Cosine", {}) == any_lab.vectors.describe(any_lab.home)


def test_young_differences_are_settling(either_lab: Lab) -> None:
    """A new exchange without a memory is no finding and is counted as settling."""
    lab = either_lab
    lab.settled()
    lab.memory.remember(now_exchange("young"))
    lab.sql("DELETE FROM memsync.outbox")
    found = lab.audit()
    assert ({}, 1) == (found.counts, found.settling)


def test_old_differences_are_not_settling(lab_of: "partial[Lab]") -> None:
    """With a settle window of 0 s the same difference is a finding."""
    lab = lab_of(settle_s=0)
    lab.settled()
    lab.memory.remember(now_exchange("young"))
    lab.sql("DELETE FROM memsync.outbox")
    assert {"missing-point": 1} == lab.audit().counts


def test_an_entry_in_the_outbox_excuses(lab: Lab) -> None:
    """A missing or outdated memory is counted as settling while the outbox has an entry for it."""
    said = lab.settled()
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    lab.respell(said[1].anchor_id, user_text="x")
    assert 2 == len(lab.audit().findings)
    for each in said[:2]:
        lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=each.anchor_id)
    found = lab.audit()
    assert ({}, 2) == (found.counts, found.settling)


def test_an_entry_in_the_outbox_excuses_nothing_beside(lab: Lab) -> None:
    """The relay writes the memory under its anchor's id. Another persona's copy stays, and so does
    a second one.
    """
    said = lab.settled()
    for each, whose in zip(said[:3], (C, C, A), strict=True):
        lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=each.anchor_id)
        given = {**lab.point(each.anchor_id).payload, "persona_id": str(whose)}
        lab.put(each.anchor_id if each is said[0] else lab.new_id(), given)
    left = {"persona-mismatch": 1, "duplicate-point": 1}
    found = lab.audit()
    assert (left, 1) == (found.counts, found.settling)
    lab.sync()
    assert left == lab.audit().counts


@pytest.mark.parametrize(("dead", "age"), [(True, "0 s"), (False, "16 min")])
def test_a_dead_or_late_entry_excuses_nothing(lab: Lab, dead: bool, age: str) -> None:
    """A missing memory is a finding where its entry is dead, or older than the alarm age."""
    said = lab.settled()
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    lab.sql(
        "INSERT INTO memsync.outbox (point_id, dead, enqueued_at)"
        " VALUES (%(id)s, %(dead)s, now() - %(age)s::interval)",
        id=said[0].anchor_id,
        dead=dead,
        age=age,
    )
    found = lab.audit()
    assert ({"missing-point": 1}, 0) == (found.counts, found.settling)


@pytest.mark.parametrize("first_dead", [True, False])
def test_many_entries_of_one_kind_hide_none_of_the_other(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, first_dead: bool
) -> None:
    """Dead and late entries are listed apart, and each tells how many of its kind there are."""
    monkeypatch.setattr(state, "SHOWN_MAX", 2)
    said = lab.settled()
    for number, each in enumerate(said[:4]):
        lab.sql(
            "INSERT INTO memsync.outbox (point_id, dead, enqueued_at)"
            " VALUES (%(id)s, %(dead)s, now() - interval '7 days')",
            id=each.anchor_id,
            dead=first_dead is (number < 3),
        )
    found = lab.check()
    many, few = ("dead-outbox-entry", "unacknowledged-outbox")[:: 1 if first_dead else -1]
    assert {many: 2, few: 1} == found.counts
    in_all = {(each.name, each.evidence["entries_in_all"]) for each in found.findings}
    assert {(many, 3), (few, 1)} == in_all


PENDING = """
INSERT INTO pending_memories
       (id, conversation_history_id, persona_id, personality_id, text, metadata, created_at)
VALUES (gen_random_uuid(), %(row)s, %(a)s, %(ada)s, 'text', '{}',
        now() AT TIME ZONE 'UTC' - %(age)s::interval)"""


@pytest.mark.parametrize("row", ["anchor_id", "said_id"])
@pytest.mark.parametrize(("age", "found"), [("5 minutes", {}), ("2 h", {"missing-point": 1})])
def test_what_the_app_still_means_to_write_is_settling(
    open_lab: "partial[Lab]", row: str, age: str, found: dict[str, int]
) -> None:
    """A row in the app's own outbox excuses a missing memory until the alarm age."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()
    lab.lose(said[0])
    lab.sql("TRUNCATE pending_memories")
    lab.sql(PENDING, row=getattr(said[0], row), a=A, ada=ADA, age=age)
    try:
        assert (found, 1 - len(found)) == (lab.audit().counts, lab.audit().settling)
    finally:
        lab.sql("TRUNCATE pending_memories")


def test_a_message_dated_in_the_future_does_not_settle_for_ever(lab: Lab) -> None:
    """A missing memory is a finding even if a wrong clock dated its message in the future."""
    [exchange] = lab.say()
    lab.sync()
    lab.sql("UPDATE conversation_history SET created_at = '2199-01-01'")
    lab.vectors.delete(lab.home, [exchange.anchor_id])
    assert {"missing-point": 1} == lab.audit().counts


FIELDS = {
    "persona_id": str(B),
    "personality_id": str(BASIL),
    "channel_id": "another",
    "created_at": to_ms(LONG_AGO),
    "user_text": "question 0",
    "assistant_text": "answer 0",
    "digest": "f" * 64,
}


@pytest.fixture
def thousand(open_lab: "partial[Lab]") -> Lab:
    """An app with a thousand exchanges and their memories."""
    lab = open_lab("edge")
    lab.sql(
        """
        INSERT INTO conversation_history
               (id, channel_id, personality_id, persona_id, role, content, created_at)
        SELECT md5(n::text)::uuid, '1', %(ada)s, %(a)s,
               CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END, 'text ' || n,
               timestamp '2025-05-01' + n * interval '1 s'
        FROM generate_series(0, 1999) n""",
        ada=ADA,
        a=A,
    )
    lab.sql("INSERT INTO memsync.outbox (point_id) SELECT id FROM conversation_history")
    lab.sync()
    return lab


def test_one_difference_in_a_thousand_is_found(thousand: Lab) -> None:
    """One wrong or missing value in one of 1,000 memories is found, whichever field has it."""
    assert (True, 1000) == (thousand.audit().ok, thousand.audit().points_checked)
    exchanges = thousand.exchanges()
    for field, wrong in FIELDS.items():
        victim = thousand.rng.choice(exchanges).anchor_id
        right = thousand.point(victim).payload
        for changed in (wrong, None):
            thousand.respell(victim, **{field: changed})
            assert [str(victim)] == [each.key for each in thousand.audit().findings], field
        thousand.put(victim, right)
    assert thousand.audit().ok


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("persona_id", str(A).upper()), ("personality_id", str(ADA).upper()), ("fp1", -1)],
)
def test_a_spelling_that_filters_miss_is_found(lab: Lab, field: str, wrong: object) -> None:
    """A value that a filter by equality does not match is a finding, even if it means the same."""
    said = lab.settled()
    lab.respell(said[0].anchor_id, **{field: wrong})
    assert {"payload-drift": 1} == lab.audit().counts


def test_a_store_that_fails_never_gives_a_clean_audit(either_lab: Lab) -> None:
    """When any store call fails, the gate raises or reports that it is incomplete."""
    lab = either_lab
    deployed_world(lab)
    watched = Failing(lab.vectors)
    complete = reconcile.check(lab.postgres, lab.with_store(watched), lab.settings)
    for at in range(1, len(watched.calls) + 1):
        failing = Failing(lab.vectors, at=at)
        try:
            found = reconcile.check(lab.postgres, lab.with_store(failing), lab.settings)
        except StoreUnreachable:
            continue
        assert not found.complete, failing.calls
        assert not found.ok
    assert complete.complete
    assert len(watched.calls) > 10


@pytest.mark.parametrize("unread", [f"persona-{A}", f"personality-{ADA}", "persona-legacy-1"])
def test_what_could_not_be_read_is_unknown_not_empty(either_lab: Lab, unread: str) -> None:
    """What may lie in a collection that cannot be read is not reported missing; the rest is."""
    lab = either_lab
    said = lab.settled()
    for each in said:
        lab.lose(each)
    lab.deploy(said[0], collection=unread)
    found = lab.audit(_Unreadable(lab.vectors, unread))
    assert (f"collection {unread}: closed",) == found.not_checked
    of_a_alone = unread == f"persona-{A}"
    of_c = {str(each.anchor_id) for each in said[4:]}
    assert (of_c if of_a_alone else set()) == {each.key for each in found.faults}
    lab.vectors.drop(unread)
    lost = {str(each.anchor_id) for each in said}
    assert lost == {each.key for each in lab.audit().faults}


class _Unreadable(Failing):
    """A store of which one collection cannot be read."""

    def __init__(self, store: VectorStore, name: str) -> None:
        super().__init__(store)
        self._name = name

    def scroll(self, collection: str, **asked: Any) -> Page:
        if collection == self._name:
            raise StoreUnreachable("closed")
        return super().scroll(collection, **asked)


def _during(lab: Lab, at: int, act: object) -> Failing:
    """A store that runs `act` right before its call number `at`."""

    def meanwhile(_: str) -> None:
        if len(store.calls) == at:
            assert callable(act)
            act()

    store = Failing(lab.vectors, meanwhile=meanwhile)
    return store


def test_an_exchange_that_arrives_during_the_audit_is_no_finding(either_lab: Lab) -> None:
    """An exchange that is said and synced while the audit reads is no finding."""
    lab = either_lab
    lab.settled()
    watched = Failing(lab.vectors)
    lab.audit(watched)

    def arrive() -> None:
        lab.memory.remember(now_exchange("arrives"))
        lab.sync()

    for at in range(1, len(watched.calls) + 1):
        assert {} == lab.audit(_during(lab, at, arrive)).counts, f"at call {at}"


def test_an_edit_during_the_audit_is_no_finding(lab: Lab) -> None:
    """A row that is edited and synced at any moment of the audit is no finding."""
    said = lab.settled()
    watched = Failing(lab.vectors)
    lab.audit(watched)

    def edit() -> None:
        lab.sql(
            "UPDATE conversation_history SET content = content || '!' WHERE id = %(id)s",
            id=said[0].anchor_id,
        )
        lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=said[0].anchor_id)
        lab.sync()

    for at in range(1, len(watched.calls) + 1):
        assert {} == lab.audit(_during(lab, at, edit)).counts, f"at call {at}"


def test_live_traffic_makes_no_false_finding(lab_of: "partial[Lab]") -> None:
    """While two threads write and a third one relays, no audit finds anything.

    Each pauses for milliseconds between two turns, so that twenty audits have less to read and
    still meet writes at every moment.
    """
    lab = lab_of("edge")
    lab.settled()
    stop, failures = threading.Event(), list[BaseException]()

    def talk(persona: object) -> None:
        with lab_errors(failures):
            while not stop.wait(PACE_S):
                lab.memory.remember(now_exchange(uuid4().hex, persona))

    def relay() -> None:
        with lab_errors(failures):
            while not stop.wait(PACE_S):
                drain(lab.postgres, lab.ltm)

    threads = [threading.Thread(target=talk, args=(each,)) for each in (A, B)]
    threads.append(threading.Thread(target=relay))
    for each in threads:
        each.start()
    try:
        found = [lab.audit().counts for _ in range(20)]
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert [] == failures
    assert [{}] * 20 == found


class lab_errors:  # noqa: N801  used like contextlib's own
    """Collects the exceptions that a thread raised."""

    def __init__(self, into: list[BaseException]) -> None:
        self._into = into

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is not None:
            self._into.append(error)
        return True


@pytest.mark.parametrize("at", [1.7e18, -1.7e18, 1.7e30, 9_000_000_000_000_000_000])
def test_a_time_beyond_all_calendars_does_not_stop_an_audit(either_lab: Lab, at: float) -> None:
    """A second memory whose time is outside every calendar is known by its text."""
    lab = either_lab
    said = lab.settled()
    lab.deploy(said[0], createdAt=at)
    try:
        found = lab.audit()
    except MemsyncError as error:
        pytest.fail(error.message)
    if lab.ltm.layout is Layout.SHARED:
        assert ({}, 1) == (found.counts, found.facts["legacy-copy"])
    else:
        assert {"duplicate-point": 1} == found.counts


def test_a_home_named_like_a_deployed_collection_stays(open_lab: "partial[Lab]") -> None:
    """A home collection that is named like a deployed one is still home."""
    lab = open_lab(collection=f"persona-{A}")
    lab.settled()
    assert {} == lab.audit().counts


def test_a_point_is_matched_with_its_own_personas_exchange_first(lab: Lab) -> None:
    """When two personas say the same in one millisecond, each memory is matched with its own."""
    at = LONG_AGO
    for persona in (A, B):
        lab.memory.remember(NewExchange(CHANNEL, ADA, persona, "hi", "hello", at, at))
    lab.sync()
    for each in lab.exchanges():
        lab.put(lab.new_id(), lab.point(each.anchor_id).payload)
        lab.vectors.delete(lab.home, [each.anchor_id])
    assert {"foreign-point-id": 2} == lab.audit().counts


@pytest.mark.parametrize("point_id", [0, 7])
def test_a_point_with_a_number_is_found_whatever_the_number(either_lab: Lab, point_id: int) -> None:
    """A point with an integer id is found, even with id 0."""
    lab = either_lab
    said = lab.settled()
    lab.deploy(said[0], collection=f"persona-{uuid4()}", point_id=point_id, createdAt=1)
    found = lab.audit()
    assert {"unknown-persona": 1} == found.counts
    assert 1 == found.facts["legacy-layout"]


def test_a_time_that_is_a_fraction_is_mended(lab: Lab) -> None:
    """A time stored as a float is a finding and is repaired, though Python finds it equal."""
    said = lab.settled()
    lab.respell(said[0].anchor_id, created_at=float(said[0].created_at_ms))
    assert {"wrong-time-unit": 1} == lab.audit().counts
    lab.apply(lab.plan())
    assert lab.audit().ok


def test_without_history_nothing_says_what_is_archived(lab: Lab) -> None:
    """An audit of an empty history is incomplete, as nothing tells which memories are archived."""
    lab.settled()
    lab.sql("TRUNCATE conversation_history CASCADE")
    found = lab.audit()
    assert not found.complete
    assert not found.ok


def test_two_empty_stores_agree(lab: Lab) -> None:
    """An app with neither history nor memories is clean."""
    assert lab.check().ok


def test_a_disputed_archived_memory_is_nobodys_to_give_away(either_lab: Lab) -> None:
    """An archived memory whose collection and payload name two personas is reported, not moved."""
    lab = either_lab
    said = lab.settled()
    content = "User (Al): long ago\nAda: yes"
    before = to_ms(LONG_AGO) - 86_400_000
    lab.deploy(said[0], createdAt=before, personaId=str(B), content=content)
    [found] = lab.audit().faults
    assert ("misplaced-point", "report-only", "none") == (found.name, found.grade, found.repair)
    plan = lab.plan()
    assert ({"misplaced-point": 1}, ()) == (plan.left, plan.actions)


def test_what_filters_see_is_what_counts(open_lab: "partial[Lab]") -> None:
    """When a payload has both spellings of a key, the configured one counts, as in recall."""
    lab = open_lab(payload_style="camel")
    said = lab.settled()
    lab.respell(said[0].anchor_id, personality_id=str(BASIL))
    assert {"wrong-payload-key": 1} == lab.audit().counts
    found = lab.memory.recall(said[0].user_text, persona_id=A, personality_id=ADA, limit=100)
    assert said[0].anchor_id in {each.id for each in found}


def test_two_spellings_that_name_two_personas_name_none(open_lab: "partial[Lab]") -> None:
    """A payload that names two personas is handed to neither, found, and mended from its rows."""
    lab = open_lab(payload_style="camel")
    said = lab.settled()
    lab.respell(said[0].anchor_id, persona_id=str(B))
    assert {"wrong-payload-key": 1, "missing-persona": 1} == lab.audit().counts
    for persona in (A, B):
        found = lab.memory.recall(said[0].user_text, persona_id=persona, limit=100)
        assert said[0].anchor_id not in {each.id for each in found}
    lab.apply(lab.plan())
    assert lab.check().ok


def test_a_text_of_digits_is_a_text(open_lab: partial[Lab]) -> None:
    """A number that somebody wrote stays out of the evidence, though it looks like an id."""
    lab = open_lab()
    said = lab.settled(2)[0]
    number = "123-45-6789"
    lab.sql(
        "UPDATE conversation_history SET content = %(text)s WHERE id = %(id)s",
        text=number,
        id=said.said_id,
    )
    now = lab.exchange(said.anchor_id)
    lab.respell(
        said, user_text=None, assistant_text=None, content=joined(number, now.assistant_text)
    )
    with lab.audit(deep=True) as found:
        [fault] = found.faults
        assert "payload-drift" == fault.name
        assert not [each for each in fault.evidence.values() if each == number]
