"""`memsync reconcile layout`: shows where memories lie, and changes it."""

import contextlib
from dataclasses import asdict
from typing import Annotated

import typer

from memsync.cli.findings import print_audit
from memsync.cli.options import command, group
from memsync.cli.output import print_json, print_table, say, say_next
from memsync.cli.progress import progress
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.stores import opened_postgres, opened_stores
from memsync.errors import InvalidInput
from memsync.model.wording import count
from memsync.reconcile import relayout
from memsync.reconcile.halfway import HalfDone
from memsync.reconcile.relayout import Changed, Standing
from memsync.reconcile.retirement import Retired, retire
from memsync.settings import Settings
from memsync.stores.ltm.layouts import Layout

_RETIRE = HalfDone.RETIRING.command
_BEFORE_IT = (
    "deploy the version of the app that reads the shared collection, and wait until no other runs"
)

app = group(
    "Show where memories lie: in a collection for each persona, as the app made them, or in one "
    "for all. Without a command it only reads.",
    "memsync reconcile layout",
    "memsync reconcile layout set shared --app-stopped",
    "docs/reconcile.md",
    invoke_without_command=True,
)


@app.callback()
def show(ctx: typer.Context) -> int:
    """Show the layout when no command is given."""
    if ctx.invoked_subcommand:
        return 0
    with opened_stores(ctx) as (settings, postgres, ltm), postgres.session() as session:
        seen = relayout.look(session, ltm, settings)
    if ctx.obj.as_json:
        print_json(**_fields(seen))
    else:
        _print_standing(seen)
    return 0


@command(
    app,
    "memsync reconcile layout set shared --app-stopped",
    "memsync reconcile layout set shared --retire",
    "memsync reconcile layout set per-persona",
    "docs/reconcile.md",
    name="set",
)
def change(
    ctx: typer.Context,
    layout: Annotated[Layout, typer.Argument(metavar="LAYOUT", help="shared or per-persona.")],
    *,
    app_stopped: Annotated[
        bool,
        typer.Option(
            "--app-stopped",
            help="Confirm that the old app no longer reads or writes collections of personas.",
        ),
    ] = False,
    retiring: Annotated[
        bool,
        typer.Option(
            "--retire",
            help="Once memories are shared: move the old collections to the quarantine.",
        ),
    ] = False,
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe",
            help="With --retire: points that contradict themselves go, too. No plan repairs those.",
        ),
    ] = False,
) -> int:
    """Copy the memories to the other layout, and record it. Nothing is removed without --retire.

    A change that was interrupted is finished by the same command. The exit status is that of the
    audit in the new layout.
    """
    if retiring and layout is not Layout.SHARED:
        raise InvalidInput("--retire goes with `layout set shared`; nothing was changed")
    if unsafe and not retiring:
        raise InvalidInput("--unsafe goes with --retire; nothing was changed")
    ctx.obj.settings().named("postgres_url", "qdrant_url")
    with opened_postgres(ctx) as (settings, postgres):
        with postgres.session() as session:
            ltm = relayout.open_for_change(settings, session, layout)
        with contextlib.closing(ltm), progress(ctx.obj) as tell:
            if retiring:
                retired = retire(postgres, ltm, settings, tell, unsafe=unsafe)
                return _print_retired(retired, as_json=ctx.obj.as_json)
            if layout is Layout.SHARED:
                changed = relayout.set_shared(
                    postgres, ltm, settings, tell, app_stopped=app_stopped
                )
            else:
                changed = relayout.set_per_persona(postgres, ltm, settings, tell)
    return _print_changed(changed, settings, as_json=ctx.obj.as_json)


def _fields(seen: Standing) -> dict[str, object]:
    return {
        "layout": seen.layout,
        "why": seen.why,
        "recorded": seen.is_recorded,
        "kinds": [
            {"kind": kind, "collections": collections, "points": points}
            for kind, (collections, points) in seen.kinds.items()
        ],
        "waiting": dict(seen.waiting),
        "retired": [{"run_id": run_id, **asdict(away)} for run_id, away in seen.retired.items()],
        "half_done": seen.half_done and str(seen.half_done),
        "next": _next(seen),
        "first": _first(seen),
    }


def _print_standing(seen: Standing) -> None:
    say(f"memories lie in the {seen.layout} layout: {seen.why}")
    if not seen.is_recorded:
        say("it is not recorded yet; the first command that writes records it")
    rows = [(kind, f"{each[0]:,}", f"{each[1]:,}") for kind, each in seen.kinds.items()]
    print_table(rows, head=("kind", "collections", "points"), right=(1, 2))
    for run_id, away in seen.retired.items():
        what = f"{count(away.points, 'point')} of {count(away.collections, 'collection')}"
        if away.kept is None:
            say(f"retired, as {run_id}: {what}; the role may not see what the quarantine still has")
        elif away.kept < away.points:
            say(
                f"in the quarantine, as {run_id}: {away.kept:,} of {what}; the others were "
                "forgotten, and come back from their copies",
                "yellow",
            )
        else:
            say(f"in the quarantine, as {run_id}: {what}")
    if seen.waiting:
        what = count(len(seen.waiting), "collection")
        held = count(sum(seen.waiting.values()), "point")
        is_next = " to be retired:" if _next(seen) == _RETIRE else ":"
        say(f"{what} with {held}{is_next} this layout does not read them")
    if seen.half_done:
        say(f"{seen.half_done.what} was begun and did not end", "yellow")
    elif seen.waiting and seen.layout is Layout.SHARED:
        say(f"the way back: `{HalfDone.RETURNING.command}`")
    say_next(_next(seen), _first(seen))


def _first(seen: Standing) -> str | None:
    """What comes before the retirement, unless it was begun already."""
    return _BEFORE_IT if _next(seen) == _RETIRE and not seen.half_done else None


def _next(seen: Standing) -> str | None:
    """The command that finishes what is half done, or that retires what is no longer read."""
    if seen.half_done:
        return seen.half_done.command
    return _RETIRE if seen.waiting and seen.layout is Layout.SHARED else None


def _print_retired(retired: Retired, *, as_json: bool) -> int:
    if as_json:
        print_json(**asdict(retired))
        return 0
    if not retired.collections:
        say("there is nothing to retire")
        return 0
    say(
        f"{count(retired.collections, 'collection')} removed; "
        f"{count(retired.points, 'point')} in the quarantine, as {retired.run_id}"
    )
    if retired.without_copy:
        say(
            f"{retired.without_copy:,} of these had no copy in the shared collection, because they "
            "contradict themselves"
        )
    say("`memsync reconcile layout set per-persona` brings them back as long as they are there")
    say(
        "their payload indexes come with them; what else was set for a collection, such as HNSW, "
        "quantization, on_disk or strict mode, is to be set again"
    )
    return 0


def _print_changed(changed: Changed, settings: Settings, *, as_json: bool) -> int:
    audit = changed.audit
    contradicts = settings.layout not in {"auto", changed.layout}
    if as_json:
        print_json(
            layout=changed.layout,
            changed=audit is not None,
            copied=changed.copied,
            replaced=changed.replaced,
            restored=changed.restored.points,
            removed=changed.restored.removed,
            incomplete=list(changed.restored.incomplete),
            left=changed.left,
            beside=changed.beside,
            setting_contradicts=contradicts,
            audit=audit and {"ok": audit.ok, "counts": audit.counts, "facts": audit.facts},
        )
        if audit is None or audit.ok:
            return 0
        return FINDINGS if audit.complete else INCOMPLETE
    if audit is None:
        say(f"memories lie in the {changed.layout} layout already; nothing was changed")
    else:
        _print_copied(changed)
    if contradicts:
        say(
            f"the setting layout is {settings.layout}: take it back, or every command stops",
            "yellow",
        )
    if audit is None:
        return 0
    status = print_audit(audit)
    if status:
        return status
    if changed.layout is Layout.SHARED:
        say("the collections of personas stay until they are retired")
        say_next(_RETIRE, _BEFORE_IT)
    else:
        say_next("memsync check")
    return status


def _print_copied(changed: Changed) -> None:
    say(
        f"the layout was changed: {count(changed.copied, 'point')} copied, "
        f"{changed.replaced:,} of them over older ones"
    )
    if changed.beside:
        memories = count(changed.beside, "memory was", "memories were")
        say(
            f"{memories} brought back under another id: the points that they were copied from say "
            "something else by now",
            "yellow",
        )
    restored = changed.restored
    if restored.collections:
        say(
            f"{count(restored.collections, 'collection')} restored with "
            f"{count(restored.points, 'point')}"
        )
    if restored.removed:
        say(
            f"{count(restored.removed, 'point')} of these collections stayed in the quarantine: "
            "repairs have removed their memories since"
        )
    if restored.incomplete:
        say(
            f"the quarantine no longer had all points of "
            f"{count(len(restored.incomplete), 'collection')}, or had one that no store takes "
            "back; these memories were copied from the shared collection",
            "yellow",
        )
    if changed.left:
        say(
            f"{count(changed.left, 'point')} of the shared collection stayed there alone: no "
            "exchange explains them, or what they would replace has changed meanwhile",
            "yellow",
        )
    if changed.layout is Layout.PER_PERSONA:
        say(
            "the shared collection stays as it is; the next `memsync reconcile layout set shared` "
            "uses it"
        )
