"""What matches nothing of its owner's: looked for among everybody's exchanges, then judged alone.

It decides which memories without an exchange are archived, which have lost their rows otherwise,
which are newer than the history, and which are orphans.
"""

import contextlib
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from memsync.model.digests import point_state
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place
from memsync.model.sequences import batched
from memsync.reconcile.cases import Case, Found, Role
from memsync.reconcile.lookups import exchanges_of_anybody, matches_at_home, standing_alone
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import NOBODY, Spool
from memsync.stores.history.exchanges import (
    exchanges_by_anchor,
    messages_in_stretches,
    unreadable_threads,
)
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Entry, Ledger, State, standing_digest

_BATCH = 10_000
"""So many points are looked for among everybody's messages by one pass over these."""
_IDS = 1000
"""So many points are read at a time."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the stores say of some points that match no exchange, asked for all of them at once.

    `noted` are the entries of the ledger, by the points' places. `lost` has, by anchor, where the
    ledger has a memory under its anchor's id and no point stands. `alone` are the points whose
    reply stands without the message that it answers.
    """

    noted: Mapping[Place, Entry]
    lost: Mapping[UUID, Entry]
    alone: Collection[Place]


@dataclass(frozen=True, slots=True)
class _Left:
    """A point that matches nothing of its owner's.

    `oldest_ms` is the time of the oldest exchange of its thread by `Oldest`, None where the thread
    has none.
    """

    found: Found
    oldest_ms: int | None


class Leftovers:
    """The points of one audit that are left."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._session, self._ltm = sources.session, sources.ltm
        self._tolerance_ms = sources.tolerance_ms
        self._odd_threads: dict[tuple[UUID | None, UUID | None], set[str]] | None = None
        self._ledger = Ledger(sources.session)
        self._kept: Spool[Place] = Spool()
        self._left: Spool[_Left] = Spool()
        self._others: Spool[tuple[Found, Exchange]] = Spool()
        self._explained: Spool[None] = Spool()
        self._unmatched: Spool[Case] = Spool()
        self._copies: Spool[tuple[Found, Place]] = Spool()
        self._has_copies = False

    def close(self) -> None:
        """Remove what waits."""
        with contextlib.ExitStack() as spools:
            for each in (
                *(self._kept, self._left, self._others, self._explained, self._unmatched),
                self._copies,
            ):
                spools.enter_context(contextlib.closing(each))

    def add(self, found: Found, owner: UUID | None, oldest: "Oldest | None") -> None:
        """Take a point that matches nothing of this owner's."""
        key = owner.bytes if owner else NOBODY
        self._left.add(key, _Left(found, oldest.of(found) if oldest else None))

    def add_copy(self, copy: Found, original: Place) -> None:
        """Take a copy of a point that is left, too, and that lies at `original`."""
        self._copies.add(original.key, (copy, original))
        self._has_copies = True

    def note_kept(self, anchor: UUID, place: Place) -> None:
        """Note that the exchange's memory lies under another id than its anchor's."""
        self._kept.add(anchor.bytes, place)

    def explains(self, anchor: UUID) -> bool:
        """Whether a point that is left is the memory of this exchange. `cases` finds out."""
        return self._explained.has(anchor.bytes)

    def cases(self) -> Iterator[Case]:
        """The case of every point that is left. Those of its copies come right before it."""
        for some in batched(self._left, _BATCH):
            founds = [each.found for each in some]
            noted, named = self._by_ledger(founds)
            whole = [each for each in founds if not was_changed(each, noted.get(each.place))]
            rows = named | exchanges_of_anybody(self._session, whole)
            without = [each for each in some if each.found.place not in rows]
            yield from self._of_nobody(without, noted)
            for left in some:
                if exchange := rows.get(left.found.place):
                    yield from self._copies_of(left.found.place, Role.COPY)
                    self._others.add(exchange.persona_id.bytes, (left.found, exchange))
        for persona in list(self._others.keys()):
            yield from self._of_others(UUID(bytes=persona))
        yield from self._told_by_time()

    def _of_nobody(self, some: Sequence[_Left], noted: Mapping[Place, Entry]) -> Iterator[Case]:
        """The cases of points that match no exchange. Those of orphans wait for all of them."""
        known = self._known([each.found for each in some], noted)
        for left in some:
            case = self._without_exchange(left, known)
            if case is not None and case.role is Role.ORPHAN:
                self._unmatched.add(NOBODY, case)
                continue
            yield from self._copies_of(left.found.place, Role.COPY)
            if case is not None:
                self._sources.counts.archived += case.role is Role.ARCHIVED
                yield case

    def _known(self, founds: Sequence[Found], noted: Mapping[Place, Entry]) -> _Known:
        unnoted = [each for each in founds if each.place not in noted]
        alone = standing_alone(self._session, unnoted, self._tolerance_ms)
        lost: dict[UUID, Entry] = {}
        if self._sources.layout is Layout.SHARED:
            shared = self._ltm.collection
            apart = [noted[each.place] for each in founds if not each.home and each.place in noted]
            entries = self._ledger.at(Place(shared, e.anchor_id) for e in apart if e.anchor_id)
            standing: set[PointId] = set()
            for ids in batched((place.point_id for place in entries), _IDS):
                standing.update(self._ltm.points(shared, ids))
            lost = {
                place.point_id: entry
                for place, entry in entries.items()
                if isinstance(place.point_id, UUID) and place.point_id not in standing
            }
        return _Known(noted, lost, alone)

    def _copies_of(self, original: Place, role: Role) -> Iterator[Case]:
        """The cases of the copies of this point, in this role."""
        if self._has_copies:
            for copy, kept in self._copies.of(original.key):
                yield self._sources.case(role, None, copy, kept=kept)

    def _of_others(self, persona: UUID) -> Iterator[Case]:
        """The cases of points that others have, or nobody, made from this persona's exchanges."""
        pairs = list(self._others.of(persona.bytes))
        standing = self._memories_of(persona, [exchange for _, exchange in pairs])
        for found, exchange in pairs:
            there = standing.get(exchange.anchor_id)
            if there and there.place == found.place:
                there = None
            self._explained.add(exchange.anchor_id.bytes, None)
            yield self._sources.case(
                _role_apart(found, exchange, has_memory=there is not None),
                exchange,
                found,
                kept=there.place if there else None,
                kept_state=point_state(there.point) if there else None,
            )
            if found.persona_id in {None, persona} or not found.home:
                standing.setdefault(exchange.anchor_id, found)

    def _memories_of(self, persona: UUID, exchanges: Sequence[Exchange]) -> dict[UUID, Found]:
        """The memories that stand for these exchanges of one persona, where they belong."""
        home = self._ltm.home_of(persona)
        codec = self._ltm.codec_of(home)
        if self._sources.layout is Layout.SHARED:
            ids = {each.anchor_id: self._id_in_shared(each.anchor_id) for each in exchanges}
            points = self._ltm.points(home, ids.values())
            return {
                anchor: Found.read(home, point, codec, home=True)
                for anchor, point_id in ids.items()
                if (point := points.get(point_id))
            }
        if persona not in self._sources.homes:
            return {}
        matches = matches_at_home(self._session, self._ltm, persona, self._tolerance_ms)
        return {each.exchange.anchor_id: each.found for each in matches if each.first}

    def _id_in_shared(self, anchor: UUID) -> PointId:
        """The id of the exchange's memory in the shared collection, as far as one is known."""
        return next((place.point_id for place in self._kept.of(anchor.bytes)), anchor)

    def _by_ledger(
        self, founds: Sequence[Found]
    ) -> tuple[dict[Place, Entry], dict[Place, Exchange]]:
        """What the ledger says of these points, or of that of which one is a copy; and the exchange
        of a point that it knows, where that one stands.
        """
        places = {each.place: noted_at(each, self._ltm.collection) for each in founds}
        entries = self._ledger.at(place for some in places.values() for place in some)
        for each in founds:
            if (entry := entries.get(each.place)) and not entry.has_rows:
                self._sources.stand.add(each.place)
        live = [e.anchor_id for e in entries.values() if e.anchor_id and e.state is State.LIVE]
        standing = exchanges_by_anchor(self._session, live)
        known = {
            place: entry for place, entry in entries.items() if entry.anchor_id not in standing
        }
        noted = {
            place: known[here]
            for place, some in places.items()
            if (here := next((each for each in some if each in known), None))
        }
        named = {
            place: standing[anchor]
            for place in places
            if place in entries
            and (anchor := entries[place].anchor_id) is not None
            and anchor in standing
        }
        return noted, named

    def _without_exchange(self, left: _Left, known: _Known) -> Case | None:
        """The case of a point that matches no exchange; None where nobody can tell.

        What the ledger says comes first: a row that is imported later may be older than the memory.
        """
        found, memory = left.found, left.found.reading.memory
        if (entry := known.noted.get(found.place)) is not None:
            if entry.state is State.ARCHIVED:
                return self._archived(found, entry, known)
            at_home = entry if entry.place == found.place else None
            return self._sources.case(Role.VANISHED, None, found, entry=at_home)
        at = memory.created_at_ms
        if at is not None and found.tells_enough:
            is_older = left.oldest_ms is None or at < left.oldest_ms
            if is_older or found.place in known.alone:
                return self._archived(found, None, known)
        if not found.names_unknown and self._may_lack_a_message(found):
            if not self._sources.is_young(found):
                self._sources.unjudged.add(found)
            return None
        return self._sources.case(Role.ORPHAN, None, found)

    def _archived(self, found: Found, entry: Entry | None, known: _Known) -> Case:
        """The case of an archived memory. One that lies elsewhere is not lost where it belongs."""
        if found.home:
            at_home = entry if entry and entry.place == found.place else None
            return self._sources.case(Role.ARCHIVED, None, found, entry=at_home)
        case = self._sources.case(
            Role.ARCHIVED, None, found, kept=_lost_as(found, entry, known.lost)
        )
        if case.target:
            self._sources.stand.add(case.target)
        return case

    def _may_lack_a_message(self, found: Found) -> bool:
        """Whether its exchange may be missing because a message of its thread cannot be read."""
        if self._odd_threads is None:
            self._odd_threads = {}
            for each in unreadable_threads(self._session):
                key = (each.persona_id, each.personality_id)
                self._odd_threads.setdefault(key, set()).add(each.channel_id)
        channels = self._odd_threads.get((found.persona_id, found.personality_id), ())
        channel = found.reading.memory.channel_id
        return bool(channels) and (channel is None or channel in channels)

    def _told_by_time(self) -> Iterator[Case]:
        """Tell memories that are newer than the history from orphans.

        They are from after its newest row, or two or more of them from a stretch without any row,
        as after a restore from a backup.
        """
        times = sorted(at for case in self._unmatched if (at := _time_told(case)) is not None)
        newer = _without_rows(times, messages_in_stretches(self._session, times) if times else {})
        for case in self._unmatched:
            is_newer = _time_told(case) in newer
            if case.found:
                # An orphan's copies are orphans: else each would be found when the one before went.
                role = Role.COPY if is_newer else Role.ORPHAN
                yield from self._copies_of(case.found.place, role)
            yield case.with_role(Role.NEWER) if is_newer else case


def noted_at(found: Found, shared: str) -> list[Place]:
    """Where the ledger may know the point: here, or where it lay in the other layout.

    An integer id there may be that of another persona's.
    """
    came_from = Place.read(found.reading.brought_from or "")
    in_shared = Place(shared, found.point.id) if isinstance(found.point.id, UUID) else None
    return [found.place, *filter(None, (came_from, in_shared))]


def _lost_as(found: Found, entry: Entry | None, lost: Mapping[UUID, Entry]) -> Place | None:
    """Where the ledger has this very memory under its anchor's id, and no point stands."""
    noted = lost.get(entry.anchor_id) if entry and entry.anchor_id else None
    return noted.place if noted and noted.says(found.reading.memory) else None


class Oldest:
    """The time of the oldest exchange of each thread, and of each persona and personality.

    The memory of an exchange may give a time that is off by the tolerance. So one that lacks its
    memory counts as that much older: what is left near it may be its memory of before an edit.
    `standing` are the anchors of the others, whose memories stand or are on their way.
    """

    def __init__(
        self, rows: Iterable[Exchange], standing: Container[UUID], tolerance_ms: int
    ) -> None:
        self._of: dict[tuple[UUID, UUID, str | None], int] = {}
        for row in rows:
            at = row.created_at_ms - (0 if row.anchor_id in standing else tolerance_ms)
            for channel in (row.channel_id, None):
                key = (row.persona_id, row.personality_id, channel)
                self._of[key] = min(at, self._of.get(key, at))

    def of(self, found: Found) -> int | None:
        """That of the point's thread; without a channel, of its persona and personality."""
        memory = found.reading.memory
        if found.persona_id is None or memory.personality_id is None:
            return None
        return self._of.get((found.persona_id, memory.personality_id, memory.channel_id))


def was_changed(found: Found, entry: Entry | None) -> bool:
    """Whether the point says something else than was written down of this very one."""
    if entry is None or entry.place != found.place:
        return False
    return standing_digest(found.point.id, found.reading.memory) != entry.stored


def _role_apart(found: Found, exchange: Exchange, *, has_memory: bool) -> Role:
    """The role of a memory that did not match among the exchanges of its owner.

    It may be its owner's all the same: both may have come while the audit was reading.
    """
    if not found.home:
        return Role.COPY if has_memory else Role.ELSEWHERE
    if found.persona_id not in {None, exchange.persona_id}:
        return Role.FOREIGN
    return Role.DUPLICATE if has_memory else Role.MEMORY


def _time_told(case: Case) -> int | None:
    """When a memory without an exchange was said, in ms; None where that tells nothing of it."""
    found = case.found
    if found is None or found.persona_id is None or found.names_unknown:
        return None
    return found.reading.memory.created_at_ms


def _without_rows(times: Sequence[int], messages: Mapping[int, int]) -> set[int]:
    """Those of the ascending `times` after which no message follows, and those that share a stretch
    without any message with another one. `messages` are the numbers of messages by stretch.
    """
    last = max(messages, default=0)
    found = {at for number, at in enumerate(times, start=1) if number > last}
    stretch: list[int] = []
    for number, at in enumerate(times):
        if messages.get(number):
            stretch = []
        stretch.append(at)
        if len(stretch) > 1:
            # Those before are in it by now.
            found.update(stretch[-2:])
    return found
