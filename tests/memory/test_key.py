"""Tests the key of an exchange: a `remember` that is repeated with it writes the exchange once."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from memsync.errors import InvalidInput, OutcomeUnknown
from memsync.memory import NewExchange
from memsync.model import ids
from memsync.stores.postgres import Session
from support.lab import ADA, BASIL, CHANNEL, LONG_AGO, A, B, Lab
from support.stopping import Stop, Stopping

KEY = UUID("7b1e4c1e-9f0a-4f5e-8a77-0c3f6d1b2a90")
SAID = NewExchange(CHANNEL, ADA, A, "once", "only", key=KEY)


def rows(lab: Lab) -> int:
    """How many messages there are."""
    count: int = lab.sql("SELECT count(*) FROM conversation_history")[0][0]
    return count


def test_a_repeated_call_writes_once(lab: Lab) -> None:
    """The second call returns the first one's ids and changes neither rows nor outbox."""
    first = lab.memory.remember(SAID)
    before = lab.tables()
    again = (
        SAID,
        replace(SAID, key=str(KEY)),
        replace(SAID, user_text="other", assistant_text="texts"),
        replace(SAID, said_at=LONG_AGO, answered_at=LONG_AGO),
    )
    for each in again:
        assert first == lab.memory.remember(each)
        assert before == lab.tables()
    lab.sync()
    [exchange] = lab.exchanges()
    assert (first.assistant_message_id, "once") == (exchange.anchor_id, exchange.user_text)
    assert first == lab.memory.remember(replace(SAID, key=str(KEY).upper()))
    assert first == lab.memory.remember(SAID)
    assert lab.check().ok


OTHERS: dict[str, dict[str, Any]] = {
    "another key": {"key": "another"},
    "no key": {"key": None},
    "another channel": {"channel_id": "2"},
    "another personality": {"personality_id": BASIL},
    "another persona": {"persona_id": B},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=list(OTHERS))
def test_a_key_is_of_one_thread(lab: Lab, changes: dict[str, Any]) -> None:
    """Another key, and the same key in another thread, name another exchange."""
    first = lab.memory.remember(SAID)
    assert first != lab.memory.remember(replace(SAID, **changes))
    assert 4 == rows(lab)


def test_no_two_lists_of_fields_give_one_id() -> None:
    """Fields that read the same one after another give different ids."""
    made = [
        ids.keyed_message_id(*fields)
        for fields in (("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c"), ("", "abc"), ("1:a",))
    ]
    assert len(made) == len(set(made))


def test_the_ids_of_a_key_never_change() -> None:
    """A key gives the ids that every build gives, because a repeat may come after an upgrade."""
    assert UUID("23bf5e75-8ca2-52b0-9357-b0c1e33eec05") == ids.keyed_message_id(
        CHANNEL, str(ADA), str(A), str(KEY), "user"
    )


def test_a_message_that_is_left_keeps_the_key(lab: Lab) -> None:
    """Where one of the two messages was removed, a repeat writes nothing; without both it does."""
    first = lab.memory.remember(SAID)
    lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=first.user_message_id)
    assert first == lab.memory.remember(SAID)
    assert 1 == rows(lab)
    lab.sql("DELETE FROM conversation_history")
    assert first == lab.memory.remember(SAID)
    assert 2 == rows(lab)


BAD = ["", "x" * 256, "a\0b", "\ud800", 7, b"x", ["x"], True]


@pytest.mark.parametrize("key", BAD, ids=repr)
def test_a_key_that_cannot_be_one_is_refused(lab: Lab, key: Any) -> None:
    """A key that is neither a uuid nor text of 1 to 255 characters leaves nothing."""
    with pytest.raises(InvalidInput, match="key"):
        lab.memory.remember(replace(SAID, key=key))
    assert 0 == rows(lab)


@pytest.mark.parametrize("key", ["x", "x" * 255, "msg:1/2", "é", "9" * 19])
def test_any_other_text_is_a_key(lab: Lab, key: str) -> None:
    """A text of a chat platform is taken as it is."""
    assert lab.memory.remember(replace(SAID, key=key)) == lab.memory.remember(
        replace(SAID, key=key)
    )
    assert 2 == rows(lab)


@pytest.mark.parametrize("written", [False, True])
def test_a_commit_of_unknown_outcome(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    """A session that is lost at COMMIT, before or after it took effect, leaves one exchange."""
    real = Session.transaction

    @contextlib.contextmanager
    def lost(session: Session) -> Iterator[Session]:
        with contextlib.suppress(Exception), real(session):
            yield session
            if not written:
                session.connection.close()
        session.connection.close()
        raise OutcomeUnknown("the session was lost at COMMIT")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "transaction", lost)
        with pytest.raises(OutcomeUnknown):
            lab.memory.remember(SAID)
    assert (2 if written else 0) == rows(lab)
    assert lab.memory.remember(SAID) == lab.memory.remember(SAID)
    assert 2 == rows(lab)
    lab.sync()
    assert lab.check().ok


def test_a_lost_commit_is_repeated_where_there_is_a_key(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key one call is enough; without one the caller must decide."""
    real = Session.transaction
    lost: list[Session] = []

    @contextlib.contextmanager
    def once(session: Session) -> Iterator[Session]:
        with real(session):
            yield session
        if not lost:
            lost.append(session)
            session.connection.close()
            raise OutcomeUnknown("the session was lost at COMMIT")

    monkeypatch.setattr(Session, "transaction", once)
    lab.memory.remember(SAID)
    assert (2, 1) == (rows(lab), len(lost))
    lost.clear()
    with pytest.raises(OutcomeUnknown):
        lab.memory.remember(replace(SAID, key=None))
    lost.clear()
    with pytest.raises(OutcomeUnknown):
        lab.memory.add_personality("Nova")
    assert [(1,)] == lab.sql("DELETE FROM personalities WHERE name = 'Nova' RETURNING 1")


def test_concurrent_calls_with_one_key(lab: Lab) -> None:
    """When 8 Python threads remember the same 12 exchanges, each is written once, in one order."""
    said = [
        replace(SAID, key=f"message {n}", user_text=str(n), said_at=LONG_AGO, answered_at=LONG_AGO)
        for n in range(12)
    ]

    def import_all(_: int) -> list[object]:
        return [lab.memory.remember(each) for each in said]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(import_all, range(8)))
    assert [found[0]] * 8 == found
    assert 24 == rows(lab)
    history = lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A, limit=24)
    assert [str(n) for n in range(12)] == [each.content for each in history[::2]]
    assert history[-1].created_at < LONG_AGO + timedelta(seconds=1)


def test_a_call_that_fails_at_any_statement_can_be_repeated(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a call with a key fails, its repeat leaves one exchange."""
    stopping = Stopping()
    for stopping.at in range(1, 7):
        stopping.ran.clear()
        with monkeypatch.context() as patched:
            stopping.patch(patched)
            with pytest.raises(Stop):
                lab.memory.remember(SAID)
        assert 0 == rows(lab)
    lab.memory.remember(SAID)
    assert (2, 6) == (rows(lab), len(stopping.ran))
