"""Tests the order of a thread: messages of one time, and where `remember` places an exchange."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsync.errors import InvalidInput
from memsync.memory import NewExchange
from memsync.model.records import Exchange, Message, Role, to_ms
from memsync.stores.postgres.statements import statement
from support.lab import ADA, CHANNEL, LONG_AGO, A, Lab

MS, SECOND = timedelta(milliseconds=1), timedelta(seconds=1)


def import_all(lab: Lab, times: Sequence[tuple[datetime, datetime]]) -> None:
    """Remember an exchange for each pair of times, in this order."""
    for number, (said_at, answered_at) in enumerate(times):
        remember(lab, str(number), said_at, answered_at)


def remember(lab: Lab, name: str, said_at: datetime, answered_at: datetime) -> None:
    """Remember one exchange of these times."""
    lab.memory.remember(
        NewExchange(CHANNEL, ADA, A, f"question {name}", f"answer {name}", said_at, answered_at)
    )


def history(lab: Lab, limit: int = 1000) -> list[Message]:
    """The newest messages of the thread."""
    return lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A, limit=limit)


def talk(lab: Lab) -> list[str]:
    """The names of the exchanges in the thread's order; each must be whole."""
    messages = history(lab)
    names = [each.content.removeprefix("question ") for each in messages[::2]]
    whole = [text for name in names for text in (f"question {name}", f"answer {name}")]
    assert whole == [each.content for each in messages]
    return names


def pairs(exchanges: Sequence[Exchange]) -> set[tuple[str, str]]:
    """The texts of the exchanges."""
    return {(each.user_text, each.assistant_text) for each in exchanges}


def at(number: float) -> datetime:
    """So many seconds after LONG_AGO."""
    return LONG_AGO + number * SECOND


COUNT = 100
IMPORTS = {
    "all in one second": [(at(0), at(0)) for _ in range(COUNT)],
    "two in each second": [(at(n // 2), at(n // 2)) for n in range(COUNT)],
    "each question in the second of the last answer": [(at(n), at(n + 1)) for n in range(COUNT)],
    "all at once, each answer a second later": [(at(0), at(1)) for _ in range(COUNT)],
    "each a millisecond after the last": [(at(n / 1000), at(n / 1000)) for n in range(COUNT)],
}


@pytest.mark.parametrize("times", IMPORTS.values(), ids=list(IMPORTS))
def test_an_import_keeps_pairs_and_order(
    lab: Lab, times: Sequence[tuple[datetime, datetime]]
) -> None:
    """100 exchanges become 100 memories, each its own question and answer, in their order."""
    import_all(lab, times)
    names = list(map(str, range(COUNT)))
    assert names == talk(lab)
    assert {(f"question {n}", f"answer {n}") for n in names} == pairs(lab.exchanges())
    lab.sync()
    assert COUNT == len(lab.memory.recall("x", persona_id=A, limit=1000))
    assert lab.check().ok
    worst = max(abs(m.created_at - t) for m, t in zip(history(lab), sum(times, ()), strict=True))
    assert worst <= SECOND + COUNT * MS


def test_an_import_that_begins_with_the_newest(lab: Lab) -> None:
    """An import in the reverse order has the order of its times."""
    import_all(lab, [(at(n), at(n + 1)) for n in reversed(range(COUNT))])
    assert list(map(str, reversed(range(COUNT)))) == talk(lab)


PLACES: dict[str, tuple[float, float, list[str], tuple[float, float]]] = {
    "before all": (-9, -8, ["new", "0", "1"], (-9, -8)),
    "up to the first": (-9, 0, ["new", "0", "1"], (-9, -0.001)),
    "within an exchange": (11, 12, ["0", "new", "1"], (20.001, 20.001)),
    "at its end": (20, 20, ["0", "new", "1"], (20.001, 20.001)),
    "over its end": (15, 30, ["0", "new", "1"], (20.001, 30)),
    "over a whole one": (-5, 35, ["new", "0", "1"], (-5, -0.001)),
    "between two": (30, 31, ["0", "new", "1"], (30, 31)),
    "up to the next": (30, 60, ["0", "new", "1"], (30, 59.999)),
    "far into the next": (30, 65, ["0", "new", "1"], (30, 59.999)),
    "with the next": (60, 60, ["0", "1", "new"], (80.001, 80.001)),
    "after all": (90, 91, ["0", "1", "new"], (90, 91)),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_an_import_among_others_is_whole(
    lab: Lab, place: tuple[float, float, list[str], tuple[float, float]]
) -> None:
    """A backdated exchange goes between others as a whole, and theirs stay as they were."""
    said, answered, order, expected = place
    import_all(lab, [(at(0), at(20)), (at(60), at(80))])
    lab.sync()
    before = set(lab.exchanges())
    remember(lab, "new", at(said), at(answered))
    assert order == talk(lab)
    times = {each.content: each.created_at for each in history(lab)}
    assert tuple(map(at, expected)) == (times["question new"], times["answer new"])
    assert before < set(lab.exchanges())
    lab.sync()
    assert 3 == len(lab.exchanges())
    assert lab.check().ok


def test_concurrent_imports_at_one_moment_never_interleave(lab: Lab) -> None:
    """When 8 Python threads import at one moment, every exchange is whole."""

    def import_some(who: int) -> None:
        for number in range(12):
            remember(lab, f"{who}/{number}", LONG_AGO, LONG_AGO + SECOND)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(import_some, range(8)))
    assert 96 == len(set(talk(lab)))


def test_no_time_is_left_after_the_last(lab: Lab) -> None:
    """An exchange that would have to come after the year 9999 is refused."""
    last = datetime.max.replace(tzinfo=UTC)
    remember(lab, "last", last, last)
    before = lab.tables()
    with pytest.raises(InvalidInput, match="no time is left"):
        remember(lab, "later", last, last)
    assert before == lab.tables()


# ---------------------------------------------------------------------- against a simple model

Row = tuple[int, Role]
"""The millisecond and the role of a message; the list of a thread is in its order."""

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(get_args(Role))), max_size=8)
NEW = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=6)
TURNS = {"system": 0, "user": 1, "assistant": 2}


def expected_place(thread: Sequence[Row], said: int, answered: int) -> tuple[int, int]:
    """The first free millisecond from `said` on that lies in no exchange, found by trying all."""
    while True:
        earlier = [role for ms, role in thread if ms <= said]
        later = [(ms, role) for ms, role in thread if ms > said]
        torn = earlier and later and (earlier[-1], later[0][1]) == ("user", "assistant")
        if not torn and said not in {ms for ms, _ in thread}:
            next_ms = later[0][0] - 1 if later else answered
            return said, max(said, min(answered, next_ms))
        said += 1


def insert(lab: Lab, ms: int, role: str, content: str = "x", **row: Any) -> None:
    """Write a message as an app does, without the library."""
    lab.sql(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, persona_id, role, content, created_at)"
        " VALUES (%(id)s, %(c)s, %(p)s, %(a)s, %(role)s, %(content)s, %(at)s)",
        **{"id": lab.new_id(), "c": CHANNEL, "p": ADA, "a": A} | row,
        role=role,
        content=content,
        at=(LONG_AGO + ms * MS).replace(tzinfo=None),
    )


def test_the_place_is_the_first_that_fits(lab: Lab) -> None:
    """Among any messages of an app, an exchange gets the first place in which it is whole."""

    @given(ROWS, NEW)
    def placed(rows: list[Row], new: list[tuple[int, int]]) -> None:
        lab.sql("TRUNCATE conversation_history, memsync.outbox CASCADE")
        for ms, role in rows:
            insert(lab, ms, role)
        thread = sorted(rows, key=lambda row: (row[0], TURNS[row[1]]))
        for number, (said, after) in enumerate(new):
            before = set(lab.exchanges())
            expected = expected_place(thread, said, said + after)
            remember(lab, str(number), LONG_AGO + said * MS, LONG_AGO + (said + after) * MS)
            found = {each.content: each.created_at for each in history(lab)}
            assert expected == tuple(
                (found[f"{what} {number}"] - LONG_AGO) // MS for what in ("question", "answer")
            )
            assert before < set(lab.exchanges())
            assert (f"question {number}", f"answer {number}") in pairs(lab.exchanges())
            thread += [(expected[0], "user"), (expected[1], "assistant")]
            thread.sort(key=lambda row: (row[0], TURNS[row[1]]))

    placed()


# ---------------------------------------------------------------------- rows of an app


def low_and_high(lab: Lab) -> tuple[UUID, UUID]:
    """Two ids, the smaller one first."""
    low, high = sorted((lab.new_id(), lab.new_id()), key=lambda each: each.bytes)
    return low, high


@pytest.mark.parametrize("swapped", [False, True])
def test_a_question_and_its_answer_of_one_time(lab: Lab, *, swapped: bool) -> None:
    """Question and answer that an app wrote at one moment are an exchange, whatever their ids."""
    user, assistant = low_and_high(lab)[:: -1 if swapped else 1]
    insert(lab, 0, "assistant", "answer", id=assistant)
    insert(lab, 0, "user", "question", id=user)
    insert(lab, 0, "system", "rule")
    assert ["rule", "question", "answer"] == [each.content for each in history(lab)]
    assert ["question", "answer"] == [each.content for each in history(lab, 2)]
    [exchange] = lab.exchanges()
    assert (assistant, "question") == (exchange.anchor_id, exchange.user_text)


def test_ties_go_by_turn_then_by_id(lab: Lab) -> None:
    """Messages of one millisecond: the user's before the assistant's, then by id, for any limit."""
    for number in range(12):
        insert(lab, 0, ("user", "assistant")[number % 2])
    window = history(lab)
    order = [(each.role != "user", each.id.bytes) for each in window]
    assert sorted(order) == order
    for limit in range(1, 12):
        assert window[-limit:] == history(lab, limit)


# ---------------------------------------------------------------------- costs

QUESTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "recent_history": ({"limit": 20}, 22),
    "first_gap": ({"said_at": at(9000.5)}, 4),
    "exchanges_by_anchor": ({}, 3),
}
LONG_THREAD = """
INSERT INTO conversation_history
    (id, channel_id, personality_id, persona_id, role, content, created_at)
SELECT gen_random_uuid(), %(channel_id)s, %(personality_id)s, %(persona_id)s,
       (ARRAY['assistant', 'user'])[1 + n %% 2], 'x', %(begin)s + n * interval '1 second'
FROM generate_series(1, 20000) n"""


def rows_read(plan: dict[str, Any]) -> float:
    """The largest number of rows that one part of a plan read, thrown away ones included."""
    own: float = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return max([own, *map(rows_read, plan.get("Plans", []))])


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_long_thread_is_not_read_whole(lab: Lab, name: str) -> None:
    """A question about a few messages of a thread of 20,000 reads a few rows, with ties in mind."""
    thread = {"channel_id": CHANNEL, "personality_id": ADA, "persona_id": A}
    begin = LONG_AGO.replace(tzinfo=None)
    lab.sql(LONG_THREAD, **thread, begin=begin)
    lab.sql("ANALYZE conversation_history")
    others, most = QUESTIONS[name]
    some = lab.sql("SELECT id FROM conversation_history WHERE role = 'assistant' LIMIT 1")[0]
    [(plan,)] = lab.sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {statement(name)}", **thread, **others, ids=list(some)
    )[0:1]
    assert rows_read(plan[0]["Plan"]) <= most


def rows_in_all(plan: dict[str, Any]) -> float:
    """The number of rows that all parts of a plan read, each time that they ran."""
    each: float = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    loops: int = plan["Actual Loops"]
    return each * loops + sum(map(rows_in_all, plan.get("Plans", [])))


def test_many_moments_are_looked_for_by_one_pass(lab: Lab) -> None:
    """What was said at 500 moments of a history of 20,000 messages is found without comparing each
    moment with each message.
    """
    thread = {"channel_id": CHANNEL, "personality_id": ADA, "persona_id": A}
    lab.sql(LONG_THREAD, **thread, begin=LONG_AGO.replace(tzinfo=None))
    lab.sql("ANALYZE conversation_history")
    times = [to_ms(at(40 * number)) for number in range(1, 501)]
    moments = {"personality_ids": [ADA] * 500, "from_ms": times, "to_ms": times}
    [(plan,)] = lab.sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement('exchanges_at')}", **moments)
    assert rows_in_all(plan[0]["Plan"]) <= 10 * 20_000
