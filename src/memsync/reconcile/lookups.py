"""Finds the exchanges of few points, and the memories of one persona, as an audit matches them.

An audit goes through everything; a repair asks about what it is about to change.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

from memsync.model.records import Exchange, Place, Point
from memsync.reconcile.cases import Found, says
from memsync.reconcile.matching import Match, Matcher
from memsync.reconcile.sources import Sources
from memsync.stores.history.exchanges import (
    Moment,
    exchanges_at,
    exchanges_by_anchor,
    exchanges_of_personas,
)
from memsync.stores.history.owners import personas_of_owners
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import Ledger
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

    It is for few points: all exchanges of their owners are read.
    """
    founds: dict[UUID, list[Found]] = {}
    rest: list[Found] = []
    for found in points:
        owner = sources.owner_of(found)
        (founds.setdefault(owner, []) if owner else rest).append(found)
    exchanges: dict[Place, Exchange] = {}
    for owner, personas in personas_of_owners(sources.session, list(founds)).items():
        rows = exchanges_of_personas(sources.session, personas)
        for each in Matcher(rows, sources.tolerance_ms).match(founds[owner]):
            if isinstance(each, Match):
                exchanges[each.found.place] = each.exchange
            else:
                rest.append(each)
    return exchanges | exchanges_of_anybody(sources.session, rest)


def exchanges_of_anybody(session: Session, founds: Sequence[Found]) -> dict[Place, Exchange]:
    """The exchanges of these points, by id, or by equal text at equal time, whosever they are."""
    ids = [
        each
        for found in founds
        for each in (found.point.id, *found.reading.message_ids)
        if isinstance(each, UUID)
    ]
    by_id = exchanges_by_anchor(session, ids)
    moments = [
        Moment(found.personality_id, *found.reading.time_window_ms)
        for found in founds
        if found.personality_id and found.reading.time_window_ms
    ]
    # Everybody is one owner here, with no tolerance.
    rows = {each.anchor_id: each for each in exchanges_at(session, moments)} | by_id
    return {
        each.found.place: each.exchange
        for each in Matcher(rows.values(), 0).match(founds)
        if isinstance(each, Match)
        and (each.exchange.anchor_id in by_id or says(each.found, each.exchange))
    }


def matches_at_home(
    session: Session,
    ltm: LongTermMemory,
    persona: UUID,
    tolerance_ms: int,
    *,
    besides: Collection[Place] = frozenset(),
) -> Iterator[Match]:
    """The memories in a persona's own collection, with their exchanges; not those at `besides`."""
    home = ltm.home_of(persona)
    codec = ltm.codec_of(home)
    own = [
        replace(Found.read(home, point, codec, home=True), persona_id=persona)
        for point in ltm.scan(home)
        if Place(home, point.id) not in besides
    ]
    noted = Ledger(session).at(each.place for each in own)
    # What was made from an exchange that is gone is no other's memory.
    left = (each for each in own if each.place not in noted or noted[each.place].has_rows)
    matcher = Matcher(exchanges_of_personas(session, [persona]), tolerance_ms)
    yield from (each for each in matcher.match(left) if isinstance(each, Match))
