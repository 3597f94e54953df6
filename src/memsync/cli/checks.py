"""Prints checks, those of `migrate plan` and of `migrate verify`, and the gates of contract.

It decides their order and layout. The checks carry their own severity.
"""

from collections.abc import Sequence

from memsync.cli.output import print_table, say
from memsync.migrate import Check, Gate, State

_UNREMARKABLE = (State.OK, State.NOT_APPLICABLE)
_SHOWN = {State.FAILED: "FAILED", State.NOT_APPLICABLE: "n/a"}


def print_checks(checks: Sequence[Check]) -> None:
    """Print the checks, each with its next step."""
    rows = []
    for check in checks:
        stops = f"  [stops {', '.join(check.phases)}]" if check.phases else ""
        rows.append((_word(check.state), check.name, f"{check.found}{stops}"))
        if check.next:
            rows.append(("", "", f"do: {check.next}"))
    print_table(rows)


def print_checks_in_short(checks: Sequence[Check], *, every: bool) -> None:
    """Print how the checks came out, and those that ask for something, the most severe first.

    With `every` also the others.
    """
    counts = {state: sum(check.state is state for check in checks) for state in State}
    say(f"checks: {', '.join(f'{n} {_word(state)}' for state, n in counts.items() if n)}")
    ordered = sorted(checks, key=lambda check: list(State).index(check.state))
    print_checks(
        [each for each in ordered if every or each.next or each.state not in _UNREMARKABLE]
    )
    if not every:
        say("  (--verbose prints every check)")


def print_gates(gates: Sequence[Gate]) -> None:
    """Print the gates of contract: what it waits for, how long, and what opens each."""
    if not gates:
        return
    closed = sum(gate.state == "closed" for gate in gates)
    say(f"gates of contract: {closed} of {len(gates)} closed")
    rows: list[tuple[str, str, str]] = []
    for gate in gates:
        opens = f"  [opens in {gate.opens} if nobody uses it]" if gate.opens else ""
        rows.append((gate.state, gate.name, f"{gate.found}{opens}"))
        if gate.next:
            rows.append(("", "", f"do: {gate.next}"))
    print_table(rows)


def _word(state: State) -> str:
    return _SHOWN.get(state, state.value)
