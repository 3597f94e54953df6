"""The outbox: a table of memories that must be written to Qdrant, which the relay processes.

An entry names an anchor and nothing else: the relay writes the memory of its exchange as Postgres
has it at that time. This module adds, claims and removes entries. A claim counts an attempt; it is
given back when the entry could not be tried. It does not talk to Qdrant. The statements are in
outbox.sql.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from memsync.stores.postgres import Session

_UNFINISHED = "the relay ended while it made this memory"


@dataclass(frozen=True, slots=True)
class Entry:
    """The memory of this anchor's exchange must be written as Postgres has it now."""

    id: int
    anchor_id: UUID


@dataclass(frozen=True, slots=True)
class LateEntry:
    """An entry that is dead, or older than the alarm age. `total` is how many of that kind are."""

    id: int
    anchor_id: UUID
    dead: bool
    attempts: int
    last_error: str | None
    age_s: float
    total: int


@dataclass(frozen=True, slots=True)
class Left:
    """The entries up to one that still wait, or are dead, and the commonest error of each kind."""

    pending: int
    dead: int
    pending_error: str | None
    dead_error: str | None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How many entries wait, how many are dead, and the age of the oldest entry that waits.

    `dead_error` is the commonest error of the dead ones. `held` of those that wait are held: no
    attempt is made until `held_error` is mended, the commonest reason.
    """

    pending: int
    dead: int
    oldest_s: float
    dead_error: str | None = None
    held: int = 0
    held_error: str | None = None


def enqueue(session: Session, anchor_ids: Iterable[UUID]) -> None:
    """Add an entry for each anchor, in the caller's transaction."""
    session.run("enqueue", ids=list(anchor_ids))


def clock(session: Session) -> datetime:
    """The time of the server, which says what is due."""
    now: datetime = session.row("server_clock").now
    return now


def due_attempts(session: Session, since: datetime) -> list[int]:
    """The numbers of attempts that due entries have had, for a run that began at `since`."""
    return [row.attempts for row in session.rows("due_attempts", since=since)]


def claim(
    session: Session,
    *,
    attempts: int,
    after: int,
    since: datetime,
    limit: int,
    attempts_max: int,
) -> list[Entry]:
    """The next due entries, by id above `after`, that have had so many attempts; one is counted.

    With attempt number `attempts_max` an entry is dead, until it is settled or given back. The
    caller must hold the relay's lock.
    """
    rows = session.rows(
        "claim",
        attempts=attempts,
        after=after,
        since=since,
        limit=limit,
        attempts_max=attempts_max,
        unfinished=_UNFINISHED,
    )
    return sorted((Entry(row.id, row.point_id) for row in rows), key=lambda each: each.id)


def settle(session: Session, entry_ids: Sequence[int]) -> None:
    """Remove entries whose memories are written."""
    session.run("settle_entries", ids=list(entry_ids))


def refuse(session: Session, entry_ids: Sequence[int], *, error: str) -> None:
    """Keep the error of entries whose attempt failed; the delay until the next one grows."""
    session.run("refuse_entries", ids=list(entry_ids), error=error)


def give_back(session: Session, entry_ids: Sequence[int], *, error: str) -> None:
    """Take back the attempt of entries that could not be tried, and keep the reason."""
    session.run("give_back", ids=list(entry_ids), error=error)


def hold(session: Session, entry_ids: Sequence[int], *, error: str, wait_s: float) -> None:
    """Take back the attempt of entries that wait for something to be mended, and keep the reason.

    They are due again after `wait_s` seconds.
    """
    session.run("hold_entries", ids=list(entry_ids), error=error, wait_s=wait_s)


def release(session: Session) -> None:
    """Make held entries due: somebody asks for them, so what they wait for may be mended."""
    session.run("release_entries")


def revive(session: Session) -> int:
    """Make all dead entries due again, and return how many there were."""
    return session.run("revive_entries")


def status(session: Session) -> OutboxStatus:
    """How many entries the outbox has, and how late they are."""
    row = session.row("outbox_status")
    return OutboxStatus(
        row.pending, row.dead, row.oldest_s, row.dead_error, row.held, row.held_error
    )


def is_due(session: Session) -> bool:
    """Whether an entry waits that a drain would try now."""
    return bool(due_attempts(session, clock(session)))


def last_id(session: Session) -> int:
    """The id of the newest entry; 0 where there is none."""
    found: int = session.row("outbox_last").id
    return found


def left(session: Session, last: int) -> Left:
    """The entries up to the id `last` that are left."""
    row = session.row("outbox_left", last=last)
    return Left(row.pending, row.dead, row.pending_error, row.dead_error)


def late(session: Session, *, alarm_s: float, limit: int) -> list[LateEntry]:
    """The first `limit` dead entries and the first `limit` others older than `alarm_s` seconds."""
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


def pending_of(session: Session, anchor_ids: Iterable[UUID], *, alarm_s: float) -> set[UUID]:
    """Which of the anchors have an entry that is neither dead nor older than `alarm_s` seconds."""
    rows = session.rows("outbox_pending_of", ids=list(anchor_ids), alarm_s=alarm_s)
    return {row.point_id for row in rows}
