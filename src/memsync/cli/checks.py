"""Prints checks: those of `migrate plan` and those of `migrate verify`.

It decides their order and layout. The checks carry their own severity.
"""

from collections.abc import Sequence

import typer

from memsync.migrate import Check, State

_SHOWN = {State.FAILED: "FAILED", State.NOT_APPLICABLE: "n/a"}
_WIDTH = 7


def print_checks(checks: Sequence[Check], *, by_severity: bool) -> None:
    """Print the checks, each with its next step.

    With `by_severity` the counts come first, then the checks, most severe first.
    """
    ordered = list(checks)
    if by_severity:
        counts = {state: sum(check.state is state for check in checks) for state in State}
        typer.echo(
            f"checks: {', '.join(f'{n} {_word(state)}' for state, n in counts.items() if n)}"
        )
        ordered.sort(key=lambda check: list(State).index(check.state))
    width = max((len(check.name) for check in checks), default=0)
    for check in ordered:
        stops = f"  [stops {', '.join(check.phases)}]" if check.phases else ""
        state = f"{_word(check.state):<{_WIDTH}}"
        typer.echo(f"  {state}  {check.name:<{width}}  {check.found}{stops}")
        if check.next:
            typer.echo(f"  {'':<{_WIDTH}}  {'':<{width}}  do: {check.next}")


def _word(state: State) -> str:
    return _SHOWN.get(state, state.value)
