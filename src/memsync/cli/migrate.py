"""`memsync migrate`: plan, run, status, verify, rollback, finalize and resolve.

The commands backup, pause, resume and cancel stand in cli/control.py, resolve in cli/resolving.py.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from memsync import migrate
from memsync.cli import control, resolving
from memsync.cli.checks import print_checks
from memsync.cli.common import (
    EXIT_STATUSES,
    FINDINGS,
    JsonOption,
    opened_postgres,
    print_facts,
    print_json,
    progress,
)
from memsync.migrate import prisma
from memsync.migrate.options import WORKERS_MAX, EvidenceUse, Method, Unresolved
from memsync.migrate.redesign import Prospect
from memsync.settings import Settings
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import VectorStore, open_standing

app = typer.Typer(
    help="Move the history from user_id to persona_id, on a live database.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
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
        min=1,
        max=WORKERS_MAX,
        help="How many sessions fill rows in place, or build the indexes of a copy, in parallel.",
    ),
]
EvidenceOption = Annotated[
    EvidenceUse,
    typer.Option(
        help="Memories made from the old messages show which persona spoke. prefer: they decide "
        "before the settings do. ignore: only the settings decide."
    ),
]

_SHOWN_MAX = 10
_RULES = {
    "evidence": "persona by evidence",
    "override": "persona by override",
    "default": "persona by default",
    "unresolved": "without a persona",
}

app.command(epilog=EXIT_STATUSES)(control.backup)
app.command(epilog=EXIT_STATUSES)(control.pause)
app.command(epilog=EXIT_STATUSES)(control.resume)
app.command(epilog=EXIT_STATUSES)(control.cancel)
app.command(epilog=EXIT_STATUSES)(resolving.resolve)


@app.command(epilog=EXIT_STATUSES)
def plan(
    ctx: typer.Context,
    evidence: EvidenceOption = "prefer",
    as_sql: Annotated[
        bool, typer.Option("--sql", help="Print a psql script for the phases still ahead.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show the stage of the database and what `run` would do. Writes nothing."""
    with contextlib.ExitStack() as opened:
        settings, postgres = opened.enter_context(opened_postgres(ctx))
        tell = opened.enter_context(progress(as_json=as_json))
        reads = evidence == "prefer" and not as_sql
        ahead = migrate.plan(
            postgres, settings, (lambda: _opened(settings, opened)) if reads else None, tell=tell
        )
    if as_sql:
        return _print_script(migrate.psql_script(ahead), as_json=as_json)
    if as_json:
        print_json(**asdict(ahead), next=ahead.next)
        return 0
    typer.echo(f"stage: {ahead.stage}")
    _print_steps(ahead.steps)
    print_facts(
        [
            ("messages (about)", ahead.rows_estimated),
            ("table and indexes", f"{ahead.bytes_total / 2**20:.1f} MiB"),
            *([("backfill", ahead.method)] if ahead.method else []),
            *((_RULES[rule], n) for rule, n in (ahead.rows_by_decision or {}).items()),
        ]
    )
    for line in _evidence_lines(ahead.evidence) if ahead.evidence else ():
        typer.echo(line)
    _print_prospect(ahead.redesign)
    if ahead.unresolved:
        typer.echo(f"{len(ahead.unresolved)} users with messages have no persona:")
        for user in ahead.unresolved[:_SHOWN_MAX]:
            typer.echo(f"  {user.user_id}  {user.username}  {user.rows} messages")
    print_checks(ahead.checks, by_severity=True)
    if ahead.next:
        typer.echo(f"next: {ahead.next}")
    return 0


@app.command(epilog=EXIT_STATUSES)
def run(
    ctx: typer.Context,
    *,
    to: Annotated[Phase, typer.Option(help="The last phase to run.")] = Phase.CONTRACT,
    unresolved: Annotated[
        Unresolved,
        typer.Option(help="For users without a persona: stop, or make a default one for each."),
    ] = "fail",
    orphan_owners: Annotated[
        str,
        typer.Option(
            metavar="fail|quarantine|assign:USER_ID",
            help="For personas that have no owner and are used by none or several users: stop, "
            "move them out of the app's table (they are kept), or give them to this user.",
        ),
    ] = "fail",
    quiet_minutes: Annotated[
        float,
        typer.Option(min=0, help="Contract needs user_id unused for this long; 0: not checked."),
    ] = 10,
    backup_confirmed: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Name your own backup; else one of memsync's is needed."),
    ] = None,
    backup_max_age_hours: Annotated[
        float, typer.Option(help="The age up to which a backup made by memsync counts.")
    ] = 24,
    max_lag_ms: Annotated[
        float | None, typer.Option(help="The fill waits while a standby lags more than this.")
    ] = None,
    max_rate: Annotated[
        float | None, typer.Option(metavar="MB/S", help="The fill waits above this rate of WAL.")
    ] = None,
    evidence: EvidenceOption = "prefer",
    method: MethodOption = "auto",
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> int:
    """Run the phases up to --to. Safe to run again; a run that was killed is resumed.

    Contract drops user_id. It starts when every row is proven, no client uses user_id any more,
    and there is a backup (`memsync migrate backup`).
    """
    options = migrate.RunOptions(
        to=to,
        unresolved=unresolved,
        orphan_owners=orphan_owners,
        quiet_minutes=quiet_minutes,
        backup_confirmed=backup_confirmed,
        backup_max_age_hours=backup_max_age_hours,
        max_lag_ms=max_lag_ms,
        max_rate_mb_s=max_rate,
        evidence=evidence,
        method=method,
        workers=workers,
    )
    with contextlib.ExitStack() as opened:
        settings, postgres = opened.enter_context(opened_postgres(ctx))
        reads = evidence == "prefer"
        memories = migrate.memories_of(postgres, settings) if reads else contextlib.nullcontext()
        vectors = opened.enter_context(memories)
        tell = opened.enter_context(progress(as_json=as_json))
        stage = migrate.run(postgres, settings, options, vectors=vectors, tell=tell)
        return _print_stage(stage, postgres, as_json=as_json)


@app.command(epilog=EXIT_STATUSES)
def status(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Show how far the migration has come. Writes nothing."""
    with opened_postgres(ctx) as (_, postgres):
        now = migrate.status(postgres)
        told = prisma.told(postgres)
    if as_json:
        print_json(
            **asdict(now),
            prisma=[asdict(each) | {"state": each.state} for each in told.rows],
            prisma_unknown=told.unknown,
            prisma_checks=[asdict(each) for each in told.checks],
            next=now.next,
        )
        return 0
    typer.echo(f"stage: {now.stage}")
    _print_steps(now.steps)
    facts: list[tuple[str, object]] = [
        ("run", control.described(now.run)),
        ("filled", f"{now.rows_done} of {now.rows_total} messages"),
    ]
    if now.rows_per_s:
        facts.append(("rate", f"{now.rows_per_s:.0f} messages/s"))
    if now.eta_s is not None:
        facts.append(("left", f"about {now.eta_s:.0f} s"))
    facts += [(f"Prisma: {name}", state) for name, state in prisma.states(told.rows).items()]
    if told.unknown:
        facts.append(("Prisma", told.unknown))
    print_facts(facts)
    resolving.print_differences(told)
    if now.next:
        typer.echo(f"next: {now.next}")
    return 0


@app.command(epilog=EXIT_STATUSES)
def verify(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Prove every message's persona, and print the checks with their counts. Writes nothing."""
    with opened_postgres(ctx) as (_, postgres):
        proof = migrate.verify(postgres)
    if as_json:
        print_json(**asdict(proof))
        return 0 if proof.ok else FINDINGS
    print_facts(
        [
            ("stage", proof.stage),
            ("total rows", proof.rows_total),
            ("unique personas", proof.unique_personas),
        ]
    )
    print_checks(proof.checks, by_severity=False)
    if proof.decisions_outdated:
        typer.echo(
            f"note: {proof.decisions_outdated} (user, personality) pairs were decided before "
            "their settings changed; their messages keep the persona decided then"
        )
    for problem in proof.problems:
        typer.echo(f"problem: {problem}")
    typer.echo("ok" if proof.ok else "NOT ok")
    return 0 if proof.ok else FINDINGS


@app.command(epilog=EXIT_STATUSES)
def rollback(
    ctx: typer.Context,
    to: Annotated[
        Literal["start", "isolate", "redesign", "expand", "backfill"],
        typer.Option(help="The last phase to keep; start: keep none."),
    ],
    as_json: JsonOption = False,
) -> int:
    """Undo every phase after --to, contract included. Every message keeps user and persona.

    Clients can work meanwhile, as during `run`. It is safe to run again. A later `run` gives every
    message the persona that it has now.
    """
    phase = None if to == "start" else Phase(to)
    with opened_postgres(ctx) as (settings, postgres), progress(as_json=as_json) as tell:
        stage = migrate.rollback(postgres, settings, to=phase, tell=tell)
        return _print_stage(stage, postgres, as_json=as_json)


@app.command(epilog=EXIT_STATUSES)
def finalize(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it, do not only list it.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Remove the archive, which rollback from contract needs. This cannot be undone."""
    with opened_postgres(ctx) as (settings, postgres), progress(as_json=as_json) as tell:
        kept = migrate.archive(postgres)
        if yes:
            migrate.finalize(postgres, settings, tell)
    if as_json:
        print_json(finalized=yes, **asdict(kept))
    elif yes:
        typer.echo(f"removed {_told(kept)}; contract cannot be undone now")
    else:
        typer.echo(
            f"this would remove {_told(kept)}, and with them `memsync migrate rollback` from "
            "contract, of the settings too.\n"
            "next: memsync migrate finalize --yes"
        )
    return 0


def _opened(settings: Settings, opened: contextlib.ExitStack) -> VectorStore | None:
    """The vector store if there is one. It is closed with `opened`."""
    vectors = open_standing(settings)
    if vectors is not None:
        opened.callback(vectors.close)
    return vectors


def _evidence_lines(evidence: migrate.EvidenceReport) -> Iterator[str]:
    """The report of the evidence as lines; none where there are no memories."""
    if evidence.not_read is not None:
        yield f"evidence: not read: {evidence.not_read}"
        yield "the counts above follow from the settings alone"
        return
    if not evidence.points:
        return
    yield (
        f"evidence: {evidence.points} points, {evidence.points_unusable} of them unusable; of the "
        f"exchanges that they tell of, {evidence.ambiguous} are ambiguous, {evidence.foreign} "
        f"foreign, {evidence.vanished} of personas that are gone"
    )
    yield f"evidence and settings disagree on {evidence.disagreeing} messages"
    for each in evidence.samples:
        yield (
            f"  {each.message_id}  evidence {each.persona_by_evidence}  "
            f"settings {each.persona_by_settings}  {each.collection}/{each.point_id}"
        )


def _told(kept: migrate.Archive) -> str:
    return (
        f"{kept.pairs} decisions, {kept.rows} archived rows, {kept.settings} values of dropped "
        f"columns and {kept.personas} quarantined personas"
    )


def _print_script(text: str, *, as_json: bool) -> int:
    if as_json:
        print_json(sql=text)
    else:
        typer.echo(text, nl=False)
    return 0


def _print_stage(stage: Stage, postgres: Postgres, *, as_json: bool) -> int:
    if as_json:
        print_json(stage=stage)
    else:
        # The last line of each command says how it went.
        resolving.print_differences(prisma.told(postgres))
        typer.echo(f"stage: {stage}")
    return 0


def _print_prospect(ahead: Prospect | None) -> None:
    if ahead is None:
        return
    for orphan in ahead.orphans[:_SHOWN_MAX]:
        owner = orphan.owner or f"{len(orphan.users)} users use it: see run --orphan-owners"
        typer.echo(f"persona without an owner: {orphan.persona_id}  {orphan.name}  -> {owner}")
    for fork in ahead.forks[:_SHOWN_MAX]:
        windows = ", ".join(map(str, fork.windows))
        typer.echo(f"config of several windows: {fork.config_id}  {fork.name}  -> {windows}")
    counts = (
        ("personas without an owner", len(ahead.orphans)),
        ("configs that will be forked", len(ahead.forks)),
        ("choices that take their config's window", ahead.windows_taken),
        ("windows kept in the archive only", ahead.windows_unused),
    )
    print_facts([each for each in counts if each[1]])


def _print_steps(steps: tuple[migrate.Step, ...]) -> None:
    for step in steps:
        typer.echo(f"  [{'x' if step.done else ' '}] {step.phase.value:<9} {step.what}")
