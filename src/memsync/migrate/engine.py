"""Runs the phases forward and takes them back, each according to the database's catalog.

The functions here take a Postgres, the settings and the options of a run; they return the stage
reached. This module decides the order of work and what is asked before the first change. Only one
run can hold the lock. Every phase may be run again after a crash, because DDL reads the catalog
first and a fill has its checkpoint. Each phase gets an entry in memsync.runs.
"""

import contextlib
from collections.abc import Iterator

from memsync.errors import GateClosed, PartlyDone
from memsync.migrate import attribution, order, redesign, runs
from memsync.migrate.archive import Archive, archive_of, remove_archive
from memsync.migrate.attribution import Evidence, OpenMemories
from memsync.migrate.backfill import choose_method, cutover, require_chosen, require_resolved
from memsync.migrate.isolate import add_own_tables, index_users, reads_by_user
from memsync.migrate.options import RunOptions
from memsync.migrate.pacing.commits import waits_told
from memsync.migrate.pacing.pace import Pace
from memsync.migrate.preflight.run_checks import preflight, require_no_blockers
from memsync.migrate.run import PhaseWork, Run
from memsync.migrate.withdrawal import withdraw_personas
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog, way_back_is_open
from memsync.stores.history.phases import REACHED, Phase, Stage, up_to
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.postgres.locks import LockKey, exclusive
from memsync.stores.postgres.session_settings import deadlock_patience_ms, prepare_heavy_work


def run(
    postgres: Postgres,
    settings: Settings,
    options: RunOptions | None = None,
    *,
    memories: OpenMemories | None = None,
    tell: Tell = silent,
) -> Stage:
    """Bring the database to the end of phase `options.to`; return the stage at which it stands.

    `memories` opens the store of the memories that are evidence of who spoke. It must be given as
    long as a message is left to decide, unless the options ignore evidence.

    Raises: StoreBusy (another run, or no lock within the deadline), GateClosed (the preflight found
    a blocker, users have no persona, evidence is neither read nor ignored, or a gate of contract is
    closed), SchemaMismatch (not the app's database), SettingsError (behind a pooler), MissingRight,
    StoreUnreachable (the memories cannot be read; nothing was changed), PartlyDone, Cancelled.
    Effects: Postgres only.
    """
    with _opened(postgres, settings, tell, "run", options or RunOptions()) as opened:
        catalog = opened.catalog()
        _require_clear_way(opened, catalog)
        if attribution.awaited(catalog):
            _read_evidence(opened, catalog, settings, memories)
            if opened.options.method == "copy":
                # Only to refuse before the first change: it raises where a copy is impossible.
                choose_method(opened.session, catalog, opened.options.method)
        _require_decisions(opened, catalog)
        for work in order.PHASES:
            if work.phase in up_to(opened.options.to):
                _forward(opened, work)
            if work.phase is Phase.BACKFILL:
                opened.forget_existing()
        return opened.catalog().stage


def rollback(
    postgres: Postgres,
    settings: Settings,
    *,
    to: Phase | None,
    memories: OpenMemories | None = None,
    tell: Tell = silent,
) -> Stage:
    """Take back every phase after `to`, or all where it is None; return the stage reached.

    Taking contract back gives every message a user again, also those written since contract: the
    user that the archive kept, else the owner of its persona. No message is lost. Running forward
    again gives every message the persona that it has now. All that the app had made stays.
    Default personas that memsync made go with expand, unless something uses them; `memories` opens
    the store that is asked for it, and without it they stay. Where nothing is to be taken back,
    nothing is changed, and a note says so.

    Raises: StoreBusy; GateClosed when the way back was ended by `finalize`, or contract was not
    done by memsync; PartlyDone, Cancelled. Effects: Postgres only.
    """
    with _opened(postgres, settings, tell, "rollback", to=to.value if to else "start") as opened:
        catalog = opened.catalog()
        if not catalog.has_own_table("runs"):
            tell(Progress(Kind.NOTE, "nothing was taken back: memsync did not migrate this"))
            return catalog.stage
        undone = cutover.settle(opened.ddl)
        kept = () if to is None else up_to(to)
        for work in reversed(order.PHASES):
            if work.phase not in kept:
                undone |= _back(opened, work)
            if work.phase is Phase.CONTRACT and to in catalog.done:
                # Threads may be read by user again: build their index before the next phase back
                # drops the indexes that serve reading by persona.
                undone |= index_users(opened)
        if Phase.EXPAND not in kept:
            undone |= withdraw_personas(opened, settings, memories) > 0
        stage = opened.catalog().stage
        if not undone:
            what = f"no phase after {to}" if to else "no phase"
            tell(Progress(Kind.NOTE, f"nothing was taken back: {what} stands"))
        return stage


def archive(postgres: Postgres) -> Archive:
    """Count what `finalize` would remove. Reads only.

    Raises: GateClosed when the migration is not finished.
    """
    with postgres.session() as session:
        _require_contracted(Catalog.read(session))
        return archive_of(session)


def finalize(postgres: Postgres, settings: Settings, tell: Tell = silent) -> None:
    """End the way back: remove the archive. This cannot be undone.

    Raises: GateClosed when the migration is not finished; StoreBusy.
    """
    with _opened(postgres, settings, tell, "finalize") as opened:
        _require_contracted(opened.catalog())
        with (
            runs.recorded(opened, "finalize", Phase.CONTRACT),
            opened.session.transaction() as session,
        ):
            remove_archive(session)
            runs.note_archive_removed(session)


def _require_contracted(catalog: Catalog) -> None:
    if catalog.stage is not Stage.CONTRACTED or "user_id" in catalog.columns:
        on_its_way_back = catalog.stage is Stage.CONTRACTED
        raise GateClosed(
            "finalize comes after contract, and the database is "
            f"{'on its way back' if on_its_way_back else catalog.stage}; nothing was removed. "
            "`memsync migrate status` says what comes next"
        )


@contextlib.contextmanager
def _opened(
    postgres: Postgres,
    settings: Settings,
    tell: Tell,
    verb: runs.Verb,
    options: RunOptions | None = None,
    **given: str,
) -> Iterator[Run]:
    """Open a run on a session of its own, which holds the migration's lock.

    `given` are the options of a verb that takes no RunOptions.
    """
    from memsync.migrate import revisions  # noqa: PLC0415  alembic is slow to import

    with (
        exclusive(postgres, LockKey.MIGRATE, "migration") as session,
        revisions.only_run_of_process(),
        waits_told(postgres, session, tell),
    ):
        options = (options or RunOptions()).settled(runs.decisions(session))
        kept = options.for_record() if verb == "run" else given
        pace = Pace(session, options, tell, runs.command_of(verb, kept))
        pace.begin()
        prepare_heavy_work(session)
        ddl = OnlineDdl(
            session,
            lock_timeout_ms=min(settings.lock_timeout_ms, deadlock_patience_ms(session)),
            deadline_s=settings.lock_deadline_s,
            tell=tell,
            between=pace.between_tries,
        )
        yield Run(
            postgres=postgres,
            ddl=ddl,
            pace=pace,
            options=options,
            evidence=Evidence(session),
            batch_target_ms=settings.batch_target_ms,
            tell=tell,
            given=kept,
        )


def _require_clear_way(run: Run, catalog: Catalog) -> None:
    """Stop before anything is changed when the preflight finds a blocker of a phase ahead.

    Raises: GateClosed; SchemaMismatch when the app's tables of settings do not meet the redesign's
    requirements.
    """
    redesign.require_met(run.session, catalog)
    ahead = set(up_to(run.options.to)) - catalog.done
    if ahead:
        require_no_blockers(preflight(run.session, catalog), ahead)


def _read_evidence(
    run: Run, catalog: Catalog, settings: Settings, memories: OpenMemories | None
) -> None:
    """Read who spoke in the messages that are left to decide.

    Raises: GateClosed when no store is named, or it has no point and that is not confirmed; the
    error of a store that cannot be read.
    """
    if attribution.is_due(run.session, catalog):
        found = attribution.read_for_run(run.evidence, run.options, settings, memories, run.tell)
        require_no_blockers((found,))


def _require_decisions(run: Run, catalog: Catalog) -> None:
    """Stop before anything is changed when the operator must decide something first.

    Raises: GateClosed.
    """
    settings = catalog.settings
    if not settings.owners_required and not settings.missing:
        redesign.require_owners(run.session, settings, run.options)
    stands = catalog.has_own_table("runs") and runs.backfill_stands(run.session)
    if Phase.CONTRACT in up_to(run.options.to) and not stands:
        # Where the backfill stands, the proof says it of each message.
        require_chosen(run.session, catalog, run.options)
    if run.options.for_unresolved == "create" or not attribution.awaited(catalog):
        return
    fragments = attribution.fragments(catalog, run.evidence.as_fragment)
    if run.options.orphan_owners == "quarantine" and not settings.owners_required:
        fragments |= attribution.QUARANTINE
    without = attribution.unresolved_users(run.session, fragments)
    rows = sum(user.rows for user in without)
    require_resolved([user.user_id for user in without], rows, run.options)


def _forward(run: Run, work: PhaseWork) -> None:
    """Run one phase; steps that are done already are skipped."""
    from memsync.migrate import revisions  # noqa: PLC0415  alembic is slow to import

    phase, catalog = work.phase, run.catalog()
    if Phase.CONTRACT in catalog.done and "user_id" not in catalog.columns:
        if phase is Phase.ISOLATE:
            add_own_tables(run)
        return
    run.tell(Progress(Kind.PHASE, phase.value))
    if not catalog.has_own_table("runs"):
        # isolate makes the table in which phases are recorded, so it goes first, without a record.
        revisions.upgrade(run, Phase.ISOLATE)
    with runs.recorded(run, "run", phase):
        revisions.upgrade(run, phase)
        after = run.catalog()
        index_left_out = phase is Phase.ISOLATE and not reads_by_user(after, run.options.to)
        if phase not in after.done and not index_left_out:
            raise PartlyDone(
                f"phase {phase} ended, but the database is {after.stage}, not "
                f"{REACHED[phase]}. Run again; `memsync migrate status` names the steps",
                phase=phase.value,
                stage=after.stage.value,
            )


def _back(run: Run, work: PhaseWork) -> bool:
    """Take one phase back, unless nothing of it is there; return whether it was."""
    from memsync.migrate import revisions  # noqa: PLC0415  alembic is slow to import

    phase, catalog = work.phase, run.catalog()
    if phase not in catalog.done | catalog.halfway or not catalog.is_ours(phase):
        return False
    users_are_gone = phase is Phase.CONTRACT and not catalog.has_users
    if users_are_gone and not way_back_is_open(run.session):
        raise GateClosed(
            "there is no way back from contract: its archive was removed by "
            "`memsync migrate finalize`, or contract was not done by memsync. Restore the "
            "backup instead; nothing was changed"
        )
    run.tell(Progress(Kind.PHASE_BACK, phase.value))
    with runs.recorded(run, "rollback", phase):
        revisions.downgrade(run, phase)
    after = run.catalog()
    if phase in after.done and after.is_ours(phase):
        raise PartlyDone(
            f"phase {phase} was taken back, but the database is still {after.stage}. Run again",
            phase=phase.value,
            stage=after.stage.value,
        )
    return True
