"""The relay: drains the outbox into the vector store.

Decides batch size, retries and when an entry is dead. An entry says only that an exchange's memory
must be made anew; what it says is read when it is drained, so entries may repeat and come late.
One relay at a time: a slower one could write what it read before the other read something newer.
"""

from dataclasses import dataclass
from uuid import UUID

from memsync.errors import InvalidInput, PartlyDone
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.stores.ltm import Projector
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.locks import LockKey, exclusive

BATCH_ENTRIES = 256
ATTEMPTS_MAX = 10


@dataclass(frozen=True, slots=True)
class Drained:
    """What one drain did: entries settled, memories written."""

    entries: int
    memories: int


def drain(postgres: Postgres, projector: Projector, tell: Tell = silent) -> Drained:
    """Carry out every outbox entry that is due.

    Raises: StoreBusy when another relay runs; StoreUnreachable when a store went away (what is not
    settled stays due); DimensionMismatch before anything is done; PartlyDone when memories could
    not be made and wait for a retry. Effects: both stores.
    """
    entries = memories = 0
    failures: list[str] = []
    with exclusive(postgres, LockKey.RELAY, "relay") as session:
        total = session.row("outbox_status").pending
        projector.prepare()
        while claimed := session.rows("claim", limit=BATCH_ENTRIES):
            written, failed = _project(session, projector, [e.point_id for e in claimed])
            done = [entry.id for entry in claimed if entry.point_id not in failed]
            session.run("settle_entries", ids=done)
            entries, memories = entries + len(done), memories + written
            for point_id, why in failed.items():
                ids = [entry.id for entry in claimed if entry.point_id == point_id]
                session.run("defer_entries", ids=ids, error=why, attempts_max=ATTEMPTS_MAX)
                failures.append(why)
            tell(Progress(Kind.STEP, "sync", entries, total))
        status = session.row("outbox_status")
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
    session: Session, projector: Projector, anchors: list[UUID]
) -> tuple[int, dict[UUID, str]]:
    """Write the memories of the anchors; how many were written, and why others could not be.

    When a batch is refused for what is in it, each of it is tried alone, so that one bad text
    does not hold up the rest.
    """
    distinct = list(dict.fromkeys(anchors))
    try:
        return projector.project(session, distinct), {}
    except InvalidInput as error:
        if len(distinct) == 1:
            return 0, {distinct[0]: error.message}
    parts = [_project(session, projector, [anchor]) for anchor in distinct]
    return sum(written for written, _ in parts), {k: v for _, bad in parts for k, v in bad.items()}


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """What waits: entries due or deferred, dead ones, and the age of the oldest that waits."""

    pending: int
    dead: int
    oldest_s: float


def outbox_status(postgres: Postgres) -> OutboxStatus:
    """How full the outbox is. Reads only."""
    with postgres.session() as session:
        row = session.row("outbox_status")
    return OutboxStatus(row.pending, row.dead, row.oldest_s)


def revive(postgres: Postgres) -> int:
    """Make dead entries due again; how many there were. Effects: Postgres."""
    with postgres.session() as session:
        return session.run("revive_entries")
