"""`memsync migrate pause`, `resume` and `cancel`, for another terminal; and `backup`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from memsync import migrate
from memsync.cli.output import print_facts, print_json, say, say_command, say_next
from memsync.cli.progress import progress
from memsync.cli.stores import opened_postgres
from memsync.model.wording import count, size
from memsync.stores.postgres.embedded import by_hand

_LOOK = "memsync migrate status"
"""A request is heard at the run's next safe moment; this says whether it was."""


def pause(ctx: typer.Context) -> int:
    """Ask the running migration to pause after its current batch. It keeps its lock."""
    return _print_runner(_asked(ctx, "pause"), "memsync migrate resume", as_json=ctx.obj.as_json)


def resume(ctx: typer.Context) -> int:
    """Let a paused migration continue."""
    return _print_runner(_asked(ctx, "run"), _LOOK, as_json=ctx.obj.as_json)


def cancel(ctx: typer.Context) -> int:
    """Ask the running migration to end at the next safe moment. `run` continues from there."""
    return _print_runner(_asked(ctx, "cancel"), _LOOK, as_json=ctx.obj.as_json)


def backup(
    ctx: typer.Context,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The new file to write.")] = None,
) -> int:
    """Dump the affected tables with pg_dump, check the dump, and record it for contract."""
    with opened_postgres(ctx) as (settings, postgres), progress(ctx.obj) as tell:
        made = migrate.backup(postgres, out, tell=tell)
        (url,) = settings.named("postgres_url")
        scheme, _, folder = url.partition(":")
        is_embedded = scheme == "embedded"
        own = by_hand(Path(folder), postgres.conninfo) if is_embedded else None
        start, stop = (own.start, own.stop) if own else (None, None)
        now = migrate.status(postgres)
    if ctx.obj.as_json:
        print_json(**asdict(made), start=start, stop=stop, first=now.first, next=now.next)
        return 0
    print_facts(
        [
            ("file", made.file),
            ("size", size(made.bytes)),
            ("sha256", made.sha256),
            ("holds", f"{count(len(made.tables), 'table')}, {count(made.history_rows, 'message')}"),
            ("as of", f"{made.taken_at:%Y-%m-%d %H:%M:%S %Z}"),
        ]
    )
    say("to restore it, stop the app, its jobs and `memsync sync run`")
    say("these commands make a new database of it; this one stays as it is:")
    if start:
        say("  (this server runs only while memsync has it open, so the first one starts it)")
        say_command(f"  {start}")
    for command in made.restore:
        say_command(f"  {command}")
    say("then let MEMSYNC_POSTGRES_URL name it, check it with `memsync migrate status`,")
    say("and let the app's URL name it")
    if stop:
        say("embedded:DIR names no other database, so the URL has another form:")
        say("  postgresql://postgres@/DATABASE?host=FOLDER, as in the commands above")
        say("this stops the server:")
        say_command(f"  {stop}")
    say_next(now.next, now.first)
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


def _print_runner(runner: migrate.Runner, then: str, *, as_json: bool) -> int:
    if as_json:
        print_json(run=asdict(runner), next=then)
    else:
        say(described(runner))
        say_next(then)
    return 0
