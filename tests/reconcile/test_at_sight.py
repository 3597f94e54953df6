"""An audit tells at sight as the matching would, and no rule finds a fault in what it tells."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any
from uuid import UUID, uuid5

from hypothesis import given, settings
from hypothesis import strategies as st

from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange, Place, Point
from memsync.reconcile.at_sight import _NEAR_MAX, AtSight
from memsync.reconcile.cases import Case, Found, Role
from memsync.reconcile.findings import Severity
from memsync.reconcile.matching import Match, Matcher
from memsync.reconcile.rules import CASE_RULES
from memsync.stores.ltm.layouts import Layout, collection_of_persona
from memsync.stores.ltm.payload import DEPLOYED

A, B = PersonaId(UUID(int=10)), PersonaId(UUID(int=11))
ADA, BASIL = PersonalityId(UUID(int=20)), PersonalityId(UUID(int=21))
AT, NEAR_1970 = 1_750_000_000_123, 50_123
TOLERANCE = 1500
_SPACE = UUID(int=99)
Stored = dict[PersonaId, dict[Any, Point]]
"""The points of the collection of each persona."""
WORDS = ("a", "b", "b\nc", "a\nX: b", "a): b", "c", "d", "e", "f", "g", "h")


def exchange(number: int, begin_ms: int, drawn: tuple[Any, ...]) -> Exchange:
    """An exchange; its ids follow from the number."""
    user, reply, persona, personality, channel, at = drawn
    anchor, said = (MessageId(uuid5(_SPACE, f"{number}{role}")) for role in "au")
    return Exchange(anchor, persona, personality, channel, begin_ms + at, user, reply, said)


def point(number: int, rows: list[Exchange], drawn: tuple[Any, ...]) -> tuple[PersonaId, Point]:
    """A persona, and a point in their collection: mostly the memory of an exchange, as the app or
    the relay writes it.
    """
    of, home, skew, added, named, under, odd = drawn
    row, another = rows[of % len(rows)], rows[(of + 1) % len(rows)]
    persona = row.persona_id if home is None else home
    payload: dict[str, Any] = {
        "personalityId": str(row.personality_id),
        "personaId": str(persona),
        "content": f"User (Al): {row.user_text}\nAda: {row.assistant_text}{added}",
        "createdAt": row.created_at_ms + skew,
        "channelId": row.channel_id,
        "canonScope": "global",
    }
    if named:
        ids = {"its own": (row, row), "another's": (another, another), "both": (row, another)}
        said, anchor = ids[named]
        payload["messageIds"] = [str(said.said_id), str(anchor.anchor_id)]
    if odd == "seconds":
        odd = {"createdAt": payload["createdAt"] // 1000}
    payload |= odd
    under_ids: dict[str | None, UUID] = {"its own": row.anchor_id, "another's": another.said_id}
    id_ = under_ids.get(under, uuid5(_SPACE, str(number)))
    return persona, Point(id_, {k: v for k, v in payload.items() if v is not None})


words, any_of = st.sampled_from(WORDS), st.integers(0, 9)
exchanges = st.lists(
    st.tuples(
        words,
        words,
        st.sampled_from([A, A, B]),
        st.sampled_from([ADA, ADA, BASIL]),
        st.sampled_from("12"),
        st.sampled_from([0, 1, 700, 1500, 1501, 2200, 3000]),
    ),
    min_size=1,
    max_size=10,
)
odds = st.sampled_from(
    [
        *({} for _ in range(50)),
        {"channelId": None},
        {"channelId": "2"},
        {"channelId": 7},
        "seconds",
        "seconds",
        {"createdAt": float(AT)},
        {"createdAt": True},
        {"createdAt": NEAR_1970},
        {"personaId": None},
        {"personaId": str(B).upper()},
        {"personaId": str(B)},
        {"personaId": [str(A)]},
        {"persona_id": str(B)},
        {"personalityId": str(BASIL)},
        {"messageIds": []},
        {"messageIds": [{}, 7]},
        {"messageIds": 7},
        {"text": "User (Al): a\nAda: b"},
        {"content": None, "userText": "a", "assistantText": "b"},
        {"content": "user: a\nassistant: b"},
        {"content": 7},
        {"personalityId": [str(ADA)]},
        {"userText": "a", "assistantText": "b"},
        {"digest": "0" * 64},
        {"broughtFrom": "x/1"},
        {"timestamp": AT},
        {"userId": str(UUID(int=1))},
    ]
)
points = st.lists(
    st.tuples(
        any_of,
        st.sampled_from([*[None] * 8, A, B]),
        st.sampled_from([*[0] * 8, 1, -1, 1500, -1500, 1501, 700, -700]),
        st.sampled_from([*[""] * 9, "\nmore", " more", "\nAda: a"]),
        st.sampled_from([*[None] * 4, "its own", "its own", "another's", "both"]),
        st.sampled_from([*[None] * 6, "its own", "its own", "another's"]),
        odds,
    ),
    min_size=3,
    max_size=10,
    unique_by=lambda drawn: drawn[0],  # so that an exchange has few memories
)


def found(persona: PersonaId, each: Point) -> Found:
    """The point as an audit decodes it."""
    name = collection_of_persona(persona)
    reading = DEPLOYED.decode(each.payload)
    named = {reading.memory.persona_id} - {None}
    return Found(
        Place(name, each.id),
        each,
        reading,
        DEPLOYED,
        home=True,
        persona_id=persona,
        names_another=bool(named - {persona}),
    )


def partners(matched: Any) -> dict[Place, UUID | None]:
    """The anchor that each point is matched with."""
    return {
        (each.found if isinstance(each, Match) else each).place: each.exchange.anchor_id
        if isinstance(each, Match)
        else None
        for each in matched
    }


def codes(row: Exchange, each: Found) -> dict[str, Severity]:
    """The findings of the rules in this pair."""
    case = Case(
        Role.MEMORY,
        Layout.PER_PERSONA,
        row,
        each,
        home=collection_of_persona(row.persona_id),
        tolerance_ms=TOLERANCE,
    )
    judged = [finding for rule in CASE_RULES if (finding := rule.judge(case))]
    return {each.code: each.severity for each in judged}


def must_agree(rows: list[Exchange], stored: Stored) -> AtSight:
    """Look at these points, and require what the matching and the rules say of them."""
    all_found = [found(p, each) for p, some in stored.items() for each in some.values()]
    expected = partners(Matcher(rows, TOLERANCE).match(all_found))

    sight = AtSight(rows, TOLERANCE)
    left = [
        found(persona, each)
        for persona, some in stored.items()
        for each in sight.others(collection_of_persona(persona), persona, some.values())
    ]
    actual = partners(Matcher(rows, TOLERANCE, taken=sight.told).match(left))
    assert actual.keys().isdisjoint(each.place for each in sight.told.values())
    assert expected == actual | {each.place: anchor for anchor, each in sight.told.items()}

    kinds: dict[object, dict[str, Severity]] = {}
    for each in sight.told.values():
        persona = each.exchange.persona_id
        assert each.point is stored[persona][each.point.id]
        assert each.collection == collection_of_persona(persona)
        judged = codes(each.exchange, found(persona, each.point))
        assert {Severity.INFO} >= set(judged.values())
        assert judged == kinds.setdefault(each.kind, judged)
    numbers = Counter(each.kind for each in sight.told.values())
    assert numbers == Counter({first.kind: alike for first, alike in sight.kinds()})
    return sight


@given(begin=st.sampled_from([AT, AT, NEAR_1970]), drawn=exchanges, others=points)
@settings(max_examples=400)
def test_it_says_what_the_matching_says(begin: int, drawn: list[Any], others: list[Any]) -> None:
    """Of any rows and points of two personas of one owner, named or not, early or late."""
    rows = [exchange(number, begin, each) for number, each in enumerate(drawn)]
    stored: Stored = defaultdict(dict)
    for number, each in enumerate(others):
        persona, one = point(number, rows, each)
        stored[persona][one.id] = one
    must_agree(rows, stored)


def looked_at(rows: list[Exchange], *memories: tuple[int, int]) -> AtSight:
    """Look at memories of these exchanges, each by its number, with this `createdAt`."""
    made = (
        point(number, rows, (of, None, 0, "", None, None, {"createdAt": at}))
        for number, (of, at) in enumerate(memories)
    )
    return must_agree(rows, {A: {each.id: each for _, each in made}})


def test_one_memory_of_each_exchange_is_told() -> None:
    """By its words and its time, also beside that of the exchange; two of one exchange are not."""
    rows = [exchange(n, AT, (f"u{n}", "a", A, ADA, "1", 9 * n)) for n in range(3)]
    sight = looked_at(rows, (0, AT), (1, AT + 9 + TOLERANCE), (2, AT + 2), (2, AT + 3))
    assert {rows[0].anchor_id, rows[1].anchor_id} == sight.told.keys()


def test_words_that_were_said_twice_are_not_told() -> None:
    """A memory that gives only a second may be of either exchange, and comes first."""
    at = AT // 1000 * 1000
    rows = [exchange(n, at, ("u", "a", A, ADA, "1", 400 * n)) for n in range(2)]
    assert not looked_at(rows, (0, at - 1200), (0, at // 1000 - 2)).told


def test_a_text_that_may_be_a_longer_one_is_not_told() -> None:
    """An exchange of exactly its time says less, so something may have been added to that."""
    rows = [
        exchange(n, AT, ("u", reply, A, ADA, "1", 700 * n)) for n, reply in enumerate(("a\nb", "a"))
    ]
    assert not looked_at(rows, (0, AT + 700)).told
    assert looked_at(rows, (0, AT + 701)).told


def test_a_memory_of_another_persona_of_the_owner_is_not_told() -> None:
    """It lies in the collection of one, and names the other, who has said so."""
    rows = [exchange(0, AT, ("u", "a", B, ADA, "1", 0))]
    _, stray = point(0, rows, (0, None, 0, "", None, None, {}))
    assert must_agree(rows, {B: {stray.id: stray}}).told
    assert not must_agree(rows, {A: {stray.id: stray}}).told


def test_a_text_that_can_be_divided_in_two_ways_is_not_told() -> None:
    """Both exchanges are near, and each may have been said like this."""
    rows = [
        exchange(n, AT, (said, "a", A, ADA, "1", 700 * n)) for n, said in enumerate(("x): u", "u"))
    ]
    assert not looked_at(rows, (0, AT + 350)).told


def test_kinds_tell_what_the_rules_tell_apart() -> None:
    """An id that is the anchor's, and a time that is the exchange's."""
    rows = [exchange(n, AT, (f"u{n}", "a", A, ADA, "1", n)) for n in range(5)]
    drawn = ((0, None), (0, None), (1, None), (0, "its own"), (1, "its own"))
    made = (
        point(n, rows, (n, None, 10 * skew, "", None, under, {}))
        for n, (skew, under) in enumerate(drawn)
    )
    sight = must_agree(rows, {A: {each.id: each for _, each in made}})
    assert [1, 1, 1, 2] == sorted(alike for _, alike in sight.kinds())


def test_of_many_near_its_time_the_matching_finds_one() -> None:
    """It looks one up by its words, and at sight each would be compared with all."""
    rows = [exchange(n, AT, (f"u{n}", "a", A, ADA, "1", n)) for n in range(_NEAR_MAX + 1)]
    assert not looked_at(rows, *((n, AT + n) for n in range(len(rows)))).told
    assert len(rows) - 1 == len(looked_at(rows[1:], *((n, AT + n + 1) for n in range(32))).told)


def test_a_time_that_no_clock_shows_is_not_told() -> None:
    """After the year 9999, beside an exchange of its last millisecond."""
    last = 253_402_300_799_999
    rows = [exchange(0, last, ("u", "a", A, ADA, "1", 0))]
    assert looked_at(rows, (0, last)).told
    assert not looked_at(rows, (0, last + 1)).told
