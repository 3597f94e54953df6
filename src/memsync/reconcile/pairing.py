"""Pairing reads both stores and joins exchanges with points into cases, for the audit's rules.

Data flows through it once. In the shared layout, exchanges and the points of the shared collection
are two streams in id order, so one pass merges them; what it leaves waits in a spool. Then pairing
goes from owner to owner. It reads the exchanges of all of an owner's personas, takes the points of
these personas (from their collections, or from the spool), and lets `matching` find who belongs to
whom. Points that match nothing of their owner's are looked for among everybody's exchanges last.
Memory grows with the largest owner, not with the stores.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self
from uuid import UUID

from memsync.model.digests import point_state
from memsync.model.records import Exchange, Place
from memsync.model.sequences import batched
from memsync.reconcile.at_sight import AtSight, Told
from memsync.reconcile.cases import Case, Found, Role, says
from memsync.reconcile.copies import Noted, Originals
from memsync.reconcile.deep import Deep
from memsync.reconcile.keeping import cases_of_exchange
from memsync.reconcile.leftovers import Leftovers, Oldest, was_changed
from memsync.reconcile.locating import Located
from memsync.reconcile.matching import Match, Matcher
from memsync.reconcile.merging import merge_shared
from memsync.reconcile.reading import points_at
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import NOBODY, Spool
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.exchanges import exchanges_of_personas
from memsync.stores.history.owners import (
    Owners,
    owners_page,
    personas_of_owners,
    without_memory,
)
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import (
    CollectionKind,
    Layout,
    collection_of_persona,
    collection_of_personality,
    persona_of_collection,
)
from memsync.stores.ltm.ledger import Entry, Ledger
from memsync.stores.postgres import Session

_BATCH = 1000
_OWNERS_MAX = 500
_EXCHANGES_AT_ONCE = 10_000


@dataclass
class Pairing:
    """The pairing of one audit: `cases` yields all of them, once. `sources` are its collections.

    `look` says which memories of the shared collection are cases: those located, or those that a
    deep audit finds not to be exactly right. Every other exchange has its memory. None: all are.
    `at_sight`: of those of the app's own collections that are right at sight, one of a kind is a
    case, and stands for the others. `awaited` tells of which exchanges a memory is on its way.
    `anew`: that the ledger has a memory as one without rows does not keep it from the rows that
    it matches.
    """

    sources: Sources
    look: Located | Deep | None = None
    at_sight: bool = False
    awaited: Callable[[Sequence[Exchange]], Collection[UUID]] = lambda _: ()
    anew: bool = False

    def __post_init__(self) -> None:
        self._session, self._ltm = self.sources.session, self.sources.ltm
        self._layout, self._tolerance_ms = self.sources.layout, self.sources.tolerance_ms
        self._counts = self.sources.counts
        self._without_memory = without_memory(self._session)
        self._waiting: Spool[Found] = Spool()
        self._missing: Spool[Exchange] = Spool()
        self._origins: Spool[tuple[str, UUID]] = Spool()
        self._without_memory_yet: Spool[Exchange] = Spool()
        self._leftovers = Leftovers(self.sources)
        self._ledger = Ledger(self._session)

    @classmethod
    def of(
        cls,
        session: Session,
        ltm: LongTermMemory,
        catalog: Catalog,
        *,
        tolerance_s: float,
    ) -> Self:
        """The pairing of these stores; times may differ by so many seconds."""
        return cls(Sources.of(session, ltm, catalog, tolerance_s))

    def cases(self) -> Iterator[Case]:
        """Every exchange and every point, in one case each, or in one that they share."""
        with contextlib.ExitStack() as spools:
            for each in (
                *(self._waiting, self._missing, self._origins, self._without_memory_yet),
                self._leftovers,
            ):
                spools.enter_context(contextlib.closing(each))
            yield from self._with_states(self._cases())

    def _cases(self) -> Iterator[Case]:
        for found in self.sources.elsewhere():
            self._wait(found)
        if self._layout is Layout.SHARED:
            yield from self._merge_shared()
            owners = self._owners_of_the_waiting()
        else:
            owners = self._all_owners()
        for some in owners:
            yield from self._owner_by_owner(some)
        for found in self._waiting.of(NOBODY):
            self._leftovers.add(found, None, None)
        yield from self._leftovers.cases()
        yield from self._missing_cases()

    def _with_states(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The same cases, each with the state of the other point by which it is judged."""
        for some in batched(cases, _BATCH):
            states = self._states(filter(None, (each.unread for each in some)))
            for each in some:
                place = each.unread
                yield replace(each, kept_state=states.get(place)) if place else each

    # ------------------------------------------------------------------ reading

    def _wait(self, found: Found) -> None:
        owner = self.sources.owner_of(found)
        self._waiting.add(owner.bytes if owner else NOBODY, found)

    def _merge_shared(self) -> Iterator[Case]:
        """Merge the shared collection with all exchanges; yields the pairs that have one id."""
        has_copies = next(self._waiting.keys(), None) is not None
        pairs = merge_shared(self.sources, self.look, has_copies=has_copies)
        for some in batched(pairs, _BATCH):
            self.sources.people.learn([each.persona_id for each, _ in some if each])
            for exchange, found in some:
                if found and exchange:
                    if has_copies and (origin := found.reading.brought_from):
                        owner = self.sources.people.owner_of(exchange.persona_id)
                        key = owner.bytes if owner else NOBODY
                        self._origins.add(key, (origin, exchange.anchor_id))
                    yield self._pair(exchange, found)
                elif found:
                    self._wait(found)
                elif exchange:
                    owner = self.sources.people.owner_of(exchange.persona_id)
                    self._missing.add(owner.bytes if owner else NOBODY, exchange)

    def _pair(self, exchange: Exchange, found: Found) -> Case:
        """The case of a memory at home under the id of its exchange."""
        foreign = found.persona_id not in {None, exchange.persona_id}
        dated = found.dated([exchange.created_at_ms])
        return self.sources.case(Role.FOREIGN if foreign else Role.MEMORY, exchange, dated)

    def _all_owners(self) -> Iterator[Owners]:
        """All owners, some at a time: as many as have some ten thousand exchanges together."""
        after, limit = UUID(int=0), 16
        while page := owners_page(self._session, after, limit):
            before = self._counts.rows
            yield page
            after, read = max(page), self._counts.rows - before
            limit = max(1, min(_OWNERS_MAX, limit * _EXCHANGES_AT_ONCE // max(1, read)))

    def _owners_of_the_waiting(self) -> Iterator[Owners]:
        keys = dict.fromkeys([*self._waiting.keys(), *self._missing.keys()])
        for some in batched((UUID(bytes=key) for key in sorted(keys) if key), 16):
            yield personas_of_owners(self._session, some)

    # ------------------------------------------------------------------ owner by owner

    def _owner_by_owner(self, owners: Owners) -> Iterator[Case]:
        personas = [persona for some in owners.values() for persona in some]
        by_persona: dict[UUID, list[Exchange]] = {}
        exchanges = exchanges_of_personas(self._session, personas)
        if self._layout is Layout.PER_PERSONA:
            self._counts.rows += len(exchanges)
        for each in exchanges:
            by_persona.setdefault(each.persona_id, []).append(each)
        for owner, some in owners.items():
            rows = [each for persona in some for each in by_persona.get(persona, ())]
            yield from self._of_owner(owner, some, rows)

    def _of_owner(
        self, owner: UUID, personas: Sequence[UUID], rows: Sequence[Exchange]
    ) -> Iterator[Case]:
        waiting = list(self._waiting.of(owner.bytes))
        at_home = [each for each in waiting if each.home]
        elsewhere = [each for each in waiting if not each.home]
        sight = AtSight(rows, self._tolerance_ms)
        at_home += self._read(personas, sight)
        standing = self._standing(owner, rows)
        alone: list[Found] = []
        if at_home or elsewhere:
            matcher = Matcher(rows, self._tolerance_ms, taken=(*standing, *sight.told))
            memories: dict[UUID, list[Match]] = {}
            for each in self._matched(matcher, at_home, rows):
                if isinstance(each, Found):
                    alone.append(each)
                else:
                    memories.setdefault(each.exchange.anchor_id, []).append(each)
            yield from self._at_home(memories, standing, sight)
            noted = self._noted_origins(owner, rows, memories) if elsewhere else Noted(0)
            yield from self._of_elsewhere(matcher, elsewhere, standing, alone, noted)
        for told, alike in sight.kinds():
            for found in self._found_again([told]):
                yield replace(self.sources.case(Role.MEMORY, told.exchange, found), alike=alike)
        there = {*standing, *sight.told}
        lacking = [row for row in rows if row.anchor_id not in there]
        for row in lacking:
            self._without_memory_yet.add(NOBODY, row)
        if alone:
            oldest = Oldest(rows, there.union(self.awaited(lacking)), self._tolerance_ms)
            for found in alone:
                self._leftovers.add(found, owner, oldest)

    def _read(self, personas: Sequence[UUID], sight: AtSight) -> Iterator[Found]:
        """The points of these personas' collections that must be matched.

        Where the ledger says that the rows are gone, only the matching knows what to make of it.
        """
        homes = {each: name for each in personas if (name := self.sources.homes.get(each))}
        for persona, name in homes.items():
            points = self.sources.points(name)
            if self.at_sight:
                points = sight.others(name, persona, points)
            yield from self.sources.all_found(name, points, home=True)
        if sight.told:
            gone = sight.take_at(self._ledger.without_rows_in(homes.values(), sight.told))
            yield from self._found_again(gone)

    def _found_again(self, some: Iterable[Told]) -> Iterator[Found]:
        """Memories that were told at sight, as those that are matched."""
        for each in some:
            yield from self.sources.found(each.place.collection, [each.point], home=True)

    def _matched(
        self, matcher: Matcher, at_home: Sequence[Found], rows: Sequence[Exchange]
    ) -> Iterator[Match | Found]:
        at_home, of_gone = self._known_by_ledger(at_home)
        yield from matcher.match(at_home)
        yield from self._come_back(of_gone, rows)

    def _at_home(
        self, memories: Mapping[UUID, list[Match]], standing: dict[UUID, Place], sight: AtSight
    ) -> Iterator[Case]:
        """The cases of all points at home that were matched. It notes which memories stand."""
        states = self._states(standing[each] for each in memories if each in standing)
        for anchor, some in memories.items():
            if told := sight.told.pop(anchor, None):
                again = self._found_again([told])
                some.extend(Match(each, told.exchange, first=False) for each in again)
            kept, cases = cases_of_exchange(self.sources, some, standing.get(anchor), states)
            standing[anchor] = kept
            if self._layout is Layout.SHARED and kept.point_id != anchor:
                self._leftovers.note_kept(anchor, kept)
            yield from cases
        standing |= {anchor: told.place for anchor, told in sight.told.items()}

    def _known_by_ledger(
        self, founds: Sequence[Found]
    ) -> tuple[list[Found], list[tuple[Found, Entry]]]:
        """The points, and apart those that were made from an exchange that is gone.

        The ledger knows that. Another exchange of the same words, or of that time, is not theirs.
        """
        noted = self._ledger.at(each.place for each in founds)
        gone = {
            place: entry
            for place, entry in noted.items()
            if not entry.has_rows and (entry.anchor_id or not self.anew)
        }
        return (
            [each for each in founds if each.place not in gone],
            [(each, gone[each.place]) for each in founds if each.place in gone],
        )

    def _come_back(
        self, gone: Sequence[tuple[Found, Entry]], rows: Sequence[Exchange]
    ) -> Iterator[Match | Found]:
        """Those points, with the exchange where it was written once more: the same words, at that
        time. One that was changed since it was written down is nobody else's.
        """
        whole = [found for found, entry in gone if not was_changed(found, entry)]
        places = {each.place for each in whole}
        yield from (found for found, _ in gone if found.place not in places)
        for each in Matcher(rows, 0).match(whole) if whole else ():
            if isinstance(each, Match) and says(each.found, each.exchange) is None:
                yield each.found
            else:
                yield each

    def _standing(self, owner: UUID, rows: Sequence[Exchange]) -> dict[UUID, Place]:
        """The memories of these exchanges that the merge of the shared collection has found."""
        if self._layout is Layout.PER_PERSONA:
            return {}
        missing = {each.anchor_id for each in self._missing.of(owner.bytes)}
        home = self._ltm.collection
        if isinstance(self.look, Located):
            # Nobody has looked for the memories of a personality that needs none.
            needs_none = [row for row in rows if row.personality_id in self._without_memory]
            noted = self._ledger.at(Place(home, row.anchor_id) for row in needs_none)
            missing |= {each.anchor_id for each in needs_none} - {
                each.anchor_id for each in noted.values() if not each.removed
            }
        return {
            row.anchor_id: Place(home, row.anchor_id)
            for row in rows
            if row.anchor_id not in missing
        }

    def _noted_origins(
        self,
        owner: UUID,
        rows: Sequence[Exchange],
        memories: Mapping[UUID, Sequence[Match]],
    ) -> Noted:
        """From where the memories of these exchanges were copied, as far as they note that."""
        noted = Noted(self._tolerance_ms)
        by_anchor: dict[UUID, Exchange] = {each.anchor_id: each for each in rows}
        for origin, anchor in self._origins.of(owner.bytes):
            if anchor in by_anchor:
                noted.add(origin, by_anchor[anchor])
        for each in (each for some in memories.values() for each in some):
            if each.found.reading.brought_from:
                noted.add(each.found.reading.brought_from, each.exchange)
        return noted

    def _states(self, places: Iterable[Place]) -> dict[Place, str | None]:
        """The states of these points, as far as they stand."""
        return {
            place: point_state(point)
            for some in batched(places, _BATCH)
            for place, point in points_at(self._ltm, some).items()
        }

    def _of_elsewhere(
        self,
        matcher: Matcher,
        elsewhere: Sequence[Found],
        standing: dict[UUID, Place],
        alone: list[Found],
        noted: Noted,
    ) -> Iterator[Case]:
        """The cases of points in collections that the layout in force does not read."""
        left = []
        for found in elsewhere:
            if exchange := noted.exchange_of(found):
                kept = standing[exchange.anchor_id]
                matcher.note_copy(found, exchange)
                yield self.sources.case(Role.COPY, exchange, found, kept=kept)
            else:
                left.append(found)
        unmatched = []
        for each in matcher.match(left):
            if isinstance(each, Match):
                anchor = each.exchange.anchor_id
                there = standing.get(anchor)
                role = Role.COPY if there else Role.ELSEWHERE
                yield self.sources.case(role, each.exchange, each.found, kept=there)
                standing.setdefault(anchor, each.found.place)
            else:
                unmatched.append(each)
        originals = Originals(alone, self._ledger, self._tolerance_ms, unmatched)
        for each in unmatched:
            if original := originals.of(each):
                self._leftovers.add_copy(each, original)
            else:
                alone.append(each)

    def _missing_cases(self) -> Iterator[Case]:
        """The exchanges of which no point anywhere is a memory."""
        for row in self._without_memory_yet.of(NOBODY):
            if not self._leftovers.explains(row.anchor_id) and not self._excused(row):
                yield self.sources.case(Role.MISSING, row)

    def _excused(self, row: Exchange) -> bool:
        """Whether nobody may say that its memory is missing: its personality keeps none, or the
        collection where it may lie was not read.
        """
        if row.personality_id in self._without_memory:
            return True
        places = {
            self._ltm.home_of(row.persona_id),
            collection_of_persona(row.persona_id),
            collection_of_personality(row.personality_id),
        }
        return any(name in places or self._may_be_anybodys(name) for name in self.sources.unread)

    def _may_be_anybodys(self, collection: str) -> bool:
        """Whether its name does not tell whose memories it holds."""
        persona = persona_of_collection(collection)
        legacy = self._ltm.kind_of(collection) is CollectionKind.LEGACY
        return legacy or (persona is not None and not self.sources.people.is_persona(persona))
