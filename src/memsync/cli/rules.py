"""`memsync rules`: lists every finding code, or explains one."""

import inspect
from typing import Annotated

import typer

from memsync.cli.common import JsonOption, print_json, say
from memsync.errors import InvalidInput
from memsync.reconcile import RULES, Rule


def rules(
    code: Annotated[str | None, typer.Argument(help="A code or a name.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List every finding code, or explain one."""
    chosen = [rule for rule in RULES if code in {None, rule.code, rule.name}]
    if not chosen:
        raise InvalidInput(f"there is no finding {code}; `memsync rules` lists them")
    if as_json:
        print_json(rules=[_facts(rule) for rule in chosen])
        return 0
    for rule in chosen:
        typer.echo(f"{rule.code}  {rule.name:<24} {rule.severity:<8} {rule.grade}")
        if code is not None:
            say(f"\n{inspect.getdoc(rule)}\n\nNext: {rule.command()}")
    return 0


def _facts(rule: Rule) -> dict[str, object]:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity,
        "grade": rule.grade,
        "about": inspect.getdoc(rule),
        "next_command": rule.command(),
    }
