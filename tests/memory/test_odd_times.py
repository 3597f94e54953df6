"""Tests that a message whose time Python cannot hold costs itself, and nothing else."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from memsync import reconcile
from memsync.errors import InvalidInput
from memsync.memory import Drained, NewExchange
from memsync.model.records import Point
from memsync.reconcile.cases import Found
from memsync.reconcile.sources import Unjudged
from support.lab import ADA, CHANNEL, LONG_AGO, A, Lab
from support.releasing import drain

ODD = ("infinity", "-infinity", "0044-03-15 12:00 BC", "10000-01-01", "294276-12-31 23:59:59.999")


def give(lab: Lab, row: UUID, moment: str) -> None:
    """Give a message another time, as the database spells it."""
    lab.sql(
        "UPDATE conversation_history SET created_at = %(at)s::timestamp WHERE id = %(id)s",
        at=moment,
        id=row,
    )


def texts(lab: Lab) -> list[str]:
    """The texts of the thread."""
    window = lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A, limit=1000)
    return [each.content for each in window]


def user_message(lab: Lab, anchor: UUID) -> UUID:
    """The message before this reply of `lab.say`."""
    [(found,)] = lab.sql(
        "SELECT id FROM conversation_history WHERE role = 'user' AND content ="
        " (SELECT replace(content, 'answer', 'question') FROM conversation_history"
        "  WHERE id = %(id)s)",
        id=anchor,
    )
    assert isinstance(found, UUID)
    return found


@pytest.mark.parametrize("moment", ODD)
@pytest.mark.parametrize("role", ["assistant", "user"])
@pytest.mark.parametrize("synced", [False, True])
def test_an_odd_time_costs_its_own_message(
    lab: Lab, moment: str, role: str, *, synced: bool
) -> None:
    """Reads, relay, audit and apply leave the message out, and the audit names it."""
    first, odd, last = lab.say(3)
    if synced:
        lab.sync()
    row = odd.anchor_id if role == "assistant" else user_message(lab, odd.anchor_id)
    [(right,)] = lab.sql("SELECT created_at FROM conversation_history WHERE id = %(id)s", id=row)
    give(lab, row, moment)
    left = "question 1" if role == "assistant" else "answer 1"
    assert ["question 0", "answer 0", left, "question 2", "answer 2"] == texts(lab)
    assert {first.anchor_id, last.anchor_id} == {each.anchor_id for each in lab.exchanges()}
    if not synced:
        assert Drained(entries=3, memories=2) == drain(lab.postgres, lab.ltm)
    audit = lab.check()
    assert {"unreadable-time": 1} == audit.counts
    [finding] = audit.findings
    assert (str(row), 1) == (finding.key, finding.evidence["messages_in_all"])
    plan = lab.plan(audit)
    assert ((), {"unreadable-time": 1}) == (plan.actions, plan.left)
    lab.apply(plan)
    give(lab, row, right.isoformat())
    assert ({} if synced else {"missing-point": 1}) == lab.check().counts


@pytest.mark.parametrize("moment", ODD)
def test_a_thread_with_an_odd_time_is_written_on(lab: Lab, moment: str) -> None:
    """`remember` takes its times from the other messages, whether it is given times or not."""
    [said] = lab.say()
    give(lab, said.anchor_id, moment)
    for given in ((None, None), (LONG_AGO, LONG_AGO), (datetime.min, datetime.min)):  # noqa: DTZ901  naive is UTC
        lab.memory.remember(NewExchange(CHANNEL, ADA, A, "x", "y", *given))
    assert ["x", "y", "question 0", "x", "y", "x", "y"] == texts(lab)
    lab.sync()
    assert {"unreadable-time": 1} == lab.check().counts


@pytest.mark.parametrize("moment", ODD)
def test_a_history_of_odd_times_alone(lab: Lab, moment: str) -> None:
    """A history without any time that can be read is like an empty one, and the rows are named."""
    [said] = lab.say()
    for row in (said.anchor_id, user_message(lab, said.anchor_id)):
        give(lab, row, moment)
    lab.sync()
    assert [] == texts(lab)
    assert {"unreadable-time": 2} == lab.check().counts


def test_an_acknowledged_odd_time_hides_no_memory_that_comes_later(lab: Lab) -> None:
    """How many memories of its thread nobody can judge is part of what was acknowledged."""
    odd, other = lab.settled(3)[1:3]

    def forge() -> Point:
        payload = lab.point(other.anchor_id).payload
        return lab.put(lab.new_id(), {**payload, "user_text": f"foreign {lab.new_id()}"})

    def checked() -> tuple[dict[str, int], bool]:
        audit = lab.check()
        is_told = any("memory without an exchange" in each for each in audit.left_out)
        assert is_told is not ({"MSC002", "MSC008"} <= audit.looked_for)
        return dict(audit.counts), is_told

    with lab.postgres.session() as session:
        give(lab, odd.anchor_id, "infinity")
        lab.lose(odd)
        lab.sql("DELETE FROM memsync.memories")
        reconcile.acknowledge(session, lab.check(), "known")
        assert ({}, False) == checked()

        first = forge()
        assert ({"unreadable-time": 1}, True) == checked()
        reconcile.acknowledge(session, lab.check(), "that one is known, too")
        assert ({}, True) == checked()
        lab.vectors.delete(lab.home, [first.id])
        forge()
        assert ({"unreadable-time": 1}, True) == checked()


def test_two_memories_do_not_cancel_each_other(lab: Lab) -> None:
    """No state of memories that nobody can judge stands for none, whichever they are."""
    said = lab.settled()[0]
    found = Found.read(lab.home, lab.point(said.anchor_id), lab.ltm.codec, home=True)
    unjudged = Unjudged()
    unjudged.add(found)
    unjudged.add(found)
    assert unjudged.state


@pytest.mark.parametrize("newest", ["9999-12-31 23:59:59.999", "9999-12-31 23:59:59.998"])
def test_no_time_is_left_after_the_last(lab: Lab, newest: str) -> None:
    """A thread that ends with the last millisecond refuses the next exchange, not the process."""
    [said] = lab.say()
    give(lab, said.anchor_id, newest)
    before = lab.tables()
    with pytest.raises(InvalidInput):
        lab.memory.remember(NewExchange(CHANNEL, ADA, A, "x", "y"))
    assert before == lab.tables()
    last = datetime.max.replace(tzinfo=UTC)
    if newest.endswith("9"):
        with pytest.raises(InvalidInput, match="no time is left"):
            lab.memory.remember(NewExchange(CHANNEL, ADA, A, "x", "y", last, last))
