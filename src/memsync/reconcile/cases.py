"""A case is the unit that rules judge: an exchange, a point, or one of each that belong together.

The pairing makes the cases and decides the role of each. Only the rules decide whether a case is a
fault.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self
from uuid import UUID

from memsync.model.digests import exchange_digest, point_state
from memsync.model.records import Exchange, Place, Point
from memsync.reconcile.findings import Witness
from memsync.reconcile.seen_vectors import SeenVector
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Entry
from memsync.stores.ltm.payload import PayloadCodec, Reading
from memsync.stores.ltm.texts import Said, said


@dataclass(frozen=True, slots=True)
class Found:
    """A point as it was found, and the codec that reads its collection.

    `home`: it lies where the layout in force keeps memories. `persona_id` is the persona whose
    memory it is taken for: the collection's, else the payload's; where a user's id stands in a
    persona's place, it is the user's default persona. None where nobody can tell. `names_another`:
    the payload names another persona than the collection. `names_unknown`: an id stands there, for
    a persona's, that neither a persona nor a user has, or at home one that means no persona.
    """

    place: Place
    point: Point
    reading: Reading
    codec: PayloadCodec
    home: bool
    persona_id: UUID | None = None
    names_another: bool = False
    names_unknown: bool = False

    @classmethod
    def read(cls, collection: str, point: Point, codec: PayloadCodec, *, home: bool) -> Self:
        """Decode the payload of `point`, which lies in `collection`."""
        place = Place(collection, point.id)
        return cls(place, point, codec.decode(point.payload), codec, home)

    def dated(self, times_ms: Collection[int]) -> Self:
        """The same; a time around 1970 is what it is where an exchange has it."""
        reading = self.reading
        if reading.perhaps_ms is None or reading.perhaps_ms not in times_ms:
            return self
        return replace(self, reading=reading.in_milliseconds())

    @property
    def personality_id(self) -> UUID | None:
        """The personality that the payload names."""
        return self.reading.memory.personality_id

    @property
    def tells_enough(self) -> bool:
        """Whether it says whose it is, when it was said, and what, as an archived memory must."""
        memory = self.reading.memory
        known = self.persona_id is not None and memory.created_at_ms is not None
        return known and bool(memory.text)

    @property
    def is_left_out(self) -> bool:
        """Whether recall leaves it out of its persona's memories at home, because of what stands
        where the persona is named. A user's id names nobody there: only an audit takes it for the
        user's default persona, to tell whose the memory is.
        """
        is_named_by_collection = self.codec.of_app and not self.reading.persona_given
        return self.reading.memory.persona_id != self.persona_id and not is_named_by_collection

    @property
    def contradicts_itself(self) -> bool:
        """Whether it names two personas or two times, or has two texts that disagree.

        Nobody knows then whose it is, when it was said, or what.
        """
        reading = self.reading
        several = reading.names_several_personas or reading.names_several_times
        return several or reading.texts_disagree or self.names_another


class Role(StrEnum):
    """What the exchange and the point of a case are to each other."""

    MISSING = "missing"
    """An exchange without a memory anywhere."""
    MEMORY = "memory"
    """The exchange's one memory, where memories of its persona are kept."""
    DUPLICATE = "duplicate"
    """A further memory of the exchange, of the right persona. `kept` is the one that stays."""
    FOREIGN = "foreign"
    """A memory of the exchange that another persona has."""
    ELSEWHERE = "elsewhere"
    """The exchange's only memory, in a collection that the layout in force does not read."""
    COPY = "copy"
    """A copy, in such a collection, of a memory that stands where it belongs (`kept`)."""
    ARCHIVED = "archived"
    """A memory whose rows the app no longer keeps, by design."""
    VANISHED = "vanished"
    """A memory of the ledger whose rows went otherwise than by design."""
    LOST = "lost"
    """A memory without rows that the ledger has (`entry`), and that is nowhere."""
    NEWER = "newer"
    """A memory from after the newest row, or from a stretch in which there is no row at all."""
    ORPHAN = "orphan"
    """Another memory without an exchange, or a copy of one (`kept`)."""


@dataclass(frozen=True, slots=True)
class Case:
    """An exchange without a point, a point without an exchange, or a pair.

    `said` is how the point's text resembles the exchange's; None without one of them. `kept` is the
    place of the exchange's memory that stays, where it is another point, and `kept_state` its
    state, or that of a point which has its id where it belongs (see `unread`). `home` is the
    collection where the case's memory belongs, None where its persona is not known. `tolerance_ms`
    is how far the times of a pair may differ. `entry` is what the ledger says of the point, where
    it has no exchange. `vector` is what was seen of the point's vector, None where it was not
    looked at. `alike` is the number of cases in the collection for which this one stands: each rule
    says the same of all of them.
    """

    role: Role
    layout: Layout
    exchange: Exchange | None = None
    found: Found | None = None
    home: str | None = None
    kept: Place | None = None
    kept_state: str | None = None
    tolerance_ms: int = 0
    entry: Entry | None = None
    vector: SeenVector | None = None
    alike: int = 1

    @property
    def said(self) -> Said | None:
        """How the point's text resembles the exchange's; None where they differ."""
        if self.exchange is None or self.found is None:
            return None
        return says(self.found, self.exchange)

    @property
    def target(self) -> Place | None:
        """Where the memory of this case belongs, or the one that is kept stands."""
        if self.is_orphan_elsewhere:
            return None
        if self.kept is not None:
            return self.kept
        if self.home is None:
            return None
        if self.found is None or (self.exchange and self.layout is Layout.SHARED):
            return Place(self.home, self.exchange.anchor_id) if self.exchange else None
        return Place(self.home, self.found.point.id)

    @property
    def unread(self) -> Place | None:
        """The place of another point by which it is judged, and whose state nobody has read yet.

        Where its memory belongs, a point may have its id: every collection may count from 1.
        """
        if self.found is None or self.role is Role.COPY or self.kept_state is not None:
            return None
        return None if self.target == self.found.place else self.target

    @property
    def is_copy(self) -> bool:
        """Whether its memory stands at `kept`, too, also where that one is an orphan."""
        if self.role is not Role.ORPHAN or self.kept is None:
            return self.role is Role.COPY
        return self.found is not None and not self.found.names_unknown

    @property
    def is_orphan_elsewhere(self) -> bool:
        """Whether it is an orphan outside of its home, where nothing belongs."""
        return self.role is Role.ORPHAN and self.found is not None and not self.found.home

    def witness(self, *, anew: bool = False) -> Witness:
        """The states of the exchange and the point that this case was made from.

        A memory that is made `anew` apart from its point gets its anchor's id.
        """
        row, found, target = self.exchange, self.found, self.target
        apart = found is not None and target is not None and target != found.place
        if anew and row and apart and self.kept is None and self.home:
            target = Place(self.home, row.anchor_id)
        if self.role is Role.LOST:
            return Witness(place=self.place)
        if self.role is Role.ELSEWHERE and self.layout is Layout.SHARED:
            # The memory is made anew. The old collection stays as it is until it is retired.
            found = None
        state = point_state(found.point) if found else None
        itself = found is not None and found.place == target
        return Witness(
            anchor_id=row.anchor_id if row else None,
            row_digest=exchange_digest(row) if row else None,
            place=found.place if found else None,
            state=state,
            target=target,
            target_state=state if itself else self.kept_state if target == self.target else None,
        )

    @property
    def place(self) -> Place | None:
        """Where the point of the case lies, or lay; None where there is none."""
        if self.found is not None:
            return self.found.place
        return self.entry.place if self.entry is not None else None

    @property
    def persona_id(self) -> UUID | None:
        """The persona that the case is about: the row's, else the point's, else the ledger's."""
        about = self.exchange or self.found or self.entry
        return None if about is None else about.persona_id

    @property
    def whose(self) -> UUID | None:
        """The persona whose memory it should be: the row's, else the ledger's, else the point's."""
        about = self.exchange or self.entry
        return self.persona_id if about is None or about.persona_id is None else about.persona_id

    @property
    def held_by(self) -> UUID | None:
        """The persona who has it instead, where that is another one."""
        found = self.found
        if found is None or not found.home or found.persona_id == self.whose:
            return None
        return found.persona_id

    @property
    def personas(self) -> frozenset[UUID]:
        """Whom the case concerns: the persona whose memory it should be, and who has it."""
        return frozenset(each for each in (self.whose, self.held_by) if each is not None)

    def with_role(self, role: Role) -> "Case":
        """The same case in another role."""
        return replace(self, role=role)


def is_made_from(found: Found, exchange: Exchange) -> bool:
    """Whether the point names the exchange's messages, or says what the exchange says.

    An exchange of its time that says something else has a memory of its own.
    """
    named = (found.point.id, *found.reading.message_ids)
    return not {exchange.anchor_id, exchange.said_id}.isdisjoint(named) or bool(
        says(found, exchange)
    )


def says(found: Found, exchange: Exchange) -> Said | None:
    """How the point's text resembles the exchange's; None where it was not made from it."""
    return said(found.reading.memory, exchange.user_text, exchange.assistant_text)
