"""How checks look: the preflight of `migrate plan`, and the checklist of `migrate verify`.

Decides order and layout; what is severe is said by what is printed.
"""

from collections.abc import Sequence

import typer

from memsync.migrate import Check, Item, Mark, State


def print_checks(checks: Sequence[Check]) -> None:
    """The checks by severity, most severe first; what to do stands below each."""
    counts = {state: sum(check.state is state for check in checks) for state in State}
    summary = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    typer.echo(f"checks: {summary}")
    width = max((len(check.name) for check in checks), default=0)
    for state in State:
        for check in checks:
            if check.state is state:
                stops = f"  [stops {', '.join(check.phases)}]" if check.phases else ""
                typer.echo(f"  {state:<7}  {check.name:<{width}}  {check.found}{stops}")
                if check.next:
                    typer.echo(f"  {'':<7}  {'':<{width}}  do: {check.next}")


_SHOWN = {Mark.GREEN: "green", Mark.RED: "RED", Mark.NOT_APPLICABLE: "n/a"}


def print_items(items: Sequence[Item]) -> None:
    """The checklist in its order; the next command stands below what needs one."""
    width = max((len(item.name) for item in items), default=0)
    for item in items:
        typer.echo(f"  {_SHOWN[item.mark]:<5}  {item.name:<{width}}  {item.found}")
        if item.next:
            typer.echo(f"  {'':<5}  {'':<{width}}  next: {item.next}")
