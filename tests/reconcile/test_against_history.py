"""The history against the ledger: two sessions, a half of the threads each, in one snapshot."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from memsync.errors import StoreUnreachable
from memsync.stores.ltm import against_history
from memsync.stores.ltm.against_history import Comparison, compare_with_history
from memsync.stores.postgres import Postgres, Session
from support.lab import CHANNEL, Lab

if TYPE_CHECKING:
    from functools import partial

    from memsync.model.records import Exchange
    from support.postgres import NewDatabase

SECOND_CHANNEL = "2000000001"


@pytest.fixture
def lab(open_lab: partial[Lab]) -> Lab:
    """A lab in the shared layout, whose ledger the relay has written."""
    return open_lab()


def settled(lab: Lab, count: int = 12) -> list[Exchange]:
    """Settled exchanges, oldest first; every second one is of a channel in the other half."""
    halves = lab.sql(
        "SELECT hashtext(id) < 0 FROM unnest(%(ids)s::text[]) AS id", ids=[CHANNEL, SECOND_CHANNEL]
    )
    assert halves[0] != halves[1]
    for each in lab.say(count)[::2]:
        lab.sql(
            "UPDATE conversation_history SET channel_id = %(other)s WHERE id = ANY(%(ids)s)",
            other=SECOND_CHANNEL,
            ids=[each.anchor_id, each.said_id],
        )
    lab.sync()
    return sorted(lab.exchanges(), key=lambda each: each.created_at_ms)


def compared(lab: Lab) -> Comparison:
    """All exchanges of the lab against its ledger."""
    with lab.postgres.session() as session:
        return compare_with_history(lab.postgres, session, lab.home, [], 10)


def alone(_: Postgres, __: Session) -> contextlib.AbstractContextManager[None]:
    """Instead of `Postgres.seeing_the_same`: there is no second session."""
    return contextlib.nullcontext()


def test_what_agrees(lab: Lab) -> None:
    """All exchanges of both halves are counted, and none is apart."""
    settled(lab)
    assert Comparison(12, 0, 0, frozenset()) == compared(lab)


def test_one_session_says_what_two_say(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences in either half, and memories without rows, are named by both ways alike."""
    said = settled(lab)
    edited = [each.anchor_id for each in said[2:5]]
    lab.sql("UPDATE conversation_history SET content = 'x' WHERE id = ANY(%(ids)s)", ids=edited)
    lab.unsay(said[9], said[10])
    lab.sql("DELETE FROM memsync.memories WHERE anchor_id = %(id)s", id=said[6].anchor_id)
    apart = {*edited, said[6].anchor_id, said[9].anchor_id, said[10].anchor_id}
    by_two = compared(lab)
    assert Comparison(10, 0, 6, frozenset(apart)) == by_two
    monkeypatch.setattr(Postgres, "seeing_the_same", alone)
    assert by_two == compared(lab)


def test_a_reply_whose_question_is_gone_went_by_design(lab: Lab) -> None:
    """It is no exchange any more; its memory is archived, in either half."""
    for each in settled(lab)[5:7]:
        lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=each.said_id)
    assert Comparison(10, 2, 0, frozenset()) == compared(lab)


def test_both_sessions_see_one_moment(lab: Lab) -> None:
    """What is committed after the snapshot is in neither half, nor among the memories."""
    settled(lab)
    with (
        lab.postgres.session() as session,
        session.snapshot(),
        lab.postgres.seeing_the_same(session) as other,
    ):
        lab.say()
        assert other is not None
        counted = [
            each.connection.execute("SELECT count(*) AS n FROM conversation_history").fetchone()
            for each in (session, other)
        ]
        assert [24, 24] == [row.n for row in counted if row]


def test_a_server_without_another_connection(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """One session then compares all."""

    def refused(_: Postgres, **__: object) -> Session:
        raise StoreUnreachable("too many connections")

    settled(lab)
    monkeypatch.setattr(Postgres, "dedicated", refused)
    assert 12 == compared(lab).exchanges


def test_another_server_under_the_same_name(
    lab: Lab, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not the snapshot of the first, as another database has not; one session does all."""
    settled(lab)
    elsewhere = Postgres(new_database()).dedicated()
    monkeypatch.setattr(Postgres, "dedicated", lambda *_: elsewhere)
    assert 12 == compared(lab).exchanges
    assert elsewhere.connection.closed


def test_a_pooler_gives_no_second_session(lab: Lab) -> None:
    """Its sessions pin their settings first, and a snapshot must be taken before anything."""
    with (
        Postgres.open(lab.url, pooled=True) as pooled,
        pooled.session() as session,
        session.snapshot(),
        pooled.seeing_the_same(session) as other,
    ):
        assert other is None


def test_who_is_interrupted_does_not_wait_for_the_other_half(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement of the other session is cancelled."""

    def interrupted(_: object, __: object, ___: object, session: Session, threads: str) -> None:
        if threads == "threads_of_second_half":
            session.connection.execute("SELECT pg_sleep(60)")
        time.sleep(0.2)
        raise KeyboardInterrupt

    monkeypatch.setattr(against_history, "_half", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compared(lab)
    assert time.monotonic() - began < 10
