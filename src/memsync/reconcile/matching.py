"""Matching finds the exchange that each memory was made from. The words count more than the time.

It decides by the id of the anchor first, or by row ids that the payload names. Then it decides by
equal text of the same personality, at equal time or within the tolerance: among the exchanges of
the memory's persona, then among those of the same owner's other personas. By time alone it decides
last, and only where the memory and the exchange are the only ones of that time; an older collection
is judged for itself there. The cost grows with the number of memories and exchanges, however many
have one time.

Names inside a text are not compared. `divisions` finds every place at which a text of the app's may
be divided into message and reply. Each division is a key, and an exchange has exactly one.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from uuid import UUID

from memsync.model.ids import point_order
from memsync.model.records import Exchange
from memsync.reconcile.cases import Found, says
from memsync.reconcile.divisions import Key, beginnings, blanks_of, ends, keys_of
from memsync.reconcile.moments import (
    away,
    between,
    by_channel,
    by_own_channel,
    channel_of,
    earliest,
    gives_a_second,
    moment_of,
    ms_of,
    of_equal_time,
    without,
)

_TALLEST = 1 << 62
_SECOND_MS = 1000

_Said = tuple[UUID, UUID, Key]
"""What was said, by which persona, to which personality."""


@dataclass(frozen=True, slots=True)
class Match:
    """A memory and its exchange. `first`: no other memory was matched with it before."""

    found: Found
    exchange: Exchange
    first: bool


class Matcher:
    """Matches memories with the exchanges of one owner: all those of all personas of one user.

    `taken` are the anchors of exchanges whose memories are known already.
    """

    def __init__(
        self, exchanges: Iterable[Exchange], tolerance_ms: int, taken: Iterable[UUID] = ()
    ) -> None:
        self._tolerance_ms = tolerance_ms
        self._exchanges = list(exchanges)
        self._taken = set(taken)
        self._copied: dict[str, set[UUID]] = defaultdict(set)

    # The indexes of the exchanges. Each is made when it is first asked for.

    @cached_property
    def _rows(self) -> list[Exchange]:
        return sorted(self._exchanges, key=lambda each: (each.created_at_ms, each.anchor_id.bytes))

    @cached_property
    def _times(self) -> set[int]:
        return {each.created_at_ms for each in self._rows}

    @cached_property
    def _by_row_id(self) -> dict[UUID, Exchange]:
        by_id: dict[UUID, Exchange] = {each.said_id: each for each in self._rows}
        return by_id | {each.anchor_id: each for each in self._rows}

    @cached_property
    def _said(self) -> dict[_Said, list[Exchange]]:
        said: dict[_Said, list[Exchange]] = defaultdict(list)
        for each in self._rows:
            key = (each.user_text, each.assistant_text)
            said[each.persona_id, each.personality_id, key].append(each)
        return dict(said)

    @cached_property
    def _messages(self) -> dict[UUID, set[int]]:
        """The lengths of the messages to each personality."""
        lengths: dict[UUID, set[int]] = defaultdict(set)
        for each in self._rows:
            lengths[each.personality_id].add(len(each.user_text))
        return lengths

    @cached_property
    def _replies(self) -> dict[tuple[UUID, str], set[int]]:
        """The lengths of the replies of each personality to each message."""
        lengths: dict[tuple[UUID, str], set[int]] = defaultdict(set)
        for each in self._rows:
            lengths[each.personality_id, each.user_text].add(len(each.assistant_text))
        return lengths

    def match(self, memories: Iterable[Found]) -> Iterator[Match | Found]:
        """Each memory, with its exchange where it has one."""
        left: list[Found] = []
        dated = (each.dated(self._times) for each in memories)
        for found in sorted(dated, key=lambda each: (*point_order(each.point.id), each.place)):
            named = self._named(found)
            if named is None:
                left.append(found)
            else:
                yield self._match(found, named)
        for step in (self._of_own_persona, self._of_other_personas, self._of_that_time):
            before, left = left, []
            for found, exchange in step(before) if before else ():
                if exchange is None:
                    left.append(found)
                else:
                    yield self._match(found, exchange)
        yield from left

    def note_copy(self, found: Found, exchange: Exchange) -> None:
        """Note that an older collection has this copy of the exchange's memory."""
        if not found.home:
            self._copied[found.place.collection].add(exchange.anchor_id)

    def _match(self, found: Found, exchange: Exchange) -> Match:
        first = exchange.anchor_id not in self._taken
        self._taken.add(exchange.anchor_id)
        self.note_copy(found, exchange)
        return Match(found, exchange, first)

    def _named(self, found: Found) -> Exchange | None:
        """The one exchange whose rows the point's id or its payload name."""
        ids = (found.point.id, *found.reading.message_ids)
        named = {
            row.anchor_id: row
            for each in ids
            if isinstance(each, UUID) and (row := self._by_row_id.get(each))
        }
        return next(iter(named.values())) if len(named) == 1 else None

    # ------------------------------------------------------------------ by what was said

    def _of_own_persona(self, memories: Sequence[Found]) -> Iterator[tuple[Found, Exchange | None]]:
        """Pair memories with exchanges of their persona and text, each with one, by time.

        Where a text was said several times, its memories and exchanges are paired in the order of
        their times. A memory too many is a further one of the exchange nearest to it.
        """
        whole: dict[_Said, list[Found]] = defaultdict(list)
        longer: dict[_Said, list[Found]] = defaultdict(list)
        for found in memories:
            said, is_longer = self._likeliest(found)
            if said is None:
                yield found, None
            else:
                (longer if is_longer else whole)[said].append(found)
        for alike in (whole, longer):
            for said, some in alike.items():
                yield from self._in_order(some, self._said[said])

    def _told(self, found: Found) -> list[_Said]:
        """What the memory may say, as far as its persona said it."""
        if found.persona_id is None or found.personality_id is None:
            return []
        whose = (found.persona_id, found.personality_id)
        keys = ((*whose, key) for key in keys_of(found.reading.memory))
        return [key for key in keys if key in self._said]

    def _told_with_additions(self, found: Found) -> list[_Said]:
        """The same, where something was added behind the message or the reply."""
        if found.persona_id is None or found.personality_id is None:
            return []
        whose = (found.persona_id, found.personality_id)
        keys = ((*whose, key) for key in self._parts(found))
        return [key for key in keys if key in self._said and says(found, self._said[key][0])]

    def _likeliest(self, found: Found) -> tuple[_Said | None, bool]:
        """What the memory says, as far as it was said near its time, and whether it says more.

        A text may be divided in several ways. What was said at the time of the memory comes first,
        then what needs no addition, then what is nearest.
        """
        apart = {
            (said, False): away
            for said in self._told(found)
            if (away := self._apart(found, said)) is not None
        }
        if 0 not in apart.values():
            apart |= {
                (said, True): away
                for said in self._told_with_additions(found)
                if (away := self._apart(found, said)) is not None and (said, False) not in apart
            }
        return min(
            apart,
            key=lambda each: (apart[each] > 0, each[1], apart[each]),
            default=(None, False),
        )

    def _apart(self, found: Found, said: _Said) -> int | None:
        """How many milliseconds the memory is away from the nearest exchange that says this; None
        where none is near.
        """
        row = self._nearest(found, self._said[said])
        return None if row is None else away(found, row)

    def _parts(self, found: Found) -> Iterable[Key]:
        """Messages and replies that stand whole in a text of the app's, as far as they were said.

        An addition begins with white space, so a message or a reply ends before one.
        """
        content, personality = found.reading.memory.content, found.personality_id
        if content is None or personality is None or personality not in self._messages:
            return ()
        blanks = blanks_of(content)
        lengths = self._messages[personality]
        parts: dict[Key, None] = {}
        for begin in beginnings(content):
            for end in blanks[bisect_left(blanks, begin) :]:
                if end - begin not in lengths:
                    continue
                message = content[begin:end]
                for reply in ends(content, end, blanks, self._replies.get((personality, message))):
                    parts[message, reply] = None
        return parts

    def _in_order(
        self, memories: Sequence[Found], rows: Sequence[Exchange]
    ) -> Iterator[tuple[Found, Exchange | None]]:
        """Pair memories and exchanges of one persona that say the same: in each channel, then
        across channels. A memory that is left is a further one of the exchange nearest to it.
        """
        of_channel = by_channel(rows)
        memories, copies = self._without_copies(memories, rows)
        left: list[Found] = []
        for channel, some in by_own_channel(memories).items():
            pairs = [] if channel is None else self._paired(some, self._free(of_channel[channel]))
            yield from pairs
            left += without(some, pairs)
        pairs = self._paired(left, self._free(rows))
        yield from pairs
        for found in [*without(left, pairs), *copies]:
            own = of_channel[channel_of(found)]
            yield found, self._nearest(found, own) or self._nearest(found, rows)

    def _free(self, rows: Sequence[Exchange]) -> list[Exchange]:
        return [row for row in rows if row.anchor_id not in self._taken]

    def _without_copies(
        self, memories: Sequence[Found], rows: Sequence[Exchange]
    ) -> tuple[list[Found], list[Found]]:
        """The memories of these texts, and those that can only be copies of others of them.

        Of one time there are no more memories than exchanges, where an exchange has that time; else
        as many as exchanges have one time. A second is a time, too, where an exchange has it.
        """
        free = self._free(rows)
        most = max(Counter(map(ms_of, free)).values(), default=0)
        left = {unit: Counter(ms_of(row) // unit for row in free) for unit in (1, _SECOND_MS)}
        known = {unit: {ms_of(row) // unit for row in rows} for unit in (1, _SECOND_MS)}
        seen: Counter[tuple[int, int]] = Counter()
        kept: list[Found] = []
        copies: list[Found] = []
        for found in sorted(memories, key=gives_a_second):
            window = found.reading.time_window_ms
            if window is None:
                kept.append(found)
                continue
            unit = _SECOND_MS if gives_a_second(found) else 1
            at = window[0] // unit
            of_no_exchange = most if unit == 1 else len(memories)
            limit = left[unit][at] if at in known[unit] else of_no_exchange
            seen[unit, at] += 1
            if seen[unit, at] > limit:
                copies.append(found)
                continue
            kept.append(found)
            if unit == 1 and at in known[1]:
                seen[_SECOND_MS, at // _SECOND_MS] += 1
        return kept, copies

    def _paired(
        self, memories: Sequence[Found], rows: Sequence[Exchange]
    ) -> list[tuple[Found, Exchange]]:
        """Pairs of memories and free exchanges that say the same, as many as can be.

        Those of equal time are pairs, and the others follow in order. A clock may be off by as much
        as the pause between two exchanges; where that leaves some over, the order alone counts.
        """
        exact, later, still = of_equal_time(memories, rows)
        pairs = exact + self._one_by_one(later, still)
        if len(pairs) == min(len(memories), len(rows)):
            return pairs
        return max(pairs, self._one_by_one(memories, rows), key=len)

    def _one_by_one(
        self, memories: Sequence[Found], rows: Sequence[Exchange]
    ) -> list[tuple[Found, Exchange]]:
        """Each memory with the first exchange that is left and has a time that it allows."""
        pairs = []
        at = 0
        for found in sorted(memories, key=earliest):
            first, last = self._allowed(found, rows)
            while at < len(rows) and rows[at].created_at_ms < first:
                at += 1
            if at < len(rows) and rows[at].created_at_ms <= last:
                pairs.append((found, rows[at]))
                at += 1
        return pairs

    def _allowed(self, found: Found, rows: Sequence[Exchange]) -> tuple[int, int]:
        """The times that an exchange of the memory may have, in ms. Any, where it gives no time and
        the text was said once.
        """
        window = found.reading.time_window_ms
        if window is not None:
            return window[0] - self._tolerance_ms, window[1] + self._tolerance_ms
        return (-_TALLEST, _TALLEST) if len(rows) == 1 else (_TALLEST, -_TALLEST)

    def _nearest(self, found: Found, rows: Sequence[Exchange]) -> Exchange | None:
        """The exchange of the nearest time, if it is within the tolerance."""
        first, last = self._allowed(found, rows)
        at = bisect_left(rows, earliest(found), key=ms_of)
        near = [each for each in rows[max(0, at - 1) : at + 1] if first <= ms_of(each) <= last]
        return min(near, key=lambda each: away(found, each), default=None)

    def _of_other_personas(
        self, memories: Sequence[Found]
    ) -> Iterator[tuple[Found, Exchange | None]]:
        """Match memories with exchanges of the owner's other personas, where only one comes into
        question: one of equal time, else one within the tolerance.
        """
        for found in memories:
            yield found, self._only_one(found)

    def _only_one(self, found: Found) -> Exchange | None:
        window = found.reading.time_window_ms
        if window is None or found.personality_id is None:
            return None
        said = [*self._of_anybody(found, keys_of(found.reading.memory))] or [
            rows for rows in self._of_anybody(found, self._parts(found)) if says(found, rows[0])
        ]
        for first, last in (window, self._allowed(found, ())):
            near = (
                row
                for rows in said
                for row in rows[slice(*between(rows, first, last))]
                if row.persona_id != found.persona_id
            )
            if two := list(islice(near, 2)):
                return two[0] if len(two) == 1 else None
        return None

    def _of_anybody(self, found: Found, keys: Iterable[Key]) -> Iterator[list[Exchange]]:
        """The exchanges of each of these texts, whoever said them, in the order of time."""
        for key in dict.fromkeys(keys):
            if rows := self._by_words.get((found.personality_id, key)):
                yield rows

    @cached_property
    def _by_words(self) -> dict[tuple[UUID | None, Key], list[Exchange]]:
        found: dict[tuple[UUID | None, Key], list[Exchange]] = defaultdict(list)
        for each in self._rows:
            found[each.personality_id, (each.user_text, each.assistant_text)].append(each)
        return dict(found)

    # ------------------------------------------------------------------ by time alone

    def _of_that_time(self, memories: Sequence[Found]) -> Iterator[tuple[Found, Exchange | None]]:
        """Match memories and exchanges of one persona that alone have their time: a stale text.

        An older collection is judged for itself: an exchange may have a copy in each of them,
        beside the memory that stands.
        """
        moments = [(each.place.collection, moment_of(each)) for each in memories]
        counts = Counter(moments)
        rows: dict[object, list[Exchange]] = {moment: [] for _, moment in moments if moment}
        for row in self._rows:
            if (at := (row.persona_id, row.personality_id, row.created_at_ms)) in rows:
                rows[at].append(row)
        for found, moment in zip(memories, moments, strict=True):
            taken = self._taken if found.home else self._copied[found.place.collection]
            of_time = rows.get(moment[1], ()) if counts[moment] == 1 else ()
            only = [row for row in of_time if row.anchor_id not in taken]
            yield found, only[0] if len(only) == 1 else None
