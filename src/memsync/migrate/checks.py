"""The result of one check, and a function that makes each kind of result.

The preflight checks what would stop a run, and `verify` what a migration has left. A blocker stops
the phases that it names and no others, so a run up to an earlier phase may start. No other state
stops a run. This module knows nothing of what is checked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from memsync.stores.history.phases import Phase

BEFORE_CONTRACT = tuple(phase for phase in Phase if phase is not Phase.CONTRACT)
"""The phases that need the decisions of a run: contract finds every message with its persona."""


class State(StrEnum):
    """How a check came out, most severe first.

    Not applicable: the check is not due at this stage, or cannot be answered.
    """

    BLOCKER = "blocker"
    FAILED = "failed"
    WARNING = "warning"
    OK = "ok"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True)
class Check:
    """A question, its answer with figures, and what to do. A blocker stops `phases`.

    `decision` is the option of a run, and its value, that settles a blocker without more work.
    """

    name: str
    state: State
    found: str
    next: str | None = None
    phases: tuple[Phase, ...] = ()
    decision: tuple[str, str] | None = None


def blocker(
    name: str,
    found: str,
    what_to_do: str,
    phases: Iterable[Phase] = Phase,
    decision: tuple[str, str] | None = None,
) -> Check:
    """The run would fail, or do harm, in these phases."""
    return Check(name, State.BLOCKER, found, what_to_do, tuple(phases), decision)


def failed(name: str, found: str, what_to_do: str) -> Check:
    """The migration left something wrong; `what_to_do` corrects it."""
    return Check(name, State.FAILED, found, what_to_do)


def warning(name: str, found: str, what_to_do: str) -> Check:
    """The run may go on; the operator should know, or do something."""
    return Check(name, State.WARNING, found, what_to_do)


def fine(name: str, found: str, what_to_do: str | None = None) -> Check:
    """Nothing is wrong."""
    return Check(name, State.OK, found, what_to_do)


def not_applicable(name: str, found: str) -> Check:
    """The check does not apply here, or cannot be answered."""
    return Check(name, State.NOT_APPLICABLE, found)
