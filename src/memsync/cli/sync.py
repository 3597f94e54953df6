"""`memsync sync`: runs the relay, once or as a service; shows the outbox; revives dead entries."""

from typing import Annotated

import typer

from memsync.cli.following import follow
from memsync.cli.options import command, group
from memsync.cli.output import print_facts, print_json, say, say_next
from memsync.cli.progress import progress
from memsync.cli.stores import opened_postgres, opened_stores
from memsync.errors import InvalidInput
from memsync.memory import drain, outbox_status, revive
from memsync.model.wording import count

_EVERY_S = 1.0

app = group(
    "Write the memories that wait in the outbox in Postgres to Qdrant.",
    "memsync sync run",
    "memsync sync status",
    "docs/relay.md",
)


@command(app, "memsync sync run", "memsync sync run --follow")
def run(
    ctx: typer.Context,
    *,
    following: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Go on until SIGTERM, through outages: the relay as a service. With --json one "
            "object for each batch.",
        ),
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=3600, metavar="SECONDS", help="How often --follow looks; else 1."
        ),
    ] = None,
) -> int:
    """Drain the outbox once, or with --follow as a service.

    Safe to run again; entries that failed are retried later.

    An embedder or a vector store that goes down meanwhile is waited for (outage_wait_s). The exit
    status is 3 where entries failed in this run, wait for what is down, are held or are dead. In
    the layout per-persona nothing is written as long as the app itself writes memories (writer =
    app).
    """
    if following:
        return follow(ctx.obj, every_s=_EVERY_S if every is None else every)
    if every is not None:
        raise InvalidInput(
            f"--every {every:g} is how often --follow looks, and --follow was not given: without "
            "it the outbox is drained once. Add --follow, or leave --every out",
            field="every",
        )
    with opened_stores(ctx) as (settings, postgres, ltm), progress(ctx.obj) as tell:
        done = drain(postgres, ltm, tell, outage_wait_s=settings.outage_wait_s)
    if ctx.obj.as_json:
        print_json(entries=done.entries, memories=done.memories)
    else:
        drained = count(done.entries, "outbox entry", "outbox entries")
        say(f"{drained} drained, {count(done.memories, 'memory', 'memories')} written")
    return 0


@command(app, "memsync sync status")
def status(ctx: typer.Context) -> int:
    """Show how many entries wait in the outbox, are held or dead, and why. Writes nothing."""
    with opened_postgres(ctx) as (settings, postgres):
        now = outbox_status(postgres, settings)
    facts = {
        "pending": now.pending,
        "held": now.held,
        "dead": now.dead,
        "oldest_s": round(now.oldest_s, 1),
    }
    if ctx.obj.as_json:
        print_json(**facts, dead_error=now.dead_error, held_error=now.held_error)
        return 0
    print_facts(facts.items())
    if now.held:
        say(f"why they are held: {now.held_error}")
    if now.dead:
        say(f"the commonest error of the dead entries: {now.dead_error}")
        say_next("memsync sync retry", "mend its cause")
    elif now.pending > now.held:
        say("next: memsync sync run")
    return 0


@command(app, "memsync sync retry")
def retry(ctx: typer.Context) -> int:
    """Make dead entries due again; `sync run` then tries them."""
    with opened_postgres(ctx) as (_, postgres):
        revived = revive(postgres)
    if ctx.obj.as_json:
        print_json(revived=revived)
    else:
        entries = count(revived, "dead entry is", "dead entries are")
        say(f"{entries} due again")
        if revived:
            say("next: memsync sync run")
    return 0
