"""Registers the commands, runs one, and turns every error into a line and an exit status.

No other module turns errors into exit statuses. stdout carries data, stderr everything else.
"""

import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperGroup

from memsync.cli import check, demo, helping, init, migrate, output, reconcile, rules, sql, sync
from memsync.cli.options import Options, Root, command
from memsync.cli.statuses import INTERNAL_ERROR, INTERRUPTED, PIPE_CLOSED, USAGE
from memsync.errors import MemsyncError
from memsync.model.secrets import without_credentials

_HOW_READ = re.compile(r"(?<=must be a valid )(\w+), (?:unable to parse|invalid ).*")
"""The part of a message about a value that says how it was read."""

app = typer.Typer(
    name="memsync",
    cls=Root,
    epilog="memsync demo\nmemsync migrate plan\nmemsync check --quiet\ndocs/README.md",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("memsync"))
        raise typer.Exit


@app.callback()
def about(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """One layer over short-term memory (Postgres) and long-term memory (Qdrant).

    Settings come from options, then MEMSYNC_* variables, then memsync.toml.
    """


command(app, "memsync demo")(demo.demo)
command(app, "memsync init --embedded", "memsync init", "docs/tutorial.md")(init.init)
app.add_typer(migrate.app, name="migrate")
app.add_typer(sync.app, name="sync")
app.add_typer(reconcile.app, name="reconcile")
command(
    app,
    "memsync check --quiet",
    "memsync check --select MSI --limit 0",
    "memsync check --report html=report.html --report junit=report.xml",
    "docs/reconcile.md",
    "docs/reports.md",
    "docs/operate.md",
)(check.check)
command(app, "memsync rules", "memsync rules MSC001", "docs/reference/findings.md")(rules.rules)
command(
    app,
    "memsync sql",
    'memsync sql ops/locks | psql "$MEMSYNC_POSTGRES_URL"',
    'psql "$MEMSYNC_POSTGRES_URL" -f "$(memsync sql --path)/migrate-persona-all-in-one.sql"',
)(sql.sql)
command(
    app,
    "memsync help exit-statuses",
    "memsync help docs/migrate.md",
    "memsync help migrate run",
    name="help",
)(helping.show)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. Never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = Options()
    output.begin(options)
    # Drivers log errors that they also raise, and alembic logs every step. Both stay off stderr,
    # which carries only memsync's own messages.
    logging.basicConfig(handlers=[logging.NullHandler()])
    status = _run(arguments, options)
    with contextlib.suppress(OSError):
        output.end(status)
    return status


def _run(arguments: list[str], options: Options) -> int:
    try:
        result = app(args=arguments, prog_name="memsync", standalone_mode=False, obj=options)
        if sys.stdout:  # None where the caller closed it, as `>&-` does
            sys.stdout.flush()
    except MemsyncError as error:
        return _failed(arguments, type(error).__name__, error.message, error.exit_status, error)
    except typer.TyperException as error:
        return _misused(arguments, error)
    except SystemExit:
        # The shell asks for completions by a variable, and typer ends the program after them.
        # It turns BrokenPipeError into SystemExit as well: the reader of our output is gone.
        return 0 if os.environ.get("_MEMSYNC_COMPLETE") else PIPE_CLOSED
    except BrokenPipeError:
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return interrupted(arguments)
    except BaseException as error:  # noqa: BLE001  the last resort: internal errors have a status too
        if "--json" not in arguments:
            with contextlib.suppress(OSError):
                # Without the errors behind it, which may quote what people wrote.
                output.complain("".join(traceback.format_tb(error.__traceback__)))
        # A library's own words may quote people, too.
        name = type(error).__name__
        said = str(error) if options.verbose else f"{name} (-v prints its text)"
        return _failed(arguments, name, f"internal error: {said}", INTERNAL_ERROR)
    if result == INTERRUPTED:
        # typer catches the interrupt and returns its status.
        return interrupted(arguments)
    return int(result or 0)


def interrupted(arguments: Sequence[str]) -> int:
    """Say that a command with these arguments was interrupted; return its exit status."""
    return _failed(arguments, "Interrupted", "interrupted; it is safe to run it again", INTERRUPTED)


def _misused(arguments: Sequence[str], error: typer.TyperException) -> int:
    """Say what is wrong with the arguments, and which help tells more."""
    message = error.format_message().replace("\n\t", " ")
    # Pydantic reads the values, and its words are about a program's input.
    message = message.replace("Value error, ", "").replace("Input should be ", "must be ")
    message = _HOW_READ.sub(r"\1", message)
    as_json = "--json" in arguments
    if message.startswith("Usage: ") and not as_json:  # the help is the message
        typer.echo(message, err=True)
        return USAGE
    hint = "" if as_json else f"\nTry '{_command_in(arguments)} --help'."
    return _failed(arguments, "UsageError", f"{message}{hint}", USAGE)


def _command_in(arguments: Sequence[str]) -> str:
    """The command that the arguments name, as far as they name one."""
    found: object = typer.main.get_command(app)
    path = ["memsync"]
    for word in arguments:
        within = found.commands.get(word) if isinstance(found, TyperGroup) else None
        if within is not None:
            found = within
            path.append(word)
    return " ".join(path)


def _failed(
    arguments: Sequence[str],
    name: str,
    message: str,
    status: int,
    error: MemsyncError | None = None,
) -> int:
    # An operator may have typed a URL where none belongs.
    message = without_credentials(message)
    if "--json" in arguments:
        fields = {
            name: without_credentials(each) if isinstance(each, str) else each
            for name, each in (error.fields if error else {}).items()
        }
        text = output.json_line(error=name, message=message, **fields, exit_status=status)
    else:
        text = output.typed(f"memsync: {message}")
    # A stderr that is full or closed must not change the status.
    with contextlib.suppress(OSError):
        output.complain(text, is_data="--json" in arguments)
    return status
