"""Checks the arguments of the library's calls that are neither ids nor texts.

It decides what a limit, a threshold and a time may be, and turns a time into what the column holds.
It knows no store.
"""

import math
from datetime import UTC, datetime
from numbers import Real
from typing import cast

from memsync.errors import InvalidInput

LIMIT_MAX = 1000
TIMEOUT_S_MAX = 86_400


def checked_limit(limit: int) -> int:
    """Return `limit`.

    Raises: InvalidInput for anything but 1 to 1000.
    """
    if type(limit) is not int or not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput(f"limit must be 1 to {LIMIT_MAX}, not {limit!r:.40}", field="limit")
    return limit


def checked_timeout(timeout_s: object) -> float:
    """Return `timeout_s` as a plain number of seconds.

    Raises: InvalidInput for anything but 0 to a day.
    """
    is_number = isinstance(timeout_s, Real) and not isinstance(timeout_s, bool)
    if not is_number or not 0 <= (seconds := float(cast("float", timeout_s))) <= TIMEOUT_S_MAX:
        raise InvalidInput(
            f"timeout_s must be 0 to {TIMEOUT_S_MAX} seconds, not {timeout_s!r:.40}",
            field="timeout_s",
        )
    return seconds


def checked_threshold(score_threshold: object) -> float | None:
    """Return `score_threshold` as a plain number.

    Raises: InvalidInput for what is no finite number.
    """
    if score_threshold is None:
        return None
    is_number = isinstance(score_threshold, Real) and not isinstance(score_threshold, bool)
    if not is_number or not math.isfinite(number := float(cast("float", score_threshold))):
        raise InvalidInput(
            f"score_threshold must be a finite number or None, not {score_threshold!r:.40}",
            field="score_threshold",
        )
    return number


def given_times(
    given: tuple[datetime | None, datetime | None],
) -> tuple[datetime, datetime] | None:
    """The times of an exchange, said and answered; None where neither is given."""
    if given[0] is None and given[1] is None:
        return None
    if given[0] is None or given[1] is None:
        raise InvalidInput("give both said_at and answered_at, or neither", field="said_at")
    said_at, answered_at = _utc_ms(given[0], "said_at"), _utc_ms(given[1], "answered_at")
    if answered_at < said_at:
        raise InvalidInput(
            f"answered_at {answered_at} is before said_at {said_at}; a reply follows its message",
            field="answered_at",
        )
    return said_at, answered_at


def _utc_ms(given: object, what: str) -> datetime:
    """The moment in UTC, cut to milliseconds like the column. A naive moment is taken as UTC."""
    if not isinstance(given, datetime):
        raise InvalidInput(f"{what} must be a datetime, not {given!r:.80}", field=what)
    try:
        # A class of the caller's own goes no further than here.
        moment = datetime.combine(datetime.date(given), datetime.timetz(given))
        utc = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{what} {given} is outside the years 1 to 9999 in UTC: {error}", field=what
        ) from None
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
