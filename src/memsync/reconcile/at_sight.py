"""Tells the memories of the app's own collections that are right at sight, without decoding them.

Most are. A memory is told so where `matching` could give it one exchange only, whatever the other
points are, and no rule would find a fault in the two:

- Its keys and types are the app's, and its ids are spelled as Postgres spells the exchange's.
- It says what the exchange says, in the app's form, at most the tolerance away from its time. No
  other exchange of its persona and personality has these words, and none of that time could be
  meant.
- Where it names rows, by its id or in a list, they are the exchange's.
- No other point at home is told to be of the same exchange.

Everything else is matched and judged as ever.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from memsync.model.records import Exchange, Place, Point
from memsync.reconcile.divisions import Key
from memsync.reconcile.moments import between, ms_of
from memsync.stores.ltm.exact import Deployed, deployed
from memsync.stores.ltm.texts import says_as_deployed

_NEAR_MAX = 32
"""Each memory is compared with every exchange near its time. Of more than these the matching looks
one up by its words.
"""


class Told(NamedTuple):
    """A memory that is right at sight. Its `kind` alone decides what the rules say of it."""

    exchange: Exchange
    collection: str
    point: Point
    kind: object

    @property
    def place(self) -> Place:
        """Where it lies."""
        return Place(self.collection, self.point.id)


class AtSight:
    """The memories of one owner that are right at sight: `told` has them by their anchors."""

    def __init__(self, rows: Sequence[Exchange], tolerance_ms: int) -> None:
        self._rows, self._tolerance_ms = rows, tolerance_ms
        self._several: set[UUID] = set()
        self.told: dict[UUID, Told] = {}

    def others(self, collection: str, persona: UUID, points: Iterable[Point]) -> Iterator[Point]:
        """Look at the points of the persona's collection. Returns those that must be matched."""
        whose = str(persona)
        for point in points:
            said = deployed(point.payload)
            row = self._row_of(point, said) if said and said.persona_id == whose else None
            if said is None or row is None or (anchor := row.anchor_id) in self._several:
                yield point
            elif first := self.told.pop(anchor, None):
                self._several.add(anchor)
                yield first.point
                yield point
            else:
                kind = collection, point.id == anchor, said.created_at_ms == row.created_at_ms
                self.told[anchor] = Told(row, collection, point, kind)

    def take_at(self, places: Collection[Place]) -> list[Told]:
        """The memories at these places, which are told no longer."""
        taken = [each for each in self.told.values() if each.place in places] if places else []
        for each in taken:
            del self.told[each.exchange.anchor_id]
        return taken

    def kinds(self) -> Iterator[tuple[Told, int]]:
        """The first memory of each kind, and how many there are."""
        numbers = Counter(each.kind for each in self.told.values())
        first = {each.kind: each for each in reversed(self.told.values())}
        return ((first[kind], alike) for kind, alike in numbers.items())

    def _row_of(self, point: Point, said: Deployed) -> Exchange | None:
        """The exchange of the memory, where it is told at sight."""
        row = self._near(said)
        if row is None or said.channel_id not in {None, row.channel_id}:
            return None
        if isinstance(said.message_ids, list) and said.message_ids:
            own = str(row.said_id), str(row.anchor_id)
            if any(each not in own for each in said.message_ids):
                return None
        if isinstance(point.id, UUID) and point.id.int in self._row_ids:
            return row if point.id in (row.said_id, row.anchor_id) else None
        return row

    def _near(self, said: Deployed) -> Exchange | None:
        """The exchange of these words and about that time, where no other one could be meant."""
        thread = self._threads.get((said.persona_id, said.personality_id))
        if thread is None:
            return None
        at_ms = said.created_at_ms
        near = thread.between(at_ms, self._tolerance_ms)
        if near is None:
            return None
        content = said.content
        own = [r for r in near if says_as_deployed(content, r.user_text, r.assistant_text)]
        if len(own) != 1 or thread.words[own[0].user_text, own[0].assistant_text] > 1:
            return None
        # Of an exchange of exactly that time the text may be a longer one.
        is_clear = own[0].created_at_ms == at_ms or all(row.created_at_ms != at_ms for row in near)
        return own[0] if is_clear else None

    @cached_property
    def _row_ids(self) -> set[int]:
        return {id_.int for each in self._rows for id_ in (each.said_id, each.anchor_id)}

    @cached_property
    def _threads(self) -> dict[tuple[str, str], "_Thread"]:
        """The thread of each persona and personality, by the texts of their ids."""
        rows: dict[tuple[UUID, UUID], list[Exchange]] = defaultdict(list)
        for each in self._rows:
            rows[each.persona_id, each.personality_id].append(each)
        return {(str(one), str(other)): _Thread(some) for (one, other), some in rows.items()}


class _Thread:
    """The exchanges of one persona and one personality, in the order of time.

    `words` tells how often each exchange's words were said.
    """

    def __init__(self, rows: Iterable[Exchange]) -> None:
        self._rows = sorted(rows, key=ms_of)
        self.words: Counter[Key] = Counter((r.user_text, r.assistant_text) for r in self._rows)

    def between(self, at_ms: int, away_ms: int) -> Sequence[Exchange] | None:
        """The exchanges at most so far away from that time; None where they are too many."""
        begin, end = between(self._rows, at_ms - away_ms, at_ms + away_ms)
        return self._rows[begin:end] if end - begin <= _NEAR_MAX else None
