"""Tells of which memory a point is a copy that lies where the layout in force keeps none.

It decides by whose a memory is, and when and what was said; by its id; and by the note of the app's
point from which a memory was copied; and by what was said alone, near that time, where nothing else
comes into question. The note counts also where one of the two was made anew since,
with other words, and its row is gone: what stands where the layout keeps memories is the newer one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from uuid import UUID

from memsync.model.records import Exchange, Place
from memsync.reconcile.cases import Found
from memsync.reconcile.divisions import keys_of
from memsync.reconcile.leftovers import was_changed
from memsync.stores.ltm.ledger import Entry, Ledger
from memsync.stores.ltm.payload import Reading, memory_digest_of
from memsync.stores.ltm.texts import say_the_same

_Words = tuple[UUID | None, UUID | None, int]
"""Whose a memory is, and the hash of what it says."""


class Noted:
    """The exchanges of one owner's memories, by the note of where a memory was copied from."""

    def __init__(self, tolerance_ms: int) -> None:
        self._tolerance_ms = tolerance_ms
        self._by_origin: dict[str, Exchange] = {}

    def add(self, origin: str, exchange: Exchange) -> None:
        """Take a memory of this exchange that was copied from there."""
        self._by_origin[origin] = exchange

    def exchange_of(self, found: Found) -> Exchange | None:
        """The exchange whose memory was copied from this point, near in time; None for others."""
        exchange = self._by_origin.get(str(found.place))
        window = found.reading.time_window_ms
        if exchange is None or window is None or found.persona_id != exchange.persona_id:
            return None
        at = exchange.created_at_ms
        near = window[0] - self._tolerance_ms <= at <= window[1] + self._tolerance_ms
        return exchange if near else None


class Originals:
    """The memories of one owner that have no exchange, each with what its copies are known by.

    `alone` stand where the layout keeps memories, `copies` are all that may be copies of them.
    """

    def __init__(
        self,
        alone: Iterable[Found],
        ledger: Ledger,
        tolerance_ms: int,
        copies: Iterable[Found] = (),
    ) -> None:
        self._alone = list(alone)
        self._copies = list(copies)
        self._ledger = ledger
        self._tolerance_ms = tolerance_ms
        self._identical: dict[tuple[object, ...], Place] = {}
        self._by_id: dict[tuple[object, ...], Found] = {}
        self._by_place: dict[str, Found] = {}
        self._by_origin: dict[str, Found] = {}
        for each in self._alone:
            self._identical.setdefault(_identity(each), each.place)
            self._by_id[each.persona_id, each.point.id] = each
            self._by_place[str(each.place)] = each
            if each.reading.brought_from:
                self._by_origin[each.reading.brought_from] = each

    @cached_property
    def _noted(self) -> dict[Place, Entry]:
        """What the ledger says of these memories, asked when a copy needs it."""
        return self._ledger.at(each.place for each in self._alone)

    def of(self, copy: Found) -> Place | None:
        """The place of the memory of which this is a copy.

        A point of which none is known is one itself, of the further ones that are like it.
        """
        found = self.known(copy)
        self._identical.setdefault(_identity(copy), found or copy.place)
        return found

    def known(self, copy: Found) -> Place | None:
        """As `of`, without taking the point for one itself."""
        if same := self._identical.get(_identity(copy)):
            return same
        named = self._by_id.get((copy.persona_id, copy.point.id))
        # Every collection may count from 1.
        is_it = named and (isinstance(copy.point.id, UUID) or self._is_near(named, copy))
        if named and is_it and not self._may_differ(named, copy):
            return named.place
        origin = copy.reading.brought_from
        tied = self._by_origin.get(str(copy.place)) or (self._by_place.get(origin or ""))
        if tied and self._is_copy(copy, tied):
            return tied.place
        return self._of_these_words(copy)

    def _of_these_words(self, copy: Found) -> Place | None:
        """The memory that says the same, at that time or else near it, where no other one does, and
        no other point of the copy's collection: those may be two of one text that was said twice.
        """
        if copy.reading.time_window_ms is None or not copy.reading.memory.text:
            return None
        for tolerance_ms in (0, self._tolerance_ms):
            if near := _saying(copy, self._by_words, tolerance_ms):
                beside = _saying(near[0], self._copies_by_words, tolerance_ms)
                alike = [each for each in beside if each.place.collection == copy.place.collection]
                is_only = len(near) == 1 and {each.place for each in alike} <= {copy.place}
                return near[0].place if is_only else None
        return None

    @cached_property
    def _by_words(self) -> Mapping[_Words, Sequence[Found]]:
        return _indexed(self._alone)

    @cached_property
    def _copies_by_words(self) -> Mapping[_Words, Sequence[Found]]:
        return _indexed(self._copies)

    def _is_copy(self, copy: Found, tied: Found) -> bool:
        """Whether the note still holds: not where the memory itself was changed by somebody."""
        if copy.persona_id != tied.persona_id:
            return False
        if self._may_differ(tied, copy):
            return False
        if say_the_same(copy.reading.memory, tied.reading.memory):
            return True
        return self._is_near(tied, copy) and not self._was_changed(tied)

    def _may_differ(self, one: Found, copy: Found) -> bool:
        """Whether the two say something else, and nothing tells of the one that memsync made it so.

        What memsync makes anew carries its digest, or the ledger has it.
        """
        memory = one.reading.memory
        if memory.digest is not None or one.codec.of_app:
            return False
        if say_the_same(copy.reading.memory, memory):
            return False
        return one.place not in self._noted

    def _was_changed(self, found: Found) -> bool:
        """Whether it says something else than the ledger has, or its own digest is of."""
        if entry := self._noted.get(found.place):
            return was_changed(found, entry)
        memory = found.reading.memory
        return memory.digest not in {None, memory_digest_of(found.point.id, memory)}

    def _is_near(self, one: Found, other: Found) -> bool:
        return are_near(one.reading, other.reading, self._tolerance_ms)


def are_near(one: Reading, other: Reading, tolerance_ms: int) -> bool:
    """Whether two memories may be of one time; where neither has one, they may."""
    mine, theirs = one.time_window_ms, other.time_window_ms
    if mine is None or theirs is None:
        return mine is theirs
    return mine[0] - tolerance_ms <= theirs[1] and theirs[0] - tolerance_ms <= mine[1]


def _saying(
    found: Found, by_words: Mapping[_Words, Sequence[Found]], tolerance_ms: int
) -> list[Found]:
    """Those that say the same, of the same persona and personality, near that time."""
    among = {each.place: each for key in _words(found) for each in by_words.get(key, ())}
    memory = found.reading.memory
    return [
        each
        for each in among.values()
        if are_near(found.reading, each.reading, tolerance_ms)
        and say_the_same(memory, each.reading.memory)
    ]


def _words(found: Found) -> Iterator[_Words]:
    """What the memory says, whole and in each way in which it may be divided, by hash."""
    memory = found.reading.memory
    whose = (found.persona_id, memory.personality_id)
    yield (*whose, hash(memory.content))
    for key in keys_of(memory):
        yield (*whose, hash(key))


def _indexed(founds: Iterable[Found]) -> Mapping[_Words, Sequence[Found]]:
    indexed: dict[_Words, list[Found]] = {}
    for each in founds:
        for key in dict.fromkeys(_words(each)):
            indexed.setdefault(key, []).append(each)
    return indexed


def _identity(found: Found) -> tuple[object, ...]:
    """What two copies of one memory share: whose it is, and when and what was said.

    One that says nothing is like no other.
    """
    memory = found.reading.memory
    said = memory.text or found.place
    return (found.persona_id, memory.personality_id, memory.created_at_ms, said)
