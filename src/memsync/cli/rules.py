"""`memsync rules`: lists every finding code or a family of them, or explains one."""

import inspect
import re
from typing import Annotated

import typer

from memsync.cli.output import print_json, print_table, say, say_lines
from memsync.errors import InvalidInput
from memsync.model.wording import meant
from memsync.reconcile import RULES, Rule
from memsync.reconcile.findings import Grade
from memsync.stores.ltm.layouts import Layout

_LINE_BREAK = re.compile(r"(?<!\n)\n(?!\n|Why it matters: |Repair: )")
"""A break inside a paragraph, where the source's line was full."""


def rules(
    ctx: typer.Context,
    code: Annotated[
        str | None, typer.Argument(help="A code, a name, or a family such as MSC.")
    ] = None,
) -> int:
    """List every finding code or a family of them, or explain one."""
    wanted = (code or "").lower()
    chosen = [rule for rule in RULES if not wanted or wanted in _lower_words_for(rule)]
    if not chosen:
        raise InvalidInput(no_finding(str(code)))
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
    if len(chosen) == 1:
        about = _LINE_BREAK.sub(" ", inspect.getdoc(chosen[0]) or "")
        say()
        say_lines(about)
        _print_next(chosen[0])
    return 0


def _print_next(rule: Rule) -> None:
    """Print the command of each layout. A plan is named only where it takes such findings up."""
    commands: dict[str, list[Layout]] = {}
    for layout in (Layout.SHARED, Layout.PER_PERSONA):
        commands.setdefault(rule.command_in(layout), []).append(layout)
    for command, layouts in commands.items():
        # Where no command repairs the fault, a report sends its reader to this text.
        if command == f"memsync rules {rule.code}":
            continue
        grades = {rule.grade_in(layout) for layout in layouts} - {Grade.REPORT_ONLY}
        about = [f"where the repair is {grade}" for grade in grades]
        about += [f"in the {layouts[0]} layout"] if len(commands) > 1 else []
        say()
        if about:
            say(f"{', '.join(about)}:")
        say(f"next: {command}")
    for when, command in rule.ways():
        say()
        say(f"{when}:")
        say(f"next: {command}")


def words_for(code: str, name: str) -> tuple[str, str, str]:
    """How an operator may call a finding: by its code, its name or its family."""
    return code, name, code.rstrip("0123456789")


def _lower_words_for(rule: Rule) -> set[str]:
    return {word.lower() for word in words_for(rule.code, rule.name)}


def no_finding(name: str) -> str:
    """The refusal of a name that no finding has, with the one that is most like it."""
    known = (word for rule in RULES for word in (rule.code, rule.name))
    return f"there is no finding {name};{meant(name, known)} `memsync rules` lists them"


def _facts(rule: Rule) -> dict[str, object]:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity,
        "severity_per_persona": rule.severity_in(Layout.PER_PERSONA),
        "grade": rule.grade_in(Layout.SHARED),
        "grade_per_persona": rule.grade_in(Layout.PER_PERSONA),
        "about": inspect.getdoc(rule),
        "next_command": rule.command_in(Layout.SHARED),
        "next_command_per_persona": rule.command_in(Layout.PER_PERSONA),
        "ways": [{"when": when, "command": command} for when, command in rule.ways()],
    }
