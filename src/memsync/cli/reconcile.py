"""`memsync reconcile`: audit, plan, apply."""

import os
import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from memsync import reconcile
from memsync.cli.findings import EVERYTHING, View, report, viewed
from memsync.cli.options import command, group
from memsync.cli.output import print_facts, print_json, say
from memsync.cli.progress import progress
from memsync.cli.stores import opened_stores
from memsync.errors import InvalidInput
from memsync.model.wording import count
from memsync.reconcile.plans import Plan
from memsync.stores.history.catalog import instance_id

app = group(
    "Compare the memories in Qdrant with the history in Postgres, and repair them. Without a "
    "command it audits.",
    "memsync reconcile",
    "memsync reconcile plan --out plan.json",
    "memsync reconcile apply plan.json",
    "docs/reconcile.md",
    invoke_without_command=True,
)


@app.callback()
@viewed
def default(ctx: typer.Context, view: View) -> int:
    """Audit when no command is given."""
    if not ctx.invoked_subcommand:
        return report(ctx, view, reconcile.audit)
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
    return report(ctx, view, reconcile.audit)


@command(app, "memsync reconcile plan", "memsync reconcile plan --unsafe --out monday.json")
def plan(
    ctx: typer.Context,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to save the plan in.")] = Path(
        "plan.json"
    ),
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Also remove memories that exist nowhere else.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> int:
    """Audit, and save a plan that repairs the findings. Changes neither store."""
    _require_new(out, force=force)
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(ctx.obj) as tell:
            found = reconcile.audit(postgres, ltm, settings, tell)
        with postgres.session() as session:
            database = instance_id(session)
        made = reconcile.make_plan(
            found,
            instance_id=database,
            home=settings.collection,
            embedder=ltm.embedder.name,
            unsafe=unsafe,
        )
    _save(made, out, force=force)
    if ctx.obj.as_json:
        print_json(plan=out, plan_id=made.plan_id, actions=len(made.actions), left=made.left)
        return 0
    kinds = dict.fromkeys(action.kind for action in made.actions)
    print_facts((kind, sum(a.kind is kind for a in made.actions)) for kind in kinds)
    for name, number in made.left.items():
        say(f"  not repaired: {number:,} {name}")
    say(f"saved {count(len(made.actions), 'action')} in {out}")
    if made.left and not unsafe:
        say("what is left is removed or moved only by a plan with --unsafe, or by hand")
    if made.actions:
        say(f"next: memsync reconcile apply {shlex.quote(str(out))}")
    return 0


@command(app, "memsync reconcile apply plan.json")
def apply(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A file that `reconcile plan` saved.")
    ],
) -> int:
    """Carry out exactly that plan, or refuse it. Running it again finishes an interrupted apply."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InvalidInput(f"cannot read the plan {file}: {why}") from None
    saved = Plan.from_json(text, str(file))
    with opened_stores(ctx) as (_, postgres, ltm), progress(ctx.obj) as tell:
        done = reconcile.apply(saved, postgres, ltm, tell)
    if ctx.obj.as_json:
        print_json(done=done.done, done_before=done.done_before)
    else:
        before = count(done.done_before, "was", "were")
        say(f"{count(done.done, 'action')} carried out, {before} done before")
        say("next: memsync check")
    return 0


def _require_new(out: Path, *, force: bool) -> None:
    """Refuse a file that exists, before the work that it would hold is done."""
    if out.is_dir():
        raise InvalidInput(f"{out} is a folder, and nothing was changed. Name a file with --out")
    if os.path.lexists(out) and not force:
        raise _exists(out)


def _exists(out: Path) -> InvalidInput:
    return InvalidInput(
        f"{out} exists, and nothing was changed. Name another file with --out, or replace it with "
        "--force"
    )


def _save(made: Plan, out: Path, *, force: bool) -> None:
    """Write the whole file or nothing. Only its owner may read it."""
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.") as file:
            file.write(made.to_json().encode())
            file.flush()
            if force:
                out.unlink(missing_ok=True)
            # A link never replaces a file that came meanwhile.
            out.hardlink_to(file.name)
    except FileExistsError:
        raise _exists(out) from None
    except OSError as error:
        raise InvalidInput(f"cannot write the plan {out}: {error.strerror}") from None
