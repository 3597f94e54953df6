"""The times of memories and exchanges, and what shares one."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from memsync.model.records import Exchange
from memsync.reconcile.cases import Found

_SECOND_MS = 1000


def ms_of(row: Exchange) -> int:
    """The time of the exchange, in ms."""
    return row.created_at_ms


def channel_of(found: Found) -> str | None:
    """The channel that the memory gives."""
    return found.reading.memory.channel_id


def of_equal_time(
    memories: Sequence[Found], rows: Sequence[Exchange]
) -> tuple[list[tuple[Found, Exchange]], list[Found], list[Exchange]]:
    """Pairs of one time; the memories that are left, and the exchanges, in the order of time.

    A memory that gives a second has the time of each exchange in it, after all that give more.
    """
    pairs: list[tuple[Found, Exchange]] = []
    left: list[Found] = []
    still = list(rows)
    precise = [each for each in memories if not gives_a_second(each)]
    coarse = [each for each in memories if gives_a_second(each)]
    for some, unit_ms in ((precise, 1), (coarse, _SECOND_MS)):
        free: dict[int, list[Exchange]] = defaultdict(list)
        for row in reversed(still):
            free[row.created_at_ms // unit_ms].append(row)
        for found in some:
            window = found.reading.time_window_ms
            of_time = free.get(window[0] // unit_ms) if window else None
            if of_time:
                pairs.append((found, of_time.pop()))
            else:
                left.append(found)
        still = sorted((row for same in free.values() for row in same), key=ms_of)
    return pairs, left, still


def gives_a_second(found: Found) -> bool:
    """Whether the memory gives a second, and not a millisecond."""
    window = found.reading.time_window_ms
    return window is not None and window[0] != window[1]


def without(memories: Sequence[Found], pairs: Sequence[tuple[Found, Exchange]]) -> list[Found]:
    """The memories that are in none of the pairs."""
    paired = {found.place for found, _ in pairs}
    return [each for each in memories if each.place not in paired]


def by_channel(rows: Sequence[Exchange]) -> dict[str | None, list[Exchange]]:
    """The exchanges of each channel."""
    found: dict[str | None, list[Exchange]] = defaultdict(list)
    for row in rows:
        found[row.channel_id].append(row)
    return found


def by_own_channel(memories: Sequence[Found]) -> dict[str | None, list[Found]]:
    """The memories of each channel that they give."""
    found: dict[str | None, list[Found]] = defaultdict(list)
    for each in memories:
        found[channel_of(each)].append(each)
    return found


def between(rows: Sequence[Exchange], first: int, last: int) -> tuple[int, int]:
    """The slice of `rows`, in the order of time, that has the times from `first` to `last`."""
    begin = bisect_left(rows, first, key=ms_of)
    return begin, bisect_right(rows, last, lo=begin, key=ms_of)


def away(found: Found, row: Exchange) -> int:
    """How many milliseconds the exchange is away from the times that the memory may mean."""
    window = found.reading.time_window_ms
    return max(window[0] - ms_of(row), ms_of(row) - window[1], 0) if window else 0


def earliest(found: Found) -> int:
    """The first time that the memory may mean, in ms; 0 where it gives none."""
    window = found.reading.time_window_ms
    return window[0] if window else 0


def moment_of(found: Found) -> tuple[UUID, UUID, int] | None:
    """Persona, personality and time of a memory that gives an exact one."""
    window = found.reading.time_window_ms
    if window is None or window[0] != window[1]:
        return None
    if found.persona_id is None or found.personality_id is None:
        return None
    return found.persona_id, found.personality_id, window[0]
