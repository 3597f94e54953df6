"""Runs the phases forward and takes them back, each from what the catalog says.

Decides the order, the gates between phases, and that one run at a time holds the lock. Every
phase is safe to run again, whatever a crash left: DDL reads the catalog first, a fill has its
checkpoint. Who did what, when and with what result is kept in `memsync.runs`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from memsync.errors import Cancelled, GateClosed, MemsyncError, PartlyDone
from memsync.migrate import revisions
from memsync.migrate.attribution import evidence
from memsync.migrate.backfill import cutover as swap
from memsync.migrate.backfill.fill import backfill, clear_vanished, refill_users, require_resolved
from memsync.migrate.backfill.method import choose_method
from memsync.migrate.contract import gates
from memsync.migrate.options import RunOptions
from memsync.migrate.pacing.pace import Pace
from memsync.migrate.preflight.run_checks import preflight, require_no_blockers
from memsync.migrate.redesign import settings as redesign
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.settings import Settings
from memsync.stores.history.catalog import BUILD_USER_INDEX, TABLE, USER_INDEX, Catalog
from memsync.stores.history.phases import REACHED, Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.postgres.locks import LockKey, exclusive
from memsync.stores.vectors.protocol import VectorStore


def run(
    postgres: Postgres,
    settings: Settings,
    options: RunOptions | None = None,
    *,
    vectors: VectorStore | None = None,
    tell: Tell = silent,
) -> Stage:
    """Bring the database to the end of phase `options.to`; return the stage at which it stands.

    `vectors` holds the memories that are evidence of who spoke; without it there is none.

    Raises: StoreBusy (another run, or a lock not had), GateClosed (the preflight found a blocker,
    users have no persona, or a gate of contract), SchemaMismatch (not the app's database),
    InvalidInput (behind a pooler), MissingRight, StoreUnreachable (the memories cannot be read;
    nothing was changed), PartlyDone, Cancelled. Effects: Postgres only.
    """
    options = options or RunOptions()
    with _engine(postgres, settings, tell, options) as engine:
        catalog = engine.catalog()
        engine.require_clear_way(catalog, options.to)
        if evidence.awaited(catalog):
            if vectors and options.evidence == "prefer":
                engine.evidence.read(vectors, settings, tell)
            if options.method == "copy":
                choose_method(engine.ddl.session, catalog, options.method)
        engine.require_decisions(catalog, options)
        for phase in list(Phase)[: list(Phase).index(options.to) + 1]:
            engine.forward(phase, options)
        return engine.catalog().stage


def rollback(
    postgres: Postgres, settings: Settings, *, to: Phase | None, tell: Tell = silent
) -> Stage:
    """Take back every phase after `to`, or all of them; return the stage that is left.

    After contract every message gets its user again, also those written since: the owner of its
    persona, or the user that the archive kept. Nothing that was written is lost, and running
    forward again gives every row the persona that it has now.

    Raises: StoreBusy; GateClosed when the way back was ended by `finalize`, or contract was not
    done by memsync; PartlyDone, Cancelled. Effects: Postgres only.
    """
    with _engine(postgres, settings, tell) as engine:
        swap.settle(engine.ddl)
        kept = 0 if to is None else list(Phase).index(to) + 1
        for phase in reversed(list(Phase)[kept:]):
            engine.back(phase)
            if phase is Phase.CONTRACT and to:
                # Threads may be read by user again; those that serve by persona go after this.
                engine.index_users()
        return engine.catalog().stage


@dataclass(frozen=True, slots=True)
class Archive:
    """What the archive of the way back holds.

    `pairs` are decisions, `rows` messages that differ from them; `settings` are values of dropped
    columns, `personas` those that were quarantined for want of an owner.
    """

    pairs: int
    rows: int
    settings: int
    personas: int


def archive(postgres: Postgres) -> Archive:
    """What `finalize` would remove. Reads only.

    Raises: GateClosed when the migration is not finished.
    """
    with postgres.session() as session:
        _require_contracted(Catalog.read(session))
        size = session.row("archive_size")
        return Archive(size.pairs, size.rows, size.settings, size.personas)


def finalize(postgres: Postgres, settings: Settings, tell: Tell = silent) -> None:
    """End the way back: remove the archive. This cannot be undone.

    Raises: GateClosed when the migration is not finished; StoreBusy.
    """
    with _engine(postgres, settings, tell) as engine:
        _require_contracted(engine.catalog())
        with engine.recorded("finalize", Phase.CONTRACT), engine.ddl.session.transaction():
            engine.ddl.session.run("remove_archive")
            engine.ddl.session.run("remove_merged")
            engine.ddl.session.run("note_archive_removed")


def _require_contracted(catalog: Catalog) -> None:
    if catalog.stage is not Stage.CONTRACTED or "user_id" in catalog.columns:
        raise GateClosed(
            f"the database is {catalog.stage}, not contracted: the archive is still needed. "
            "Next: memsync migrate run"
        )


@contextlib.contextmanager
def _engine(
    postgres: Postgres, settings: Settings, tell: Tell, options: RunOptions | None = None
) -> Iterator["_Engine"]:
    with exclusive(postgres, LockKey.MIGRATE, "migration") as session:
        pace = Pace(session, options or RunOptions(), tell)
        pace.begin()
        session.run("heavy_work")
        ddl = OnlineDdl(
            session,
            lock_timeout_ms=min(settings.lock_timeout_ms, session.row("deadlock_patience").half_ms),
            deadline_s=settings.lock_deadline_s,
            tell=tell,
            between=pace.between_tries,
        )
        yield _Engine(postgres, ddl, pace, settings.batch_target_ms, tell)


class _Engine:
    """One run: the session that holds the lock, and everything that is done on it or beside it."""

    def __init__(
        self, postgres: Postgres, ddl: OnlineDdl, pace: Pace, batch_target_ms: int, tell: Tell
    ) -> None:
        self.ddl = ddl
        self._postgres = postgres
        self._pace = pace
        self.evidence = evidence.Evidence(ddl.session)
        self._batch_target_ms = batch_target_ms
        self._tell = tell
        self._filled = 0

    def catalog(self) -> Catalog:
        return Catalog.read(self.ddl.session)

    def forward(self, phase: Phase, options: RunOptions) -> None:
        """Run one phase; what is done already is looked at and left."""
        catalog = self.catalog()
        if Phase.CONTRACT in catalog.done and "user_id" not in catalog.columns:
            return
        self._tell(Progress(Kind.PHASE, phase.value))
        if "memsync.runs" not in catalog.own_tables:
            # The record of runs is made here.
            revisions.upgrade(self.ddl, Phase.ISOLATE, self._steps(options))
        with self.recorded("run", phase):
            if phase is Phase.BACKFILL and self._fill_is_open(options):
                # Before anything else is decided: an edit of an old row waits for the fill.
                self.evidence.keep(self.ddl)
                self._filled += backfill(
                    self._postgres,
                    self.ddl,
                    options,
                    self._pace,
                    self._batch_target_ms,
                    self._tell,
                )
            if phase is Phase.CONTRACT and "user_id" in self.catalog().columns:
                gates.require_open(self.ddl.session, options, self._tell)
            revisions.upgrade(self.ddl, phase, self._steps(options))
            after = self.catalog()
            passed = phase is Phase.ISOLATE and not _read_by_user(after, options.to)
            if phase not in after.done and not passed:
                raise PartlyDone(
                    f"phase {phase} ended, but the database is {after.stage}, not "
                    f"{REACHED[phase]}. Run again; `memsync migrate status` names the steps",
                    phase=phase.value,
                    stage=after.stage.value,
                )

    def _fill_is_open(self, options: RunOptions) -> bool:
        """Whether there is anything to fill, as far as an earlier run does not answer for it.

        The catalog alone would not do: what other hands filled must be decided and proven too.
        """
        catalog = self.catalog()
        if not catalog.has_users:
            return False
        if Phase.BACKFILL in catalog.done and self.ddl.session.row("backfill_stands").found:
            # New users without a persona may come until contract: the bridge goes by this.
            self.ddl.session.run("note_unresolved", unresolved=options.unresolved)
            return False
        return True

    def back(self, phase: Phase) -> None:
        """Take one phase back; what is not there is looked at and left."""
        catalog = self.catalog()
        if phase not in catalog.done | catalog.halfway or not catalog.is_ours(phase):
            return
        gone = phase is Phase.CONTRACT and not catalog.has_users
        if gone and not self.ddl.session.row("way_back_is_open").open:
            raise GateClosed(
                "there is no way back from contract: its archive was removed by "
                "`memsync migrate finalize`, or contract was not done by memsync. Restore the "
                "backup instead; nothing was changed"
            )
        self._tell(Progress(Kind.PHASE_BACK, phase.value))
        with self.recorded("rollback", phase):
            revisions.downgrade(self.ddl, phase, self._steps(RunOptions()))
        after = self.catalog()
        if phase in after.done and after.is_ours(phase):
            raise PartlyDone(
                f"phase {phase} was taken back, but the database is still {after.stage}. Run again",
                phase=phase.value,
                stage=after.stage.value,
            )

    def require_clear_way(self, catalog: Catalog, to: Phase) -> None:
        """Stop before anything is changed when the preflight finds a blocker of a phase up to `to`.

        Raises: GateClosed; SchemaMismatch when the app's own tables for the settings do not fit.
        """
        redesign.require_fit(self.ddl.session, catalog)
        ahead = set(list(Phase)[: list(Phase).index(to) + 1]) - catalog.done
        if ahead:
            require_no_blockers(preflight(self.ddl.session, catalog), ahead)

    def require_decisions(self, catalog: Catalog, options: RunOptions) -> None:
        """Stop before anything is changed when something is the operator's to decide.

        Raises: GateClosed.
        """
        if not catalog.redesign.owners_required and not catalog.redesign.missing_tables:
            redesign.require_owners(self.ddl.session, catalog.settings, options)
        if options.unresolved == "create" or not evidence.awaited(catalog):
            return
        fragments = {**catalog.settings, **self.evidence.fragments}
        without = self.ddl.session.rows_with(fragments, "unresolved_users")
        rows = sum(row.rows_count for row in without)
        require_resolved([str(row.user_id) for row in without], rows)

    @contextlib.contextmanager
    def recorded(self, verb: str, phase: Phase) -> Iterator[None]:
        """Keep in the record of runs that this was begun, and how it ended."""
        session = self.ddl.session
        entry = session.row("begin_record", verb=verb, phase=phase, version=version("memsync")).id
        outcome = "interrupted"
        try:
            self._pace.between_steps()
            yield
            outcome = "done"
        except Cancelled:
            outcome = "cancelled"
            raise
        except MemsyncError as error:
            outcome = type(error).__name__
            raise
        finally:
            # A session that died cannot write; the entry without an end says so.
            if not session.connection.closed:
                session.run(
                    "end_record",
                    id=entry,
                    outcome=outcome,
                    rows_filled=self._filled,
                    lock_waits=self.ddl.waits,
                    waited_s=self._pace.waited_s,
                )
            self._filled = self.ddl.waits = 0
            self._pace.waited_s = 0.0

    def _steps(self, options: RunOptions) -> revisions.Steps:
        return {
            "index_users": lambda _: self._isolate(options),
            "clear_vanished": clear_vanished,
            "restore_forks": redesign.restore_forks,
            "size_configs": redesign.size_configs,
            "settle_sync": redesign.settle_sync,
            "copy_settings": partial(redesign.copy_settings, tell=self._tell),
            "copy_settings_back": partial(redesign.copy_settings_back, tell=self._tell),
            "settle_owners": partial(redesign.settle_owners, options=options),
            "restore_orphans": redesign.restore_orphans,
            "refill_users": self._refill,
        }

    def index_users(self) -> None:
        """Build the index that serves reading by user, if there is a user_id."""
        if self.catalog().has_users:
            self.ddl.index(USER_INDEX, BUILD_USER_INDEX, table=TABLE)

    def _isolate(self, options: RunOptions) -> None:
        if _read_by_user(self.catalog(), options.to):
            self.index_users()

    def _refill(self, ddl: OnlineDdl) -> None:
        self._filled += refill_users(ddl, self._pace, self._batch_target_ms, self._tell)


def _read_by_user(catalog: Catalog, to: Phase) -> bool:
    """Whether a run wants the user index: somebody built it, or the run ends at `to`, before there
    are personas to read by. One that goes on would pay for it with every row.
    """
    before_personas = to in {Phase.ISOLATE, Phase.REDESIGN, Phase.EXPAND}
    return catalog.has_users and (before_personas or USER_INDEX in catalog.indexes)
