"""One check: a value, its states, and a function for each way to say it.

The preflight looks at what would stop a run, `verify` at what a migration has left; both say it so.
A blocker stops the phases that it names, and only those: a run up to an earlier phase is let
through. Nothing else stops a run. Knows nothing of what is checked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from memsync.stores.history.phases import Phase


class State(StrEnum):
    """How a check came out, most severe first.

    Not applicable: the stage at which it is due is not reached, or is past. A check that cannot be
    answered is not applicable too, never ok.
    """

    BLOCKER = "blocker"
    FAILED = "failed"
    WARNING = "warning"
    OK = "ok"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True)
class Check:
    """The question, the answer with its figures, and what to do. A blocker stops `phases`."""

    name: str
    state: State
    found: str
    next: str | None = None
    phases: tuple[Phase, ...] = ()


def blocker(name: str, found: str, what_to_do: str, phases: Iterable[Phase] = Phase) -> Check:
    """The run would fail, or do harm, in these phases: all of them unless told otherwise."""
    return Check(name, State.BLOCKER, found, what_to_do, tuple(phases))


def failed(name: str, found: str, what_to_do: str) -> Check:
    """The migration did not leave it as it should be; `what_to_do` mends it."""
    return Check(name, State.FAILED, found, what_to_do)


def warning(name: str, found: str, what_to_do: str) -> Check:
    """The run goes on; somebody should know, or do something."""
    return Check(name, State.WARNING, found, what_to_do)


def fine(name: str, found: str, what_to_do: str | None = None) -> Check:
    """As it should be."""
    return Check(name, State.OK, found, what_to_do)


def not_applicable(name: str, found: str) -> Check:
    """Not to be asked here."""
    return Check(name, State.NOT_APPLICABLE, found)
