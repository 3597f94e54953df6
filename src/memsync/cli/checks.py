"""Prints checks, those of `migrate plan` and of `migrate verify`, and the gates of contract.

It decides their order and layout. The checks carry their own severity.
"""

from collections.abc import Sequence

from memsync.cli.common import say
from memsync.migrate import Check, Gate, State

_SHOWN = {State.FAILED: "FAILED", State.NOT_APPLICABLE: "n/a"}
_WIDTH = 7


def print_checks(checks: Sequence[Check], *, by_severity: bool) -> None:
    """Print the checks, each with its next step.

    With `by_severity` the counts come first, then the checks, most severe first.
    """
    ordered = list(checks)
    if by_severity:
        counts = {state: sum(check.state is state for check in checks) for state in State}
        say(f"checks: {', '.join(f'{n} {_word(state)}' for state, n in counts.items() if n)}")
        ordered.sort(key=lambda check: list(State).index(check.state))
    width = max((len(check.name) for check in checks), default=0)
    for check in ordered:
        stops = f"  [stops {', '.join(check.phases)}]" if check.phases else ""
        state = f"{_word(check.state):<{_WIDTH}}"
        say(f"  {state}  {check.name:<{width}}  {check.found}{stops}")
        if check.next:
            say(f"  {'':<{_WIDTH}}  {'':<{width}}  do: {check.next}")


def print_gates(gates: Sequence[Gate]) -> None:
    """Print the gates of contract: what it waits for, how long, and what opens each."""
    if not gates:
        return
    closed = sum(gate.state == "closed" for gate in gates)
    say(f"gates of contract: {closed} closed")
    for gate in gates:
        opens = f"  [opens in {gate.opens} if nobody uses it]" if gate.opens else ""
        say(f"  {gate.state:<9}  {gate.name:<6}  {gate.found}{opens}")
        if gate.next:
            say(f"  {'':<9}  {'':<6}  do: {gate.next}")


def _word(state: State) -> str:
    return _SHOWN.get(state, state.value)
