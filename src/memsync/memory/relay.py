"""The relay reads the outbox and writes memories to Qdrant, so that memories follow the history.

It decides the batch size, after how many attempts an entry is dead, and what is an attempt: a text
that is refused, or work that ended the process, but not an outage, and not what is held until
somebody mends it. An entry says only that an exchange's memory must be made anew. The relay reads
the exchange itself when it handles the entry, so entries may repeat and come late. One relay runs
at a time, and none beside a repair. One that lost its lock meanwhile does no harm: its writes are
conditional. What it replaces and has not written itself goes to the quarantine first.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID, uuid4

from memsync import reconcile
from memsync.errors import MemsyncError, PartlyDone, StoreUnreachable
from memsync.memory.patience import Patience
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Place, Point
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.history import outbox
from memsync.stores.history.outbox import Entry, OutboxStatus
from memsync.stores.ltm import LongTermMemory, Written
from memsync.stores.ltm.apart import HELD_S
from memsync.stores.ltm.ledger import Entry as Noted
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.ltm.writer import known_layout, why_app_writes
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.locks import LockKey, exclusive

_log = logging.getLogger(__name__)

BATCH_ENTRIES = 256
ATTEMPTS_MAX = 10
"""More than the halvings of a batch: of entries whose batch ended the process, half are claimed at
once the next time, so that the one at fault is alone before the others are dead."""
LOOK_S = 10.0
"""How old the relay's knowledge of the recorded layout may be."""
OUTAGE_WAIT_S: float = Settings.model_fields["outage_wait_s"].default


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of one drain: the numbers of entries settled and of memories written."""

    entries: int
    memories: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of one drain: what was done, the outage that lasts, the last refusal of a text.

    `status` also says what is held, and why. `tried` is the last entry that the outage gave back.
    """

    drained: Drained
    outage: StoreUnreachable | None
    refusal: str | None
    status: OutboxStatus
    tried: int = 0


def drain(
    postgres: Postgres,
    ltm: LongTermMemory,
    tell: Tell = silent,
    *,
    outage_wait_s: float = OUTAGE_WAIT_S,
) -> Drained:
    """Write the memories of every outbox entry that is due, and remove those entries.

    An embedder or a vector store that goes down meanwhile is asked again, with growing pauses, for
    `outage_wait_s` seconds without a success; no attempt is counted for it. Where the app writes
    memories itself, or a persona's collection does not take the embedder's vectors, entries are
    held, and no attempt is counted either.

    Raises: StoreBusy when another relay or a repair runs; StoreUnreachable when Postgres went away,
    or a store or the embedder is down from the beginning (entries that are not settled stay due);
    SettingsError or DimensionMismatch, before anything is done, when the embedder cannot be loaded
    or does not fit the shared collection; PartlyDone when some memories could not be made: their
    entries wait, are held or are dead. Effects: both stores.
    """
    ended = drain_once(postgres, ltm, tell, outage_wait_s=outage_wait_s, anew=True)
    if ended.outage or ended.refusal or ended.status.dead or ended.status.held:
        raise _partly_done(ended)
    return ended.drained


def drain_once(
    postgres: Postgres,
    ltm: LongTermMemory,
    tell: Tell = silent,
    *,
    outage_wait_s: float = 0,
    settled: Callable[[Drained], None] = lambda _: None,
    stops: Callable[[], bool] = lambda: False,
    anew: bool = False,
    last: Ended | None = None,
) -> Ended:
    """As `drain`, but what is left is the result and no error.

    `settled` is called after each batch. Where `stops` says so, no other batch is begun. With
    `anew` entries that were held a moment ago are tried again. After a `last` run that an outage
    ended, one entry behind those is tried first: it may be they that bring the model down.
    """
    with exclusive(postgres, LockKey.RELAY, "relay or repair") as session:
        if anew:
            outbox.release(session)
            ltm.ask_again()
        total = outbox.status(session).pending
        run = _Run(
            *(session, ltm.followed(session), tell, Patience(outage_wait_s), total, settled, stops),
            is_probing=last is not None and last.outage is not None,
            tried=last.tried if last else 0,
        )
        run.drain()
        status = _held(outbox.status(session), run.ltm.why_app_writes)
        archives = run.entries > 0 and not stops() and run.ledger.begin_to_archive()
    if archives:
        _archive(postgres, stops)
    done = Drained(run.entries, run.memories)
    return Ended(done, run.outage, run.refusal, status, run.tried)


def _archive(postgres: Postgres, stops: Callable[[], bool]) -> None:
    """See which memories are archived: a pass over the history, while others may write.

    It ends soon where `stops` says so. A failure is a warning in the log, because the drain is
    done; the next time mends it.
    """
    try:
        session = postgres.dedicated()
        with contextlib.closing(session.connection):
            Ledger(session).archive(stops)
    except MemsyncError as error:
        _log.warning("which memories are archived was not written down: %s", error.message)


@dataclass
class _Run:
    """One drain: what it has done so far, the last refusal, and the outage that lasts.

    `is_probing`: nothing has gone well since an outage, of this run or of the one before.
    """

    session: Session
    ltm: LongTermMemory
    tell: Tell
    patience: Patience
    total: int
    settled: Callable[[Drained], None]
    stops: Callable[[], bool]
    entries: int = 0
    memories: int = 0
    refusal: str | None = None
    outage: StoreUnreachable | None = None
    is_probing: bool = False
    tried: int = 0
    looked_at: float = field(default_factory=time.monotonic)
    is_recorded: bool = False
    run_id: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.session)

    def drain(self) -> None:
        """Go through the due entries, and again as long as an outage held some of them back."""
        if self.ltm.why_app_writes:
            return
        self.ltm.prepare()
        if why := reconcile.why_not_kept(self.session):
            self.tell(Progress(Kind.NOTE, why))
        try:
            self._drain_levels(outbox.clock(self.session))
        finally:
            if self.entries:
                self.ltm.mark.publish(self.session)

    def _drain_levels(self, since: datetime) -> None:
        while levels := outbox.due_attempts(self.session, since):
            for attempts in levels:
                if not self._drain_level(attempts, since):
                    return

    def _drain_level(self, attempts: int, since: datetime) -> bool:
        """Go through the entries that have had so many attempts. False ends the run."""
        after, self.tried = self.tried, 0
        while self._goes_on() and (
            claimed := outbox.claim(
                self.session,
                attempts=attempts,
                after=after,
                since=since,
                # During an outage one entry is enough to see whether it is over.
                limit=1 if self.is_probing else max(1, BATCH_ENTRIES >> attempts),
                attempts_max=ATTEMPTS_MAX,
            )
        ):
            # The next claim goes on behind these, so that an entry which brings the model down
            # does not hold up the others.
            after = claimed[-1].id
            self.outage = outage = self._carry_out(claimed)
            if outage:
                self.is_probing = True
                pause_s = self.patience.next_pause_s(outage)
                if pause_s is None:
                    self.tried = after
                    return False
                wait = f"{outage.message}; the next try is in {pause_s:.0f} s"
                self.tell(Progress(Kind.WAITING_FOR_SERVICE, wait))
                time.sleep(pause_s)
        return self._goes_on()

    def _goes_on(self) -> bool:
        """Whether another batch may begin. The recorded layout is followed, at most LOOK_S late."""
        if time.monotonic() - self.looked_at > LOOK_S:
            self.looked_at = time.monotonic()
            self.ltm = self.ltm.followed(self.session)
            self.ltm.mark.publish(self.session)
        return not self.stops() and self.ltm.why_app_writes is None

    def _record(self) -> None:
        """Record the layout before the first write, so that nobody writes in another one."""
        if not self.is_recorded:
            self.ltm.record_layout(self.session)
            self.ltm = self.ltm.followed(self.session)
            self.ltm.mark.watch(self.session)
            self.is_recorded = True

    def _carry_out(self, claimed: list[Entry]) -> StoreUnreachable | None:
        """Write the memories of the entries. Returns the outage that held some of them back."""
        anchors = list(dict.fromkeys(each.anchor_id for each in claimed))
        try:
            self._record()
            written = self.ltm.project(self.session, anchors, self._keep)
        except StoreUnreachable as outage:
            # Where it is Postgres that went away, this fails as well, and the run ends.
            self._give_back([each.id for each in claimed], outage.message)
            return outage
        except (MemsyncError, KeyboardInterrupt, SystemExit) as error:
            # No text is at fault. Anything else ends the process, so its attempt counts.
            with contextlib.suppress(StoreUnreachable):
                self._give_back([each.id for each in claimed], str(error) or type(error).__name__)
            raise
        self.memories += len(written.points)
        before = self.entries
        outage_of_some = self._account(claimed, written)
        self.settled(Drained(self.entries - before, len(written.points)))
        return outage_of_some

    def _keep(self, points: Mapping[Place, Point]) -> Mapping[Place, MemsyncError]:
        unkept = reconcile.keep_replaced(self.session, self.run_id, points)
        if kept := len(points) - len(unkept):
            _log.warning(
                "%s, which memsync had not written so, replaced by what Postgres says; "
                "memsync.quarantine has what stood there, under the plan_id %s",
                count(kept, "memory is", "memories are"),
                self.run_id,
            )
        return unkept

    def _account(self, claimed: list[Entry], written: Written) -> StoreUnreachable | None:
        """Settle what is done, keep the errors of the refused, give back what was not tried."""
        outage: StoreUnreachable | None = None
        done: list[int] = []
        untried: list[int] = []
        held: dict[str, list[int]] = {}
        refused: dict[str, list[int]] = {}
        for entry in claimed:
            error = written.failed.get(entry.anchor_id)
            if held_by := written.held.get(entry.anchor_id):
                held.setdefault(held_by.message, []).append(entry.id)
            elif error is None:
                done.append(entry.id)
            elif isinstance(error, StoreUnreachable):
                outage = error
                untried.append(entry.id)
            else:
                self.refusal = error.message
                refused.setdefault(error.message, []).append(entry.id)
        for why, entry_ids in refused.items():
            outbox.refuse(self.session, entry_ids, error=why)
        for why, entry_ids in held.items():
            outbox.hold(self.session, entry_ids, error=why, wait_s=HELD_S)
        if outage:
            self._give_back(untried, outage.message)
        self._settle(done, written)
        if done or refused:
            # Held entries may wait for the very store that is down.
            self.is_probing = False
            self.patience.succeeded()
        self.entries += len(done)
        self.tell(Progress(Kind.STEP, "sync", self.entries, self.total))
        return outage

    def _settle(self, done: list[int], written: Written) -> None:
        """Remove the entries that are done, and write their memories down, in one transaction."""
        codec_of = self.ltm.codec_of
        noted = [Noted.made(each, codec_of(each.place.collection)) for each in written.stand]
        try:
            with self.session.transaction():
                outbox.settle(self.session, done)
                self.ledger.note(noted)
                if noted:
                    self.ltm.mark.count(self.session)
        except (MemsyncError, KeyboardInterrupt, SystemExit) as error:
            # No text is at fault: the next run writes these memories once more.
            with contextlib.suppress(StoreUnreachable):
                self._give_back(done, str(error) or type(error).__name__)
            raise

    def _give_back(self, entry_ids: list[int], why: str) -> None:
        outbox.give_back(self.session, entry_ids, error=why)


def _partly_done(ended: Ended) -> PartlyDone:
    """The error for a run that leaves entries, with the next step for each kind of them."""
    status, entries = ended.status, ended.drained.entries
    said = [
        f"{entries} outbox entries done, {status.pending} wait for a retry, {status.dead} are dead"
    ]
    if ended.outage:
        said.append(f"{ended.outage.message}. Run `memsync sync run` again when that is mended")
    if ended.refusal:
        said.append(f"the last failure: {ended.refusal}. Run `memsync sync run` again later")
    if status.held:
        said.append(told_held(status.held, str(status.held_error)))
    if status.dead:
        said.append(
            f"the commonest error of the dead entries: {status.dead_error}. Mend its cause, then "
            "`memsync sync retry`"
        )
    return PartlyDone(
        "; ".join(said),
        done=entries,
        pending=status.pending,
        dead=status.dead,
        dead_error=status.dead_error,
        held=status.held,
        held_error=status.held_error,
    )


def told_held(number: int, why: str) -> str:
    """How many entries are held, and why."""
    return f"{count(number, 'outbox entry is', 'outbox entries are')} held: {why}"


def _held(status: OutboxStatus, why: str | None) -> OutboxStatus:
    """The status where `why` holds every entry."""
    return (
        replace(status, held=status.pending, held_error=why) if why and status.pending else status
    )


def outbox_status(postgres: Postgres, settings: Settings | None = None) -> OutboxStatus:
    """How full the outbox is. Reads only.

    With `settings` all entries are held where they say that the app writes memories itself.
    """
    with postgres.session() as session:
        why = settings and why_app_writes(known_layout(session, settings), settings)
        return _held(outbox.status(session), why or None)


def revive(postgres: Postgres) -> int:
    """Make all dead entries due again. Returns how many there were. Effects: Postgres."""
    with postgres.session() as session:
        return outbox.revive(session)
