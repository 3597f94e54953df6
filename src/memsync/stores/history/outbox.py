"""The outbox: a table of memories that must be written to Qdrant, which the relay processes.

An entry names an anchor and nothing else: the relay writes the memory of its exchange as Postgres
has it at that time. This module adds, claims and removes entries, and puts failed ones back. It
does not talk to Qdrant. The statements are in outbox.sql.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from memsync.stores.postgres import Session


@dataclass(frozen=True, slots=True)
class Entry:
    """The memory of this anchor's exchange must be written as Postgres has it now."""

    id: int
    anchor_id: UUID


@dataclass(frozen=True, slots=True)
class LateEntry:
    """An entry that is dead, or older than the alarm age. `total` is how many there are in all."""

    id: int
    anchor_id: UUID
    dead: bool
    attempts: int
    last_error: str | None
    age_s: float
    total: int


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How many entries wait, how many are dead, and the age of the oldest entry that waits."""

    pending: int
    dead: int
    oldest_s: float


def enqueue(session: Session, anchor_ids: Iterable[UUID]) -> None:
    """Add an entry for each anchor, in the caller's transaction."""
    session.run("enqueue", ids=list(anchor_ids))


def claim(session: Session, limit: int) -> list[Entry]:
    """The oldest entries that are due.

    Nothing marks them as claimed: the caller must hold the relay's lock.
    """
    return [Entry(row.id, row.point_id) for row in session.rows("claim", limit=limit)]


def settle(session: Session, entry_ids: Sequence[int]) -> None:
    """Remove entries whose memories are written."""
    session.run("settle_entries", ids=list(entry_ids))


def defer(session: Session, entry_ids: Sequence[int], *, error: str, attempts_max: int) -> None:
    """Put entries back after a failure; the delay until the next attempt grows each time.

    After attempt number `attempts_max` they are dead: the relay no longer tries them.
    """
    session.run("defer_entries", ids=list(entry_ids), error=error, attempts_max=attempts_max)


def revive(session: Session) -> int:
    """Make all dead entries due again, and return how many there were."""
    return session.run("revive_entries")


def status(session: Session) -> OutboxStatus:
    """How many entries the outbox has, and how late they are."""
    row = session.row("outbox_status")
    return OutboxStatus(row.pending, row.dead, row.oldest_s)


def late(session: Session, *, alarm_s: float, limit: int) -> list[LateEntry]:
    """The first `limit` entries that are dead or older than `alarm_s` seconds, by id."""
    return [
        LateEntry(
            id=row.id,
            anchor_id=row.point_id,
            dead=row.dead,
            attempts=row.attempts,
            last_error=row.last_error,
            age_s=row.age_s,
            total=row.total,
        )
        for row in session.rows("outbox_late", alarm_s=alarm_s, limit=limit)
    ]


def pending_of(session: Session, anchor_ids: Iterable[UUID]) -> set[UUID]:
    """Which of the anchors have an entry that is not dead."""
    return {row.point_id for row in session.rows("outbox_pending_of", ids=list(anchor_ids))}
