"""Makes the memories of exchanges as Postgres has them now: the work of the relay.

It decides what is written: a point is read before its exchange, and written only where it is as it
was read, so the newer text wins, whoever else writes. An exchange is read once more right before
the write, because embedding takes its time. It decides of which points a copy is kept first: of
each that is not as memsync wrote it. In the per-persona layout a collection that fails, or cannot
take the embedder's vectors, holds up its own memories only; see `apart`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from uuid import UUID

from memsync.errors import InvalidInput, MemsyncError, SettingsError, StoreBusy
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point
from memsync.stores.history.exchanges import exchanges_by_anchor
from memsync.stores.ltm.apart import Apart
from memsync.stores.ltm.embedders import Failure
from memsync.stores.ltm.exact import plain_digest
from memsync.stores.ltm.fence import DIGEST
from memsync.stores.ltm.ledger import Ledger, standing_digest
from memsync.stores.ltm.made import Made, Written
from memsync.stores.ltm.payload import KNOWN_KEYS, PayloadCodec
from memsync.stores.ltm.standing import in_question, look
from memsync.stores.postgres import Session
from memsync.stores.vectors import VectorStore

_ROUNDS = 3
"""How often an exchange is looked at whose point somebody else writes at the same time."""
_FOLLOWS = KNOWN_KEYS | {"messageIds", "personalityName"}
"""Keys whose values follow from the exchange, the embedder and the names of the cast."""

_BUSY = StoreBusy(
    "somebody else writes this memory or its messages at the same time. Let one relay or repair "
    "run at a time, and see who else writes to Qdrant"
)

Keep = Callable[[Mapping[Place, Point]], Mapping[Place, MemsyncError]]
"""Keeps copies of points, with their vectors, before they are replaced. Returns why it kept none of
the others.
"""
Held = Mapping[UUID, MemsyncError]
"""Why the memories of these anchors must wait."""


class Maker(Protocol):
    """What LongTermMemory does for this work."""

    def home_of(self, persona_id: UUID) -> str:
        """The collection where the persona's memories belong."""
        ...

    def codec_of(self, collection: str) -> PayloadCodec:
        """The codec for a collection."""
        ...

    def make(
        self, session: Session, exchanges: Sequence[Exchange], *, over: Mapping[Place, Point]
    ) -> list[Made]:
        """The memories that these exchanges must have, to be written over these points."""
        ...

    def write(
        self,
        made: Sequence[Made],
        *,
        seen: Mapping[Place, Point],
        before: Callable[[Sequence[Made]], Held],
        apart: Apart,
    ) -> Written:
        """Write them where the store still has what was seen there. `before` is called with those
        that have a vector, right before the write, and says which of them must wait. `apart` holds
        those whose collection fails.
        """
        ...

    def is_ready(self, collection: str, *, make: bool) -> bool:
        """Whether the collection stands and takes the embedder's vectors; False where it does not
        stand and is not to be made. Raises: SchemaMismatch where it cannot take them.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Look:
    """The exchanges whose memories must be written, and what lies at their places.

    `again` are anchors that must be looked at anew. `own` are memories under their anchors' ids
    that stay as they are, with their exchanges.
    """

    exchanges: Sequence[Exchange]
    seen: Mapping[Place, Point]
    again: Sequence[UUID] = ()
    own: Sequence[tuple[Exchange, Point]] = ()


@dataclass(frozen=True, slots=True)
class Projection:
    """The work for one session. `shared` is the collection of the shared layout, None in the other.

    `tolerance_ms` is how far the times of a memory and of its exchange may differ. `keep` is given
    each point that somebody else has changed, before it is replaced. `apart` is this batch's.
    """

    maker: Maker
    vectors: VectorStore
    session: Session
    shared: str | None
    tolerance_ms: int
    keep: Keep
    apart: Apart

    def project(self, anchor_ids: Sequence[UUID]) -> Written:
        """Write the memories of these anchors.

        An anchor that forms no exchange (any more) is skipped, and so is one whose memory the app
        wrote. Raises: StoreUnreachable; in the shared layout SchemaMismatch.
        """
        points: list[Point] = []
        stand: list[Made] = []
        failed: dict[PointId, Failure] = {}
        held: dict[UUID, MemsyncError] = {}
        left = list(anchor_ids)
        for _ in range(_ROUNDS):
            found = self._look(left)
            made = self.maker.make(self.session, found.exchanges, over=found.seen)
            overtaken: dict[UUID, MemsyncError] = {}
            before = partial(self._ready_to_write, found.seen, overtaken)
            sent = self.maker.write(made, seen=found.seen, before=before, apart=self.apart)
            left = [*found.again, *overtaken, *self._written_by_others(made, sent)]
            unproven = {*left, *self.apart.held}
            points += [each for each in sent.points if each.id not in unproven]
            sent_ids = {each.id for each in points}
            stand += [each for each in made if each.place.point_id in sent_ids]
            stand += self._as_made(found.own)
            failed |= sent.failed
            held |= {each: why for each, why in sent.held.items() if each not in overtaken}
            if not left:
                break
        return Written(
            points, failed, {**held, **self.apart.held, **dict.fromkeys(left, _BUSY)}, stand
        )

    def _look(self, anchor_ids: Sequence[UUID]) -> _Look:
        if self.shared is None:
            return self._look_apart(anchor_ids)
        points = self.vectors.retrieve(self.shared, list(anchor_ids))
        seen = {Place(self.shared, each.id): each for each in points}
        return _Look(list(exchanges_by_anchor(self.session, anchor_ids).values()), seen)

    def _look_apart(self, anchor_ids: Sequence[UUID]) -> _Look:
        """Look in the collection of each persona."""
        exchanges = exchanges_by_anchor(self.session, anchor_ids)
        by_home: dict[str, list[Exchange]] = {}
        for each in exchanges.values():
            by_home.setdefault(self.maker.home_of(each.persona_id), []).append(each)
        asked: dict[str, list[Point]] = {}
        missing: list[Exchange] = []
        seen: dict[Place, Point] = {}
        own: list[tuple[Exchange, Point]] = []
        later: list[UUID] = []
        for home, some in by_home.items():
            anchors = [each.anchor_id for each in some]
            if self.apart.leaves_alone(home, anchors):
                continue
            with self.apart.alone(home, anchors):
                asked[home] = self._in_question(home, some)
            if (points := asked.pop(home, None)) is None:
                continue
            found = look(self.session, home, some, points, tolerance_ms=self.tolerance_ms)
            new = [each for each in some if each.anchor_id not in found.kept]
            first = self.apart.first(home, new)
            missing += new[first]
            del new[first]
            later += [each.anchor_id for each in new]
            seen |= {Place(home, each.id): each for each in found.replaced.values()}
            own += [(exchanges[anchor], point) for anchor, point in found.own.items()]
        # These exchanges were read before their points, so they are read once more.
        ids = [place.point_id for place in seen if isinstance(place.point_id, UUID)]
        now = exchanges_by_anchor(self.session, ids) if ids else {}
        changed = [each for each in ids if now.get(each) != exchanges[each]]
        again = list(dict.fromkeys([*changed, *later]))
        left = [each for each in missing if each.anchor_id not in again]
        return _Look(left, seen, again, own)

    def _in_question(self, home: str, exchanges: Sequence[Exchange]) -> list[Point]:
        """The points in the collection of a persona that may be memories of these exchanges."""
        # One that could not be made is made before anything is embedded again.
        if not self.maker.is_ready(home, make=self.apart.is_suspect(home)):
            return []
        return list(in_question(self.vectors, home, exchanges, self.tolerance_ms))

    def _as_made(self, own: Sequence[tuple[Exchange, Point]]) -> list[Made]:
        """Those of these memories that stand as they would be made.

        A run that ended between its write and the note of it has written them.
        """
        payloads: dict[UUID, object] = {row.anchor_id: dict(point.payload) for row, point in own}
        made = self.maker.make(self.session, [row for row, _ in own], over={}) if own else []
        return [each for each in made if payloads[each.anchor_id] == dict(each.payload)]

    def _ready_to_write(
        self, seen: Mapping[Place, Point], overtaken: dict[UUID, MemsyncError], made: Sequence[Made]
    ) -> Held:
        """Why those of these wait that must. `overtaken` gets those whose exchange is gone, or says
        something else by now.
        """
        now = exchanges_by_anchor(self.session, [each.anchor_id for each in made]) if made else {}
        changed = (each.anchor_id for each in made if now.get(each.anchor_id) != each.exchange)
        overtaken |= dict.fromkeys(changed, _BUSY)
        still = [each for each in made if each.anchor_id not in overtaken]
        return {**overtaken, **self._keep_what_others_wrote(seen, still), **self.apart.held}

    def _keep_what_others_wrote(self, seen: Mapping[Place, Point], made: Sequence[Made]) -> Held:
        """Keep a copy of each point that these replace and that is not as memsync wrote it.

        Those of which none can be kept must wait.

        What somebody wrote there stands nowhere else. After a restore of Postgres it may be what
        memsync wrote of rows that are lost; so is an archived memory whose exchange was said again.
        """
        over = {
            each.place: (each, seen[each.place])
            for each in made
            if each.place in seen and dict(seen[each.place].payload) != dict(each.payload)
        }
        if not over:
            return {}
        digests = {
            place: self._digest_of(place.collection, old) for place, (_, old) in over.items()
        }
        others = set(Ledger(self.session).unlike(digests))
        strange: dict[str, list[Made]] = {}
        for place, (each, old) in over.items():
            if place in others or not _as_memsync_spells(old.payload, each.payload):
                strange.setdefault(place.collection, []).append(each)
        held: dict[UUID, MemsyncError] = {}
        for collection, some in strange.items():
            ids = [each.place.point_id for each in some]
            points: list[Point] = []
            with self.apart.alone(collection, [each.anchor_id for each in some]):
                points = self.vectors.retrieve(collection, ids, vectors=True)
            unkept = self.keep({Place(collection, each.id): each for each in points})
            held |= {m.anchor_id: unkept[m.place] for m in some if m.place in unkept}
        return held

    def _digest_of(self, collection: str, point: Point) -> str:
        """The digest of the memory as it stands."""
        codec = self.maker.codec_of(collection)
        plain = plain_digest(codec, point)
        return plain or standing_digest(point.id, codec.decode(point.payload).memory)

    def _all_stand(self, collection: str, made: Sequence[Made]) -> bool:
        """Whether each of these is there, where its digest tells: the point's id is in it.

        The digest has no index, so a collection in strict mode is not asked. One that refuses to
        compare with so many digests does not tell.
        """
        digests = {digest for each in made if isinstance(digest := each.payload.get(DIGEST), str)}
        ids = {each.place.point_id for each in made}
        info = self.vectors.describe(collection) if len(digests) == len(ids) else None
        if info is None or info.needs_indexes:
            return False
        try:
            found = self.vectors.count(collection, {DIGEST: frozenset(digests)}, ids=ids)
        except SettingsError:
            raise
        except InvalidInput:
            return False
        return found == len(ids)

    def _written_by_others(self, made: Sequence[Made], sent: Written) -> list[UUID]:
        """The anchors at whose places the store has something else than what was sent."""
        not_sent = {*sent.failed, *sent.held, *self.apart.held}
        asked: dict[str, list[Made]] = {}
        for each in made:
            if each.anchor_id not in not_sent:
                asked.setdefault(each.place.collection, []).append(each)
        others: list[UUID] = []
        for collection, some in asked.items():
            with self.apart.alone(collection, [each.anchor_id for each in some]):
                others += self._unlike(collection, some)
        return others

    def _unlike(self, collection: str, made: Sequence[Made]) -> list[UUID]:
        """The anchors of those of these that are not there as they were sent."""
        if self._all_stand(collection, made):
            return []
        points = self.vectors.retrieve(collection, [each.place.point_id for each in made])
        payloads = {point.id: dict(point.payload) for point in points}
        return [
            each.anchor_id
            for each in made
            if payloads.get(each.place.point_id) != dict(each.payload)
        ]


def _as_memsync_spells(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    """Whether nobody has added a key, or another value of a key that always has the same."""
    return old.keys() == new.keys() and all(
        old[key] == value for key, value in new.items() if key not in _FOLLOWS
    )
