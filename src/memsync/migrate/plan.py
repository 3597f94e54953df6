"""Shows what `migrate run` would do, and how far a running migration has come. Reads only.

Each report is read in one snapshot, so its figures agree. The next command is decided in
standing.py alone.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from memsync.errors import GateClosed, MissingRight
from memsync.migrate import attribution, runs
from memsync.migrate.attribution import (
    QUARANTINE,
    Evidence,
    EvidenceReport,
    OpenMemories,
    UnresolvedUser,
    fragments,
    messages_by_rule,
    unresolved_users,
)
from memsync.migrate.attribution.choice import BLOCKERS_FIRST
from memsync.migrate.backfill import Choice, choose_method
from memsync.migrate.backfill.checkpoint import FillState, fill_state
from memsync.migrate.checks import BEFORE_CONTRACT, Check, blocker
from memsync.migrate.contract.gates import Gate
from memsync.migrate.options import RunOptions
from memsync.migrate.pacing.control import Runner
from memsync.migrate.preflight.run_checks import blocking, data_checks, preflight
from memsync.migrate.redesign import Prospect, prospect, require_met
from memsync.migrate.standing import Obstacles, Standing, Step, before, next_command, steps_of
from memsync.model.progress import Tell, seconds_left, silent
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog, HistorySize, history_size, reading
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.relations import server_version


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the database stands and what `migrate run` would do with these options.

    `rows_estimated` is counted where `rows_exact`. `rows_by_decision` has the messages still to be
    decided, by the rule that decides their persona (evidence, override, default, unresolved); it
    is None once user_id is gone. `evidence` is None where it is ignored or there is nothing left
    to decide. `method` is what the backfill would choose, None once it is done. `bytes_total`
    is the table with its indexes. `gates` are those of contract, where that is what comes next.
    `ok` is false where a blocker or a closed gate would stop the run. `next` is the command to type
    now; None while a run is at work, or when nothing is left to do. `first` is what to do or to
    wait for before it; None for nothing.
    """

    ok: bool
    stage: Stage
    steps: tuple[Step, ...]
    rows_estimated: int
    rows_exact: bool
    bytes_total: int
    rows_by_decision: Mapping[str, int] | None
    unresolved: tuple[UnresolvedUser, ...]
    evidence: EvidenceReport | None
    server_version: int
    redesign: Prospect | None
    checks: tuple[Check, ...]
    gates: tuple[Gate, ...]
    method: Choice | None
    run: Runner
    first: str | None
    next: str | None

    @property
    def blockers(self) -> tuple[Check, ...]:
        """The checks that make `migrate run` refuse one of its phases."""
        return tuple(blocking(self.checks))


@dataclass(frozen=True, slots=True)
class Status:
    """How far the migration has come, what it waits for, and which session runs it now.

    `filling` is the column that is being filled, of which `rows_done` and what follows speak:
    user_id on the way back from contract.
    `rows_total` is counted where `rows_exact`. `rows_done` is how many messages have their
    persona; None where nothing counts them, because another program has filled a part. `rows_per_s`
    and `eta_s` are of a fill that is not finished, by its work without pauses; None where not known
    yet. `gates` are those of contract, where that is what comes next. `next` is the command to type
    now; None while a run is at work, or when nothing is left to do. `first` is what to do or to
    wait for before it; None for nothing.
    """

    stage: Stage
    rows_total: int
    rows_exact: bool
    filling: str
    rows_done: int | None
    rows_per_s: float | None
    eta_s: float | None
    steps: tuple[Step, ...]
    run: Runner
    gates: tuple[Gate, ...]
    first: str | None
    next: str | None


def plan(
    postgres: Postgres,
    settings: Settings | None = None,
    memories: OpenMemories | None = None,
    options: RunOptions | None = None,
    *,
    tell: Tell = silent,
) -> Plan:
    """Look at the database, change nothing. `options` are those of the run that is thought of.

    `memories` opens the store whose points are evidence of who spoke; None is a store that nobody
    named. If it cannot be read, the plan's `evidence` says so and a blocker stands for it, and the
    rest is still right. It is not read while a blocker stops a phase before contract, because that
    comes first, and reading may take long.

    Raises: SchemaMismatch when this is not the app's database.
    """
    # A session of its own, because its temporary tables must go with it. Rows that a policy hides
    # are a blocker of the plan, not its end.
    session = postgres.dedicated(filtered=True)
    with contextlib.closing(session.connection):
        catalog = Catalog.read(session)
        require_met(session, catalog)
        evidence = Evidence(session)
        report = None
        options = (options or RunOptions()).settled(runs.decisions(session))
        if options.evidence != "ignore" and attribution.is_due(session, catalog):
            report = (
                EvidenceReport(not_read=BLOCKERS_FIRST)
                if blocking(preflight(session, catalog), BEFORE_CONTRACT)
                else attribution.report_of(evidence, settings or Settings(), memories, tell)
            )
        # One snapshot for every figure; the evidence is read before, because that may take long.
        with reading(session):
            return _plan(session, evidence, report, options)


def _plan(
    session: Session, evidence: Evidence, report: EvidenceReport | None, options: RunOptions
) -> Plan:
    catalog = Catalog.read(session)
    checks = preflight(session, catalog)
    now = Standing.read(session, catalog, options, proving=True)
    by_decision: dict[str, int] | None = None
    unresolved: tuple[UnresolvedUser, ...] = ()
    if "user_id" in catalog.columns:
        fitting = fragments(catalog, evidence.as_fragment)
        if now.options.orphan_owners == "quarantine" and not catalog.settings.owners_required:
            fitting |= QUARANTINE
        by_decision = {"evidence": report.rows} if report and report.rows else {}
        by_decision |= messages_by_rule(session, fitting)
        unresolved = unresolved_users(session, fitting)
    ahead = _prospect(session, catalog)
    choice, refused = _method(session, catalog, now.options)
    checks = (
        *checks,
        *refused,
        attribution.check(now.options, report),
        *data_checks(session, catalog, unresolved, ahead, now.options),
    )
    size, then = history_size(session), next_command(now, _obstacles(checks))
    return Plan(
        ok=not blocking(checks) and not now.closed,
        stage=catalog.stage,
        steps=steps_of(catalog),
        rows_estimated=size.rows,
        rows_exact=size.is_exact,
        bytes_total=size.size_bytes,
        rows_by_decision=by_decision,
        unresolved=unresolved,
        evidence=report,
        server_version=server_version(session),
        checks=checks,
        gates=now.gates,
        redesign=ahead,
        method=choice,
        run=now.run,
        first=before(now, then),
        next=then,
    )


def _obstacles(checks: tuple[Check, ...]) -> Obstacles:
    """The blockers of a run, apart from those that a decision settles."""
    stops = blocking(checks)
    return Obstacles(
        stopped=frozenset(phase for check in stops if not check.decision for phase in check.phases),
        undecided=dict(check.decision for check in stops if check.decision),
    )


def _method(
    session: Session, catalog: Catalog, options: RunOptions
) -> tuple[Choice | None, tuple[Check, ...]]:
    """The method that the backfill would choose, or the blocker that refuses the one asked for."""
    if Phase.BACKFILL in catalog.done:
        return None, ()
    try:
        return choose_method(session, catalog, options.method), ()
    except GateClosed as error:
        do = f"make that away, or `{options.command(method='in-place')}`"
        return None, (blocker("method", error.message, do),)


def _prospect(session: Session, catalog: Catalog) -> Prospect | None:
    try:
        with session.transaction():
            return prospect(session, catalog)
    except MissingRight:
        # The check `privileges` names the tables that this role may not read.
        return None


def status(postgres: Postgres) -> Status:
    """Where the migration stands now, from the catalog, the fill's checkpoint and the gates."""
    with postgres.session() as session, reading(session):
        catalog = Catalog.read(session)
        now = Standing.read(session, catalog)
        fill = _open_fill(session, catalog)
        size, then = history_size(session), next_command(now)
        found = Status(
            stage=catalog.stage,
            rows_total=size.rows,
            rows_exact=size.is_exact,
            filling="user_id" if catalog.users_return else "persona_id",
            rows_done=_rows_done(catalog, size),
            rows_per_s=None,
            eta_s=None,
            steps=steps_of(catalog),
            run=now.run,
            gates=now.gates,
            first=before(now, then),
            next=then,
        )
        return _of_fill(found, fill) if fill else found


def _open_fill(session: Session, catalog: Catalog) -> FillState | None:
    """The checkpoint of the fill that is not finished; None where there is none."""
    if not catalog.has_own_table("backfill"):
        return None
    if catalog.users_return:
        return fill_state(session, "users")
    fill = fill_state(session, "personas") if catalog.has_null_persona else None
    return None if fill and fill.is_finished else fill


def _rows_done(catalog: Catalog, size: HistorySize) -> int | None:
    """How many messages have their persona, where no fill counts them."""
    if catalog.users_return or "persona_id" not in catalog.columns:
        return 0
    return None if catalog.has_null_persona else size.rows


def _of_fill(found: Status, fill: FillState) -> Status:
    """The status in the middle of a fill, by its checkpoint."""
    return replace(
        found,
        rows_total=fill.rows_total,
        rows_exact=True,
        rows_done=min(fill.rows_done, fill.rows_total),
        rows_per_s=fill.rows_done / fill.busy_s if fill.busy_s else None,
        eta_s=seconds_left(fill.rows_done, fill.rows_total, fill.busy_s),
    )
