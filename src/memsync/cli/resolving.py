"""`memsync migrate resolve`, and the lines that other commands print about Prisma's history."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from memsync.cli.output import print_facts, print_json, say, say_command, say_next
from memsync.cli.stores import opened_postgres
from memsync.errors import InvalidInput
from memsync.migrate import Status, prisma
from memsync.migrate.app_migrations import DEFAULT_FOLDER, schema_lines
from memsync.stores.history.phases import Stage
from memsync.stores.postgres import Postgres

_SENTENCE_END = re.compile(r"\. (?=[A-Z])")


def resolve(
    ctx: typer.Context,
    *,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Record as applied each of the app's migrations that the database holds, by its "
            "catalog, and nothing else.",
        ),
    ] = False,
    applied: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Record this migration as applied. Its word is taken."),
    ] = None,
    rolled_back: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Record this migration as rolled back: it failed, or the way back undid it.",
        ),
    ] = None,
    show_schema: Annotated[
        bool,
        typer.Option(
            "--show-schema",
            help="Print what schema.prisma must say of the indexes that memsync left.",
        ),
    ] = False,
    prisma_dir: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The app's prisma/migrations, or prisma with migrations in it."
        ),
    ] = DEFAULT_FOLDER,
) -> int:
    """Record in Prisma's history what was done by other means, as `prisma migrate resolve` does.

    A migration is recorded only where its folder is there, with the checksum of its migration.sql.
    """
    if [every, applied is not None, rolled_back is not None, show_schema].count(True) != 1:
        raise InvalidInput(
            "give one of --all, --applied NAME, --rolled-back NAME and --show-schema"
        )
    with opened_postgres(ctx) as (_, postgres):
        if show_schema:
            return _print_schema(postgres, as_json=ctx.obj.as_json)
        if every:
            done = prisma.mark_all(postgres, prisma_dir)
        elif applied is not None:
            done = (prisma.mark_applied(postgres, applied, prisma_dir),)
        else:
            done = (prisma.mark_rolled_back(postgres, rolled_back or ""),)
        told = prisma.told(postgres)
    if ctx.obj.as_json:
        one = {} if every else {"resolved": done[0].name, "state": done[0].state}
        print_json(
            **one,
            migrations=[asdict(each) for each in done],
            prisma_checks=[asdict(each) for each in told.checks],
        )
        return 0
    for each in done:
        say(f"{each.name}: {each.state}{f'. {each.note}' if each.note else ''}")
    print_differences(told)
    return 0


def print_differences(told: prisma.Told) -> None:
    """Where Prisma's history and the catalog differ, each with the command that mends it."""
    for each in told.checks:
        first, *others = _SENTENCE_END.split(each.found)
        say(f"Prisma: {first}")
        for sentence in others:
            say(f"  {sentence}")
        say(f"  do: {each.next}")


def print_stage(
    stage: Stage,
    postgres: Postgres,
    now: Status,
    facts: Mapping[str, object],
    *,
    as_json: bool,
) -> int:
    """The stage that a command has reached, what Prisma is still to be told, and what is next."""
    if as_json:
        print_json(stage=stage, **facts, first=now.first, next=now.next)
        return 0
    say(f"stage: {stage}")
    print_facts(facts.items())
    print_differences(prisma.told(postgres))
    say_next(now.next, now.first)
    return 0


def _print_schema(postgres: Postgres, *, as_json: bool) -> int:
    with postgres.session() as session:
        model, script = schema_lines(session)
    if as_json:
        print_json(schema=model, sql=script)
    elif not model:
        say("memsync left no index that Prisma must be told of")
    else:
        lines = (
            '// schema.prisma, in the model with @@map("conversation_history"):',
            *(f"  {line}" for line in model),
            "",
            "-- prisma/migrations/<time>_retrieval_index/migration.sql, after the app's last one:",
            *script,
        )
        for line in "\n".join(lines).split("\n"):
            say_command(line)
    return 0
