"""`memsync migrate`: plan, run, status and verify.

The commands backup, pause, resume and cancel stand in cli/control.py, rollback and finalize in
cli/back.py, resolve in cli/resolving.py.
"""

import time
from dataclasses import asdict
from typing import Annotated

import typer

from memsync import migrate
from memsync.cli import back, control, resolving
from memsync.cli.checks import print_checks
from memsync.cli.options import command, group
from memsync.cli.output import data, print_facts, print_json, say
from memsync.cli.progress import progress
from memsync.cli.reports import plan_fields, print_plan, print_status
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.stores import opened_postgres
from memsync.cli.views import TextOption
from memsync.errors import GateClosed, PartlyDone
from memsync.migrate import Verification, prisma
from memsync.migrate.options import WORKERS_MAX, EvidenceUse, Existing, Method, Unresolved
from memsync.model.progress import Kind, Progress
from memsync.stores.history.phases import Phase

app = group(
    "Move the history from user_id to persona_id, on a live database.",
    "memsync migrate plan",
    "memsync migrate run --to backfill",
    "memsync migrate status",
    "docs/migrate.md",
    "docs/runbook.md",
)

MethodOption = Annotated[
    Method,
    typer.Option(
        help="How the backfill works. in-place: it updates the table's rows. copy: it fills a "
        "shadow table that replaces the table; this is quicker and leaves no bloat, but needs 1.4 "
        "times its size in free disk. auto: copy where nothing forbids it."
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        max=WORKERS_MAX,
        help="How many sessions fill rows in place, or build the indexes of a copy, in parallel.",
    ),
]
EvidenceOption = Annotated[
    EvidenceUse | None,
    typer.Option(
        help="Memories made from the old messages show which persona spoke. prefer: they decide "
        "before the settings do; the vector store must be named, and have some. none-expected: "
        "the same, but it may be empty. ignore: only the settings decide. Without it as the last "
        "run did, else prefer."
    ),
]
UnresolvedOption = Annotated[
    Unresolved | None,
    typer.Option(
        help="For users without a persona: stop, or make a default one for each. Without it as "
        "the last run did, else fail."
    ),
]
ExistingOption = Annotated[
    Existing | None,
    typer.Option(
        help="For messages that had a persona before memsync came, and that the settings do not "
        "confirm: stop, keep it, or decide by the settings. Without it as the last run did, as "
        "long as the backfill is not finished, else fail."
    ),
]
OrphanOption = Annotated[
    str | None,
    typer.Option(
        metavar="fail|quarantine|assign:USER_ID",
        help="For personas that have no owner and are used by none or several users: stop, "
        "move them out of the app's table (they are kept), or give them to this user. Without it "
        "as the last run did, else fail.",
    ),
]


@command(app, "memsync migrate plan", "memsync migrate plan --sql > ahead.sql")
def plan(
    ctx: typer.Context,
    *,
    unresolved: UnresolvedOption = None,
    orphan_owners: OrphanOption = None,
    existing: ExistingOption = None,
    evidence: EvidenceOption = None,
    method: MethodOption = "auto",
    as_sql: Annotated[
        bool, typer.Option("--sql", help="Print a psql script for the phases still ahead.")
    ] = False,
    show_text: TextOption = False,
) -> int:
    """Show the stage of the database and what `run` would do. Writes nothing.

    The exit status is 14 where `run` with these options would be refused.
    """
    options = migrate.RunOptions(
        unresolved=unresolved,
        orphan_owners=orphan_owners,
        existing=existing,
        # The script for psql cannot read memories.
        evidence="ignore" if as_sql else evidence,
        method=method,
    )
    with (
        opened_postgres(ctx) as (settings, postgres),
        migrate.memories_of(settings) as memories,
        progress(ctx.obj) as tell,
    ):
        ahead = migrate.plan(postgres, settings, memories, options, tell=tell)
    if as_sql:
        return _print_script(migrate.psql_script(ahead), as_json=ctx.obj.as_json)
    if ctx.obj.as_json:
        print_json(**plan_fields(ahead, show_text=show_text))
    else:
        print_plan(ahead, show_text=show_text, verbose=ctx.obj.verbose)
    return 0 if ahead.ok else GateClosed.exit_status


@command(
    app,
    "memsync migrate run --to backfill",
    "memsync migrate run --unresolved create --backup-confirmed 'dump 0417'",
)
def run(
    ctx: typer.Context,
    *,
    to: Annotated[Phase, typer.Option(help="The last phase to run.")] = Phase.CONTRACT,
    unresolved: UnresolvedOption = None,
    orphan_owners: OrphanOption = None,
    existing: ExistingOption = None,
    quiet_minutes: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            min=0,
            help="Contract needs user_id unused for this long; 0: not checked.",
        ),
    ] = 10,
    backup_confirmed: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Name your own backup; else one of memsync's is needed."),
    ] = None,
    backup_max_age_hours: Annotated[
        float,
        typer.Option(metavar="HOURS", help="The age up to which a backup made by memsync counts."),
    ] = 24,
    max_lag_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="The fill waits while a standby lags more than this."),
    ] = None,
    max_rate: Annotated[
        float | None, typer.Option(metavar="MB/S", help="The fill waits above this rate of WAL.")
    ] = None,
    evidence: EvidenceOption = None,
    method: MethodOption = "auto",
    workers: WorkersOption = 1,
) -> int:
    """Run the phases up to --to. Safe to run again; a run that was killed is resumed.

    Contract drops user_id. It starts when every row is proven, no client uses user_id any more,
    and there is a backup (`memsync migrate backup`).
    """
    started = time.monotonic()
    options = migrate.RunOptions(
        to=to,
        unresolved=unresolved,
        orphan_owners=orphan_owners,
        existing=existing,
        quiet_minutes=quiet_minutes,
        backup_confirmed=backup_confirmed,
        backup_max_age_hours=backup_max_age_hours,
        max_lag_ms=max_lag_ms,
        max_rate_mb_s=max_rate,
        evidence=evidence,
        method=method,
        workers=workers,
    )
    with (
        opened_postgres(ctx) as (settings, postgres),
        migrate.memories_of(settings) as memories,
    ):
        begun: list[str] = []
        with progress(ctx.obj) as shown:

            def tell(step: Progress) -> None:
                if step.kind is Kind.PHASE:
                    begun.append(step.what)
                shown(step)

            stage = migrate.run(postgres, settings, options, memories=memories, tell=tell)
        now = migrate.status(postgres)
        if not begun and not ctx.obj.as_json:
            say("nothing was left to do")
        facts = {"messages": now.rows_total, "seconds": round(time.monotonic() - started, 1)}
        return resolving.print_stage(stage, postgres, now, facts, as_json=ctx.obj.as_json)


@command(app, "memsync migrate status", "memsync migrate status --json")
def status(ctx: typer.Context) -> int:
    """Show how far the migration has come. Writes nothing."""
    with opened_postgres(ctx) as (_, postgres):
        now = migrate.status(postgres)
        told = prisma.told(postgres)
    if ctx.obj.as_json:
        print_json(
            **asdict(now),
            prisma=[asdict(each) | {"state": each.state} for each in told.rows],
            prisma_unknown=told.unknown,
            prisma_checks=[asdict(each) for each in told.checks],
        )
        return 0
    print_status(now, told)
    return 0


@command(app, "memsync migrate verify")
def verify(ctx: typer.Context, evidence: EvidenceOption = None) -> int:
    """Prove every message's persona, and print the checks with their counts. Writes nothing.

    The exit status is 3 while a run is at work and nothing is wrong with what it has done, and 15
    when nothing is wrong, but the messages could not be compared with their memories.
    """
    with (
        opened_postgres(ctx) as (settings, postgres),
        migrate.memories_of(settings) as memories,
    ):
        proof = migrate.verify(postgres, settings, memories, use=evidence)
    if ctx.obj.as_json:
        print_json(**asdict(proof))
        return _status_of(proof)
    print_facts(
        [
            ("stage", proof.stage),
            ("total rows", f"{proof.rows_total:,}"),
            ("unique personas", f"{proof.unique_personas:,}"),
        ]
    )
    print_checks(proof.checks)
    if proof.decisions_outdated:
        say(
            f"note: {proof.decisions_outdated:,} (user, personality) pairs were decided before "
            "their settings changed; their messages keep the persona decided then"
        )
    for problem in proof.problems:
        say(f"problem: {problem}")
    if proof.unfinished and not proof.problems:
        say(f"not finished: {proof.unfinished}; nothing wrong so far")
    elif proof.ok and not proof.complete:
        say("INCOMPLETE: the memories were not compared, see the check `evidence`")
    else:
        say("ok" if proof.ok else "NOT ok")
    return _status_of(proof)


def _status_of(proof: Verification) -> int:
    if proof.unfinished and not proof.problems:
        return PartlyDone.exit_status
    if not proof.ok:
        return FINDINGS
    return 0 if proof.complete else INCOMPLETE


def _print_script(text: str, *, as_json: bool) -> int:
    if as_json:
        print_json(sql=text)
    else:
        data(text)
    return 0


command(app, "memsync migrate backup", "memsync migrate backup --out before-contract.dump")(
    control.backup
)
command(app, "memsync migrate pause")(control.pause)
command(app, "memsync migrate resume")(control.resume)
command(app, "memsync migrate cancel")(control.cancel)
command(app, "memsync migrate rollback --to backfill", "memsync migrate rollback --to start")(
    back.rollback
)
command(app, "memsync migrate finalize", "memsync migrate finalize --yes")(back.finalize)
command(
    app,
    "memsync migrate resolve --all --prisma-dir ../app/prisma",
    "memsync migrate resolve --show-schema",
)(resolving.resolve)
