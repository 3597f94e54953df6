"""Runs the phases in order, each from what the catalog says to what it must say afterwards.

Decides the order, the gates between phases, and that one run at a time holds the lock. Every
phase is safe to run again, whatever a crash left: DDL reads the catalog first, the fill has its
checkpoint.
"""

from memsync.errors import GateClosed, PartlyDone
from memsync.migrate import revisions
from memsync.migrate.backfill import Unresolved, backfill, require_resolved
from memsync.migrate.proof import verify_session
from memsync.model.phases import REACHED, Phase, Stage, ahead
from memsync.model.progress import Progress, Tell, silent
from memsync.settings import Settings
from memsync.stores.catalog import Catalog
from memsync.stores.ddl import OnlineDdl
from memsync.stores.locks import LockKey, exclusive
from memsync.stores.postgres import Postgres, Session


def run(
    postgres: Postgres,
    settings: Settings,
    *,
    to: Phase = Phase.CONTRACT,
    unresolved: Unresolved = "fail",
    tell: Tell = silent,
) -> Stage:
    """Bring the database to the end of phase `to`; return the stage at which it then stands.

    Raises: StoreBusy (another run, or a lock not had), GateClosed (users without a persona, or the
    proof failed), SchemaMismatch (not the app's database), PartlyDone.
    Effects: Postgres only.
    """
    with exclusive(postgres, LockKey.MIGRATE, "migration") as session:
        catalog = Catalog.read(session, postgres.label)
        if unresolved == "fail" and catalog.stage not in {Stage.BACKFILLED, Stage.CONTRACTED}:
            _require_personas(session, catalog)
        ddl = OnlineDdl(
            session,
            lock_timeout_ms=settings.lock_timeout_ms,
            deadline_s=settings.lock_deadline_s,
            tell=tell,
        )
        for phase in list(Phase)[: list(Phase).index(to) + 1]:
            _run_phase(phase, ddl, postgres.label, settings, unresolved, tell)
        return Catalog.read(session, postgres.label).stage


def _run_phase(
    phase: Phase,
    ddl: OnlineDdl,
    label: str,
    settings: Settings,
    unresolved: Unresolved,
    tell: Tell,
) -> None:
    before = Catalog.read(ddl.session, label)
    if phase is Phase.BACKFILL and "user_id" in before.columns:
        backfill(ddl, unresolved, settings.batch_target_ms, tell)
    if phase is Phase.CONTRACT and "user_id" in before.columns:
        tell(Progress("verify"))
        proof = verify_session(ddl.session, before)
        if not proof.ok:
            raise GateClosed(
                "contract may not start, the proof failed: "
                + "; ".join(proof.problems)
                + ". See `memsync migrate verify`; user_id is still there",
                problems=list(proof.problems),
            )
    tell(Progress(phase.value))
    revisions.upgrade(ddl, phase)
    after = Catalog.read(ddl.session, label).stage
    if phase in ahead(after):
        raise PartlyDone(
            f"phase {phase} ended, but the database is {after}, not {REACHED[phase]}. "
            "Run again; `memsync migrate status` names the steps",
            phase=phase.value,
            stage=after.value,
        )


def _require_personas(session: Session, catalog: Catalog) -> None:
    without = session.rows_with(dict(catalog.settings), "unresolved_users")
    require_resolved([str(row.user_id) for row in without], sum(row.rows_count for row in without))
