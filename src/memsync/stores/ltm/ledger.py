"""The ledger of memories: Postgres' own list of what the vector store holds.

The relay and repairs write down each memory that they write, in the transaction that settles the
work; an operator may adopt the others. So Postgres knows of a memory after its rows are gone: that
it is archived, whose it was, and the digest of what it said. The ledger holds nobody's words. It
decides when a memory counts as archived. The statements are in ledger.sql.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from memsync.errors import SchemaMismatch
from memsync.model.digests import exchange_digest, json_digest
from memsync.model.ids import PointId, is_storable, point_id_of
from memsync.model.records import Exchange, Place, StoredMemory
from memsync.model.sequences import batched
from memsync.stores.history.catalog import Catalog
from memsync.stores.ltm.layouts import Layout, persona_of_collection
from memsync.stores.ltm.made import Made
from memsync.stores.ltm.payload import PayloadCodec, memory_digest_of
from memsync.stores.postgres import Session, relations

_TABLE = "memsync.memories"
_ARCHIVE_EVERY_S = 3600.0
_ARCHIVE_BATCH = 1000
_TO_ARCHIVE_MAX = 100_000
"""So many are held in memory. More of them take a further pass."""


class State(StrEnum):
    """The state of a memory in the ledger."""

    LIVE = "live"
    """It has its rows, as far as is known."""
    ARCHIVED = "archived"
    """The app no longer keeps its rows, by design."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A memory as it was written down. Digests are in hex.

    `anchor_id` is None where no row is known. `source` is the digest of the exchange that the
    memory was right for, None where it had a fault. `stored` is the digest of the memory as it
    stood. The time is the exchange's where one is known. `leaving`: a repair was about to remove
    it; only while that one is at work it may be gone by design. `removed`: a repair has removed it.
    `has_rows`: Postgres has its exchange.
    """

    place: Place
    anchor_id: UUID | None
    persona_id: UUID | None
    personality_id: UUID | None
    channel_id: str | None
    created_at_ms: int | None
    source: str | None
    stored: str
    state: State
    leaving: bool = False
    removed: bool = False
    has_rows: bool = False

    @classmethod
    def of(
        cls,
        place: Place,
        memory: StoredMemory,
        exchange: Exchange | None,
        persona_id: UUID | None = None,
        *,
        is_faulty: bool = False,
    ) -> Self:
        """The entry of a memory that stands at `place`; without an exchange it is archived.

        `persona_id` is the persona whose memory it is taken for, where the payload names none. One
        that `is_faulty` is looked at by every audit, although its rows stay as they are.
        """
        stored = standing_digest(place.point_id, memory)
        if exchange is None:
            return cls(
                place=place,
                anchor_id=None,
                persona_id=persona_id or memory.persona_id,
                personality_id=memory.personality_id,
                channel_id=_channel_of(memory),
                created_at_ms=memory.created_at_ms,
                source=None,
                stored=stored,
                state=State.ARCHIVED,
            )
        source = None if is_faulty else exchange_digest(exchange)
        return cls._with_rows(place, exchange, stored, source)

    @classmethod
    def _with_rows(cls, place: Place, exchange: Exchange, stored: str, source: str | None) -> Self:
        return cls(
            place=place,
            anchor_id=exchange.anchor_id,
            persona_id=exchange.persona_id,
            personality_id=exchange.personality_id,
            channel_id=exchange.channel_id,
            created_at_ms=exchange.created_at_ms,
            source=source,
            stored=stored,
            state=State.LIVE,
        )

    def words(self, memory: StoredMemory) -> StoredMemory:
        """The memory's words as those of this entry: whose they are, and when they were said."""
        return replace(
            memory,
            persona_id=self.persona_id,
            personality_id=self.personality_id,
            channel_id=self.channel_id,
            created_at_ms=self.created_at_ms,
        )

    def says(self, memory: StoredMemory) -> bool:
        """Whether this is the same memory, whenever and in which channel it says that it was."""
        whose = (memory.persona_id or self.persona_id, memory.personality_id)
        if whose != (self.persona_id, self.personality_id):
            return False
        return standing_digest(self.place.point_id, self.words(memory)) == self.stored

    @classmethod
    def made(cls, made: Made, codec: PayloadCodec) -> Self:
        """The entry of a memory that memsync made; `codec` is that of its collection.

        A payload that carries the digest of its exchange is not digested again.
        """
        digest = made.payload.get(codec.key("digest"))
        if not isinstance(digest, str):
            return cls.of(made.place, codec.decode(made.payload).memory, made.exchange)
        return cls._with_rows(made.place, made.exchange, digest, digest)


class Ledger:
    """The ledger in one database. In one that has no such table yet it is empty and stays so."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stands = bool(relations.existing(session, [_TABLE]))

    @property
    def stands(self) -> bool:
        """Whether the database has a ledger."""
        return self._stands

    def require(self) -> None:
        """Raises: SchemaMismatch where the database has no ledger yet."""
        if not self._stands:
            raise SchemaMismatch(
                f"{self._session.label} has no table {_TABLE}: memsync's schema there is of an "
                "earlier version. `memsync migrate run` brings it up to date"
            )

    # ------------------------------------------------------------------ writing

    def note(self, entries: Sequence[Entry]) -> None:
        """Write memories down, or renew what is written of them. Effects: Postgres.

        Of an exchange the ledger has one memory in a collection, the one that was noted last.
        """
        if not self._stands or not entries:
            return
        entries = list({each.place: each for each in entries}.values())
        collections = [each.place.collection for each in entries]
        point_ids = [str(each.place.point_id) for each in entries]
        anchor_ids = [each.anchor_id for each in entries]
        with self._session.transaction():
            if any(map(persona_of_collection, collections)):
                # In the shared collection a memory has its anchor's id and no other.
                self._session.run(
                    "supersede_memories",
                    collections=collections,
                    point_ids=point_ids,
                    anchor_ids=anchor_ids,
                )
            self._session.run(
                "note_memories",
                collections=collections,
                point_ids=point_ids,
                anchor_ids=anchor_ids,
                persona_ids=[each.persona_id for each in entries],
                personality_ids=[each.personality_id for each in entries],
                channel_ids=[each.channel_id for each in entries],
                times_ms=[each.created_at_ms for each in entries],
                sources=[each.source and bytes.fromhex(each.source) for each in entries],
                stored=[bytes.fromhex(each.stored) for each in entries],
                states=[each.state.value for each in entries],
            )

    def renew(self, collection: str, standing: Mapping[PointId, StoredMemory]) -> None:
        """Note what these memories are about to say, of those that the ledger has.

        Nothing else changes: whose they are, and whether they are archived, stays. Effects:
        Postgres.
        """
        if self._stands and standing:
            digests = [standing_digest(each, memory) for each, memory in standing.items()]
            self._session.run(
                "renew_memories",
                collection=collection,
                point_ids=list(map(str, standing)),
                stored=list(map(bytes.fromhex, digests)),
            )

    def leave(self, collection: str, ids: Iterable[PointId]) -> None:
        """Note that points are about to go to the quarantine, before they do.

        The note ends with the repair that made it, also with one that ended early.
        """
        self._set_leaving(collection, ids, leaving=True)

    def forget_leaving(self) -> None:
        """Forget what was about to go; for a caller who has just taken the lock of repairs."""
        if self._stands:
            self._session.run("forget_leaving")

    def left(self, collection: str, ids: Iterable[PointId]) -> None:
        """Note that a repair has removed these points."""
        self._set_leaving(collection, ids, removed=True)

    def stay(self, collection: str, ids: Iterable[PointId]) -> None:
        """Note that no repair has removed these points, or that one has brought them back."""
        self._set_leaving(collection, ids)

    def _set_leaving(
        self,
        collection: str,
        ids: Iterable[PointId],
        *,
        leaving: bool = False,
        removed: bool = False,
    ) -> None:
        if self._stands and (named := list(map(str, ids))):
            self._session.run(
                "memories_leave",
                collection=collection,
                point_ids=named,
                leaving=leaving,
                removed=removed,
            )

    def archive(self, stops: Callable[[], bool] = lambda: False) -> int:
        """Write down which memories are archived by now. Returns how many became so.

        It passes over the history, and needs no lock: no row is waited for, and few at a time are
        kept from others. Where `stops` says so, the rest is left to the next time. While rows may
        lack their persona, none is.
        """
        archived = 0
        if not Catalog.read(self._session, notes=False).knows_personas:
            return archived
        while self._stands and not stops():
            found = self._session.rows("memories_to_archive", memories_max=_TO_ARCHIVE_MAX)
            before = archived
            for some in batched(found, _ARCHIVE_BATCH):
                if stops():
                    break
                archived += self._session.run(
                    "archive_memories",
                    collections=[each.collection for each in some],
                    point_ids=[each.point_id for each in some],
                    noted=[each.noted_at for each in some],
                )
            if len(found) < _TO_ARCHIVE_MAX or archived == before:
                break
        return archived

    def begin_to_archive(self) -> bool:
        """Whether `archive` was not begun for an hour; if so, it is now. Effects: Postgres."""
        return self._stands and bool(
            self._session.run("begin_to_archive", every_s=_ARCHIVE_EVERY_S)
        )

    def drop_before(self, since: datetime) -> int:
        """Take out what was not written down since. Returns how many there were."""
        return self._session.run("drop_memories_before", since=since) if self._stands else 0

    def drop(self, places: Sequence[Place]) -> int:
        """Take out what is written of these points. Returns of how many something was."""
        if not self._stands or not places:
            return 0
        return self._session.run(
            "drop_memories",
            collections=[each.collection for each in places],
            point_ids=[str(each.point_id) for each in places],
        )

    # ------------------------------------------------------------------ reading

    def at(self, places: Iterable[Place]) -> dict[Place, Entry]:
        """What the ledger says of these points, by their rows as they are now."""
        asked = list(dict.fromkeys(places))
        if not self._stands or not asked:
            return {}
        rows = self._session.rows(
            "memories_at",
            collections=[each.collection for each in asked],
            point_ids=[str(each.point_id) for each in asked],
        )
        return {entry.place: entry for entry in map(_entry, rows)}

    def unlike(self, digests: Mapping[Place, str]) -> list[Place]:
        """Those of these points that are not written down as live memories with these digests, in
        hex.
        """
        if not self._stands:
            return list(digests)
        rows = self._session.rows(
            "ledger_unlike",
            collections=[each.collection for each in digests],
            point_ids=[str(each.point_id) for each in digests],
            digests=[bytes.fromhex(each) for each in digests.values()],
        )
        return [Place(row.collection, point_id_of(row.point_id)) for row in rows]

    def personas(self, asked: Iterable[UUID]) -> set[UUID]:
        """Those of these personas of whom a memory is written down."""
        if not self._stands:
            return set()
        return {row.persona_id for row in self._session.rows("ledger_personas", ids=list(asked))}

    def without_rows(self) -> Iterator[Place]:
        """The memories that stand by the ledger and have no exchange.

        Until all are read the session serves nothing else.
        """
        if self._stands:
            rows = self._session.stream("memories_without_rows", ["text", "text"])
            yield from (Place(collection, point_id_of(text)) for collection, text in rows)

    def without_rows_in(self, collections: Iterable[str], known: Iterable[UUID]) -> set[Place]:
        """The memories of these collections that the ledger has and Postgres no exchange of.

        `known` are anchors of exchanges that stand.
        """
        if not self._stands:
            return set()
        names, anchors = list(collections), list(known)
        rows = self._session.rows("memories_without_rows_in", collections=names, known=anchors)
        return {Place(row.collection, point_id_of(row.point_id)) for row in rows}

    def standing(self, layout: Layout, shared: str) -> int:
        """How many memories stand in this layout by the ledger; `shared` is the one collection."""
        if not self._stands:
            return 0
        is_shared = layout is Layout.SHARED
        found: int = self._session.row(
            "ledger_standing", shared=shared, is_shared=is_shared
        ).memories
        return found


def standing_digest(point_id: PointId, memory: StoredMemory) -> str:
    """The digest of a memory as it stands: of its persona, personality, channel, time and text.

    Where it has all of these, it is the digest that the memory must carry.
    """
    return memory_digest_of(point_id, memory) or json_digest(
        [
            point_id,
            memory.persona_id,
            memory.personality_id,
            memory.channel_id,
            memory.created_at_ms,
            memory.text,
        ]
    )


def _channel_of(memory: StoredMemory) -> str | None:
    """The memory's channel; None where Postgres cannot hold its name, so that no row has it."""
    named = memory.channel_id
    return named if named is not None and is_storable(named) else None


def _entry(row: Any) -> Entry:
    return Entry(
        place=Place(row.collection, point_id_of(row.point_id)),
        anchor_id=row.anchor_id,
        persona_id=row.persona_id,
        personality_id=row.personality_id,
        channel_id=row.channel_id,
        created_at_ms=row.created_at_ms,
        source=row.source,
        stored=row.stored,
        state=State(row.state),
        leaving=row.leaving,
        removed=row.removed,
        has_rows=row.has_rows,
    )
