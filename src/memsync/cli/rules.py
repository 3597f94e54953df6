"""`memsync rules`: lists every finding code, or explains one."""

import inspect
from typing import Annotated

import typer

from memsync.cli.output import print_json, print_table, say
from memsync.errors import InvalidInput
from memsync.reconcile import RULES, Rule
from memsync.stores.ltm.layouts import Layout


def rules(
    ctx: typer.Context,
    code: Annotated[str | None, typer.Argument(help="A code or a name.")] = None,
) -> int:
    """List every finding code, or explain one."""
    wanted = code and code.lower()
    chosen = [rule for rule in RULES if wanted in {None, rule.code.lower(), rule.name}]
    if not chosen:
        raise InvalidInput(f"there is no finding {code}; `memsync rules` lists them")
    if ctx.obj.as_json:
        print_json(rules=[_facts(rule) for rule in chosen])
        return 0
    head = ("code", "finding", "shared", "per-persona", "repair")
    rows = [
        (
            rule.code,
            rule.name,
            rule.severity,
            rule.severity_in(Layout.PER_PERSONA),
            rule.grade,
        )
        for rule in chosen
    ]
    print_table(rows, head=head)
    if code is not None:
        say(f"\n{inspect.getdoc(chosen[0])}\n\nnext: {chosen[0].command()}")
    return 0


def _facts(rule: Rule) -> dict[str, object]:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity,
        "severity_per_persona": rule.severity_in(Layout.PER_PERSONA),
        "grade": rule.grade,
        "about": inspect.getdoc(rule),
        "next_command": rule.command(),
    }
