"""How messages to people list several names."""

from collections.abc import Iterable


def listed(names: Iterable[str], shown_max: int = 5, separator: str = ", ") -> str:
    """The first `shown_max` names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - shown_max} more" if len(every) > shown_max else ""
    return separator.join(every[:shown_max]) + more
