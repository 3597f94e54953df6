"""How messages to people name several things."""

from collections.abc import Iterable


def listed(names: Iterable[str], shown_max: int = 5, separator: str = ", ") -> str:
    """The first of the names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - shown_max} more" if len(every) > shown_max else ""
    return separator.join(every[:shown_max]) + more
