"""The backfill: decide once who every (user, personality) was, then fill row after row.

Decides the order of work and the size of a batch, steered by time. A batch and what it counts are
one transaction, so a kill costs one batch of each session that fills. The checkpoint moves when a
range of blocks is filled; what a killed run filled behind it is passed over. Rows written meanwhile
are the trigger's (stores/bridge.py), which was there before this starts.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal
from uuid import UUID

from memsync.errors import GateClosed, PartlyDone
from memsync.migrate.backfill import cutover as swap
from memsync.migrate.backfill.method import choose_method
from memsync.migrate.backfill.shadow_table import range_of_blocks
from memsync.migrate.options import RunOptions, Unresolved
from memsync.migrate.pacing.pace import Pace, steered
from memsync.migrate.pacing.workers import Crew, crew_of
from memsync.model.progress import Kind, Progress, Tell
from memsync.model.wording import listed
from memsync.stores.history.catalog import TABLE, Catalog
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl

Fill = Literal["personas", "users"]

# What fills a part of a range; what fills the rest of it, with the last part.
_STATEMENTS: Mapping[Fill, tuple[str, ...]] = {
    "personas": ("fill_personas", "fill_archived"),
    "users": ("fill_users",),
}
_BLOCKS_START = 128
_BLOCKS_MAX = 8192
_PASSES_MAX = 5
_NAMED_MAX = 10
_VACUUM_SHARE = 0.05
PARTS = 8
"""A range is filled in so many transactions, each of them a part of the rows of every page. The new
versions of the first part go to other pages, and every index is told. Those of each later part fit
where the old ones of the part before were, in the same page, unless a transaction of others is open
since before: no index is told, and nothing grows.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was filled in one transaction: how many rows, and how long their statements took."""

    rows: int
    took_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """What was filled of ranges that lie side by side, and the longest of its batches.

    `share` is the pace's, for the next round; `whole` is false where a client holds a row.
    """

    rows: int
    took_s: float
    share: float
    whole: bool


def require_resolved(users: list[str], rows: int) -> None:
    """Stop when users have no persona and the operator did not say what to do with them.

    Raises: GateClosed naming the first of them.
    """
    if not users:
        return
    raise GateClosed(
        f"{len(users)} users ({rows} messages) have no persona: neither a choice for the "
        f"personality nor a default. They are: {listed(users, _NAMED_MAX)}. Give them one, or run "
        "again with `--unresolved create` to make a default persona for each; no message was "
        "changed",
        users=users,
        rows=rows,
    )


def backfill(
    postgres: Postgres,
    ddl: OnlineDdl,
    options: RunOptions,
    pace: Pace,
    batch_target_ms: int,
    tell: Tell,
) -> int:
    """Fill persona_id of every message that has none; how many were filled.

    Raises: GateClosed for users without a persona under `fail`; PartlyDone when rows are left
    after several passes.
    """
    session = ddl.session
    swap.settle(ddl, keep_copy=True)
    choice = choose_method(session, Catalog.read(session), options.method)
    session.run("note_method", note=str(choice))
    tell(Progress(Kind.METHOD, f"filling {choice}"))
    if choice.method == "in-place":
        swap.settle(ddl)
    _freeze(ddl, options.unresolved)
    session.run(
        "start_fill",
        fill="personas",
        end_block=_end_block(session),
        rows_total=session.row("decided_rows").total,
        unresolved=options.unresolved,
    )
    # Opened when it is needed: a connection that rests for hours may be cut on its way.
    crew = partial(crew_of, postgres, ddl, options.workers)
    if choice.method == "copy":
        filled = swap.fill_by_copy(ddl, crew, pace, batch_target_ms, tell)
    else:
        with crew() as filling:
            filled = _fill(filling, "personas", pace, batch_target_ms, tell)
    for _ in range(_PASSES_MAX):
        clear_vanished(ddl)
        if not session.row("history_has_null_persona").found:
            if choice.method == "in-place":
                session.run("analyze_history")
            return filled
        # What is left lost its persona to a deletion, or appeared before the freeze saw it.
        _freeze(ddl, options.unresolved)
        session.run("restart_fill", fill="personas", end_block=_end_block(session))
        filled += _fill(Crew(ddl), "personas", pace, batch_target_ms, tell)
    left = session.row("messages_without_persona", limit=1)
    raise PartlyDone(
        f"{left.total} messages still have no persona after {_PASSES_MAX} passes, the first is "
        f"{left.id}. Run again; if it stays, `memsync migrate plan` lists users without a persona",
        rows=left.total,
    )


def clear_vanished(ddl: OnlineDdl) -> None:
    """Forget the decisions for personas that were deleted, and take them from their messages.

    What a client moves meanwhile is left to the next pass, or refused by the key's validation.
    """
    session = ddl.session
    session.run("thaw_vanished")
    if not session.row("rows_of_vanished_personas").total:
        return
    for start in range(0, _end_block(session), _BLOCKS_MAX):
        blocks = range_of_blocks(start, start + _BLOCKS_MAX)
        ddl.do(partial(session.run, "clear_vanished_personas", **blocks), table=TABLE)


def refill_users(ddl: OnlineDdl, pace: Pace, batch_target_ms: int, tell: Tell) -> int:
    """Give every message its user again, on the way back; how many were filled.

    Raises: GateClosed when a message's persona has no owner and the archive does not know its user.
    """
    session = ddl.session
    session.run(
        "start_fill",
        fill="users",
        end_block=_end_block(session),
        rows_total=session.row("history_size").rows_estimated,
        unresolved="fail",
    )
    filled = _fill(Crew(ddl), "users", pace, batch_target_ms, tell)
    left = session.row("messages_without_user")
    if left.total:
        raise GateClosed(
            f"{left.total} messages belong to personas without an owner, the first is {left.first}"
            ": nobody says whose they are. Give those personas an owner and run again; persona_id "
            "is still there",
            rows=left.total,
        )
    # What was written since contract is not the map's decision, but its own.
    session.run("archive_personas")
    return filled


def _end_block(session: Session) -> int:
    return int(session.row("history_size").blocks) + 1


def _freeze(ddl: OnlineDdl, unresolved: Unresolved) -> None:
    """Decide every pair that is not decided yet."""
    session = ddl.session
    without = [row.user_id for row in session.rows("freeze_map")]
    if without and unresolved == "fail":
        rows = session.row("messages_without_persona", limit=1).total
        require_resolved([str(each) for each in without], rows)
    for user_id in without:
        _create_default_persona(ddl, user_id)
    if without:
        session.run("freeze_map")
    session.run("decide_since")
    session.run("analyze_decisions")


def _create_default_persona(ddl: OnlineDdl, user_id: UUID) -> None:
    """One user, one transaction: a client that holds one user's row holds up nobody else's."""
    ddl.do(lambda: ddl.session.run("create_default_persona", user_id=user_id), table="users")


def _fill(crew: Crew, fill: Fill, pace: Pace, batch_target_ms: int, tell: Tell) -> int:
    """One pass over the blocks from the checkpoint on; how many rows it filled."""
    session = crew.own.session
    state = session.row("fill_state", fill=fill)
    block, filled, size = state.next_block, 0, _BLOCKS_START
    vacuum_every = max(1, int(state.end_block * _VACUUM_SHARE))
    vacuumed, dead = block, 0
    while block < state.end_block:
        starts = range(block, state.end_block, size)[: crew.size]
        ranges = [(start, min(start + size, state.end_block)) for start in starts]
        done = _fill_ranges(crew, fill, ranges, pace)
        filled, dead = filled + done.rows, dead + done.rows
        kind = Kind.FILL_USERS if fill == "users" else Kind.FILL_PERSONAS
        tell(Progress(kind, f"fill {fill}", state.rows_done + filled, state.rows_total))
        if not done.whole:
            # Smaller steps leave more of the others alone.
            size = max(1, size // 2)
            crew.own.wait_turn(TABLE)
            continue
        crew.own.had_turn()
        block = ranges[-1][1]
        # The space of what went to other pages: without it table and indexes would grow by that.
        if dead and vacuumed // vacuum_every < block // vacuum_every:
            session.run("vacuum_history")
            vacuumed, dead = block, 0
        size = steered(size, done.took_s, batch_target_ms / 1000 * done.share, _BLOCKS_MAX)
    if crew.size > 1:
        # The last of the helpers' ranges are behind the checkpoint still.
        session.run("save_fill", fill=fill, next_block=block, rows=0, busy_s=0)
    return filled


def _fill_ranges(crew: Crew, fill: Fill, ranges: list[tuple[int, int]], pace: Pace) -> Round:
    """Fill ranges of blocks, part by part, one range by each of the crew at the same time."""
    rows, took_s, share = 0, 0.0, 1.0
    for part in range(PARTS):
        batches = crew.together(
            [partial(_batch, fill, *each, part, ranges[0][0], crew, pace) for each in ranges]
        )
        done = [batch for batch in batches if batch]
        rows += sum(batch.rows for batch in done)
        took_s = max([took_s, *(batch.took_s for batch in done)])
        if len(done) < len(ranges):
            return Round(rows, took_s, share, whole=False)
        share = pace.between_batches()
    return Round(rows, took_s, share, whole=True)


def _batch(
    fill: Fill, start: int, stop: int, part: int, begun: int, crew: Crew, pace: Pace, ddl: OnlineDdl
) -> Batch | None:
    """Fill a part of a range of blocks and note it, in one transaction; None where a client holds a
    row.

    The checkpoint moves with the last part, and over the first of the ranges that are filled at the
    same time: what is before it is done, whoever of the others was cut short.
    """
    session = ddl.session
    is_last = part == PARTS - 1
    started = time.monotonic()
    try:
        with ddl.brief_transaction(ends_wait=False):
            blocks = range_of_blocks(start, stop)
            fill_part, *fill_rest = _STATEMENTS[fill]
            session.run("fill_by_index")
            rows = session.run(fill_part, **blocks, part=part, parts=PARTS)
            rows += sum(session.run(each, **blocks) for each in fill_rest if is_last)
            took_s = time.monotonic() - started
            # Before the checkpoint, for which the others of the crew may wait.
            pace.before_commit(session)
            with ddl.unhurried() if crew.size > 1 else contextlib.nullcontext():
                session.run(
                    "save_fill",
                    fill=fill,
                    next_block=stop if is_last and start == begun else begun,
                    rows=rows,
                    busy_s=took_s / crew.size,
                )
    except LockNotHad:
        return None
    return Batch(rows, took_s)
