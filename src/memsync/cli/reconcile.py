"""`memsync reconcile`: audit, plan, apply."""

from pathlib import Path
from typing import Annotated

import typer

from memsync import reconcile
from memsync.cli.common import (
    EXIT_STATUSES,
    JsonOption,
    opened_stores,
    print_audit,
    print_facts,
    print_json,
    progress,
    say,
)
from memsync.errors import InvalidInput
from memsync.reconcile.plans import Plan
from memsync.stores.history.catalog import instance_id

app = typer.Typer(
    help="Compare the memories in Qdrant with the history in Postgres, and repair them. Without "
    "a command it audits.",
    epilog=EXIT_STATUSES,
    invoke_without_command=True,
)


@app.callback()
def default(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Audit when no command is given."""
    if ctx.invoked_subcommand and as_json:
        raise typer.BadParameter("--json goes after the command")
    return 0 if ctx.invoked_subcommand else audit(ctx, as_json)


@app.command(epilog=EXIT_STATUSES)
def audit(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Compare both stores and print every difference. Writes nothing."""
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(as_json=as_json) as tell:
            found = reconcile.audit(postgres, ltm, settings, tell)
        return print_audit(found, as_json=as_json)


@app.command(epilog=EXIT_STATUSES)
def plan(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="The file to save the plan in.")] = Path("plan.json"),
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Also remove memories that exist nowhere else.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Audit, and save a plan that repairs the findings. Changes neither store."""
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(as_json=as_json) as tell:
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
    _save(made, out)
    if as_json:
        print_json(plan=out, plan_id=made.plan_id, actions=len(made.actions), left=made.left)
        return 0
    kinds = dict.fromkeys(action.kind for action in made.actions)
    print_facts((kind, sum(a.kind is kind for a in made.actions)) for kind in kinds)
    for name, count in made.left.items():
        say(f"  not repaired: {count} {name}")
    say(f"saved {len(made.actions)} actions; next: memsync reconcile apply {out}")
    return 0


@app.command(epilog=EXIT_STATUSES)
def apply(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A plan that `reconcile plan` saved.")],
    as_json: JsonOption = False,
) -> int:
    """Carry out exactly that plan, or refuse it. Running it again finishes an interrupted apply."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the plan {file}: {error}") from None
    saved = Plan.from_json(text, str(file))
    with opened_stores(ctx) as (_, postgres, ltm), progress(as_json=as_json) as tell:
        done = reconcile.apply(saved, postgres, ltm, tell)
    if as_json:
        print_json(done=done.done, done_before=done.done_before)
    else:
        say(f"{done.done} actions carried out, {done.done_before} were done before")
    return 0


def _save(made: Plan, out: Path) -> None:
    """Write the whole file or nothing."""
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.write_text(made.to_json(), encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise InvalidInput(f"cannot write the plan {out}: {error.strerror}") from None
