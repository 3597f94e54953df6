"""Reads single values of payloads: texts, ids and times. Anything may stand there.

It decides what counts as one, and whether a time is in seconds. It knows no key of a payload.
"""

from uuid import UUID

from memsync.errors import InvalidInput
from memsync.model import ids

# The years 1 to 9999: the range of datetime, well within that of Postgres' timestamp.
_MS_MIN, _MS_MAX = -62_135_596_800_000, 253_402_300_799_999
SECONDS_BELOW = 100_000_000_000
"""A smaller number is taken for seconds: as seconds it is in 5138, as milliseconds in 1973."""


def text_of(value: object) -> str | None:
    """The text; None for anything else."""
    return value if isinstance(value, str) else None


def uuid_of(value: object) -> UUID | None:
    """The id; None for anything else."""
    try:
        return ids.persona_id(value)
    except InvalidInput:
        return None


def uuids_of(value: object) -> tuple[UUID, ...]:
    """The ids in a list; none for anything else."""
    found = map(uuid_of, value) if isinstance(value, list) else ()
    return tuple(each for each in found if each)


def time_window(value: object) -> tuple[tuple[int, int] | None, bool]:
    """The first and last millisecond that a time may mean, and whether it is spelled otherwise than
    in whole milliseconds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, value is not None
    if not _MS_MIN <= value <= _MS_MAX:  # NaN too
        return None, True
    if abs(value) < SECONDS_BELOW:
        start = round(value * 1000)
        return (start, start + (999 if value == int(value) else 0)), True
    return (int(value), int(value)), isinstance(value, float)
