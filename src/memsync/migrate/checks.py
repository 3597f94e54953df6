"""What a check of the preflight says: a value, and the three ways to say it.

A check that is no blocker never stops anything. A blocker stops the phases that it names, and only
those: who runs up to an earlier phase is let through. Knows nothing of what is checked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from memsync.stores.history.phases import Phase


class State(StrEnum):
    """How a check came out, most severe first."""

    BLOCKER = "blocker"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do. `phases`: those that a blocker stops."""

    name: str
    state: State
    found: str
    next: str | None = None
    phases: tuple[Phase, ...] = ()


def fine(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name, State.OK, found)


def warning(name: str, found: str, what_to_do: str) -> Check:
    """The run goes on; somebody should know, or do something."""
    return Check(name, State.WARNING, found, what_to_do)


def blocker(name: str, found: str, what_to_do: str, phases: Iterable[Phase] = Phase) -> Check:
    """The run would fail, or do harm, in these phases: all of them unless told otherwise."""
    return Check(name, State.BLOCKER, found, what_to_do, tuple(phases))
