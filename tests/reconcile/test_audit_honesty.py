"""Tests that the audit reports no false finding, misses no difference and writes nothing."""

import threading
from functools import partial
from uuid import uuid4

import pytest

from memsync import reconcile
from memsync.errors import MemsyncError, StoreUnreachable
from memsync.memory import NewExchange
from memsync.model.records import Exchange, to_ms
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.vectors import CollectionInfo
from support.failing import Failing
from support.lab import ADA, BASIL, CHANNEL, DIMS, LONG_AGO, A, B, Lab, drain


def now_exchange(text: str, persona: object = A) -> NewExchange:
    """An exchange that is said now."""
    return NewExchange(CHANNEL, ADA, str(persona), text, f"reply to {text}")


def deployed_world(lab: Lab) -> list[Exchange]:
    """Memories at home and in deployed collections, with faults of several kinds."""
    said = lab.settled(6)
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


def test_an_audit_writes_nothing(any_lab: Lab) -> None:
    """Audit, gate and plan leave every row and every point as it was."""
    deployed_world(any_lab)
    any_lab.memory.remember(now_exchange("young"))
    before = any_lab.points(), any_lab.tables()
    any_lab.audit()
    any_lab.check()
    any_lab.plan()
    assert before == (any_lab.points(), any_lab.tables())


def test_an_audit_of_nothing_makes_nothing(any_lab: Lab) -> None:
    """Where no collection exists, audit, gate and plan create none and load no embedder."""
    any_lab.say()
    any_lab.sql("DELETE FROM memsync.outbox")
    before = any_lab.vectors.collections()
    unread = Settings(**{**any_lab.settings.model_dump(), "embedder": "no_such_package:embed"})
    ltm = LongTermMemory(any_lab.vectors, unread)
    for looked in (reconcile.audit, reconcile.check):
        assert {"missing-point": 1} == looked(any_lab.postgres, ltm, unread).counts
    any_lab.plan()
    assert before == any_lab.vectors.collections()
    assert any_lab.home not in before


def test_an_audit_makes_no_index(any_lab: Lab) -> None:
    """A collection without indexes is reported, and none is created."""
    any_lab.vectors.create(any_lab.home, DIMS, {})
    wanted = len(any_lab.ltm.codec.indexes)
    assert {"missing-payload-index": wanted} == any_lab.check().counts
    assert CollectionInfo(DIMS, "Cosine", {}) == any_lab.vectors.describe(any_lab.home)


def test_young_differences_are_settling(lab: Lab) -> None:
    """A new exchange without a memory is no finding and is counted as settling."""
    lab.settled()
    lab.memory.remember(now_exchange("young"))
    lab.sql("DELETE FROM memsync.outbox")
    found = lab.audit()
    assert ({}, 1) == (found.counts, found.settling)


def test_old_differences_are_not_settling(open_lab: "partial[Lab]") -> None:
    """With a settle window of 0 s the same difference is a finding."""
    lab = open_lab(settle_s=0)
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


def test_a_dead_entry_excuses_nothing(lab: Lab) -> None:
    """A missing memory whose outbox entry is dead is a finding."""
    said = lab.settled()
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    lab.sql(
        "INSERT INTO memsync.outbox (point_id, dead) VALUES (%(id)s, true)", id=said[0].anchor_id
    )
    assert {"missing-point": 1} == lab.audit().counts


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


def test_a_store_that_fails_never_gives_a_clean_audit(lab: Lab) -> None:
    """When any store call fails, the gate raises or reports that it is incomplete."""
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


def test_what_could_not_be_read_is_unknown_not_empty(lab: Lab) -> None:
    """When a deployed collection cannot be read, its memories are not reported missing."""
    said = lab.settled()
    for each in said:
        lab.vectors.delete(lab.home, [each.anchor_id])
        lab.deploy(each)
    names: list[str] = []
    failing = Failing(lab.vectors, at=2)
    names += failing.calls
    found = lab.audit(failing)
    assert (False, 0) == (found.complete, found.counts.get("missing-point", 0))


def _during(lab: Lab, at: int, act: object) -> Failing:
    """A store that runs `act` right before its call number `at`."""

    def meanwhile(_: str) -> None:
        if len(store.calls) == at:
            assert callable(act)
            act()

    store = Failing(lab.vectors, meanwhile=meanwhile)
    return store


def test_an_exchange_that_arrives_during_the_audit_is_no_finding(lab: Lab) -> None:
    """An exchange that is said and synced while the audit reads is no finding."""
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


def test_live_traffic_makes_no_false_finding(open_lab: "partial[Lab]") -> None:
    """While two threads write and a third one relays, no audit finds anything."""
    lab = open_lab("edge")
    lab.settled()
    stop, failures = threading.Event(), list[BaseException]()

    def talk(persona: object) -> None:
        with lab_errors(failures):
            while not stop.is_set():
                lab.memory.remember(now_exchange(uuid4().hex, persona))

    def relay() -> None:
        with lab_errors(failures):
            while not stop.is_set():
                drain(lab.postgres, lab.ltm)

    threads = [threading.Thread(target=talk, args=(each,)) for each in (A, B)]
    threads.append(threading.Thread(target=relay))
    for each in threads:
        each.start()
    try:
        found = [lab.audit().counts for _ in range(40)]
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert [] == failures
    assert [{}] * 40 == found


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
def test_a_time_beyond_all_calendars_is_a_finding_not_a_failure(lab: Lab, at: float) -> None:
    """A memory whose time is outside every calendar does not stop the audit."""
    said = lab.settled()
    lab.deploy(said[0], createdAt=at)
    try:
        found = lab.audit()
    except MemsyncError as error:
        pytest.fail(error.message)
    assert "legacy-layout" in found.counts


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
def test_a_point_with_a_number_is_found_whatever_the_number(lab: Lab, point_id: int) -> None:
    """A point with an integer id is found, even with id 0."""
    said = lab.settled()
    lab.deploy(said[0], collection=f"persona-{uuid4()}", point_id=point_id, createdAt=1)
    assert {"unknown-persona": 1, "legacy-layout": 1} == lab.audit().counts


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


def test_a_disputed_archived_memory_is_nobodys_to_give_away(lab: Lab) -> None:
    """An archived memory whose collection and payload name two personas is reported, not moved."""
    said = lab.settled()
    lab.deploy(said[0], createdAt=1, personaId=str(B))
    plan = lab.plan()
    assert {"misplaced-point": 1, "legacy-layout": 1} == plan.left
    assert () == plan.actions


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
