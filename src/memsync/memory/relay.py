"""The relay reads the outbox and writes memories to Qdrant, so that memories follow the history.

It decides the batch size, and after how many attempts an entry is dead. An entry says only that an
exchange's memory must be made anew. The relay reads the exchange itself when it handles the entry,
so entries may repeat and come late. One relay runs at a time, because a slow one could overwrite a
newer memory with the older text that it has read.
"""

from dataclasses import dataclass
from uuid import UUID

from memsync.errors import InvalidInput, PartlyDone
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.stores.history import outbox
from memsync.stores.history.outbox import OutboxStatus
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.locks import LockKey, exclusive

BATCH_ENTRIES = 256
ATTEMPTS_MAX = 10


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of one drain: the numbers of entries settled and of memories written."""

    entries: int
    memories: int


def drain(postgres: Postgres, ltm: LongTermMemory, tell: Tell = silent) -> Drained:
    """Write the memories of every outbox entry that is due, and remove those entries.

    Raises: StoreBusy when another relay runs; StoreUnreachable when a store went away (entries that
    are not settled stay due); SettingsError or DimensionMismatch, before anything is done, when the
    embedder cannot be loaded or does not fit the collection; PartlyDone when some memories could
    not be made: their entries wait for a retry or are dead. Effects: both stores.
    """
    entries = memories = 0
    failures: list[str] = []
    with exclusive(postgres, LockKey.RELAY, "relay") as session:
        total = outbox.status(session).pending
        ltm.prepare()
        while claimed := outbox.claim(session, BATCH_ENTRIES):
            written, failed = _project(session, ltm, [entry.anchor_id for entry in claimed])
            done = [entry.id for entry in claimed if entry.anchor_id not in failed]
            outbox.settle(session, done)
            entries, memories = entries + len(done), memories + written
            for anchor_id, why in failed.items():
                ids = [entry.id for entry in claimed if entry.anchor_id == anchor_id]
                outbox.defer(session, ids, error=why, attempts_max=ATTEMPTS_MAX)
                failures.append(why)
            tell(Progress(Kind.STEP, "sync", entries, total))
        status = outbox.status(session)
    if failures:
        raise PartlyDone(
            f"{entries} outbox entries done, {status.pending} wait for a retry, {status.dead} are "
            f"dead; the last failure: {failures[-1]}. Run `memsync sync run` again",
            done=entries,
            pending=status.pending,
            dead=status.dead,
        )
    return Drained(entries, memories)


def _project(
    session: Session, ltm: LongTermMemory, anchors: list[UUID]
) -> tuple[int, dict[UUID, str]]:
    """Write the memories of the anchors. Returns how many were written, and the error per anchor.

    When a text in the batch is refused, each memory is tried alone, so that one bad text does not
    hold up the rest.
    """
    distinct = list(dict.fromkeys(anchors))
    try:
        return ltm.project(session, distinct), {}
    except InvalidInput as error:
        if len(distinct) == 1:
            return 0, {distinct[0]: error.message}
    parts = [_project(session, ltm, [anchor]) for anchor in distinct]
    return sum(written for written, _ in parts), {k: v for _, bad in parts for k, v in bad.items()}


def outbox_status(postgres: Postgres) -> OutboxStatus:
    """How full the outbox is. Reads only."""
    with postgres.session() as session:
        return outbox.status(session)


def revive(postgres: Postgres) -> int:
    """Make all dead entries due again. Returns how many there were. Effects: Postgres."""
    with postgres.session() as session:
        return outbox.revive(session)
