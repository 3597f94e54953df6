"""What the relay overwrites: its own memories at once, any other only after a copy is kept."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from memsync.errors import MemsyncError, PartlyDone
from memsync.memory import NewExchange, relay
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Postgres, Session
from support.lab import ADA, CHANNEL, LONG_AGO, A, C, Lab
from support.ledger import adopt
from support.raw_vectors import write_raw

KEPT = """SELECT collection, point_id, payload::text, cardinality(vector), reason
FROM memsync.quarantine ORDER BY id"""
GRANT = "GRANT INSERT ON memsync.quarantine"


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts; memsync writes."""
    return open_lab(layout=request.param.value, writer="memsync")


def edit(lab: Lab, anchor: UUID, text: str = "another answer") -> None:
    """Change the reply, and queue its memory."""
    lab.sql("UPDATE conversation_history SET content = %(t)s WHERE id = %(i)s", t=text, i=anchor)
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=anchor)


def text_of(lab: Lab, anchor: UUID) -> str:
    place = lab.place(lab.exchange(anchor))
    point = lab.point(place.point_id, place.collection)
    return str(lab.ltm.codec_of(place.collection).decode(point.payload).memory.text)


def respelled(lab: Lab) -> dict[str, Any]:
    deployed = lab.ltm.layout is Layout.PER_PERSONA
    words = "by hand"
    return {"content": f"User (Al): {words}\nAda: {words}"} if deployed else {"user_text": words}


def test_an_edit_keeps_no_copy(lab: Lab) -> None:
    """Postgres had the old text until somebody edited it there."""
    [said] = lab.say()
    lab.sync()
    edit(lab, said.anchor_id)
    lab.sync()
    assert "another answer" in text_of(lab, said.anchor_id)
    assert [] == lab.sql(KEPT)


def test_a_memory_that_was_changed_by_hand_is_kept_first(lab: Lab) -> None:
    """It is the only copy of what somebody wrote there."""
    [said] = lab.say()
    lab.sync()
    lab.respell(said, **respelled(lab))
    before = lab.points()
    edit(lab, said.anchor_id)
    lab.sync()
    [(collection, point_id, payload, dims, reason)] = lab.sql(KEPT)
    assert (collection, str(said.anchor_id)) == (lab.place(said).collection, point_id)
    assert "by hand" in payload
    assert dims == len(next(iter(before[collection]))[2] or ())
    assert "relay" == reason
    assert "another answer" in text_of(lab, said.anchor_id)
    edit(lab, said.anchor_id, "a third answer")
    lab.sync()
    assert 1 == len(lab.sql(KEPT)), "that one was the relay's own"


def test_a_copy_is_on_disk_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Postgres may lose its last commits, these wait all the same."""
    levels: list[object] = []
    real = Session.run_many

    def run_many(session: Session, name: str, *given: Any) -> Any:
        if name == "keep_point":
            levels.extend(session.connection.execute("SHOW synchronous_commit"))
        return real(session, name, *given)

    monkeypatch.setattr(Session, "run_many", run_many)
    [said] = lab.say()
    lab.sync()
    lab.respell(said, **respelled(lab))
    edit(lab, said.anchor_id)
    lab.sync()
    assert [("local",)] == levels
    assert [("off",)] == lab.sql("SHOW synchronous_commit")


def test_a_memory_of_which_no_copy_can_be_kept(lab: Lab) -> None:
    """Postgres has no JSON for what somebody added. Its entry waits, and stops no other one."""
    odd, other = lab.say(2)
    lab.sync()
    place = lab.place(odd)
    point = lab.point(place.point_id, place.collection)
    spoilt = replace(point, payload={**point.payload, "score": math.nan})
    write_raw(lab.vectors, place.collection, spoilt, list(point.vector or ()))
    for each in (odd, other):
        edit(lab, each.anchor_id)
    with pytest.raises(PartlyDone, match=rf"held: the memory {place} is not.*NaN or infinity"):
        lab.sync()
    assert odd.assistant_text in text_of(lab, odd.anchor_id)
    assert "another answer" in text_of(lab, other.anchor_id)
    assert [] == lab.sql(KEPT)
    lab.respell(odd, score=1)
    lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")
    lab.sync()
    assert "another answer" in text_of(lab, odd.anchor_id)


def test_what_was_added_to_a_memory_is_kept(lab: Lab) -> None:
    """A key that memsync does not know stands nowhere else."""
    [said] = lab.say()
    lab.sync()
    lab.respell(said, note="of somebody")
    edit(lab, said.anchor_id)
    lab.sync()
    [(_, _, payload, _, _)] = lab.sql(KEPT)
    assert "of somebody" in payload


def test_another_value_of_a_key_is_kept(open_lab: partial[Lab]) -> None:
    """The app has set what memsync always writes alike."""
    lab = open_lab(layout="per-persona", writer="memsync")
    [said] = lab.say()
    lab.sync()
    lab.respell(said, canonScope="personal")
    edit(lab, said.anchor_id)
    lab.sync()
    [(_, _, payload, _, _)] = lab.sql(KEPT)
    assert "personal" in payload


def test_a_memory_newer_than_a_restored_postgres_is_kept(lab: Lab) -> None:
    """Rows and ledger are of yesterday, the memory of today."""
    [said] = lab.say()
    lab.sync()
    ledger = lab.sql("SELECT encode(stored, 'hex') FROM memsync.memories")[0][0]
    edit(lab, said.anchor_id, "answer of today")
    lab.sync()
    lab.sql("UPDATE memsync.memories SET stored = decode(%(d)s, 'hex')", d=ledger)
    lab.sql("UPDATE memsync.mark SET settled = settled - 1")
    edit(lab, said.anchor_id, "answer of yesterday")
    lab.sync()
    [(_, _, payload, _, _)] = lab.sql(KEPT)
    assert "answer of today" in payload


def test_an_archived_memory_that_is_remembered_anew_is_kept(open_lab: partial[Lab]) -> None:
    """An import says its exchange again, in other words. Nobody has edited the old ones."""
    lab = open_lab()
    exchange = NewExchange(CHANNEL, ADA, A, "once", "only", LONG_AGO, LONG_AGO, key="k")
    said = lab.memory.remember(exchange)
    lab.sync()
    lab.sql("DELETE FROM conversation_history")
    lab.say(persona=C)
    adopt(lab)
    assert said == lab.memory.remember(replace(exchange, assistant_text="other words"))
    lab.sync()
    [(_, _, payload, _, _)] = lab.sql(KEPT)
    assert "only" in payload
    assert "other words" in text_of(lab, said.assistant_message_id)


def test_a_memory_that_the_ledger_does_not_know_is_kept(lab: Lab) -> None:
    """Until it is adopted nobody can tell whether it is as memsync wrote it."""
    two = lab.say(2)
    lab.sync()
    lab.sql("TRUNCATE memsync.memories")
    edit(lab, two[0].anchor_id)
    lab.sync()
    assert 1 == len(lab.sql(KEPT))
    adopt(lab)
    edit(lab, two[1].anchor_id)
    lab.sync()
    assert 1 == len(lab.sql(KEPT))


def test_a_memory_that_is_written_once_more_is_not_kept(lab: Lab) -> None:
    """A run that ended before it settled an entry: what stands is what is written."""
    [said] = lab.say()
    lab.sync()
    lab.sql("TRUNCATE memsync.memories")
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=said.anchor_id)
    lab.sync()
    assert [] == lab.sql(KEPT)


def test_a_role_that_may_keep_nothing_holds_that_memory_alone(lab: Lab) -> None:
    """The missing grant is told as the relay begins, and the rest of the queue goes on."""
    first, second = lab.say(2)
    lab.sync()
    lab.respell(first, **respelled(lab))
    for each in (first, second):
        edit(lab, each.anchor_id)
    [third] = lab.say()
    before = text_of(lab, first.anchor_id)
    told: list[str] = []
    lab.sql("CREATE ROLE keeps_nothing LOGIN")
    try:
        for grant in ("SCHEMA memsync, public", "ALL TABLES IN SCHEMA memsync, public"):
            lab.sql(f"GRANT ALL ON {grant} TO keeps_nothing")
        lab.sql("REVOKE INSERT ON memsync.quarantine FROM keeps_nothing")
        with (
            Postgres.open(lab.url.replace("postgres@", "keeps_nothing@", 1)) as postgres,
            pytest.raises(PartlyDone, match=GRANT),
        ):
            relay.drain(postgres, lab.ltm, lambda each: told.append(each.what))
    finally:
        lab.sql("DROP OWNED BY keeps_nothing; DROP ROLE keeps_nothing")
    assert any(GRANT in each for each in told)
    assert before == text_of(lab, first.anchor_id)
    assert "another answer" in text_of(lab, second.anchor_id)
    assert third.user_text in text_of(lab, third.anchor_id)
    assert [(str(first.anchor_id),)] == lab.sql("SELECT point_id::text FROM memsync.outbox")
    lab.sync()
    assert "another answer" in text_of(lab, first.anchor_id)
    assert 1 == len(lab.sql(KEPT))


def test_without_a_copy_nothing_is_overwritten(lab: Lab) -> None:
    """Where the quarantine cannot be written, the memory stays, and its entry too."""
    [said] = lab.say()
    lab.sync()
    lab.respell(said, **respelled(lab))
    edit(lab, said.anchor_id)
    before = lab.points()
    lab.sql("ALTER TABLE memsync.quarantine ADD CONSTRAINT none CHECK (false) NOT VALID")
    try:
        with pytest.raises(MemsyncError, match="none"):
            lab.sync()
    finally:
        lab.sql("ALTER TABLE memsync.quarantine DROP CONSTRAINT none")
    assert before == lab.points()
    assert [(1,)] == lab.sql("SELECT count(*) FROM memsync.outbox")
    lab.sql("UPDATE memsync.outbox SET next_attempt_at = now()")
    lab.sync()
    assert 1 == len(lab.sql(KEPT))
