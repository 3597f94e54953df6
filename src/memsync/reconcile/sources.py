"""The collections of one audit: what is read of them, and whose memory each point is taken for.

It decides which collections are home, where the layout in force keeps memories, and what a point
without a persona's id means. It reads the vector store and asks Postgres for personas; it knows no
exchange but those that it is given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self
from uuid import UUID

from memsync.errors import SchemaMismatch, StoreUnreachable
from memsync.model.digests import json_digest, point_state
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point
from memsync.model.sequences import batched
from memsync.model.wording import count, listed
from memsync.reconcile.cases import Case, Found, Role
from memsync.reconcile.spool import Shelf
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.owners import People
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import (
    LEGACY_PREFIX,
    CollectionKind,
    Layout,
    collection_of_persona,
    persona_of_collection,
)
from memsync.stores.ltm.ledger import Entry
from memsync.stores.ltm.marks import META
from memsync.stores.ltm.parts import Pace
from memsync.stores.postgres import Session

_BATCH = 1000


@dataclass(slots=True)
class Counts:
    """How much was compared. `trusted` points were compared by their fingerprints, and not read."""

    rows: int = 0
    points: int = 0
    trusted: int = 0
    archived: int = 0


@dataclass(slots=True)
class Unjudged:
    """Memories without an exchange of which nobody can tell whether that is a fault: a message of
    their thread cannot be read. `state` is the sum of their digests, in any order.
    """

    points: int = 0
    state: int = 0

    def add(self, found: Found) -> None:
        """Count the point."""
        self.points += 1
        digest = json_digest([found.place.key.hex(), point_state(found.point)])
        self.state = (self.state + int(digest, 16)) % 2**256


class Places:
    """A set of places, on disk."""

    def __init__(self) -> None:
        self._shelf: Shelf[None] = Shelf()

    def add(self, place: Place) -> None:
        """Keep the place."""
        self._shelf[place.key] = None

    def __contains__(self, place: Place) -> bool:
        return place.key in self._shelf


@dataclass
class Sources:
    """The collections of memories. `people` tells whose a persona is.

    `homes` are the collections of personas that stand, in the per-persona layout. `unread` are the
    collections that could not be read to their end, with the reason. `told` is called now and then
    with the number of points that were read. `stand` are places of the ledger without rows at which
    a point was read, or to which a finding leads. `unjudged` are memories of which nobody can tell;
    those of which `is_young` holds may still get their rows, and do not count.
    """

    session: Session
    ltm: LongTermMemory
    catalog: Catalog
    tolerance_ms: int
    counts: Counts = field(default_factory=Counts)
    pace: Pace = field(default_factory=Pace)
    told: Callable[[int], None] = lambda _: None
    unread: dict[str, str] = field(default_factory=dict)
    homes: dict[UUID, str] = field(default_factory=dict)
    stand: Places = field(default_factory=Places)
    unjudged: Unjudged = field(default_factory=Unjudged)
    is_young: Callable[[Found], bool] = lambda _: False

    def __post_init__(self) -> None:
        self.people = People(self.session, self.catalog)
        self.layout = self.ltm.layout

    @classmethod
    def of(
        cls, session: Session, ltm: LongTermMemory, catalog: Catalog, tolerance_s: float
    ) -> Self:
        """The collections of this store; times may differ by so many seconds."""
        return cls(session, ltm, catalog, round(tolerance_s * 1000))

    @property
    def collections(self) -> tuple[list[str], list[str]]:
        """The collections where the layout in force keeps memories, and the others of memories."""
        kind_of = self.ltm.kind_of
        named = [n for n in self.ltm.collections() if kind_of(n) is not CollectionKind.OTHER]
        persona_ids = [persona for name in named if (persona := persona_of_collection(name))]
        for some in batched(persona_ids, _BATCH):
            self.people.learn(some)
        homes: list[str] = []
        elsewhere: list[str] = []
        for name in named:
            (homes if self.is_home(name) else elsewhere).append(name)
        return homes, elsewhere

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not read, because no name says that it holds memories, and what nobody judges."""
        kind_of = self.ltm.kind_of
        names = [n for n in self.ltm.collections() if kind_of(n) is CollectionKind.OTHER]
        others = [name for name in names if name != META]
        what = count(len(others), "collection of another name", "collections of other names")
        lines = [f"{what}: {listed(others, 3)}"] if others else []
        if unjudged := self.unjudged.points:
            what = count(unjudged, "memory without an exchange", "memories without an exchange")
            lines.append(f"{what}: a message of the thread has a time that cannot be read")
        return tuple(lines)

    def is_home(self, collection: str) -> bool:
        """Whether the layout in force keeps memories there."""
        if self.layout is Layout.SHARED:
            return collection == self.ltm.collection
        persona = persona_of_collection(collection)
        # The app reads the usual spelling of an id only.
        spelled = persona is not None and collection == collection_of_persona(persona)
        return persona is not None and spelled and self.people.is_persona(persona)

    def keeps(self, collection: str) -> bool:
        """As `is_home`, of a collection that need not stand."""
        if persona := persona_of_collection(collection):
            self.people.learn([persona])
        return self.is_home(collection)

    def elsewhere(self) -> Iterator[Found]:
        """The points of the collections that the layout in force does not read. Finds the homes."""
        homes, elsewhere = self.collections
        self.homes |= {p: name for name in homes if (p := persona_of_collection(name))}
        for name in elsewhere:
            yield from self.read(name, home=False)

    def read(
        self, collection: str, *, home: bool, only: Iterable[PointId] | None = None
    ) -> Iterator[Found]:
        """The points of a collection, or those of these ids, with the persona of each."""
        return self.all_found(collection, self.points(collection, only), home=home)

    def all_found(self, collection: str, points: Iterable[Point], *, home: bool) -> Iterator[Found]:
        """As `found`, of any number of points."""
        for some in batched(points, _BATCH):
            yield from self.found(collection, some, home=home)

    def found(self, collection: str, points: Sequence[Point], *, home: bool) -> Iterator[Found]:
        """These points of a collection, each with the persona whose memory it is taken for."""
        codec = self.ltm.codec_of(collection)
        return self.whose([Found.read(collection, each, codec, home=home) for each in points])

    def points(self, collection: str, only: Iterable[PointId] | None = None) -> Iterator[Point]:
        """The points of a collection, or those of these ids, which are in order.

        A collection that cannot be read is noted, and yields no more.
        """
        self.unread[collection] = "it was not read to its end"
        points = self.ltm.scan(collection) if only is None else self._among(collection, only)
        try:
            for each in points:
                self.counts.points += 1
                if self.counts.points % _BATCH == 0:
                    self.pace.took(_BATCH)
                    self.told(self.counts.points)
                yield each
        except (StoreUnreachable, SchemaMismatch) as error:
            self.unread[collection] = error.message
            return
        del self.unread[collection]

    def _among(self, collection: str, ids: Iterable[PointId]) -> Iterator[Point]:
        for some in batched(ids, _BATCH):
            yield from self.ltm.points(collection, some).values()

    def whose(self, read: Sequence[Found]) -> Iterator[Found]:
        """The same points, each with the persona whose memory it is taken for."""
        memories = [each.reading.memory for each in read]
        ids = [id_ for each in memories for id_ in (each.persona_id, each.user_id) if id_]
        self.people.learn(ids)
        for each in read:
            named = [each.reading.memory.persona_id, each.reading.memory.user_id]
            collection = each.place.collection
            of_name = persona_of_collection(collection) or _uuid_of_legacy(collection)
            candidates = [of_name, *named] if collection != self.ltm.collection else named[:1]
            given = [id_ for id_ in candidates if id_]
            meant = [self.people.persona_meant(id_) for id_ in given]
            persona = next((id_ for id_ in meant if id_), None)
            # A payload's user is no other persona: the user may have several.
            claims = meant[: len(given) - (named[1] is not None and len(candidates) > 1)]
            claimed = given[: len(claims)] or given
            yield replace(
                each,
                persona_id=persona,
                names_another=any(id_ != persona for id_ in claims),
                names_unknown=not all(map(self.people.is_known, claimed))
                or bool(each.home and given and persona is None),
            )

    def owner_of(self, found: Found) -> UUID | None:
        """The owner of the persona whose memory the point is taken for; None where none is told."""
        return None if found.persona_id is None else self.people.owner_of(found.persona_id)

    def case(
        self,
        role: Role,
        exchange: Exchange | None,
        found: Found | None = None,
        *,
        kept: Place | None = None,
        kept_state: str | None = None,
        entry: Entry | None = None,
    ) -> Case:
        """The case of these two in this role. A point of nobody's is an orphan, or foreign."""
        about = exchange or found or entry
        persona = about.persona_id if about else None
        if found and found.names_unknown and not self._is_old_copy(role, found):
            role = Role.FOREIGN if exchange else Role.ORPHAN
        return Case(
            role,
            self.layout,
            exchange,
            found,
            home=self.ltm.home_of(persona) if persona else None,
            kept=kept,
            kept_state=kept_state,
            tolerance_ms=self.tolerance_ms,
            entry=entry,
        )

    def _is_old_copy(self, role: Role, found: Found) -> bool:
        """Whether it is a copy in a collection that the app set aside or no longer reads."""
        kind = self.ltm.kind_of(found.place.collection)
        return role is Role.COPY and kind in {CollectionKind.LEGACY, CollectionKind.PERSONALITY}


def _uuid_of_legacy(collection: str) -> UUID | None:
    """The id behind `persona-legacy-`, where one stands there."""
    try:
        return UUID(collection.removeprefix(LEGACY_PREFIX)) if LEGACY_PREFIX in collection else None
    except ValueError:
        return None
