"""Shows what `migrate run` would do, and how far a running migration has come. Reads only."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from memsync.errors import MemsyncError, MissingRight
from memsync.migrate.attribution import (
    Evidence,
    EvidenceReport,
    UnresolvedUser,
    awaited,
    fragments,
    messages_by_rule,
    unresolved_users,
)
from memsync.migrate.backfill import Choice, choose_method
from memsync.migrate.backfill.checkpoint import fill_state
from memsync.migrate.checks import Check
from memsync.migrate.order import PHASES
from memsync.migrate.pacing.control import Runner, runner
from memsync.migrate.preflight.run_checks import blocking, data_checks, preflight
from memsync.migrate.redesign import Prospect, prospect, require_met
from memsync.model.progress import Tell, silent
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog, history_size
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.relations import server_version
from memsync.stores.vectors import VectorStore

OpenMemories = Callable[[], VectorStore | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a phase, and what it does."""

    phase: Phase
    what: str
    done: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the database stands and what `migrate run` would do.

    `rows_by_decision` counts messages by the rule that decides their persona (evidence, override,
    default, unresolved); it is None once user_id is gone. `evidence` is None where none was asked
    for or there is nothing left to decide. `method` is what the backfill would choose under
    `auto`, None once it is done. `bytes_total` is the table with its indexes.
    """

    stage: Stage
    steps: tuple[Step, ...]
    rows_estimated: int
    bytes_total: int
    rows_by_decision: Mapping[str, int] | None
    unresolved: tuple[UnresolvedUser, ...]
    evidence: EvidenceReport | None
    server_version: int
    redesign: Prospect | None
    checks: tuple[Check, ...]
    method: Choice | None

    @property
    def blockers(self) -> tuple[Check, ...]:
        """The checks that make `migrate run` refuse one of its phases."""
        return tuple(blocking(self.checks))

    @property
    def next(self) -> str | None:
        """The next thing to do; None when nothing is left to do."""
        if self.blockers:
            return f"mend what blocks: {', '.join(check.name for check in self.blockers)}"
        ownerless = self.redesign and any(each.owner is None for each in self.redesign.orphans)
        if ownerless and self.unresolved:
            return (
                "give those personas an owner and those users a persona, or "
                "memsync migrate run --orphan-owners quarantine --unresolved create"
            )
        if ownerless:
            return "give those personas an owner, or memsync migrate run --orphan-owners quarantine"
        if self.unresolved:
            return "give those users a persona, or memsync migrate run --unresolved create"
        return _next(self.steps)


@dataclass(frozen=True, slots=True)
class Status:
    """How far the migration has come, and which session runs it now.

    `eta_s` is None unless a fill has begun and is not finished.
    """

    stage: Stage
    rows_total: int
    rows_done: int
    rows_per_s: float
    eta_s: float | None
    steps: tuple[Step, ...]
    run: Runner

    @property
    def next(self) -> str | None:
        """The next thing to do; None while a run goes on, or when nothing is left to do."""
        if self.run.state in {"pausing", "paused"}:
            return "memsync migrate resume"
        return _next(self.steps) if self.run.state == "idle" else None


def plan(
    postgres: Postgres,
    settings: Settings | None = None,
    memories: OpenMemories | None = None,
    *,
    tell: Tell = silent,
) -> Plan:
    """Look at the database, change nothing.

    `memories` opens the store whose points are evidence of who spoke. If it does not answer, the
    plan's `evidence` says so, and the rest is still right. It is not read while a blocker stops a
    phase before contract, because that comes first, and reading may take long.

    Raises: SchemaMismatch when this is not the app's database.
    """
    # A session of its own, not the pool's, because its temporary tables must go with it.
    session = postgres.dedicated()
    with contextlib.closing(session.connection):
        catalog = Catalog.read(session)
        require_met(session, catalog)
        checks = preflight(session, catalog)
        evidence = Evidence(session)
        report = None
        if memories is not None and awaited(catalog):
            report = (
                EvidenceReport(not_read="the blockers of a run come first")
                if blocking(checks, set(Phase) - {Phase.CONTRACT})
                else _read(evidence, settings or Settings(), memories, tell)
            )
        size = history_size(session)
        by_decision: dict[str, int] | None = None
        unresolved: tuple[UnresolvedUser, ...] = ()
        if "user_id" in catalog.columns:
            fitting = fragments(catalog, evidence.as_fragment)
            by_decision = {"evidence": report.rows} if report and report.rows else {}
            by_decision |= messages_by_rule(session, fitting)
            unresolved = unresolved_users(session, fitting)
        return Plan(
            stage=catalog.stage,
            steps=_steps(catalog.done),
            rows_estimated=sum(by_decision.values()) if by_decision else size.rows,
            bytes_total=size.size_bytes,
            rows_by_decision=by_decision,
            unresolved=unresolved,
            evidence=report,
            server_version=server_version(session),
            checks=(*checks, *data_checks(session, catalog, unresolved)),
            redesign=_prospect(session, catalog),
            method=None if Phase.BACKFILL in catalog.done else choose_method(session, catalog),
        )


def _prospect(session: Session, catalog: Catalog) -> Prospect | None:
    try:
        return prospect(session, catalog)
    except MissingRight:
        # The check `privileges` names the tables that this role may not read.
        return None


def _read(
    evidence: Evidence, settings: Settings, memories: OpenMemories, tell: Tell
) -> EvidenceReport:
    try:
        vectors = memories()
        if vectors is not None:
            evidence.read(vectors, settings, tell)
        return evidence.report()
    except MemsyncError as error:
        # Keep the store's own message; the advice that `required` adds is for a run.
        cause = error.__cause__
        evidence.drop()
        return EvidenceReport(not_read=str(cause if isinstance(cause, MemsyncError) else error))


def status(postgres: Postgres) -> Status:
    """Where the migration stands now, from the catalog and the fill's checkpoint."""
    with postgres.session() as session:
        catalog = Catalog.read(session)
        now = runner(session)
        fill = fill_state(session, "personas") if catalog.has_own_table("backfill") else None
        if fill is None:
            rows = history_size(session).rows
            return Status(catalog.stage, rows, 0, 0.0, None, _steps(catalog.done), now)
        rate = fill.rows_done / fill.busy_s if fill.busy_s else 0.0
        left = max(0, fill.rows_total - fill.rows_done)
        running = Phase.BACKFILL not in catalog.done and rate > 0
        return Status(
            stage=catalog.stage,
            rows_total=fill.rows_total,
            rows_done=fill.rows_done,
            rows_per_s=rate,
            eta_s=left / rate if running else None,
            steps=_steps(catalog.done),
            run=now,
        )


def _next(steps: Collection[Step]) -> str | None:
    if any(step.phase is not Phase.CONTRACT and not step.done for step in steps):
        return "memsync migrate run --to backfill"
    if any(not step.done for step in steps):
        return "memsync migrate run"
    return None


def _steps(done: Collection[Phase]) -> tuple[Step, ...]:
    return tuple(
        Step(work.phase, what, work.phase in done) for work in PHASES for what in work.steps
    )
