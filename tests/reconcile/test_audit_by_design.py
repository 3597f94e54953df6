"""What an app does by design is no fault: imports, retention, clocks, and times around 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from memsync.memory import NewExchange
from memsync.model.records import Exchange
from memsync.stores.ltm.layouts import Layout
from support.lab import ADA, CHANNEL, LONG_AGO, A, C, Lab

if TYPE_CHECKING:
    from memsync.reconcile.findings import Audit


@pytest.fixture(params=Layout)
def lab_of(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> partial[Lab]:
    """Call it for a lab in each of the layouts."""
    return partial(open_lab, layout=request.param.value)


@pytest.fixture
def either_lab(lab_of: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return lab_of()


def remembered(lab: Lab, *exchanges: NewExchange) -> list[Exchange]:
    """Write exchanges, and their memories as the layout has them."""
    before = {each.anchor_id for each in lab.exchanges()}
    for each in exchanges:
        lab.memory.remember(each)
    made = [each for each in lab.exchanges() if each.anchor_id not in before]
    if lab.ltm.layout is Layout.SHARED:
        lab.sync()
        return made
    lab.deployed |= {each.anchor_id: lab.deploy(each).id for each in made}
    lab.sql("DELETE FROM memsync.outbox")
    return made


def is_clean(lab: Lab) -> Audit:
    """The audit of `check`, which must have found nothing."""
    found = lab.check()
    assert ({}, (), 0) == (found.counts, found.not_checked, found.settling)
    return found


def test_an_import_to_the_second(either_lab: Lab) -> None:
    """Two exchanges of one thread in each second: each memory has its own question and answer."""
    lab, at = either_lab, datetime(2025, 9, 1, 12, tzinfo=UTC)
    said = [
        NewExchange(CHANNEL, ADA, A, f"question {n}", f"answer {n}", when, when)
        for n in range(40)
        for when in [at + timedelta(seconds=n // 2)]
    ]
    made = remembered(lab, *said)
    assert {(f"question {n}", f"answer {n}") for n in range(40)} == {
        (each.user_text, each.assistant_text) for each in made
    }
    assert (40, 40) == (is_clean(lab).rows_checked, is_clean(lab).points_checked)


def test_a_lively_talk_to_the_second(either_lab: Lab) -> None:
    """Each answer comes in the second in which the next question is asked."""
    lab, at, second = either_lab, datetime(2025, 9, 1, 12, tzinfo=UTC), timedelta(seconds=1)
    said = [
        NewExchange(
            CHANNEL,
            ADA,
            A,
            f"question {n}",
            f"answer {n}",
            at + n * second,
            at + n * second + second,
        )
        for n in range(20)
    ]
    made = remembered(lab, *said)
    assert all(each.user_text[9:] == each.assistant_text[7:] for each in made)
    assert 20 == is_clean(lab).rows_checked


def test_an_import_of_one_moment(either_lab: Lab) -> None:
    """Many exchanges, in threads of their own, have the time of one transaction."""
    lab = either_lab
    said = [
        NewExchange(str(n), ADA, A, "hello", f"hi {n // 2}", LONG_AGO, LONG_AGO) for n in range(40)
    ]
    remembered(lab, *said)
    assert 40 == is_clean(lab).rows_checked


# ---------------------------------------------------------------------- retention


def test_retention_by_time_cuts_between_a_message_and_its_reply(either_lab: Lab) -> None:
    """The memories of what is gone are archived."""
    lab = either_lab
    lab.settled(6)
    lab.sql(
        "DELETE FROM conversation_history WHERE created_at < %(cut)s",
        cut=(LONG_AGO + timedelta(minutes=3, seconds=1)).replace(tzinfo=None),
    )
    assert 4 == is_clean(lab).archived


def test_threads_that_are_pruned_to_their_newest_messages(either_lab: Lab) -> None:
    """A quiet thread keeps a row that is older than what others have lost."""
    lab = either_lab
    said = lab.settled(5)
    lab.sql(
        "DELETE FROM conversation_history WHERE persona_id = %(c)s AND id NOT IN (SELECT id FROM"
        " conversation_history WHERE persona_id = %(c)s ORDER BY created_at DESC LIMIT 3)",
        c=C,
    )
    # Of one exchange the reply alone is left.
    assert 4 == is_clean(lab).archived
    assert 10 == len(said)


def test_retention_cuts_between_exchanges_of_a_lively_talk(either_lab: Lab) -> None:
    """What goes is nearer to the oldest row that stays than a memory's time may be off."""
    lab, pause = either_lab, timedelta(seconds=3)
    said = [
        NewExchange(CHANNEL, ADA, A, f"question {n}", f"answer {n}", at, at)
        for n in range(4)
        for at in [LONG_AGO + n * pause]
    ]
    remembered(lab, *said)
    lab.sql("TRUNCATE memsync.memories")
    lab.sql(
        "DELETE FROM conversation_history WHERE created_at < %(cut)s",
        cut=(LONG_AGO + 2 * pause).replace(tzinfo=None),
    )
    assert 2 == is_clean(lab).archived


def test_the_old_words_of_an_edited_first_exchange_are_not_archived(open_lab: partial[Lab]) -> None:
    """Its memory is missing, and the app noted the time of what is left a little before the row."""
    lab = open_lab(layout="per-persona")
    first, second = lab.say(2)
    lab.deploy(first, createdAt=first.created_at_ms - 2000)
    lab.deploy(second)
    lab.sql(
        "UPDATE conversation_history SET content = 'edited' WHERE id = %(id)s", id=first.anchor_id
    )
    lab.sql("DELETE FROM memsync.outbox")
    assert {"missing-point": 1, "orphan-point": 1} == lab.check().counts


@pytest.mark.parametrize("comes", [True, False])
def test_retention_right_before_an_exchange_whose_memory_comes(
    open_lab: partial[Lab], *, comes: bool
) -> None:
    """The memory of the exchange before it is archived. Without an outbox that brings the memory of
    the later one, nobody can tell whether it is that one's, of before an edit.
    """
    lab = open_lab(layout="per-persona")
    said = [
        NewExchange(CHANNEL, ADA, A, f"question {n}", f"answer {n}", at, at)
        for n in range(3)
        for at in [LONG_AGO + n * timedelta(seconds=3)]
    ]
    made = sorted(remembered(lab, *said), key=lambda each: each.created_at_ms)
    gone, first, _ = made
    lab.lose(first)
    ids = [gone.anchor_id, gone.said_id]
    lab.sql("DELETE FROM conversation_history WHERE id = ANY(%(ids)s)", ids=ids)
    if comes:
        lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=first.anchor_id)
    found = lab.audit()
    assert ({} if comes else {"missing-point": 1, "orphan-point": 1}) == found.counts
    assert (comes, comes) == (found.archived, found.settling)


def test_a_thread_that_was_reset(either_lab: Lab) -> None:
    """None of its rows is left."""
    lab = either_lab
    lab.settled()
    lab.sql("DELETE FROM conversation_history WHERE persona_id = %(c)s", c=C)
    assert 4 == is_clean(lab).archived


def test_an_import_of_old_rows_into_another_thread(either_lab: Lab) -> None:
    """Memories stay archived when another thread gets older rows than they are."""
    lab = either_lab
    lab.settled(6)
    lab.sql(
        "DELETE FROM conversation_history WHERE created_at < %(cut)s",
        cut=(LONG_AGO + timedelta(minutes=3)).replace(tzinfo=None),
    )
    assert 3 == is_clean(lab).archived
    old = datetime(2023, 1, 1, tzinfo=UTC)
    remembered(lab, NewExchange("imported", ADA, A, "long", "ago", old, old))
    assert 3 == is_clean(lab).archived


def test_an_import_of_old_rows_into_their_thread(either_lab: Lab) -> None:
    """Then nothing says that their rows were removed by design; yet no repair removes them.

    With the ledger they are archived: see test_ledger.
    """
    lab = either_lab
    lab.settled(6)
    lab.sql("TRUNCATE memsync.memories")
    lab.sql(
        "DELETE FROM conversation_history WHERE created_at < %(cut)s",
        cut=(LONG_AGO + timedelta(minutes=3)).replace(tzinfo=None),
    )
    old = datetime(2023, 1, 1, tzinfo=UTC)
    remembered(lab, NewExchange(CHANNEL, ADA, A, "long", "ago", old, old))
    found = lab.check()
    assert {"newer-than-history": 3} == found.counts
    assert {"report-only"} == {each.grade for each in found.faults}


# ---------------------------------------------------------------------- clocks


WRITE = """
INSERT INTO conversation_history
       (id, channel_id, personality_id, persona_id, role, content, created_at)
SELECT r.id, 'clock', %(ada)s, %(a)s, r.role, 'x',
       clock_timestamp() AT TIME ZONE 'UTC' + %(off)s * interval '1 second'
       + r.n * interval '100 ms'
FROM (VALUES (%(said)s::uuid, 'user', 0), (%(anchor)s::uuid, 'assistant', 1)) r(id, role, n)"""


@pytest.mark.parametrize("off", [-40, 0, 5, 600])
def test_a_row_of_a_clock_that_is_off_is_settling(either_lab: Lab, off: int) -> None:
    """A row without a memory is young by the clock of the app that wrote it."""
    lab = either_lab
    lab.settled()
    lab.sql(WRITE, ada=ADA, a=A, off=off, said=uuid4(), anchor=uuid4())
    found = lab.check()
    assert ({}, 1) == (found.counts, found.settling)


@pytest.mark.parametrize("off_ms", [-40_000, 0, 5000])
def test_a_memory_before_its_row_is_settling(either_lab: Lab, off_ms: int) -> None:
    """An app may write the memory first, and commit the rows a moment later."""
    lab = either_lab
    said = lab.settled()
    at = round(time.time() * 1000) + off_ms
    collection = lab.place(said[0]).collection
    lab.deploy(said[0], collection=collection, createdAt=at, content="User (Al): x\nAda: y")
    if lab.ltm.layout is Layout.SHARED:
        [young] = [p for p, payload, _ in lab.points()[lab.home] if "content" in payload]  # type: ignore[operator]
        lab.put(young, lab.ltm.codec.archived(lab.point(young), persona_id=A, embedder="test/8"))
    found = lab.check()
    assert ({}, 1) == (found.counts, found.settling)


# ---------------------------------------------------------------------- times around 1970


@pytest.mark.parametrize("at", [0, 1, -1, 99_999_999_999, 100_000_000_000, -62_135_596_800_000])
def test_times_around_1970_are_what_they_are(either_lab: Lab, at: int) -> None:
    """A memory whose time is that of its row is right, whatever the time is."""
    lab = either_lab
    lab.settled()
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
    if at < -1:
        when += timedelta(days=1)
    remembered(lab, NewExchange("odd", ADA, A, "what", "then", when, when))
    is_clean(lab)


def test_seconds_are_no_time_of_1970(either_lab: Lab) -> None:
    """A memory of today that gives its seconds is still found, beside exchanges of 1970."""
    lab = either_lab
    said = lab.settled()
    when = datetime(1970, 1, 1, tzinfo=UTC)
    remembered(lab, NewExchange("odd", ADA, A, "what", "then", when, when))
    key = "created_at" if lab.ltm.layout is Layout.SHARED else "createdAt"
    lab.respell(said[0], **{key: said[0].created_at_ms // 1000})
    assert {"wrong-time-unit": 1} == lab.check().counts
