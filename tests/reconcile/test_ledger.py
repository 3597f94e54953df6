"""The ledger of memories: what Postgres still knows of a memory after its rows are gone."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from memsync import reconcile
from memsync.errors import (
    GateClosed,
    IncompleteAudit,
    SchemaMismatch,
    StoreUnreachable,
)
from memsync.memory import NewExchange, relay
from memsync.model.sequences import batched
from memsync.reconcile import relayout
from memsync.stores.ltm import ledger
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres.locks import LockKey, exclusive, require_free
from support.failing import Failing
from support.lab import ADA, LONG_AGO, A, C, Lab
from support.laws.base import spelled
from support.laws.coverage import orphan
from support.laws.data import stale
from support.ledger import ENTRIES, adopt, aged, agrees, imported, other_words, states
from support.raw_vectors import write_raw
from support.releasing import released

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memsync.model.records import Exchange


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return open_lab(layout=request.param.value)


@pytest.fixture
def own_lab(open_lab: partial[Lab], own_database: str) -> Lab:
    """A lab on a database of its own, which is copied."""
    return open_lab(url=own_database)


# ---------------------------------------------------------------------- what is written down


def test_the_relay_writes_down_what_it_writes(open_lab: partial[Lab]) -> None:
    """Each memory, under the digest that its payload carries; a second drain changes nothing."""
    lab = open_lab()
    said = lab.settled()
    rows = lab.sql(ENTRIES)
    assert {(lab.home, str(e.anchor_id), e.anchor_id, "live") for e in said} == {
        row[:4] for row in rows
    }
    digests = {str(each.anchor_id): lab.point(each.anchor_id).payload["digest"] for each in said}
    assert digests == {row[1]: row[4] for row in rows}
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=said[0].anchor_id)
    lab.sync()
    assert rows == lab.sql(ENTRIES)


def test_a_memory_and_its_entry_are_settled_together(open_lab: partial[Lab]) -> None:
    """Where the ledger cannot be written, the outbox keeps the entry."""
    lab = open_lab()
    lab.say()
    lab.sql("ALTER TABLE memsync.memories ADD CONSTRAINT none CHECK (false) NOT VALID")
    try:
        with pytest.raises(Exception, match="none"):
            lab.sync()
        assert [(1,)] == lab.sql("SELECT count(*) FROM memsync.outbox")
    finally:
        lab.sql("ALTER TABLE memsync.memories DROP CONSTRAINT none")
    lab.sync()
    assert (1, []) == (agrees(lab), lab.sql("SELECT * FROM memsync.outbox"))


def test_adoption_takes_what_stands_and_leaves_out_faults(lab: Lab) -> None:
    """A memory with a fault is not trusted; adopting again adds it once it is mended."""
    said = lab.settled()
    lab.sql("TRUNCATE memsync.memories")
    stale(lab, said)
    orphan(lab, said[1:])
    before, rows = lab.points(), len(said)
    done = adopt(lab)
    assert (rows - 2, 0, 2, 0) == (done.memories, done.archived, done.left_out, done.dropped)
    assert rows - 2 == agrees(lab)
    assert before == lab.points()
    assert rows - 2 == lab.check().noted
    lab.apply(lab.plan())
    assert adopt(lab) == reconcile.Adopted(rows - 1, 0, 0, 0)
    assert (rows - 1, True) == (agrees(lab), lab.check().ok)


def test_adoption_of_a_collection_that_cannot_be_read(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are adopted, the command says which were not, and nothing is taken out."""
    lab.settled()
    adopt(lab)
    before = states(lab)
    real = type(lab.vectors).scroll

    def scroll(store: Any, collection: str, **kwargs: Any) -> Any:
        if collection == lab.ltm.home_of(C):
            from memsync.errors import StoreUnreachable  # noqa: PLC0415

            raise StoreUnreachable("gone")
        return real(store, collection, **kwargs)

    monkeypatch.setattr(type(lab.vectors), "scroll", scroll)
    with pytest.raises(IncompleteAudit, match="gone"):
        adopt(lab, anew=True)
    assert before == states(lab)


# ---------------------------------------------------------------------- archived memories


def test_what_is_archived_stays_so_whatever_is_imported(lab: Lab) -> None:
    """Retention, then an import of older rows: no orphan, and no plan removes the memory."""
    said = lab.settled()
    adopt(lab)
    aged(lab, timedelta(minutes=1, seconds=30))
    assert (True, 2) == (lab.check().ok, lab.check().archived)
    adopt(lab)
    assert 2 == states(lab).count("archived")
    imported(lab)
    gate = lab.check()
    assert ({}, 2) == (gate.counts, gate.archived)
    assert () == lab.plan().actions
    assert said[0].persona_id == A


@pytest.mark.parametrize(("meanwhile", "archived"), [("", 4), ("it is noted anew", 3), ("gone", 0)])
def test_the_relay_notes_what_is_archived_once_an_hour(
    open_lab: partial[Lab], monkeypatch: pytest.MonkeyPatch, meanwhile: str, archived: int
) -> None:
    """It looks when its lock is free again, in batches. A memory that was noted since stays."""
    lab = open_lab()
    said = lab.settled()
    aged(lab, timedelta(minutes=3, seconds=30))
    real = ledger.Ledger.archive

    def archive(of: ledger.Ledger, stops: Callable[[], bool]) -> int:
        with lab.postgres.session() as session:
            require_free(session, LockKey.RELAY, "relay")
        if meanwhile == "gone":
            raise StoreUnreachable(meanwhile)
        return real(of, stops)

    def batches(found: list[Any], size: int) -> Iterator[Any]:
        if meanwhile:
            first = found[0].point_id
            lab.sql("UPDATE memsync.memories SET noted_at = now() WHERE point_id = %(i)s", i=first)
        return batched(found, size)

    monkeypatch.setattr(ledger, "batched", batches)
    monkeypatch.setattr(ledger.Ledger, "archive", archive)
    monkeypatch.setattr(ledger, "_ARCHIVE_BATCH", 2)
    monkeypatch.setattr(ledger, "_TO_ARCHIVE_MAX", 5 if meanwhile else 3)
    lab.say()
    lab.sync()
    assert 0 == states(lab).count("archived"), "an hour has not gone by"
    lab.sql("UPDATE memsync.mark SET archived_at = now() - interval '2 hours'")
    lab.say()
    done: list[object] = []
    relay.drain_once(lab.postgres, lab.ltm, settled=done.append, stops=lambda: bool(done))
    assert 0 == states(lab).count("archived"), "a service that stops waits for no pass"
    lab.say()
    lab.sync()
    assert archived == states(lab).count("archived")
    assert [(0,)] == lab.sql(
        "SELECT count(*) FROM memsync.memories, memsync.mark"
        " WHERE state = 'archived' AND noted_at > archived_at"
    ), "who adopts everything anew meanwhile takes them out by their age"
    assert [(True,)] == lab.sql("SELECT archived_at > now() - interval '1 hour' FROM memsync.mark")
    assert len(said) + 3 == agrees(lab)


def test_a_pass_over_what_is_archived_ends_between_its_batches(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that stops waits for the batch at most. The next pass does the rest."""
    lab.settled()
    adopt(lab)
    aged(lab, timedelta(minutes=3, seconds=30))
    monkeypatch.setattr(ledger, "_ARCHIVE_BATCH", 1)
    asked = iter([False, False, False, True, True])
    with lab.postgres.session() as session:
        assert 2 == ledger.Ledger(session).archive(lambda: next(asked))
        assert 2 == ledger.Ledger(session).archive()
    assert 4 == states(lab).count("archived")


def test_without_the_ledger_an_import_makes_faults(lab: Lab) -> None:
    """The same story, and nothing was written down: this is what the ledger is for."""
    lab.settled()
    lab.sql("TRUNCATE memsync.memories")
    aged(lab, timedelta(minutes=1, seconds=30))
    imported(lab)
    assert {"newer-than-history": 2} == lab.check().counts


def test_a_reset_channel_and_an_empty_thread_are_archived(lab: Lab) -> None:
    """All rows of a thread go, and an import begins it anew."""
    lab.settled()
    adopt(lab)
    lab.sql("DELETE FROM conversation_history WHERE persona_id = %(a)s", a=A)
    adopt(lab)
    imported(lab)
    assert ({}, 4) == (lab.check().counts, lab.check().archived)


@pytest.mark.parametrize("channel", ["a\0", "a\ud800"])
def test_a_channel_that_postgres_cannot_hold_stops_no_adoption(lab: Lab, channel: str) -> None:
    """No message can have it, so the memory is archived. The ledger has it without a channel."""
    said = lab.settled()
    adopt(lab)
    aged(lab, timedelta(seconds=30))
    key = "channelId" if lab.ltm.layout is Layout.PER_PERSONA else "channel_id"
    point = lab.respell(said[0], **{key: "b"})
    named = replace(point, payload={**point.payload, key: channel})
    write_raw(lab.vectors, lab.place(said[0]).collection, named, list(point.vector or ()))
    assert len(said) == adopt(lab, anew=True).memories
    assert len(said) == agrees(lab)


def test_a_lost_archived_memory_is_told(lab: Lab) -> None:
    """Neither a row nor a point tells of it; the ledger does. With --anew it is let go."""
    said = lab.settled()
    adopt(lab)
    aged(lab, timedelta(seconds=30))
    place = lab.place(said[0])
    lab.vectors.delete(place.collection, [place.point_id])
    gate = lab.check()
    assert {"archived-missing": 1} == gate.counts
    [fault] = gate.faults
    assert (str(place.point_id), A) == (fault.key, fault.persona_id)
    assert () == lab.plan(gate).actions
    assert 1 == adopt(lab, anew=True).dropped
    assert lab.check().ok


def test_an_archived_memory_is_read_once(lab: Lab) -> None:
    """The store is not asked again for what the audit has judged."""
    lab.settled()
    adopt(lab)
    aged(lab, timedelta(minutes=2, seconds=30))
    asked: list[str] = []
    store = Failing(lab.vectors, meanwhile=asked.append)
    found = lab.audit(store)
    assert ({}, 3) == (found.counts, found.archived)
    # The mark is one; what a deep audit of a shared collection judges is read by its ids, once.
    judged = lab.ltm.layout is Layout.SHARED
    assert 1 + judged == asked.count("retrieve")


def test_an_archived_memory_that_is_given_to_another_is_told(lab: Lab) -> None:
    """Its text, or whose it is, was changed after its rows were gone."""
    said = lab.settled()
    adopt(lab)
    aged(lab, timedelta(minutes=1, seconds=30))
    changed = {"content": "User (Al): mine\nAda: yours"}
    if lab.ltm.layout is Layout.SHARED:
        changed = {"assistant_text": "yours"}
    lab.respell(said[0], **changed)
    gate = lab.check()
    assert {"archived-tampered": 1} == gate.counts
    assert () == lab.plan(gate).actions
    assert 1 == adopt(lab).left_out, "adopting does not trust it"
    assert {"archived-tampered": 1} == lab.check().counts
    adopt(lab, anew=True)
    assert lab.check().ok


def test_rows_that_vanish_from_the_middle_are_told(lab: Lab) -> None:
    """They are no orphan, and nothing removes the memory, until somebody says so."""
    said = lab.settled()
    adopt(lab)
    lab.unsay(said[1])
    gate = lab.check()
    assert {"row-vanished": 1} == gate.counts
    assert () == lab.plan(gate).actions
    adopt(lab)
    assert {"row-vanished": 1} == lab.check().counts
    adopt(lab, anew=True)
    assert {"orphan-point": 1} == lab.check().counts
    lab.apply(lab.plan())
    assert lab.check().ok


def test_a_memory_whose_row_stands_is_judged_by_its_row(lab: Lab) -> None:
    """A live entry does not excuse a point that says something else than its row."""
    said = lab.settled()
    adopt(lab)
    if lab.ltm.layout is Layout.SHARED:
        lab.respell(said[1], user_text="never", assistant_text="said")
        assert {"stale-content": 1} == lab.check().counts
    else:
        at = said[1].created_at_ms + 20_000
        lab.respell(said[1], content="User (Al): never\nAda: said", createdAt=at)
        assert {"stale-content": 1} == lab.check().counts


def test_a_reply_whose_message_was_deleted_is_archived_and_watched(lab: Lab) -> None:
    """The user deletes one message amid a thread: its memory may stay, and no change is hidden."""
    said = lab.settled()
    adopt(lab)
    lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=said[1].said_id)
    assert ({}, 1) == (lab.check().counts, lab.check().archived)
    lab.respell(said[1], **other_words(lab))
    assert {"archived-tampered": 1} == lab.check().counts
    adopt(lab)
    assert {"archived-tampered": 1} == lab.check().counts, "adopting does not trust it"
    place = lab.place(said[1])
    lab.vectors.delete(place.collection, [place.point_id])
    assert {"archived-missing": 1} == lab.check().counts


def test_a_message_whose_reply_was_deleted_is_no_archive(open_lab: partial[Lab]) -> None:
    """Retention takes the message first. The ids in the app's payloads are those of both."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()[1]
    lab.respell(said, messageIds=[str(said.said_id), str(said.anchor_id)])
    lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=said.anchor_id)
    assert ({"orphan-point": 1}, 0) == (lab.audit().counts, lab.audit().archived)
    assert (1, 0) == (adopt(lab).left_out, lab.audit().archived)


def test_a_vanished_memory_that_is_changed_is_told(lab: Lab) -> None:
    """Also after a repair of its payload, and the undo of that."""
    said = lab.settled()
    adopt(lab)
    lab.unsay(said[1])
    lab.respell(said[1], **other_words(lab))
    lab.respell(said[1], **spelled(lab, said[1], created_at=said[1].created_at_ms // 1000))
    counts = lab.check().counts
    assert {"archived-tampered", "row-vanished", "wrong-time-unit"} == counts.keys()
    plan = lab.plan(unsafe=False)
    lab.apply(plan)
    lab.undo(plan)
    aged(lab, timedelta(minutes=1))
    adopt(lab)
    assert "archived-tampered" in lab.check().counts


def test_a_memory_that_the_app_wrote_anew_is_no_loss(open_lab: partial[Lab]) -> None:
    """The app gives it another id. The next adoption forgets the old one."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()
    adopt(lab)
    lab.lose(said[0])
    lab.deployed[said[0].anchor_id] = lab.deploy(said[0]).id
    adopt(lab)
    aged(lab, timedelta(seconds=30))
    assert ({}, 1) == (lab.check().counts, lab.check().archived)
    assert len(said) == agrees(lab)


def test_what_may_get_its_rows_yet_is_not_adopted(lab: Lab) -> None:
    """The app writes a memory before it commits the rows."""
    said = lab.settled()
    now = round(time.time() * 1000)
    young = lab.deploy(said[0], createdAt=now, content="User (Al): now\nAda: now", channelId="new")
    if lab.ltm.layout is Layout.SHARED:
        payload = lab.ltm.codec.archived(young, persona_id=A, embedder="test/8")
        lab.put(young.id, payload)
    adopt(lab)
    assert str(young.id) not in {row[1] for row in lab.sql(ENTRIES)}


def test_beside_an_empty_history_nothing_is_adopted(lab: Lab) -> None:
    """Between the schema and the data of a restore every memory looks archived."""
    lab.settled()
    adopt(lab)
    lab.sql("DELETE FROM conversation_history")
    with pytest.raises(IncompleteAudit, match="is empty"):
        adopt(lab)
    assert {"live"} == set(states(lab))


def test_nothing_is_archived_while_rows_have_no_persona(own_lab: Lab) -> None:
    """As expand leaves them: every memory looks archived to an adoption and to the relay."""
    own_lab.settled()
    with (
        exclusive(own_lab.postgres, LockKey.MIGRATE, "migration"),
        pytest.raises(IncompleteAudit, match="a migration is at work"),
    ):
        reconcile.adopt(own_lab.postgres, own_lab.ltm, own_lab.settings, anew=True)
    own_lab.sql("ALTER TABLE conversation_history ADD user_id uuid")
    own_lab.sql("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    own_lab.sql("UPDATE conversation_history SET persona_id = NULL")
    with pytest.raises(IncompleteAudit, match="cannot be read by persona"):
        adopt(own_lab, anew=True)
    with own_lab.postgres.session() as session:
        assert 0 == ledger.Ledger(session).archive()
    assert {"live"} == set(states(own_lab))


def test_what_was_adopted_without_its_rows_is_adopted_anew_with_them(
    open_lab: partial[Lab],
) -> None:
    """The ledger has it as archived, and its exchange as missing its memory, which stands."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()
    lab.respell(said[0], createdAt=said[0].created_at_ms - 2500)
    adopt(lab)
    lab.sql("UPDATE memsync.memories SET anchor_id = NULL, source = NULL, state = 'archived'")
    assert {"missing-point": 1} == lab.audit().counts
    done = adopt(lab, anew=True)
    assert (len(said), 0, {}) == (done.memories, done.archived, lab.audit().counts)
    assert {"live"} == set(states(lab))


def test_the_whole_shared_collection_is_lost_and_no_row_is_left(open_lab: partial[Lab]) -> None:
    """Retention has taken all rows. The ledger alone knows what was there."""
    lab = open_lab()
    lab.settled()
    lab.sql("DELETE FROM conversation_history")
    lab.vectors.drop(lab.home)
    assert {"collection-missing": 1} == lab.check().counts


def test_a_database_without_a_ledger(own_lab: Lab) -> None:
    """Of an earlier version: relay, audit and repair go on; adopting says what to do."""
    own_lab.sql("DROP TABLE memsync.memories, memsync.mark")
    said = own_lab.settled()
    assert own_lab.check().ok
    own_lab.lose(said[0])
    own_lab.apply(own_lab.plan())
    assert own_lab.check().ok
    with pytest.raises(SchemaMismatch, match="migrate run"):
        adopt(own_lab)


def test_a_memory_that_was_given_another_personality_is_mended(open_lab: partial[Lab]) -> None:
    """It is neither archived nor missing: the ledger knows whose it is."""
    lab = open_lab(layout="per-persona")
    said = lab.settled()
    adopt(lab)
    lab.respell(said[1], personalityId=str(UUID(int=9)))
    gate = lab.check()
    assert ({"payload-drift": 1}, 0) == (gate.counts, gate.archived)
    lab.apply(lab.plan(gate, unsafe=False))
    assert lab.check().ok
    assert len(said) == agrees(lab)


# ---------------------------------------------------------------------- whose a memory is


def talk(lab: Lab, *said: tuple[str, str, str, int]) -> list[Exchange]:
    """Write exchanges of A (channel, message, reply, seconds) with memories as the layout has
    them.
    """
    made = []
    for channel, message, reply, seconds in said:
        at = LONG_AGO + timedelta(seconds=seconds)
        exchange = NewExchange(channel, ADA, A, message, reply, at, at + timedelta(seconds=1))
        made.append(lab.exchange(lab.memory.remember(exchange).assistant_message_id))
    if lab.ltm.layout is Layout.SHARED:
        lab.sync()
    else:
        lab.deployed |= {each.anchor_id: lab.deploy(each).id for each in made}
        lab.sql("DELETE FROM memsync.outbox")
    lab.said += made
    return made


def test_an_archived_memory_is_not_taken_for_another_that_is_lost(lab: Lab) -> None:
    """One of the same words a little earlier, and one of another channel of that millisecond."""
    for said in (
        [("1", "ok", "good", 0), ("1", "ok", "good", 5), ("1", "bye", "bye", 20)],
        [("4", "a secret?", "the secret", 40), ("2", "rain?", "rain", 40), ("3", "x", "y", -90)],
    ):
        gone, lost, _ = talk(lab, *said)
        adopt(lab)
        lab.unsay(gone)
        adopt(lab)
        before = lab.check()
        assert ({}, True) == (before.counts, before.archived > 0)
        kept = lab.place(gone)
        lab.lose(lost)
        assert {"missing-point": 1} == lab.check().counts
        lab.apply(lab.plan())
        assert (before.archived, True) == (lab.check().archived, lab.check().ok)
        assert kept.point_id == lab.point(kept.point_id, kept.collection).id


def test_an_archived_memory_of_words_that_were_said_again_is_no_duplicate(lab: Lab) -> None:
    """The user deletes the first of two equal messages, or retention passes between them."""
    first, *_ = talk(lab, ("1", "ok", "good", 0), ("1", "ok", "good", 5), ("1", "bye", "bye", 20))
    adopt(lab)
    lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=first.said_id)
    assert ({}, 1, ()) == (lab.check().counts, lab.check().archived, lab.plan().actions)
    lab.unsay(first)
    assert ({}, 1, ()) == (lab.check().counts, lab.check().archived, lab.plan().actions)


# ---------------------------------------------------------------------- the change of layout


def test_a_change_of_layout_takes_the_ledger_along(open_lab: partial[Lab]) -> None:
    """What was archived stays so in the other layout, after an import, and on the way back."""
    lab = open_lab(layout="per-persona", embedder="test")
    lab.settled()
    adopt(lab)
    aged(lab, timedelta(minutes=1, seconds=30))
    adopt(lab)
    imported(lab)
    with released(lab.url):
        relayout.set_shared(lab.postgres, lab.ltm, lab.settings, app_stopped=True)
    lab.ltm = lab.ltm.in_layout(Layout.SHARED, "")
    gate = lab.check()
    assert ({}, 2, True) == (gate.counts, gate.archived, gate.ok)
    shared = [row for row in lab.sql(ENTRIES) if row[0] == lab.home]
    assert (9, 2) == (len(shared), [row[3] for row in shared].count("archived"))
    with released(lab.url):
        relayout.set_per_persona(lab.postgres, lab.ltm, lab.settings)
    lab.ltm = lab.ltm.in_layout(Layout.PER_PERSONA, "")
    assert ({}, 2) == (lab.check().counts, lab.check().archived)


def test_no_change_of_layout_hides_a_changed_memory(open_lab: partial[Lab]) -> None:
    """Its copy would have another digest, so it is not copied."""
    lab = open_lab(layout="per-persona", embedder="test")
    said = lab.settled()
    adopt(lab)
    with released(lab.url):
        relayout.set_shared(lab.postgres, lab.ltm, lab.settings, app_stopped=True)
    lab.ltm = lab.ltm.in_layout(Layout.SHARED, "")
    lab.unsay(said[0])
    lab.deployed.clear()
    lab.respell(said[0], content="User (Al): x\nAda: y")
    gate = lab.check()
    assert 1 == gate.counts["archived-tampered"]
    with lab.postgres.session() as session:
        reconcile.acknowledge(session, gate, "known")
    assert lab.check().ok
    with released(lab.url), pytest.raises(GateClosed, match="taken as they are"):
        relayout.set_per_persona(lab.postgres, lab.ltm, lab.settings)
