"""The entry point: it registers the commands, and turns every error into a line and an exit status.

No other module turns errors into exit statuses. stdout carries data, stderr everything else.
"""

import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from memsync.cli import check, demo, migrate, reconcile, rules, sync
from memsync.cli.common import (
    EXIT_STATUSES,
    INTERNAL_ERROR,
    INTERRUPTED,
    PIPE_CLOSED,
    SCHEMA_VERSION,
    USAGE,
    Options,
    json_of,
    typed,
    use_config,
)
from memsync.errors import MemsyncError

app = typer.Typer(
    name="memsync",
    help="One layer over short-term memory (Postgres) and long-term memory (Qdrant): migrate, "
    "reconcile, check.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("memsync"))
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings file; else memsync.toml if there is one.")
    ] = None,
    postgres_url: Annotated[
        str | None, typer.Option(help="postgresql://… or embedded:DIR [MEMSYNC_POSTGRES_URL]")
    ] = None,
    qdrant_url: Annotated[
        str | None,
        typer.Option(help="http(s)://…, edge:DIR, local:DIR, :memory: [MEMSYNC_QDRANT_URL]"),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Settings come from these options, MEMSYNC_* variables, memsync.toml, in this order."""
    ctx.obj = Options(config, postgres_url, qdrant_url)
    use_config(config)


app.add_typer(migrate.app, name="migrate")
app.add_typer(reconcile.app, name="reconcile")
app.add_typer(sync.app, name="sync")
app.command("check", epilog=EXIT_STATUSES)(check.check)
app.command("demo", epilog=EXIT_STATUSES)(demo.demo)
app.command("rules", epilog=EXIT_STATUSES)(rules.rules)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. Never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    use_config(None)
    # Drivers log errors that they also raise, and alembic logs every step. Both stay off stderr,
    # which carries only memsync's own messages.
    logging.basicConfig(handlers=[logging.NullHandler()])
    try:
        result = app(args=arguments, prog_name="memsync", standalone_mode=False)
        if sys.stdout:  # None where the caller closed it, as `>&-` does
            sys.stdout.flush()
    except MemsyncError as error:
        return _failed(arguments, type(error).__name__, error.message, error.exit_status, error)
    except typer.TyperException as error:
        message = error.format_message()
        if message.startswith("Usage: "):  # no command given: the help is the message
            typer.echo(message, err=True)
            return USAGE
        return _failed(arguments, "UsageError", message, USAGE)
    except (BrokenPipeError, SystemExit):
        # typer turns BrokenPipeError into SystemExit. The reader of our output is gone, so stop
        # without a message.
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001  the last resort: internal errors have a status too
        if "--json" not in arguments:
            with contextlib.suppress(OSError):
                traceback.print_exc()
        return _failed(arguments, type(error).__name__, f"internal error: {error}", INTERNAL_ERROR)
    if result == INTERRUPTED:
        # typer catches the interrupt and returns its status.
        return _failed(arguments, "Interrupted", "interrupted; run again to go on", INTERRUPTED)
    return int(result or 0)


def _failed(
    arguments: Sequence[str],
    name: str,
    message: str,
    status: int,
    error: MemsyncError | None = None,
) -> int:
    if "--json" in arguments:
        fields = dict(error.fields) if error else {}
        shape = {"schema_version": SCHEMA_VERSION, "error": name, "message": message, **fields}
        text = json_of({**shape, "exit_status": status})
    else:
        hint = "\nTry 'memsync --help'." if name == "UsageError" else ""
        text = typed(f"memsync: {message}{hint}")
    # A stderr that is full or closed must not change the status.
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)
    return status


def entry() -> None:
    """The console script. SIGTERM and SIGHUP act like Ctrl-C, so servers it started are stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    status = main()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            # The rest of the buffer has no reader. At exit Python would try again and end with 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)
