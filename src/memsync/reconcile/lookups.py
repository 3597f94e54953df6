"""Finds the exchanges of few points, and the memories of one persona, as an audit matches them.

An audit goes through everything; a repair asks about what it is about to change.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from memsync.model.records import Exchange, Place, Point
from memsync.reconcile.cases import Found, says
from memsync.reconcile.matching import Match, Matcher
from memsync.reconcile.sources import Sources
from memsync.stores.history.exchanges import (
    LoneReply,
    Moment,
    exchanges_at,
    exchanges_by_anchor,
    exchanges_of_personas,
    lone_replies,
    standing_messages,
    standing_replies,
)
from memsync.stores.history.owners import Owners, personas_of_owners
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.ltm.texts import answers
from memsync.stores.postgres import Session


def founds_of(sources: Sources, points: Iterable[tuple[str, Point]]) -> list[Found]:
    """These points, each with its collection, as an audit reads them."""
    read = [
        Found.read(name, point, sources.ltm.codec_of(name), home=sources.is_home(name))
        for name, point in points
    ]
    return list(sources.whose(read))


def exchanges_for(sources: Sources, points: Iterable[Found]) -> dict[Place, Exchange]:
    """The exchanges of these points; one without any is absent.

    Of their owners those exchanges are read that come into question.
    """
    founds: dict[UUID, list[Found]] = {}
    rest: list[Found] = []
    for found in points:
        owner = sources.owner_of(found)
        (founds.setdefault(owner, []) if owner else rest).append(found)
    exchanges: dict[Place, Exchange] = {}
    personas = personas_of_owners(sources.session, list(founds))
    rows = _rows_of_owners(sources, founds, personas)
    for owner in personas:
        for each in Matcher(rows[owner], sources.tolerance_ms).match(founds[owner]):
            if isinstance(each, Match):
                exchanges[each.found.place] = each.exchange
            else:
                rest.append(each)
    return exchanges | exchanges_of_anybody(sources.session, rest)


def _rows_of_owners(
    sources: Sources, founds: Mapping[UUID, Sequence[Found]], personas: Owners
) -> dict[UUID, list[Exchange]]:
    """The exchanges of each owner that these points of the owner's may be memories of.

    Those are the ones that they name and those of their times. Where that does not tell, as of a
    point without a time, they are all of the owner's.
    """
    session = sources.session
    every = [found for owner in personas for found in founds[owner]]
    named = exchanges_by_anchor(session, _named_by(every))
    others = [id_ for each in every for id_ in _named_by([each]) if id_ not in named]
    messages = standing_messages(session, others) if others else set()
    unclear = {
        owner
        for owner in personas
        if any(_is_unclear(each, named, messages) for each in founds[owner])
    }
    owner_of = {persona: owner for owner, some in personas.items() for persona in some}
    near = exchanges_at(session, moments_of(every, sources.tolerance_ms), list(owner_of))
    of_unclear = [persona for persona, owner in owner_of.items() if owner in unclear]
    whole = exchanges_of_personas(session, of_unclear) if of_unclear else []
    rows: dict[UUID, list[Exchange]] = {owner: [] for owner in personas}
    for row in {each.anchor_id: each for each in (*named.values(), *near, *whole)}.values():
        if owner := owner_of.get(row.persona_id):
            rows[owner].append(row)
    return rows


def _is_unclear(found: Found, named: Container[UUID], messages: set[UUID]) -> bool:
    """Whether neither its time nor the ids that it names tell which exchanges may be its own.

    `named` are the anchors of exchanges, `messages` other messages that stand.
    """
    ids = _named_by([found])
    names_no_reply = not any(each in named for each in ids)
    return found.reading.time_window_ms is None or (names_no_reply and not messages.isdisjoint(ids))


def _named_by(founds: Iterable[Found]) -> list[UUID]:
    """The ids that may be those of messages: of these points, and among their payloads."""
    return [
        each
        for found in founds
        for each in (found.point.id, *found.reading.message_ids)
        if isinstance(each, UUID)
    ]


def moments_of(founds: Iterable[Found], tolerance_ms: int) -> list[Moment]:
    """When an exchange that one of these points is a memory of was written, as far as it tells."""
    windows = [
        (found.personality_id, *window)
        for found in founds
        for window in (found.reading.time_window_ms, found.reading.in_milliseconds().time_window_ms)
        if found.personality_id and window
    ]
    return [
        Moment(personality, first - tolerance_ms, last + tolerance_ms)
        for personality, first, last in dict.fromkeys(windows)
    ]


def exchanges_of_anybody(session: Session, founds: Sequence[Found]) -> dict[Place, Exchange]:
    """The exchanges of these points, by id, or by equal text at equal time, whosever they are."""
    by_id = exchanges_by_anchor(session, _named_by(founds))
    # Everybody is one owner here, with no tolerance.
    rows = {each.anchor_id: each for each in exchanges_at(session, moments_of(founds, 0))} | by_id
    return {
        each.found.place: each.exchange
        for each in Matcher(rows.values(), 0).match(founds)
        if isinstance(each, Match)
        and (each.exchange.anchor_id in by_id or says(each.found, each.exchange))
    }


def standing_alone(session: Session, founds: Sequence[Found], tolerance_ms: int) -> set[Place]:
    """The places of those points whose reply stands without the message that it answers."""
    own = standing_replies(session, _named_by(founds))
    alone = {each.place for each in founds if not own.isdisjoint(_named_by([each]))}
    left = [each for each in founds if each.place not in alone and each.persona_id]
    replies: dict[tuple[UUID | None, UUID | None], list[LoneReply]] = {}
    for each in lone_replies(session, moments_of(left, tolerance_ms)):
        replies.setdefault((each.persona_id, each.personality_id), []).append(each)
    for found in left:
        there = replies.get((found.persona_id, found.personality_id), [])
        for window in moments_of([found], tolerance_ms):
            begin = bisect_left(there, window.from_ms, key=_written_at)
            end = bisect_right(there, window.to_ms, lo=begin, key=_written_at)
            if any(answers(found.reading.memory, each.text) for each in there[begin:end]):
                alone.add(found.place)
    return alone


def _written_at(reply: LoneReply) -> int:
    return reply.created_at_ms


def matches_at_home(
    session: Session, ltm: LongTermMemory, persona: UUID, tolerance_ms: int
) -> Iterator[Match]:
    """The memories in a persona's own collection, with their exchanges."""
    home = ltm.home_of(persona)
    own = _with_rows(session, _founds_at_home(ltm, persona, ltm.scan(home)))
    matcher = Matcher(exchanges_of_personas(session, [persona]), tolerance_ms)
    yield from (each for each in matcher.match(own) if isinstance(each, Match))


def memories_of(
    session: Session,
    ltm: LongTermMemory,
    persona: UUID,
    exchanges: Sequence[Exchange],
    tolerance_ms: int,
    *,
    besides: Container[Place] = frozenset(),
) -> dict[UUID, Found]:
    """The memories of these exchanges, by anchor, in the persona's own collection; not those at
    `besides`.

    Of the collection that is read which may be one of them. One that is nearer to another exchange
    is that one's, so as much again is looked at around them.
    """
    home = ltm.home_of(persona)
    points = ltm.repairs.in_question(home, exchanges, 2 * tolerance_ms)
    own = _founds_at_home(ltm, persona, (p for p in points if Place(home, p.id) not in besides))
    near = _with_rows(session, list(_near(own, exchanges, 2 * tolerance_ms)))
    if not near:
        return {}
    rows: dict[UUID, Exchange] = {each.anchor_id: each for each in exchanges}
    found = dict(rows)
    found |= exchanges_by_anchor(session, _named_by(near))
    at = exchanges_at(session, moments_of(near, tolerance_ms), [persona])
    found |= {each.anchor_id: each for each in at}
    matcher = Matcher((r for r in found.values() if r.persona_id == persona), tolerance_ms)
    return {
        each.exchange.anchor_id: each.found
        for each in matcher.match(near)
        if isinstance(each, Match) and each.exchange.anchor_id in rows
    }


def _near(
    founds: Iterable[Found], exchanges: Iterable[Exchange], tolerance_ms: int
) -> Iterator[Found]:
    """Those that name one of these exchanges, or were said about when one of them was."""
    named = {row for each in exchanges for row in (each.anchor_id, each.said_id)}
    times = sorted(each.created_at_ms for each in exchanges)
    for found in founds:
        windows = moments_of([found], tolerance_ms)
        is_near = any(
            bisect_left(times, each.from_ms) < bisect_right(times, each.to_ms) for each in windows
        )
        if is_near or not named.isdisjoint(_named_by([found])):
            yield found


def _founds_at_home(ltm: LongTermMemory, persona: UUID, points: Iterable[Point]) -> Iterator[Found]:
    home = ltm.home_of(persona)
    codec = ltm.codec_of(home)
    for each in points:
        yield replace(Found.read(home, each, codec, home=True), persona_id=persona)


def _with_rows(session: Session, founds: Iterable[Found]) -> list[Found]:
    """Those that were not made from an exchange that is gone: such a one is no other's memory."""
    own = list(founds)
    noted = Ledger(session).at(each.place for each in own) if own else {}
    return [each for each in own if each.place not in noted or noted[each.place].has_rows]
