"""`memsync reconcile undo` and `runs`: takes a run of apply back, and lists those that are kept."""

import contextlib
from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from memsync import reconcile
from memsync.cli.output import print_json, say
from memsync.cli.progress import progress
from memsync.cli.stores import opened_postgres, opened_stores
from memsync.cli.vectors import check_again
from memsync.errors import InvalidInput, SchemaMismatch, SettingsError, StoreUnreachable
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Session


def undo(
    ctx: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The id that `reconcile apply` printed.")
    ],
) -> int:
    """Take a run of apply back, also one that was cut short. Running it again finishes it.

    A point that somebody has written since is left as it is, and told. So is one whose memory
    another run has removed since.
    """
    run_id = _id_of(run)
    with opened_stores(ctx) as (settings, postgres, ltm), progress(ctx.obj) as tell:
        done = reconcile.undo(run_id, postgres, ltm, settings, tell)
    if ctx.obj.as_json:
        print_json(run_id=run_id, done=done.done, kept=done.kept)
        return 0
    nothing = "nothing was left to undo"
    say(nothing if not done.done else f"{count(done.done, 'point')} undone")
    for name in done.kept:
        say(f"  {name} is kept: it holds points that the run did not write")
    say(f"next: {check_again(about=done.reasons)}")
    return 0


def _id_of(run: str) -> UUID:
    """The id that an operator names. Raises: InvalidInput."""
    try:
        return UUID(run)
    except ValueError:
        raise InvalidInput(
            f"{run!r} is no id of a run: `memsync reconcile runs` lists those that are kept"
        ) from None


def runs(ctx: typer.Context) -> int:
    """List the runs of apply that are kept, the newest first. Writes nothing.

    A run that an undo would not take back whole is marked, and why. Without the vector store it
    shows what Postgres knows.
    """
    with opened_postgres(ctx) as (settings, postgres), postgres.session() as session:
        found, left_out = _kept(settings, session)
    if ctx.obj.as_json:
        print_json(runs=[_run_fields(each) for each in found], left_out=left_out)
        return 0
    for each in found:
        run = each.run
        say(f"{run.run_id}  {run.last_at:%Y-%m-%d %H:%M} UTC  by {run.who}")
        say(f"    {_standing(run)}")
        if each.why_not and run.to_undo:
            say(f"    to be undone: {each.undo}; {each.why_not}", "yellow")
    for what in left_out:
        say(f"not looked at: {what}")
    said = count(len(found), "run") if found else "no runs"
    say(f"{said}; each is kept for {count(settings.quarantine_days, 'day')} after its last work")
    return 0


def _kept(settings: Settings, session: Session) -> tuple[list[reconcile.Kept], list[str]]:
    """The runs, judged with the vector store, or without it where it cannot be asked."""
    if not reconcile.runs(session):
        return [], []
    try:
        settings.named("qdrant_url")
        with contextlib.closing(LongTermMemory.open(settings, session)) as ltm:
            found, left_out = reconcile.kept(session, ltm)
            return found, list(left_out)
    except (SettingsError, SchemaMismatch, StoreUnreachable) as error:
        # The runs may be looked at because the vector store is away.
        found, left_out = reconcile.kept(session, None)
        return found, [*left_out, f"the collections of the runs: {error.message}"]


def _run_fields(each: reconcile.Kept) -> dict[str, object]:
    run = each.run
    return {
        **{name: value for name, value in asdict(run).items() if name != "target"},
        "left": run.left,
        "target": run.target.fields(),
        "undo": each.undo,
        "why_not": each.why_not,
    }


def _standing(run: reconcile.Run) -> str:
    """What became of the actions of a run."""
    done = f"{run.done:,} of {count(run.actions, 'action')} done"
    if run.undone:
        done += ", undone again" if run.undone == run.done else f", {run.undone:,} undone again"
    parts = (
        (run.unsettled, "perhaps done"),
        (run.done_before, "done before"),
        (run.set_aside, "set aside"),
        (run.left, "left"),
    )
    return ", ".join([done, *(f"{number:,} {what}" for number, what in parts if number)])
