"""`memsync sync`: runs the relay once, shows the outbox, and revives dead entries."""

import typer

from memsync.cli.common import (
    EXIT_STATUSES,
    JsonOption,
    opened_postgres,
    opened_stores,
    print_facts,
    print_json,
    progress,
    say,
)
from memsync.memory import drain, outbox_status, revive

app = typer.Typer(
    help="Write the memories that wait in the outbox in Postgres to Qdrant.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
)


@app.command(epilog=EXIT_STATUSES)
def run(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Drain the outbox once. Safe to run again; entries that failed are retried later.

    An embedder or a vector store that goes down meanwhile is waited for (outage_wait_s). The exit
    status is 3 as long as entries failed, wait for what is down, or are dead.
    """
    with opened_stores(ctx) as (settings, postgres, ltm), progress(as_json=as_json) as tell:
        done = drain(postgres, ltm, tell, outage_wait_s=settings.outage_wait_s)
    if as_json:
        print_json(entries=done.entries, memories=done.memories)
    else:
        say(f"{done.entries} outbox entries drained, {done.memories} memories written")
    return 0


@app.command(epilog=EXIT_STATUSES)
def status(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Show how many entries wait in the outbox, and what the dead ones died of. Writes nothing."""
    with opened_postgres(ctx) as (_, postgres):
        now = outbox_status(postgres)
    facts = {"pending": now.pending, "dead": now.dead, "oldest_s": round(now.oldest_s, 1)}
    if as_json:
        print_json(**facts, dead_error=now.dead_error)
        return 0
    print_facts(facts.items())
    if now.dead:
        typer.echo(f"the commonest error of the dead entries: {now.dead_error}")
        say("next: mend its cause, then memsync sync retry")
    elif now.pending:
        say("next: memsync sync run")
    return 0


@app.command(epilog=EXIT_STATUSES)
def retry(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Make dead entries due again; `sync run` then tries them."""
    with opened_postgres(ctx) as (_, postgres):
        revived = revive(postgres)
    if as_json:
        print_json(revived=revived)
    else:
        say(f"{revived} dead entries are due again; next: memsync sync run")
    return 0
