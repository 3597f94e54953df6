"""`memsync reconcile`: audit, plan, show, apply, adopt, undo and runs."""

import os
import shlex
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from memsync import reconcile
from memsync.cli import baseline, layout, runs
from memsync.cli.findings import report, require_known
from memsync.cli.formats.report import numbered
from memsync.cli.options import command, group
from memsync.cli.output import print_facts, print_json, say
from memsync.cli.plans import plan_fields, print_left, print_plan
from memsync.cli.progress import progress
from memsync.cli.stores import opened_stores
from memsync.cli.vectors import SeedOption, VectorsOption, check_again, verify_of
from memsync.cli.views import EVERYTHING, View, viewed
from memsync.errors import InvalidInput
from memsync.model.records import Place
from memsync.model.wording import count
from memsync.reconcile.plans import Plan
from memsync.stores.history.catalog import instance_id
from memsync.stores.postgres import Session

PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="A file that `reconcile plan` saved.")
]

app = group(
    "Compare the memories in Qdrant with the history in Postgres, and repair them. Without a "
    "command it audits.",
    "memsync reconcile",
    "memsync reconcile plan --out plan.json",
    "memsync reconcile apply plan.json",
    "docs/reconcile.md",
    invoke_without_command=True,
)
app.add_typer(baseline.app, name="baseline")
app.add_typer(layout.app, name="layout")


@app.callback()
@viewed
def default(ctx: typer.Context, view: View) -> int:
    """Audit when no command is given."""
    if not ctx.invoked_subcommand:
        return report(ctx, view, reconcile.audit, "memsync reconcile audit")
    if view != EVERYTHING:
        raise typer.BadParameter("options of the audit go after `memsync reconcile audit`")
    return 0


@command(
    app,
    "memsync reconcile audit",
    "memsync reconcile audit --select MSC --show-text",
    "memsync reconcile audit --json-lines > findings.jsonl",
)
@viewed
def audit(ctx: typer.Context, view: View) -> int:
    """Compare both stores and print every difference. Writes nothing."""
    return report(ctx, view, reconcile.audit, "memsync reconcile audit")


@command(app, "memsync reconcile plan", "memsync reconcile plan --unsafe --out monday.json")
def plan(
    ctx: typer.Context,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to save the plan in.")] = Path(
        "plan.json"
    ),
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe", help="Also what removes a memory, or gives it to another persona."
        ),
    ] = False,
    persona: Annotated[
        UUID | None, typer.Option(metavar="UUID", help="Repair only this persona's memories.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    verify_vectors: VectorsOption = None,
    verify_seed: SeedOption = None,
) -> int:
    """Audit, and save a plan that repairs the findings. Changes neither store.

    A file with a plan that nobody has begun, or of which nothing is left to do, is replaced; any
    other needs --force.
    """
    _require_a_file(out)
    verify = verify_of(verify_vectors, verify_seed)
    unused = 0
    with opened_stores(ctx) as (settings, postgres, ltm):
        if os.path.lexists(out) and not force:
            with postgres.session() as session:
                _unused(session, out)
        with progress(ctx.obj) as tell:
            found = reconcile.audit(postgres, ltm, settings, tell, verify=verify, deep=True)
        with found, postgres.session() as session:
            require_known(postgres, View(persona=persona), found)
            database = instance_id(session)
            made = reconcile.make_plan(
                found, instance_id=database, ltm=ltm, unsafe=unsafe, persona=persona
            )
            known = found.acknowledged.chosen(persona=persona).counts
            if os.path.lexists(out) and not force:
                # The audit was long, and somebody may have begun the plan meanwhile.
                unused, force = _unused(session, out), True
    _save(made, out, force=force)
    if ctx.obj.as_json:
        print_json(
            plan=out,
            plan_id=made.plan_id,
            actions=len(made.actions),
            left=made.left,
            spared=made.spared,
            acknowledged=known,
        )
        return 0
    print_facts(Counter(action.kind for action in made.actions).items())
    print_left(made)
    if known:
        say(f"  acknowledged, so not in the plan: {numbered(known)}")
    if unused:
        had = f"a plan of {count(unused, 'action')} of which no run is known"
        say(f"{out} had {had}: it is replaced")
    say(f"saved {count(len(made.actions), 'action')} in {out}")
    if made.left:
        say(f"`{check_again(verify)}` lists what is left, and what to do about each")
    if not made.actions and not made.left and not made.spared:
        say("there is nothing to repair")
    if made.actions:
        say(f"see it: memsync reconcile show {shlex.quote(str(out))}")
        say(f"next: memsync reconcile apply {shlex.quote(str(out))}")
    return 0


@command(app, "memsync reconcile show plan.json", "memsync reconcile show plan.json --json")
def show(ctx: typer.Context, file: PlanFile) -> int:
    """Print what a saved plan would do, and to which stores. Opens no store.

    No output holds anybody's words. With --json every action is there.
    """
    saved = _read(file)
    if ctx.obj.as_json:
        print_json(**plan_fields(saved))
    else:
        print_plan(saved)
    return 0


@command(
    app,
    "memsync reconcile apply plan.json",
    "memsync reconcile apply plan.json --limit 100",
    "docs/reconcile.md",
)
def apply(
    ctx: typer.Context,
    file: PlanFile,
    *,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Carry out the next N actions; run it again for the next ones."
        ),
    ] = None,
    remove_many: Annotated[
        bool,
        typer.Option(
            "--remove-many", help="Also where more than 5 % of the collections' points would go."
        ),
    ] = False,
) -> int:
    """Carry out that plan. Running it again finishes an interrupted apply.

    An action whose exchange or point has changed since is set aside and told, and the rest is done.
    """
    saved = _read(file)
    with opened_stores(ctx) as (settings, postgres, ltm), progress(ctx.obj) as tell:
        done = reconcile.apply(
            saved, postgres, ltm, settings, tell, limit=limit, remove_many=remove_many
        )
    if ctx.obj.as_json:
        print_json(
            run_id=saved.plan_id, done=done.done, done_before=done.done_before, left=done.left
        )
        return 0
    if not saved.actions:
        say("the plan has no actions: there is nothing to repair")
    else:
        before = f", {count(done.done_before, 'was', 'were')} done before"
        say(f"{count(done.done, 'action')} carried out{before if done.done_before else ''}")
    if done.done + done.done_before > done.by_others:
        say(f"to take it back: memsync reconcile undo {saved.plan_id}")
    if done.left:
        say(f"{count(done.left, 'action is', 'actions are')} left")
        more = f" --limit {limit}" if limit else ""
        more += " --remove-many" if remove_many else ""
        say(f"next: memsync reconcile apply {shlex.quote(str(file))}{more}")
        return 0
    say(f"next: {check_again(about=saved.reasons)}")
    return 0


@command(
    app,
    "memsync reconcile adopt",
    "memsync reconcile adopt --anew --persona 9a1f0c55-6f0e-4f0e-9d2b-0d9f3f6c1a10",
    "docs/reconcile.md",
)
def adopt(
    ctx: typer.Context,
    *,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Also what differs from what was written down before."),
    ] = False,
    persona: Annotated[
        list[UUID] | None,
        typer.Option(metavar="UUID", help="Only this persona's memories; repeatable."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="COLLECTION/ID", help="Only this point; repeatable."),
    ] = None,
) -> int:
    """Record in the ledger in Postgres which memories exist now.

    A memory whose rows the app removes later is known by it. A memory with a fault is left out.
    Writes to Postgres, and the mark of the vector store; changes no memory.
    """
    part = reconcile.Part(frozenset(persona or ()), frozenset(map(_place, point or ())))
    with opened_stores(ctx) as (settings, postgres, ltm), progress(ctx.obj) as tell:
        done = reconcile.adopt(postgres, ltm, settings, tell, anew=anew, part=part)
    if ctx.obj.as_json:
        print_json(**asdict(done))
        return 0
    for place, what in sorted(done.points.items()):
        say(f"{place}: {what}")
    if not persona and point:
        say("next: memsync check")
        return 0
    without = f", {done.archived:,} of them without rows" if done.archived else ""
    adopted = count(done.memories, "memory", "memories")
    say(f"{adopted} {'adopted' if part else 'in the ledger'}{without}")
    if done.changed:
        say(f"{done.changed:,} of them differ from what was written down before")
    if done.left_out:
        say(f"{count(done.left_out, 'point')} left out, because of a fault, or still settling")
    if done.dropped:
        say(
            f"{count(done.dropped, 'memory', 'memories')} taken out of the ledger: missing, "
            "without rows, or left out"
        )
    say("next: memsync check")
    return 0


command(
    app,
    "memsync reconcile runs",
    "memsync reconcile undo 7b1e4c1e-9f0a-4f5e-8a77-0c3f6d1b2a90",
    "docs/reconcile.md",
)(runs.undo)
command(app, "memsync reconcile runs")(runs.runs)


def _place(text: str) -> Place:
    """The point that an operator names. Raises: InvalidInput."""
    place = Place.read(text)
    if place is None:
        raise InvalidInput(
            f"{text!r} is no COLLECTION/ID of a point, and nothing was changed. `memsync check` "
            "prints those of its findings"
        )
    return place


def _read(file: Path) -> Plan:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InvalidInput(
            f"cannot read the plan {file}: {why}. `memsync reconcile plan` makes one"
        ) from None
    return Plan.from_json(text, str(file))


def _require_a_file(out: Path) -> None:
    """Refuse what is no file, before the work that it would hold is done."""
    if out.exists() and not out.is_file():
        what = "folder" if out.is_dir() else "device or a pipe"
        raise InvalidInput(f"{out} is a {what}, and nothing was changed. Name a file with --out")


def _unused(session: Session, out: Path) -> int:
    """How many actions the plan in the file has, where nobody has begun it; 0 where it is done.

    Raises: InvalidInput where the next plan may not take the file.
    """
    try:
        saved = _read(out)
    except InvalidInput:
        raise _exists(out, "is no plan that can be read") from None
    left = {each.run_id: each.left for each in reconcile.runs(session)}.get(saved.plan_id)
    if left:
        raise _exists(
            out,
            f"has a plan that was begun, and {count(left, 'action is', 'actions are')} left",
            f"finish it with `memsync reconcile apply {shlex.quote(str(out))}`, ",
        )
    if left is None and saved.target.instance_id != instance_id(session):
        raise _exists(out, "is a plan for another database")
    return len(saved.actions) if left is None else 0


def _exists(out: Path, what: str, first: str = "") -> InvalidInput:
    return InvalidInput(
        f"{out} {what}. Nothing was changed; {first}name another file with --out, or replace it "
        "with --force"
    )


def _save(made: Plan, out: Path, *, force: bool) -> None:
    """Write the whole file or nothing. Only its owner may read it."""
    try:
        prefix = f".{out.name}."
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=prefix, delete=False) as file:
            beside = Path(file.name)
            try:
                for piece in made.pieces():
                    file.write(piece.encode())
                file.flush()
                if force:
                    beside.replace(out)
                else:
                    # A link never replaces a file that came meanwhile.
                    out.hardlink_to(beside)
            finally:
                beside.unlink(missing_ok=True)
    except FileExistsError:
        raise _exists(out, "has come meanwhile") from None
    except OSError as error:
        raise InvalidInput(f"cannot write the plan {out}: {error.strerror}") from None
