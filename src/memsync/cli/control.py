"""`memsync migrate pause`, `resume` and `cancel`, for another terminal; and `backup`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from memsync import migrate
from memsync.cli.common import JsonOption, opened_postgres, print_facts, print_json, progress


def pause(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Ask the running migration to pause after its current batch. It keeps its lock."""
    return _print_runner(_asked(ctx, "pause"), as_json=as_json)


def resume(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Let a paused migration continue."""
    return _print_runner(_asked(ctx, "run"), as_json=as_json)


def cancel(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Ask the running migration to end at the next safe moment. `run` continues from there."""
    return _print_runner(_asked(ctx, "cancel"), as_json=as_json)


def backup(
    ctx: typer.Context,
    to: Annotated[Path | None, typer.Option(help="The new file to write.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Dump the affected tables with pg_dump, check the dump, and record it for contract."""
    with opened_postgres(ctx) as (_, postgres), progress(as_json=as_json) as tell:
        made = migrate.backup(postgres, to, tell=tell)
    if as_json:
        print_json(**asdict(made))
        return 0
    print_facts(
        [
            ("file", made.file),
            ("size", f"{made.bytes / 2**20:.1f} MiB"),
            ("sha256", made.sha256),
            ("tables", len(made.tables)),
            ("messages", made.history_rows),
            ("as of", f"{made.taken_at:%Y-%m-%d %H:%M:%S %Z}"),
        ]
    )
    typer.echo("next: memsync migrate run")
    return 0


def described(runner: migrate.Runner) -> str:
    """The state of the run, its pid and start, and the client that asked it to pause or end."""
    if runner.pid is None:
        return runner.state
    asked = f", asked by {runner.asked_by}" if runner.asked_by else ""
    return f"{runner.state} (pid {runner.pid} since {runner.since}{asked})"


def _asked(ctx: typer.Context, wanted: migrate.Wanted) -> migrate.Runner:
    with opened_postgres(ctx) as (_, postgres):
        return migrate.ask(postgres, wanted)


def _print_runner(runner: migrate.Runner, *, as_json: bool) -> int:
    if as_json:
        print_json(run=asdict(runner))
    else:
        typer.echo(described(runner))
    return 0
