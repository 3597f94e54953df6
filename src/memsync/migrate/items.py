"""One item of the checklist after a migration: a value, green, red or not applicable."""

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """How an item came out. Not applicable: the stage at which it is due is not reached, or past.

    What cannot be known is not applicable too, never green.
    """

    GREEN = "green"
    RED = "red"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Item:
    """What was asked, what was found with its figures, and the next command where there is one."""

    name: str
    mark: Mark
    found: str
    next: str | None = None


def green(name: str, found: str, then: str | None = None) -> Item:
    """As it should be."""
    return Item(name, Mark.GREEN, found, then)


def red(name: str, found: str, then: str) -> Item:
    """Not as it should be; `then` mends it."""
    return Item(name, Mark.RED, found, then)


def later(name: str, found: str) -> Item:
    """Not to be asked here."""
    return Item(name, Mark.NOT_APPLICABLE, found)
