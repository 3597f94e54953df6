"""How messages to people list several names, and say a number, a size or a duration."""

import difflib
from collections.abc import Iterable

_MINUTE_S = 60
_HOUR_MIN = 60
_GIB_MIB = 1024
_ALIKE = 0.6
"""How alike two words are at least, of 1, where one may be a slip for the other."""
_MEANT_MAX = 3


def listed(names: Iterable[str], shown_max: int = 5, separator: str = ", ") -> str:
    """The first `shown_max` names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - shown_max} more" if len(every) > shown_max else ""
    return separator.join(every[:shown_max]) + more


def meant(word: str, known: Iterable[str]) -> str:
    """The question whether the known word most like this one was meant; "" where none is alike.

    Of several that are equally alike it names the first three.
    """
    wanted = word.lower()
    alike = {
        each: difflib.SequenceMatcher(None, each.lower(), wanted).ratio()
        for each in dict.fromkeys(known)
    }
    most = max(alike.values(), default=0.0)
    if most < _ALIKE:
        return ""
    first = [each for each, score in alike.items() if score == most][:_MEANT_MAX]
    return f" did you mean {' or '.join(first)}?"


def size(number: int) -> str:
    """A number of bytes as people read it."""
    mib = number / 2**20
    return f"{mib:,.1f} MiB" if mib < _GIB_MIB else f"{mib / _GIB_MIB:,.1f} GiB"


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
