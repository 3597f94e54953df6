"""Copies the memories of all personas to the shared collection, with their vectors.

It decides what a copy looks like, which id it gets, and whether one that stands is right.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from memsync.errors import GateClosed
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress
from memsync.model.records import Place, Point
from memsync.model.sequences import batched
from memsync.model.wording import count, listed
from memsync.reconcile.cases import Case, Role
from memsync.reconcile.copying import (
    Copying,
    are_alike,
    both_taken,
    ids_of_a_copy,
    is_deployed,
    pairing_of,
    place_of,
    require_read,
)
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.spool import Shelf
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.texts import say_the_same

_BATCH = 256
_TO_BRING = frozenset((Role.MEMORY, Role.ARCHIVED, Role.VANISHED, Role.ORPHAN, Role.NEWER))
"""What is copied to the shared collection. An orphan that the audit lets pass is still settling."""


class Bringing(Copying):
    """Copies the memories of all personas to the shared collection."""

    _copied_as: Shelf[PointId]
    """The ids of the copies of archived memories, by the places of these."""

    def run_once(self) -> int:
        """Copy what is lacking there, or is there as it was once. Returns how many were written."""
        pairing = pairing_of(self.session, self.ltm, self.settings)
        homes, _ = pairing.sources.collections
        total, looked_at, written = sum(map(self.ltm.count, homes)), 0, 0
        self._odd: list[Place] = []
        with contextlib.closing(Shelf[PointId]()) as self._copied_as:
            for some in batched(self._to_bring(pairing), _BATCH):
                written += self._bring(some)
                looked_at += len(some)
                self.tell(Progress(Kind.STEP, "copying memories", looked_at, max(total, looked_at)))
        require_read(pairing)
        if self._odd:
            raise GateClosed(
                f"{count(len(self._odd), 'point')} came meanwhile that the audit does not take for "
                f"memories of their personas: {listed(map(str, self._odd))}. The layout was not "
                "changed; look with `memsync reconcile`, mend it, then run this again"
            )
        return written

    def _to_bring(self, pairing: Pairing) -> Iterator[Case]:
        for case in pairing.cases():
            if case.found is None:
                continue
            if not case.found.home:
                self._note_copy(case)
            elif case.role in _TO_BRING:
                yield case
            else:
                self._odd.append(case.found.place)

    def _note_copy(self, case: Case) -> None:
        """Note the id of an archived memory's copy: it may have been copied when it had a row."""
        found, kept = case.found, case.kept
        if found is None or kept is None or not case.is_copy or case.exchange:
            return
        if found.place.collection == self.shared:
            self._copied_as[kept.key] = found.point.id

    def _bring(self, cases: Sequence[Case]) -> int:
        """Copy these memories, as they are now."""
        places = [case.found.place for case in cases if case.found]
        sources = self.read(places)
        wanted_ids = {id_ for case in cases for id_ in self._ids_of(case)}
        there = self.ltm.points(self.shared, wanted_ids, vectors=True)
        over = dict(there)
        wanted: list[Point] = []
        for case in cases:
            place = place_of(case)
            source = sources.get(place)
            # A point that is gone by now was removed on purpose.
            if source is None:
                continue
            if copy := self._lacking(case, source, there):
                wanted.append(copy)
                there[copy.id] = copy
        return self.put(self.shared, wanted, over)

    def _lacking(self, case: Case, source: Point, there: Mapping[PointId, Point]) -> Point | None:
        """The point that must be written; None where it stands."""
        place = place_of(case)
        for point_id in self._ids_of(case):
            copy = self._copy(case, source, point_id)
            standing = there.get(point_id)
            if standing is None:
                return copy
            if case.exchange is None and not self._is_same_memory(standing, copy):
                continue
            return self._tied(standing, place) if self._is_right(case, standing, copy) else copy
        raise both_taken(place, self.shared)

    def _ids_of(self, case: Case) -> tuple[PointId, ...]:
        """The ids that the case's copy may have."""
        if case.exchange is not None:
            return (case.exchange.anchor_id,)
        place = place_of(case)
        copied = self._copied_as.get(place.key)
        return ids_of_a_copy(place) if copied is None else (copied,)

    def _tied(self, standing: Point, place: Place) -> Point | None:
        """The right copy with the note of its origin; None where it is tied to that already."""
        origin = self.ltm.codec.origin(standing.payload)
        noted = {self.ltm.codec.key("brought_from"): str(place)}
        if origin == noted or (not origin and standing.id == place.point_id):
            return None
        return replace(standing, payload={**standing.payload, **noted})

    def _copy(self, case: Case, source: Point, point_id: PointId) -> Point:
        codec, embedder = self.ltm.codec, self.ltm.embedder.name
        if case.exchange is not None:
            payload = codec.brought(source.payload, case.exchange, embedder)
        else:
            persona_id = case.found.persona_id if case.found else None
            payload = codec.archived(
                replace(source, id=point_id), persona_id=persona_id, embedder=embedder
            )
        # Time and id may differ from the app's point, and its row may go before that does.
        payload[codec.key("brought_from")] = str(place_of(case))
        return Point(point_id, payload, source.vector)

    def _is_same_memory(self, standing: Point, copy: Point) -> bool:
        """Whether the point that has the id is of the same persona. Else the id is taken."""
        decode = self.ltm.codec.decode
        return decode(standing.payload).memory.persona_id == decode(copy.payload).memory.persona_id

    def _is_right(self, case: Case, standing: Point, copy: Point) -> bool:
        """Whether the point that stands says what the memory says, or what its row says now."""
        codec, place = self.ltm.codec, Place(self.shared, standing.id)
        if case.exchange and self.has_fault(case.exchange, place, standing, Layout.SHARED):
            return False
        if standing.payload.get(codec.key("embedder")) != copy.payload[codec.key("embedder")]:
            return False
        if not is_deployed(codec, standing):
            # The layout that ends is right where an edit, or an addition, makes the two differ.
            return say_the_same(*(codec.decode(each.payload).memory for each in (standing, copy)))
        content = codec.key("content")
        same = standing.payload.get(content) == copy.payload.get(content)
        return same and are_alike(standing, copy)
