"""`memsync migrate rollback` and `finalize`: the way back, and its end."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from memsync import migrate
from memsync.cli import resolving
from memsync.cli.output import print_json, say, say_next
from memsync.cli.progress import progress
from memsync.cli.stores import opened_postgres
from memsync.migrate.standing import BEFORE_FINALIZE, FINALIZE
from memsync.model.progress import Kind, Progress
from memsync.model.wording import count
from memsync.stores.history.phases import Phase


def rollback(
    ctx: typer.Context,
    to: Annotated[
        Literal["start", "isolate", "redesign", "expand", "backfill"],
        typer.Option(help="The last phase to keep; start: keep none."),
    ],
) -> int:
    """Undo every phase after --to, contract included. Every message keeps user and persona.

    Clients can work meanwhile, as during `run`. It is safe to run again. A later `run` gives every
    message the persona that it has now. All that the app had made stays. Default personas that
    memsync made go if nothing uses them; a note names those that stay.
    """
    phase = None if to == "start" else Phase(to)
    notes: list[str] = []
    with (
        opened_postgres(ctx) as (settings, postgres),
        migrate.memories_of(settings) as memories,
    ):
        with progress(ctx.obj) as shown:

            def tell(step: Progress) -> None:
                if step.kind is Kind.NOTE:
                    notes.append(step.what)
                shown(step)

            stage = migrate.rollback(postgres, settings, to=phase, memories=memories, tell=tell)
        facts = {"notes": notes} if ctx.obj.as_json else {}
        now = migrate.status(postgres)
        return resolving.print_stage(stage, postgres, now, facts, as_json=ctx.obj.as_json)


def finalize(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it, do not only list it.")] = False,
) -> int:
    """Remove the archive, which rollback from contract needs. This cannot be undone."""
    with opened_postgres(ctx) as (settings, postgres), progress(ctx.obj) as tell:
        kept = migrate.archive(postgres)
        is_there = kept.way_back or any(asdict(kept).values())
        if yes and is_there:
            migrate.finalize(postgres, settings, tell)
    if ctx.obj.as_json:
        print_json(finalized=yes and is_there, **asdict(kept))
    elif not is_there:
        say(
            "nothing to remove: there is no way back from contract here. memsync did not migrate "
            "this database, or finalize ended the way back already"
        )
    elif yes:
        say(f"removed {_told(kept)}; contract cannot be undone now")
    else:
        say(f"this would remove {_told(kept)}.")
        say("`memsync migrate rollback --to backfill` needs them, and would be refused then.")
        say_next(f"{FINALIZE} --yes", BEFORE_FINALIZE)
    return 0


def _told(kept: migrate.Archive) -> str:
    """The contents of the archive, in words."""
    parts = (
        (kept.pairs, count(kept.pairs, "decision")),
        (kept.rows, count(kept.rows, "archived row")),
        (kept.settings, f"{count(kept.settings, 'value')} of dropped columns"),
        (kept.personas, count(kept.personas, "quarantined persona")),
    )
    return ", ".join(said for number, said in parts if number) or "an archive that is empty"
