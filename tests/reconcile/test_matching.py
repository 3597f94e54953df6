"""Tests which exchange each memory is matched with, and that the cost grows with their number."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memsync.model.ids import MessageId, PersonaId, PersonalityId, PointId, point_order
from memsync.model.records import Exchange, Place, Point
from memsync.reconcile import matching
from memsync.reconcile.cases import Found, Role, says
from memsync.reconcile.keeping import cases_of_exchange
from memsync.reconcile.leftovers import _without_rows
from memsync.reconcile.matching import Match, Matcher
from memsync.reconcile.merging import side_by_side
from memsync.stores.ltm.payload import PayloadCodec
from support.lab import as_told

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

A, B = PersonaId(UUID(int=10)), PersonaId(UUID(int=11))
ADA, BASIL = PersonalityId(UUID(int=20)), PersonalityId(UUID(int=21))
AT = 1_750_000_000_123
TOLERANCE = 10_000
_SPACE = UUID(int=99)


def row(
    number: int,
    user: str = "u",
    reply: str = "a",
    at: int = AT,
    *,
    persona_id: PersonaId = A,
    personality_id: PersonalityId = ADA,
    channel_id: str = "1",
) -> Exchange:
    """An exchange; its ids follow from the number."""
    anchor, said = (MessageId(uuid5(_SPACE, f"{number}{role}")) for role in "au")
    return Exchange(anchor, persona_id, personality_id, channel_id, at, user, reply, said)


def memory(number: int, of: Exchange, persona: PersonaId | None = None, **changes: object) -> Found:
    """The app's memory of an exchange, in the collection of a persona; None leaves a key out."""
    payload = {
        "personalityId": str(of.personality_id),
        "content": as_told(of),
        "createdAt": of.created_at_ms,
        "channelId": of.channel_id,
    } | changes
    whole = {key: value for key, value in payload.items() if value is not None}
    whose = persona or of.persona_id
    codec = PayloadCodec("camel")
    point = Point(uuid5(_SPACE, f"point {number}"), whole)
    place = Place(f"persona-{whose}", point.id)
    return Found(place, point, codec.decode(whole), codec, home=True, persona_id=whose)


def anchors(rows: Iterable[Exchange], memories: Iterable[Found]) -> dict[PointId, UUID | None]:
    """The anchor that each point is matched with."""
    found = Matcher(rows, TOLERANCE).match(memories)
    return {
        each.found.point.id if isinstance(each, Match) else each.point.id: each.exchange.anchor_id
        if isinstance(each, Match)
        else None
        for each in found
    }


def is_matched(found: Found, *rows: Exchange) -> UUID | None:
    """The anchor that this one point is matched with among these exchanges."""
    return anchors(rows, [found])[found.point.id]


# ---------------------------------------------------------------------- what was said


pieces = st.sampled_from(
    ["): ", ": ", "\n", "\r\n", "User (", "a", "Ada", ")", " ", "user: ", "x: "]
)
hostile = st.lists(pieces, max_size=12).map("".join)
names = st.sampled_from(["Al", "", "A (b)", "A): b", "x: y", ": ", "User (", "星"])
characters = st.sampled_from(["Ada", "A: b", "(", "x", "): "])
skews = st.integers(-TOLERANCE, TOLERANCE)


@given(user=hostile, reply=hostile, name=names, character=characters, skew=skews)
def test_a_text_is_known_for_what_it_is(
    user: str, reply: str, name: str, character: str, skew: int
) -> None:
    """Whatever its texts and names contain, at equal time and beside it."""
    said = row(1, user, reply)
    other = row(2, "another", "one", AT + 1)
    told = memory(
        1, said, content=f"User ({name}): {user}\n{character}: {reply}", createdAt=AT + skew
    )
    assert said.anchor_id == is_matched(told, other, said)


@given(user=hostile, reply=hostile, skew=skews)
def test_other_forms_of_a_text_are_known(user: str, reply: str, skew: int) -> None:
    """Both texts joined as an earlier build did, and both apart."""
    said = row(1, user, reply)
    joined = memory(1, said, content=said.text, createdAt=AT + skew)
    apart = memory(2, said, content=None, userText=user, assistantText=reply, createdAt=AT + skew)
    assert {said.anchor_id} == {is_matched(each, said) for each in (joined, apart)}


@given(user=hostile, reply=hostile, behind=hostile, added=hostile, skew=skews)
def test_a_longer_text_is_known_where_it_says_more(
    user: str, reply: str, behind: str, added: str, skew: int
) -> None:
    """It is matched beside the exchange's time exactly where it says what the exchange says."""
    said = row(1, user, reply)
    content = as_told(said, user=f" {behind}", reply=f"\n{added}")
    told = memory(1, said, content=content, createdAt=AT + (skew or 1))
    assert (said.anchor_id if says(told, said) else None) == is_matched(told, said)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "u\na",
        "User (Al): u\nAda: b",
        "User (Al): v\nAda: a",
        "User (Al): uu\nAda: a",
        "User (Al): u\nAda: aa",
        "User (Al): u\n: a",
        "User (Al): u Ada: a",
        "user (Al): u\nAda: a",
        "User (Al\nx): u\nAda: a",
        " User (Al): u\nAda: a",
    ],
)
def test_another_text_is_another(content: str | None) -> None:
    """A text that differs anywhere but in the names is not matched beside the time."""
    said = row(1)
    assert is_matched(memory(1, said, content=content, createdAt=AT + 1), said) is None


def test_a_text_that_can_be_read_in_two_ways_is_of_its_time() -> None:
    """Its message may have lost what looks like a name; the time tells."""
    longer, shorter = row(1, "foo): bar", "r", AT), row(2, "bar", "r", AT + 60_000)
    for said in (longer, shorter):
        told = memory(1, longer, createdAt=said.created_at_ms + 1)
        assert said.anchor_id == is_matched(told, longer, shorter)


# ---------------------------------------------------------------------- when, and by whom


def test_rows_that_a_point_names_count_first() -> None:
    """Its id, or `messageIds`; not where they are those of several exchanges."""
    first, second = row(1), row(2, "v", "b", AT + 60_000)
    named = [str(second.said_id), str(second.anchor_id)]
    assert second.anchor_id == is_matched(memory(1, first, messageIds=named), first, second)
    both = [str(first.anchor_id), str(second.anchor_id)]
    assert first.anchor_id == is_matched(memory(1, first, messageIds=both), first, second)


def test_without_a_time_a_text_must_have_been_said_once() -> None:
    """A memory whose time cannot be read."""
    first, again = row(1), row(2, at=AT + 60_000)
    for told in (memory(1, first, createdAt=None), memory(1, first, createdAt="2025-05-01")):
        assert first.anchor_id == is_matched(told, first)
        assert is_matched(told, first, again) is None


def test_beyond_the_tolerance_nothing_is_matched() -> None:
    """The same text at another time."""
    said = row(1)
    for skew, anchor in ((TOLERANCE, said.anchor_id), (TOLERANCE + 1, None)):
        assert anchor == is_matched(memory(1, said, createdAt=AT + skew), said)
        assert anchor == is_matched(memory(1, said, createdAt=AT - skew), said)


def test_time_alone_must_be_unique_on_both_sides() -> None:
    """Another text at the exact time is stale, if the two are the only ones."""
    said, other = row(1), row(2, "v", "b")
    stale, another = (memory(n, said, content="User (x): y\nz: w") for n in (1, 2))
    assert said.anchor_id == is_matched(stale, said)
    assert is_matched(stale, said, other) is None
    assert {None} == set(anchors([said], [stale, another]).values())
    assert is_matched(memory(1, said, content="x", createdAt=AT + 1), said) is None
    assert is_matched(memory(1, said, content="x", createdAt=AT // 1000), said) is None
    assert is_matched(memory(1, said, B, content="x"), said) is None


def test_an_older_collection_may_have_a_stale_copy_of_a_memory_that_stands() -> None:
    """Of the exchanges of its time, only those of which that collection has no other copy count."""

    def copy(number: int, collection: str, content: str) -> Found:
        told = memory(number, said, content=content)
        return replace(told, home=False, place=Place(collection, told.point.id))

    said, other = row(1), row(2, "v", "b")
    stale = "User (x): y\nz: w"
    copies = [copy(1, "old", stale), copy(2, "older", stale), memory(3, said, content=stale)]
    matcher = Matcher([said, other], TOLERANCE, taken=[said.anchor_id, other.anchor_id])
    assert not [each for each in matcher.match(copies) if isinstance(each, Match)]
    copies += [copy(4, "old", as_told(other)), copy(5, "older", stale)]
    found = [each for each in matcher.match(copies) if isinstance(each, Match)]
    anchors = {each.found.place: each.exchange.anchor_id for each in found}
    assert {copies[3].place: other.anchor_id, copies[0].place: said.anchor_id} == anchors


@given(times=st.lists(st.integers(0, 12_000), min_size=1, max_size=8, unique=True), skew=skews)
def test_what_was_said_often_keeps_its_order(times: list[int], skew: int) -> None:
    """By a clock that is off, even by more than the pauses, each memory has its exchange.

    Where it is off by exactly a pause, each has one of them.
    """
    rows = [row(n, at=AT + at) for n, at in enumerate(sorted(times))]
    told = [memory(n, each, createdAt=each.created_at_ms + skew) for n, each in enumerate(rows)]
    found = anchors(rows, told)
    expected, actual = [r.anchor_id for r in rows], [found[each.point.id] for each in told]
    assert set(expected) == set(actual)
    if not skew or {at + skew for at in times}.isdisjoint(times):
        assert expected == actual


def test_the_same_words_in_two_channels() -> None:
    """Each memory belongs to the exchange of its channel; one without belongs to what is left."""
    rows = [row(n, channel_id=channel) for n, channel in enumerate("123")]
    told = [memory(n, each) for n, each in enumerate(rows)]
    told[1] = memory(1, rows[1], channelId=None)
    found = anchors(rows, told)
    assert [each.anchor_id for each in rows] == [found[each.point.id] for each in told]


def test_a_memory_with_another_persona_of_the_owner() -> None:
    """It is matched within the tolerance, and only where one exchange comes into question."""
    said, again = row(1), row(2, at=AT + 500)
    for at in (AT, AT + TOLERANCE):
        assert said.anchor_id == is_matched(memory(1, said, B, createdAt=at), said)
    assert said.anchor_id == is_matched(memory(1, said, B), said, again)
    assert is_matched(memory(1, said, B, createdAt=AT + 250), said, again) is None
    longer = memory(1, said, B, content=as_told(said, user=" [a cat]"), createdAt=AT + 250)
    assert said.anchor_id == is_matched(longer, said)


few = st.integers(0, 3)
rows_of_few = st.lists(
    st.tuples(few, st.sampled_from([A, B]), st.sampled_from([ADA, BASIL]), st.integers(0, 9)),
    max_size=8,
)
memories_of_few = st.lists(
    st.tuples(
        few,
        st.sampled_from([A, B]),
        st.sampled_from([ADA, BASIL]),
        st.integers(0, 9),
        st.sampled_from([0, 1, 2500]),
        st.sampled_from(["", " [a cat]"]),
    ),
    max_size=8,
)


def _row(number: int, drawn: tuple[int, PersonaId, PersonalityId, int]) -> Exchange:
    text, persona, personality, at = drawn
    return row(
        number,
        f"u{text}",
        f"a{text}",
        AT + at * 4000,
        persona_id=persona,
        personality_id=personality,
    )


def _near(found: Found, each: Exchange) -> bool:
    at = found.reading.memory.created_at_ms
    return at is not None and abs(at - each.created_at_ms) <= TOLERANCE


@given(drawn=rows_of_few, points=memories_of_few)
def test_laws_of_a_match(drawn: list[Any], points: list[Any]) -> None:
    """Each memory comes once, and each exchange is the first of one; a match says the same."""
    rows = [_row(n, each) for n, each in enumerate(drawn)]
    told = []
    for number, (text, persona, personality, at, skew, added) in enumerate(points):
        of = _row(900 + number, (text, persona, personality, at))
        content = as_told(of, user=added)
        told.append(memory(number, of, content=content, createdAt=of.created_at_ms + skew))
    found = list(Matcher(rows, TOLERANCE).match(told))

    places = Counter((e.found if isinstance(e, Match) else e).place for e in found)
    assert Counter(each.place for each in told) == places
    matches = [each for each in found if isinstance(each, Match)]
    assert {1} >= set(Counter(e.exchange.anchor_id for e in matches if e.first).values())
    assert {e.exchange.anchor_id for e in matches} == {
        e.exchange.anchor_id for e in matches if e.first
    }
    for each in matches:
        said, own = says(each.found, each.exchange), each.found.persona_id
        assert each.found.personality_id == each.exchange.personality_id
        assert _near(each.found, each.exchange)
        if said is None:
            # By time alone.
            assert own == each.exchange.persona_id
            assert each.exchange.created_at_ms == each.found.reading.memory.created_at_ms
        if own != each.exchange.persona_id:
            assert not any(
                r.persona_id == own
                and r.personality_id == each.found.personality_id
                and _near(each.found, r)
                and says(each.found, r)
                for r in rows
            ), "an exchange of its own persona says the same"


@given(
    times=st.lists(st.integers(0, 30_000), max_size=7, unique=True),
    seen=st.lists(st.integers(-5000, 35_000), max_size=7, unique=True),
)
def test_as_many_are_paired_as_can_be(times: list[int], seen: list[int]) -> None:
    """Memories and exchanges of one text: no other pairing leaves fewer of them over."""
    rows = [row(n, at=AT + at) for n, at in enumerate(times)]
    told = [memory(n, row(0), createdAt=AT + at) for n, at in enumerate(seen)]
    found = Matcher(rows, TOLERANCE).match(told)
    assert _most_pairs(sorted(times), sorted(seen)) == sum(
        isinstance(each, Match) and each.first for each in found
    )


def test_two_memories_of_one_time_are_of_one_exchange() -> None:
    """The second is a copy, even where another exchange said the same a moment later."""
    rows = [row(1), row(2, at=AT + 2500)]
    for at in (AT, AT + 1):
        told = [memory(n, rows[0], createdAt=at) for n in (1, 2)]
        assert {rows[0].anchor_id} == set(anchors(rows, told).values())
    named = memory(1, rows[0], messageIds=[str(rows[0].anchor_id)])
    assert {rows[0].anchor_id} == set(anchors(rows, [named, memory(2, rows[0])]).values())


def _most_pairs(times: Sequence[int], seen: Sequence[int]) -> int:
    """The size of the largest pairing, by augmenting paths."""
    taken: dict[int, int] = {}

    def place(at: int, tried: set[int]) -> bool:
        for number, other in enumerate(times):
            if abs(other - seen[at]) <= TOLERANCE and number not in tried:
                tried.add(number)
                if number not in taken or place(taken[number], tried):
                    taken[number] = at
                    return True
        return False

    return sum(place(at, set()) for at in range(len(seen)))


def test_exchanges_whose_memories_are_known_are_not_free() -> None:
    """Another memory of their time is not theirs; one of their text is a further one."""
    said = row(1)
    matcher = Matcher([said], TOLERANCE, taken=[said.anchor_id])
    stale, again = memory(1, said, content="User (x): y\nz: w"), memory(2, said)
    found = {
        each.found.point.id: each
        for each in matcher.match([stale, again])
        if isinstance(each, Match)
    }
    assert {again.point.id} == set(found)
    assert not found[again.point.id].first


# ---------------------------------------------------------------------- what it costs


def _steps(
    rows: Sequence[Exchange], memories: Sequence[Found], monkeypatch: Any
) -> tuple[int, int]:
    """How many calls a matching makes, in Python and in C, and how many comparisons of texts."""
    compared = 0

    def counted(found: Found, exchange: Exchange) -> object:
        nonlocal compared
        compared += 1
        return says(found, exchange)

    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    monkeypatch.setattr(matching, "says", counted)
    sys.setprofile(count)
    try:
        for _ in Matcher(rows, TOLERANCE).match(memories):
            pass
    finally:
        sys.setprofile(None)
    return calls, compared


def _at_one_moment(number: int) -> tuple[Exchange, Found]:
    said = row(number, f"u{number}", f"a{number}")
    return said, memory(number, said)


def _equal_texts(number: int) -> tuple[Exchange, Found]:
    return row(number), memory(number, row(number), createdAt=AT + 1)


def _nothing_alike(number: int) -> tuple[Exchange, Found]:
    said = row(number, f"u{number}", f"a{number}")
    return said, memory(number, said, content=f"User (Al): other {number}\nAda: other")


def _one_opening(number: int) -> tuple[Exchange, Found]:
    said = row(number, f"look at {number}", f"oh {number}")
    return said, memory(number, said, content=as_told(said, user="\n[a cat]"))


def _one_message(number: int) -> tuple[Exchange, Found]:
    said = row(number, "look", f"oh {number}")
    return said, memory(number, said, content=as_told(said, user="\n[a cat]", reply="\n[a dog]"))


def _one_longer_text(number: int) -> tuple[Exchange, Found]:
    return row(number), memory(number, row(number), content=as_told(row(1), user="\n[a cat]"))


def _with_others(number: int) -> tuple[Exchange, Found]:
    said = row(number, f"u{number}", f"a{number}", persona_id=PersonaId(UUID(int=1000 + number)))
    return said, memory(number, said, B)


def _the_same_with_others(number: int) -> tuple[Exchange, Found]:
    said = row(number, persona_id=PersonaId(UUID(int=1000 + number)))
    return said, memory(number, said, B, createdAt=AT + 1)


@pytest.mark.parametrize(
    "made",
    [
        _at_one_moment,
        _equal_texts,
        _nothing_alike,
        _one_opening,
        _one_message,
        _one_longer_text,
        _with_others,
        _the_same_with_others,
    ],
)
def test_cost_is_linear(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many memories and exchanges, all at one moment, cost about twice as much."""
    costs = []
    for size in (250, 500, 1000):
        rows, told = zip(*map(made, range(size)), strict=True)
        costs.append(_steps(rows, told, monkeypatch))
    for (calls, compared), (more_calls, more_compared) in pairwise(costs):
        assert more_calls < 2.5 * calls
        assert more_compared <= 2.5 * compared + 1
    assert costs[-1][1] <= 4 * 1000


# ---------------------------------------------------------------------- the merge by id


# Few distinct ids, so that both sides often meet; integers and the ends of the range among them.
ids = st.one_of(
    st.integers(0, 3),
    st.just(2**64 - 1),
    st.integers(0, 7).map(lambda n: UUID(int=n)),
    st.just(UUID(int=2**128 - 1)),
    st.integers(0, 7).map(lambda n: UUID(int=n << 120)),
)
uuids = ids.filter(lambda each: isinstance(each, UUID))


@given(left=st.sets(uuids), right=st.sets(ids))
def test_merged_is_the_full_outer_join(left: set[UUID], right: set[PointId]) -> None:
    """Merging gives each id of either stream once, in order, and both sides where both have it."""
    codec = PayloadCodec("snake")

    def exchange(anchor: UUID) -> Exchange:
        return Exchange(MessageId(anchor), A, ADA, "1", AT, "u", "a", MessageId(anchor))

    exchanges = iter([exchange(each) for each in sorted(left, key=point_order)])
    points = iter(
        [
            Found.read("memories", Point(each, {}), codec, home=True)
            for each in sorted(right, key=point_order)
        ]
    )
    expected = [
        (each if each in left else None, each if each in right else None)
        for each in sorted(left | right, key=point_order)
    ]
    actual = [
        (e and e.anchor_id, None if f is None else f.point.id)
        for e, f in side_by_side(
            exchanges, points, lambda each: each.anchor_id, lambda each: each.point.id
        )
    ]
    assert expected == actual


@pytest.fixture
def quick() -> Iterator[None]:
    """What is done with many memories. Each is looked at once: squared, it would take a minute."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 10


@pytest.mark.usefixtures("quick")
def test_many_memories_of_one_stretch_without_rows() -> None:
    """All of them are newer than the history."""
    times = range(100_000)
    assert set(times) == _without_rows(times, {0: 1, len(times): 1})


@pytest.mark.usefixtures("quick")
def test_many_memories_of_one_exchange() -> None:
    """One stays, and the others are further ones."""
    exchange, roles = row(1), Counter[Role]()
    sources = SimpleNamespace(case=lambda role, *_, **__: roles.update([role]))
    matches = [Match(memory(each, exchange), exchange, first=not each) for each in range(10_000)]
    cases_of_exchange(sources, matches, None, {})  # type: ignore[arg-type]
    assert {Role.MEMORY: 1, Role.DUPLICATE: 9_999} == roles
