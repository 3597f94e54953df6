"""How messages to people list several names, and say a number or a duration."""

import difflib
from collections.abc import Iterable

_MINUTE_S = 60
_HOUR_MIN = 60


def listed(names: Iterable[str], shown_max: int = 5, separator: str = ", ") -> str:
    """The first `shown_max` names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - shown_max} more" if len(every) > shown_max else ""
    return separator.join(every[:shown_max]) + more


def meant(word: str, known: Iterable[str]) -> str:
    """The question whether the known word most like this one was meant; "" where none is alike."""
    by_lower = {each.lower(): each for each in known}
    alike = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" did you mean {by_lower[alike[0]]}?" if alike else ""


def about(seconds: float | None) -> str:
    """A duration that was estimated, in words; of None, that it is not known."""
    if seconds is None:
        return "not known yet"
    if seconds < _MINUTE_S * 2:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / _MINUTE_S)
    if minutes < _HOUR_MIN * 2:
        return f"about {minutes} min"
    return f"about {minutes // _HOUR_MIN} h {minutes % _HOUR_MIN} min"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, such as `1 finding` and `2,345 findings`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
