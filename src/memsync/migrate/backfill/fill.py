"""The fill in place: persona_id forward, user_id on rollback, one range of blocks after another.

This module decides the size of a batch, steered by time. A batch and its counts are one
transaction, so a kill costs one batch of each session that fills. The checkpoint moves when a range
of blocks is filled. Rows that a killed run filled beyond the checkpoint are skipped, because a fill
takes only rows that are still empty. The sync triggers (expand/sync_triggers.sql) fill the rows
that clients write meanwhile.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from memsync.errors import GateClosed
from memsync.migrate.backfill.blocks import end_block, range_of_blocks
from memsync.migrate.backfill.checkpoint import Fill, opened_fill, save_fill, start_fill
from memsync.migrate.expand import archive_personas
from memsync.migrate.pacing.pace import steered
from memsync.migrate.pacing.workers import Workers
from memsync.migrate.run import Run
from memsync.model.progress import Kind, Progress
from memsync.model.wording import count
from memsync.stores.history.catalog import TABLE, history_size
from memsync.stores.postgres import Session, relations
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl

_BLOCKS_START = 128
_BLOCKS_MAX = 8192
_VACUUM_SHARE = 0.05
PARTS = 8
"""A range is filled in this many transactions, each for a part of the rows of every page. The new
row versions of the first part go to other pages, and every index gets entries for them. Those of a
later part take the space that the part before freed in the same page: these are HOT updates, which
touch no index, and nothing grows. A client's transaction that is still open prevents that.
https://www.postgresql.org/docs/current/storage-hot.html
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction of a fill: how many rows it filled, and how long its statements took.

    `worked_s` is the work of the run since the batch before, whichever session filled that.
    """

    rows: int
    took_s: float
    worked_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """The fill of adjacent ranges at the same time; `took_s` is that of the longest batch.

    `share` is what the pace gives the next round. `whole` is false if a client holds a row.
    """

    rows: int
    took_s: float
    worked_s: float
    share: float
    whole: bool


def fill_in_place(run: Run, workers: Workers, fill: Fill) -> int:
    """One pass over the blocks from the checkpoint on; how many rows it filled.

    Raises: StoreBusy, Cancelled.
    """
    session = run.session
    state = opened_fill(session, fill)
    block, filled, size = state.next_block, 0, _BLOCKS_START
    vacuum_every = max(1, int(state.end_block * _VACUUM_SHARE))
    vacuumed, dead = block, 0
    worked_s = state.busy_s
    run.pace.start_work()
    while block < state.end_block:
        starts = range(block, state.end_block, size)[: workers.size]
        ranges = [(start, min(start + size, state.end_block)) for start in starts]
        done = _fill_ranges(run, workers, fill, ranges)
        filled, dead, worked_s = filled + done.rows, dead + done.rows, worked_s + done.worked_s
        counts = state.rows_done + filled, state.rows_total, worked_s
        run.tell(Progress(_KIND[fill], f"fill {fill}", *counts))
        if not done.whole:
            # Smaller steps meet fewer rows that clients hold.
            size = max(1, size // 2)
            run.ddl.wait_turn(TABLE, relations.blockers(session, TABLE, "rows"))
            continue
        run.ddl.had_turn()
        block = ranges[-1][1]
        # The next ranges reuse the space of replaced rows. Otherwise table and indexes would grow.
        if dead and vacuumed // vacuum_every < block // vacuum_every:
            session.run("vacuum_history")
            vacuumed, dead = block, 0
        size = steered(size, done.took_s, run.batch_target_ms / 1000 * done.share, _BLOCKS_MAX)
    if workers.size > 1:
        # A round moves the checkpoint over its first range only.
        save_fill(session, fill, next_block=block)
    return filled


def refill_users(run: Run) -> int:
    """Give every message its user again, on rollback; how many were filled.

    Raises: GateClosed when a message's persona has no owner and the archive does not know its user.
    """
    session = run.session
    start_fill(
        session,
        "users",
        end_block=end_block(session),
        rows_total=history_size(session).rows,
        unresolved="fail",
    )
    filled = fill_in_place(run, Workers(run.ddl), "users")
    left = session.row("messages_without_user")
    if left.total:
        raise GateClosed(
            f"{count(left.total, 'message belongs', 'messages belong')} to personas without an "
            f"owner, the first is {left.first}, so the users are unknown. Give those personas an "
            "owner and run again; persona_id is still there",
            rows=left.total,
        )
    # The map did not decide the personas of messages that were written since contract.
    archive_personas(run.ddl)
    return filled


def analyze_history(session: Session) -> None:
    """Tell the planner that no message is without a persona, so that it uses the index."""
    session.run("analyze_history")


def _fill_ranges(run: Run, workers: Workers, fill: Fill, ranges: list[tuple[int, int]]) -> Round:
    """Fill ranges of blocks part by part; the workers fill a range each, at the same time."""
    rows, took_s, worked_s, share = 0, 0.0, 0.0, 1.0
    for part in range(PARTS):
        batches = workers.together(
            [
                partial(_batch, run, workers.size, _Part(fill, *each, part, begun=ranges[0][0]))
                for each in ranges
            ]
        )
        done = [batch for batch in batches if batch]
        rows += sum(batch.rows for batch in done)
        took_s = max([took_s, *(batch.took_s for batch in done)])
        worked_s += sum(batch.worked_s for batch in done)
        if len(done) < len(ranges):
            return Round(rows, took_s, worked_s, share, whole=False)
        share = run.pace.between_batches()
    return Round(rows, took_s, worked_s, share, whole=True)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the rows of a range of blocks. `begun` is the first block of all the ranges that
    are filled at the same time.
    """

    fill: Fill
    start: int
    stop: int
    number: int
    begun: int

    @property
    def is_last(self) -> bool:
        return self.number == PARTS - 1

    @property
    def next_block(self) -> int:
        """Where the checkpoint goes. Only the last part of the first range moves it, because all
        before it is filled then, even if another range was cut short.
        """
        return self.stop if self.is_last and self.start == self.begun else self.begun


def _batch(run: Run, workers: int, part: _Part, ddl: OnlineDdl) -> Batch | None:
    """Fill a part of a range of blocks and save the checkpoint, in one transaction; None if a
    client holds a row.
    """
    session = ddl.session
    started = time.monotonic()
    try:
        with ddl.brief_transaction(ends_wait=False):
            rows = _FILL[part.fill](session, part)
            took_s = time.monotonic() - started
            # Look for waiting clients before the checkpoint is locked: other workers may wait for
            # that, and they are no clients.
            run.pace.before_commit(session)
            worked_s = run.pace.worked_s()
            with ddl.unhurried() if workers > 1 else contextlib.nullcontext():
                save_fill(
                    session,
                    part.fill,
                    next_block=part.next_block,
                    rows=rows,
                    busy_s=worked_s,
                )
    except LockNotHad:
        return None
    return Batch(rows, took_s, worked_s)


def _fill_personas(session: Session, part: _Part) -> int:
    """Fill rows that the map decides; the last part adds those that only the archive decides."""
    start, stop = range_of_blocks(part.start, part.stop)
    session.run("fill_by_index")
    rows = session.run("fill_personas", start=start, stop=stop, part=part.number, parts=PARTS)
    if part.is_last:
        rows += session.run("fill_archived", start=start, stop=stop)
    return rows


def _fill_users(session: Session, part: _Part) -> int:
    start, stop = range_of_blocks(part.start, part.stop)
    session.run("fill_by_index")
    return session.run("fill_users", start=start, stop=stop, part=part.number, parts=PARTS)


_KIND: Mapping[Fill, Kind] = {"personas": Kind.FILL_PERSONAS, "users": Kind.FILL_USERS}
_FILL: Mapping[Fill, Callable[[Session, _Part], int]] = {
    "personas": _fill_personas,
    "users": _fill_users,
}
