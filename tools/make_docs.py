"""Writes the pages of `docs/reference/` from the code: `python tools/make_docs.py [--check]`.

They are the help of every command, the settings, the exit statuses and the findings. Nothing on
them is written by hand, so they cannot be out of date. `--check` writes nothing, and exits with 1
when a page is stale.
"""

import contextlib
import inspect
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from typer.core import TyperGroup

from generated import keep
from memsync.cli.app import app
from memsync.cli.app import main as run
from memsync.cli.statuses import EXIT_STATUSES
from memsync.reconcile import RULES, Rule
from memsync.settings import ENV_PREFIX, Settings
from memsync.stores.ltm.layouts import Layout

PAGES = Path(__file__).parents[1] / "docs" / "reference"
_MADE = "<!-- Written by `make docs`; do not edit. -->\n"


def commands() -> str:
    """The help of every command, in the order of `memsync --help`."""
    parts = [f"# Commands\n\n{_MADE}"]
    for path in _paths():
        title = " ".join(("memsync", *path))
        parts.append(f"## {title}\n\n```text\n{_help_of(path)}```\n")
    return "\n".join(parts)


def _paths() -> Iterator[tuple[str, ...]]:
    """The words of every command, groups before their commands."""

    def below(found: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        if isinstance(found, TyperGroup):
            for name in found.list_commands(typer.Context(found)):
                yield from below(found.commands[name], (*path, name))

    return below(typer.main.get_command(app), ())


def _help_of(path: tuple[str, ...]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = run([*path, "--help"])
    if status:
        raise RuntimeError(f"memsync {' '.join(path)} --help ends with {status}")
    return out.getvalue()


def settings() -> str:
    """Every setting: its name in memsync.toml, its default, and what it decides."""
    rows = []
    for name, field in Settings.model_fields.items():
        rows.append((f"`{name}`", _toml(field.default), field.description or ""))
    return f"""# Settings

{_MADE}
Options override variables, variables override `memsync.toml`, and that overrides the defaults.
A setting's variable is its name in capitals after `{ENV_PREFIX}`: `{ENV_PREFIX}POSTGRES_URL`.
`--config FILE` names another settings file.

{_table(("setting", "default", "decides"), rows)}"""


def _toml(value: object) -> str:
    return f"`{json.dumps(value)}`" if isinstance(value, str | int | float | bool) else ""


def exit_statuses() -> str:
    """The table of exit statuses."""
    rows = [(str(each.status), each.means, each.then) for each in EXIT_STATUSES]
    return f"""# Exit statuses

{_MADE}
Each status means one thing, in every command.

{_table(("status", "means", "then"), rows)}"""


_HEAD = ("code", "finding", "shared", "per-persona", "repair")


def findings() -> str:
    """Every finding with its severity, the grade of its repair, and what it means."""
    rows = [
        (
            f"[{rule.code}](#{rule.code.lower()})",
            rule.name,
            rule.severity,
            rule.severity_in(Layout.PER_PERSONA),
            rule.grade,
        )
        for rule in RULES
    ]
    parts = [
        f"# Findings\n\n{_MADE}\n`memsync rules CODE` prints the same. The severity is that in the "
        "shared and\nin the per-persona layout. An error or a warning makes the exit status 1; an "
        "info is a fact and\nmakes none. Repairs that are safe are in every plan, unsafe ones only "
        f"with `--unsafe`.\n\n{_table(_HEAD, rows)}"
    ]
    for rule in RULES:
        about = inspect.getdoc(rule) or ""
        parts.append(f"## {rule.code}\n\n{rule.name}. {about}\n\n{_next(rule)}\n")
    return "\n".join(parts)


def _next(rule: Rule) -> str:
    """The command that comes next, and other ways. A plan may be for the shared layout alone."""
    shared, per_persona = (rule.command_in(each) for each in (Layout.SHARED, Layout.PER_PERSONA))
    lines = []
    if shared != per_persona:
        lines += [f"Next, in the shared layout: `{shared}`"]
        lines += ["In the per-persona layout no plan has it."]
    elif shared != f"memsync rules {rule.code}":
        lines += [f"Next: `{shared}`"]
    lines += [f"{when[0].upper()}{when[1:]}: `{command}`" for when, command in rule.ways()]
    return "\n\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


def main() -> int:
    """Write the pages, or say which are stale."""
    return max(
        keep(PAGES / f"{make.__name__.replace('_', '-')}.md", make(), "docs")
        for make in (commands, settings, exit_statuses, findings)
    )


if __name__ == "__main__":
    sys.exit(main())
