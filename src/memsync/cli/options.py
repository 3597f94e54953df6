"""The options that every command takes, before the command or after it, and the form of its help.

It decides which options these are and how help is laid out. One `Options` object holds their values
while a command runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from memsync.settings import Settings

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter, Parameter


@dataclass(slots=True)
class Options:
    """The values of the options that every command takes."""

    config: Path | None = None
    postgres_url: str | None = None
    qdrant_url: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether output has neither colour nor bold, as https://no-color.org has it."""
        return self.no_color or bool(os.environ.get("NO_COLOR"))

    def settings(self) -> Settings:
        """The settings in force: those of file, variables and options."""
        return Settings.load(
            self.config, postgres_url=self.postgres_url, qdrant_url=self.qdrant_url
        )


def _keep(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> None:
    """Keep a value that was given. An option after the command overrides the one before it."""
    if value not in {None, False} and isinstance(ctx.obj, Options) and param.name:
        setattr(ctx.obj, param.name, value)


def _option(*names: str, **more: Any) -> Any:
    return typer.Option(*names, callback=_keep, expose_value=False, **more)


def _declared(
    *,
    config: Annotated[
        Path | None,
        _option("--config", metavar="FILE", help="Settings file; else memsync.toml, if it exists."),
    ] = None,
    postgres_url: Annotated[
        str | None,
        _option("--postgres-url", metavar="URL", help="postgresql://… or embedded:DIR"),
    ] = None,
    qdrant_url: Annotated[
        str | None,
        _option("--qdrant-url", metavar="URL", help="http(s)://…, edge:DIR, local:DIR or :memory:"),
    ] = None,
    as_json: Annotated[
        bool, _option("--json", help="Print one JSON object on stdout; errors on stderr.")
    ] = False,
    quiet: Annotated[
        bool,
        _option(
            "-q", "--quiet", help="Print nothing when the exit status is 0; no progress either."
        ),
    ] = False,
    verbose: Annotated[
        bool, _option("-v", "--verbose", help="Print every step, also into a log.")
    ] = False,
    no_color: Annotated[
        bool, _option("--no-color", help="Print without colour, as with NO_COLOR.")
    ] = False,
) -> None:
    """Declare the options; typer makes parameters of them."""


def _parameters() -> list[Parameter]:
    made = typer.Typer(add_completion=False)
    made.command()(_declared)
    return list(typer.main.get_command(made).params)


_GLOBAL = _parameters()
_Done = TypeVar("_Done", bound=Callable[..., Any])
_HEADING = re.compile(r"^[A-Z][\w ,]+:$", re.MULTILINE)
_SENTENCE = re.compile(r"(?s)(.+?\.)(?:\s|\Z)")


class _Common:
    """The help that commands and groups share.

    Its epilog holds examples and pages of docs/, one a line.
    """

    params: list[Parameter]
    epilog: str | None
    is_root = False

    def add_global_options(self) -> None:
        self.params = [*self.params, *_GLOBAL]

    def get_help(self, ctx: Context) -> str:
        text: str = super().get_help(ctx)  # type: ignore[misc]  # of the class beside this one
        is_plain = isinstance(ctx.obj, Options) and ctx.obj.is_plain
        if is_plain or not (sys.stdout and sys.stdout.isatty()):
            return text
        return _HEADING.sub(lambda at: typer.style(at[0], bold=True), text)

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        every: list[Parameter] = self.get_params(ctx)  # type: ignore[attr-defined]
        own = [each for each in every if each not in _GLOBAL]
        arguments = [each for each in own if each.param_type_name == "argument"]
        by_heading = {
            "Arguments": arguments,
            "Options": [each for each in own if each.param_type_name == "option"],
            "Global options, before or after the command": list(_GLOBAL) if self.is_root else [],
        }
        for heading, params in by_heading.items():
            rows = [
                (_name(each) if each in arguments else row[0], row[1])
                for each in params
                if (row := each.get_help_record(ctx))
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """The usage, with each argument by its name alone, in brackets where it may be left out."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]  # as above
        every: list[Parameter] = self.get_params(ctx)  # type: ignore[attr-defined]
        arguments = [each for each in every if each.param_type_name == "argument"]
        names = [_name(each) if each.required else f"[{_name(each)}]" for each in arguments]
        # Each has one piece, behind that of the options.
        pieces[1 : 1 + len(names)] = names
        return pieces

    def format_epilog(self, _ctx: Context, formatter: HelpFormatter) -> None:
        lines = (self.epilog or "").splitlines()
        pages = [line for line in lines if line.startswith("docs/")]
        if examples := [line for line in lines if line not in pages]:
            with formatter.section("Example" if len(examples) == 1 else "Examples"):
                for line in examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        formatter.write_paragraph()
        if pages:
            formatter.write_text(f"More: memsync help {' or '.join(pages)}.")
        formatter.write_text(
            "Exit statuses: memsync help exit-statuses."
            if self.is_root
            else "Global options: memsync --help. Exit statuses: memsync help exit-statuses."
        )


class Command(_Common, TyperCommand):
    """A command of memsync."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.add_global_options()


class Group(_Common, TyperGroup):
    """A command of memsync that has commands of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_global_options()

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Each command with the first sentence of its help, whole."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, _first_sentence(command.help or "")))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Root(Group):
    """`memsync` itself. It lists the commands in the order in which one meets them."""

    is_root = True
    order: tuple[str, ...] = (
        "demo",
        "init",
        "migrate",
        "sync",
        "reconcile",
        "check",
        "rules",
        "sql",
        "help",
    )

    def list_commands(self, ctx: Context) -> list[str]:
        """The names, in that order."""
        return sorted(super().list_commands(ctx), key=self.order.index)


def _name(argument: Parameter) -> str:
    """The name of an argument as people read it, without its type."""
    name = str(argument.metavar or argument.name).strip("[].").upper()
    return name if argument.nargs == 1 else f"{name}..."


def _first_sentence(text: str) -> str:
    found = _SENTENCE.match(" ".join(text.split()))
    return found[1] if found else text


def command(app: typer.Typer, *examples: str, name: str | None = None) -> Callable[[_Done], _Done]:
    """Register a function as a command of `app`, with examples and pages of docs/ for its help."""
    return app.command(name, cls=Command, epilog="\n".join(examples))


def group(about: str, *examples: str, **more: Any) -> typer.Typer:
    """A group of commands, with examples that its help shows."""
    return typer.Typer(
        cls=Group,
        help=about,
        epilog="\n".join(examples),
        no_args_is_help=not more.get("invoke_without_command"),
        rich_markup_mode=None,
        **more,
    )
