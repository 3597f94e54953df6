"""Copies memories back to the collections of their personas, as the app writes them.

It decides which memories a persona's collection lacks, and which of its own are older than what
memsync made in the shared collection. A point is written over only where it is still the one that
the pass has seen, and no other memory's.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from memsync.errors import PartlyDone, StoreUnreachable
from memsync.model.digests import point_state
from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.progress import Kind, Progress
from memsync.model.records import Exchange, Place, Point, Speakers
from memsync.model.sequences import batched
from memsync.reconcile.cases import Case, Role
from memsync.reconcile.copies import are_near
from memsync.reconcile.copying import (
    Copying,
    both_taken,
    ids_of_a_copy,
    is_deployed,
    pairing_of,
    place_of,
    require_read,
)
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.spool import Shelf, Spool
from memsync.stores.history.cast import speakers
from memsync.stores.ltm import Failure
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Entry, Ledger, standing_digest
from memsync.stores.ltm.making import as_deployed
from memsync.stores.ltm.payload import DEPLOYED
from memsync.stores.ltm.texts import say_the_same

_BATCH = 256
_Seen = tuple[str | None, UUID | None]
"""The state of a point, and the anchor of the exchange whose memory it is."""


@dataclass(frozen=True, slots=True)
class _Return:
    """A point that must be written to a collection of a persona, over `over` where it is given.

    `text` is what must be embedded; None where the point has its vector.
    """

    collection: str
    point: Point
    text: str | None
    over: Point | None = None


class Returning(Copying):
    """Copies to the personas' collections what stands only in the shared one, or is newer there."""

    left = 0
    beside = 0
    _spared = 0
    _seen: Shelf[_Seen]

    def must_embed(self) -> bool:
        """Whether a memory must be embedded anew. Writes nothing."""
        return any(each.text is not None for some in self._returns() for each in some)

    def run_once(self) -> int:
        """Copy what is lacking. Returns how many points were written."""
        total, looked_at, written = self.ltm.count(self.shared), 0, 0
        for some in self._returns():
            written += self._write(some)
            looked_at += len(some)
            self.tell(Progress(Kind.STEP, "bringing memories back", looked_at, total))
        self.beside += self._spared
        return written

    def _returns(self) -> Iterator[list[_Return]]:
        pairing = pairing_of(self.session, self.ltm, self.settings)
        self.left = self._spared = 0
        with (
            contextlib.closing(Shelf[_Seen]()) as self._seen,
            contextlib.closing(Spool[Case]()) as lacking,
        ):
            # All points of a persona are seen before one of them is written over.
            for case in self._lacking(pairing):
                lacking.add(b"", case)
            for some in batched(lacking, _BATCH):
                yield self._made(some)
        require_read(pairing)

    def _lacking(self, pairing: Pairing) -> Iterator[Case]:
        """Memories that stand only in the shared collection, or that memsync made there."""
        for case in pairing.cases():
            found = case.found
            if found is not None and found.home:
                anchor = case.exchange.anchor_id if case.exchange else None
                self._seen[found.place.key] = point_state(found.point), anchor
            if found is None or found.place.collection != self.shared:
                continue
            is_alone = case.role in {Role.ORPHAN, Role.NEWER} and not case.is_copy
            if is_alone or found.contradicts_itself:
                self.left += 1
            elif self._is_lacking(case) or self._may_be_newer(case):
                yield case

    def _is_lacking(self, case: Case) -> bool:
        """Whether no collection of the persona's has the memory."""
        if case.role in {Role.ELSEWHERE, Role.ARCHIVED, Role.VANISHED}:
            return True
        # Of several copies in collections that nobody reads, the first one is kept.
        elsewhere = case.kept is not None and case.kept.collection not in {case.home, self.shared}
        return case.is_copy and elsewhere

    def _may_be_newer(self, case: Case) -> bool:
        """Whether it may say something else than the persona's own: memsync made it from rows, or
        its rows are gone, so that nothing but this layout says what was said last.
        """
        found, kept = case.found, case.kept
        if found is None or kept is None or not case.is_copy:
            return False
        is_made = case.exchange is None or not is_deployed(found.codec, found.point)
        return kept.collection == case.home and is_made

    def _made(self, cases: Sequence[Case]) -> list[_Return]:
        """The points that must be written for these cases, as the app has them."""
        rows = {place_of(case): row for case in cases if (row := self._row_of(case))}
        names = speakers(
            self.session, {(row.persona_id, row.personality_id) for row in rows.values()}
        )
        payloads = {
            place: _as_the_app_writes(row, names, has_row=case.exchange is not None)
            for case in cases
            if (row := rows.get(place := place_of(case)))
        }
        stale = [case for case in cases if self._may_be_newer(case)]
        lacking = [case for case in cases if not self._may_be_newer(case)]
        there = self.read(
            place
            for case in cases
            for place in (place_of(case), case.kept, _origin_of(case))
            if place
        )
        ids = (
            Place(case.home, id_)
            for case in lacking
            if case.home
            for id_ in ids_of_a_copy(place_of(case))
        )
        taken = set(self.read(ids))
        noted = Ledger(self.session).at(filter(None, map(_origin_of, lacking)))
        returns = [self._anew(case, there, payloads) for case in stale]
        returns += [self._copy(case, there, taken, payloads, noted) for case in lacking]
        return [each for each in returns if each]

    def _anew(
        self,
        case: Case,
        there: Mapping[Place, Point],
        payloads: Mapping[Place, Mapping[str, object]],
    ) -> _Return | None:
        """The persona's own memory, as the shared collection has it; None where it says the same,
        or where a row shows a fault in the shared one.
        """
        place, kept, row = place_of(case), case.kept, case.exchange
        if kept is None or kept not in there or place not in there:
            return None
        says_the_same = say_the_same(
            self.ltm.codec.decode(there[place].payload).memory,
            DEPLOYED.decode(there[kept].payload).memory,
        )
        is_old = row is not None and self.has_fault(row, kept, there[kept], Layout.PER_PERSONA)
        if says_the_same and not is_old:
            return None
        if row is not None and self.has_fault(row, place, there[place], Layout.SHARED):
            return None
        if not self._is_as_seen(case, kept, there[kept]):
            self.left += 1
            return None
        return self._returned(case, there, payloads, kept)

    def _copy(
        self,
        case: Case,
        there: Mapping[Place, Point],
        taken: set[Place],
        payloads: Mapping[Place, Mapping[str, object]],
        noted: Mapping[Place, Entry],
    ) -> _Return | None:
        """The memory that its persona's collection lacks, under the id that it had there if that is
        free; None where it is gone by now.
        """
        place = place_of(case)
        if place not in there or case.home is None or case.persona_id is None:
            return None
        origin = _origin_of(case)
        if origin and origin in there and self._are_near(case, there[origin]):
            # Nothing else ties the two together: the persona's own has another time and text.
            returned = self._returned(case, there, payloads, origin)
            is_noted = returned and _is_as_noted(noted.get(origin), there[origin], returned.point)
            if is_noted and self._is_as_seen(case, origin, there[origin]):
                return returned
            self._spared += 1
        targets = [Place(case.home, each) for each in ids_of_a_copy(place)]
        if origin and origin not in there:
            targets.insert(0, origin)
        target = next((each for each in targets if each not in taken), None)
        if target is None:
            raise both_taken(place, case.home)
        taken.add(target)
        return self._returned(case, there, payloads, target)

    def _are_near(self, case: Case, point: Point) -> bool:
        """Whether both are of one personality, and of one time."""
        if case.found is None:
            return False
        there = DEPLOYED.decode(point.payload)
        is_same = there.memory.personality_id == case.found.personality_id
        return is_same and are_near(case.found.reading, there, case.tolerance_ms)

    def _is_as_seen(self, case: Case, place: Place, point: Point) -> bool:
        """Whether the point is as this pass has seen it, and not the memory of another exchange."""
        state, anchor = self._seen.get(place.key, (None, None))
        own = case.exchange.anchor_id if case.exchange else None
        return state == point_state(point) and anchor in {None, own}

    def _returned(
        self,
        case: Case,
        there: Mapping[Place, Point],
        payloads: Mapping[Place, Mapping[str, object]],
        target: Place,
    ) -> _Return | None:
        """The memory as the app has it, at this place, over what stands there."""
        place, over = place_of(case), there.get(target)
        if payload := payloads.get(place):
            text = str(payload["content"])
            return _Return(target.collection, Point(target.point_id, payload), text, over)
        if case.persona_id is None:
            return None
        payload = DEPLOYED.returned(there[place].payload, case.persona_id)
        point = Point(target.point_id, payload, there[place].vector)
        return _Return(target.collection, point, None, over)

    def _row_of(self, case: Case) -> Exchange | None:
        """The exchange of a memory that memsync made: its row, or, of an archived one, what the
        memory says. None for one with the app's text.
        """
        found = case.found
        if found is None or is_deployed(found.codec, found.point):
            return None
        if case.exchange is not None:
            return case.exchange
        memory, point_id = found.reading.memory, found.point.id
        if (
            not isinstance(point_id, UUID)
            or case.persona_id is None
            or memory.personality_id is None
            or memory.created_at_ms is None
            or memory.user_text is None
            or memory.assistant_text is None
        ):
            return None
        return Exchange(
            anchor_id=MessageId(point_id),
            persona_id=PersonaId(case.persona_id),
            personality_id=PersonalityId(memory.personality_id),
            channel_id=memory.channel_id or "",
            created_at_ms=memory.created_at_ms,
            user_text=memory.user_text,
            assistant_text=memory.assistant_text,
            said_id=MessageId(point_id),
        )

    def _write(self, wanted: Sequence[_Return]) -> int:
        points = self._embedded(wanted)
        by_collection: dict[str, list[Point]] = {}
        over: dict[Place, Point] = {}
        for each, point in zip(wanted, points, strict=True):
            by_collection.setdefault(each.collection, []).append(point)
            if each.over:
                over[Place(each.collection, point.id)] = each.over
        written = 0
        for collection, some in by_collection.items():
            self.ltm.ensure(collection, len(some[0].vector or ()))
            old = {place.point_id: p for place, p in over.items() if place.collection == collection}
            written += self.put(collection, some, old)
        return written

    def _embedded(self, wanted: Sequence[_Return]) -> list[Point]:
        """The points, each with its vector.

        Raises: StoreUnreachable when the embedder is down; PartlyDone when it refuses a text.
        """
        texts = [each.text for each in wanted if each.text is not None]
        outcomes = iter(self.ltm.embedder.each(texts) if texts else ())
        points = []
        for each in wanted:
            outcome = each.point.vector if each.text is None else next(outcomes)
            if isinstance(outcome, StoreUnreachable):
                raise outcome
            if isinstance(outcome, Failure):
                raise PartlyDone(
                    f"the memory {each.point.id} of {each.collection} cannot be embedded, and the "
                    f"layout was not changed: {outcome.message}. Mend that, then run this again; "
                    "what was copied stays"
                )
            points.append(replace(each.point, vector=outcome))
        return points


def _is_as_noted(entry: Entry | None, old: Point, new: Point) -> bool:
    """Whether nobody has changed this point of the app's since the ledger noted it.

    What a pass that was cut short was about to write over it is noted before.
    """
    digests = {standing_digest(old.id, DEPLOYED.decode(p.payload).memory) for p in (old, new)}
    return entry is None or entry.stored in digests


def _origin_of(case: Case) -> Place | None:
    """The point of the persona's of which this is a copy, as far as it says so."""
    noted = case.found.reading.brought_from if case.found else None
    origin = Place.read(noted or "")
    return origin if origin and origin.collection == case.home else None


def _as_the_app_writes(
    row: Exchange,
    names: Mapping[tuple[PersonaId, PersonalityId], Speakers],
    *,
    has_row: bool,
) -> dict[str, object]:
    """The payload as the app writes it. A personality that is gone has no name.

    Without its rows nothing says which messages they were.
    """
    called = names.get((row.persona_id, row.personality_id), Speakers("user", "assistant"))
    payload = as_deployed(row, called)
    if not has_row:
        del payload["messageIds"]
        if not row.channel_id:
            del payload["channelId"]
    return payload
