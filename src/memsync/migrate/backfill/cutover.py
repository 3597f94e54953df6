"""The backfill by copy and swap: a filled copy of the history takes its place.

Decides the order of work: slices of blocks, each with its checkpoint in one transaction; then
indexes and keys, which cost far less on a finished table than row by row; then the log of what was
touched meanwhile, again and again until it is short; then the exchange. Clients wait for the
exchange only. What each step is, stores/copying.py knows.
"""

import time
from functools import partial
from typing import Any

from memsync.errors import PartlyDone
from memsync.migrate.backfill import shadow_table as copying
from memsync.migrate.pacing.pace import Pace, steered
from memsync.migrate.pacing.workers import OpensCrew
from memsync.model.progress import Kind, Progress, Tell
from memsync.stores.history.catalog import TABLE
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl

_BLOCKS_START = 256
_BLOCKS_MAX = 8192
_REPLAY_MIN = 256
"""Below this nothing is won: what a transaction costs by itself would be most of it."""
_REPLAY_MAX = 4096
_ENOUGH = 128
"""Fewer rows than this can be left to the exchange."""
_SLOWER = 8
"""A slice only reads the history: it may take so many times the target of a batch."""
_STARTS_MAX = 5


def settle(ddl: OnlineDdl, *, keep_copy: bool = False) -> None:
    """Finish an exchange that was cut short; clear away a copy that was, unless it is kept."""
    state = ddl.session.row("shadow_state")
    if state.cut_over:
        copying.finish(ddl)
    elif state.found and not (keep_copy and state.begun):
        copying.clear(ddl)


def fill_by_copy(
    ddl: OnlineDdl,
    crew: OpensCrew,
    pace: Pace,
    batch_target_ms: int,
    tell: Tell,
) -> int:
    """Replace the history by a copy whose rows have their personas; how many rows were copied.

    Goes on with a copy that was cut short. `crew` gives who builds the indexes.

    Raises: PartlyDone when the history is changed underneath again and again; StoreBusy.
    """
    for _ in range(_STARTS_MAX):
        try:
            return _copy_and_swap(ddl, crew, pace, batch_target_ms / 1000, tell)
        except copying.Moved as moved:
            tell(Progress(Kind.COPY_AGAIN, f"starting the copy over: {moved}"))
            copying.clear(ddl)
    raise PartlyDone(
        f"the copy of {TABLE} was started {_STARTS_MAX} times, each time the table was truncated, "
        "rewritten or altered meanwhile. Run again when that has ended, or with --method in-place"
    )


def _copy_and_swap(
    ddl: OnlineDdl,
    crew: OpensCrew,
    pace: Pace,
    target_s: float,
    tell: Tell,
) -> int:
    session = ddl.session
    if not session.row("shadow_state").begun:
        copying.begin(ddl)
    rows = copying.Rows(session)
    copied = _slices(ddl, pace, rows, target_s * _SLOWER, tell)
    tell(Progress(Kind.BUILD, "copy: indexes and keys"))
    copying.require_alone(ddl)
    # Before the indexes, which it would have to look at.
    session.run("vacuum_shadow")
    builds = [partial(_build, *each, tell) for each in copying.indexes_to_build(session)]
    with crew() as building:
        building.together(builds, between=pace.between_steps)
    copying.add_keys(ddl)
    session.run("analyze_shadow")
    # Rows whose user went before the key stood would make its validation fail.
    _catch_up(ddl, pace, rows, target_s)
    copying.validate_keys(ddl)
    _exchange(ddl, pace, rows, target_s, tell)
    copying.finish(ddl)
    return copied


def _slices(ddl: OnlineDdl, pace: Pace, rows: copying.Rows, target_s: float, tell: Tell) -> int:
    """Copy the blocks from the checkpoint on; how many rows they had."""
    session = ddl.session
    progress = copying.require_unmoved(session)
    state = session.row("fill_state", fill="personas")
    block, copied, size = progress.next_block, 0, _BLOCKS_START
    vacuum_at = 0
    while block < progress.end_block:
        stop = min(block + size, progress.end_block)
        started = time.monotonic()
        try:
            with ddl.brief_transaction():
                found = rows.copy(block, stop)
                took_s = time.monotonic() - started
                # For those who ask how far it is; next_block 0 says that no row is filled in place.
                session.run("save_fill", fill="personas", next_block=0, rows=found, busy_s=took_s)
                pace.before_commit(session)
        except LockNotHad:
            ddl.wait_turn(TABLE)
            continue
        block, copied = stop, copied + found
        tell(Progress(Kind.COPY, "copy", state.rows_done + copied, state.rows_total))
        if block >= vacuum_at:
            session.run("vacuum_shadow")
            # In vain while somebody may not see the rows yet: then less and less often.
            vacuum_at = block + session.row("shadow_hidden").blocks
        share = pace.between_batches()
        size = steered(size, took_s, target_s * share, _BLOCKS_MAX)
    return copied


def _build(name: str, build: Any, tell: Tell, ddl: OnlineDdl) -> None:
    tell(Progress(Kind.INDEX, f"copy: index {name}"))
    ddl.run_long(build)


def _catch_up(ddl: OnlineDdl, pace: Pace, rows: copying.Rows, target_s: float) -> None:
    """Replay the log until no more than one short transaction's worth is left."""
    # Only the replays' own time counts: a pause may last.
    size, replayed_s = _REPLAY_MIN, 0.0
    while True:
        if replayed_s > ddl.deadline_s:
            raise PartlyDone(
                f"the rows of {TABLE} that are written meanwhile were not copied within "
                f"{ddl.deadline_s:.0f} s: they become more as quickly. Run again at a quieter "
                "time, or with --method in-place; nothing is lost"
            )
        started = time.monotonic()
        try:
            with ddl.brief_transaction(ends_wait=False):
                taken = rows.replay(size)
        except LockNotHad:
            # A row's user is just being deleted: the deletion comes first.
            ddl.wait_turn(TABLE)
            continue
        if taken < _ENOUGH:
            return
        took_s = time.monotonic() - started
        replayed_s += took_s
        share = pace.between_batches()
        size = max(_REPLAY_MIN, steered(size, took_s, target_s * share, _REPLAY_MAX))


def _exchange(ddl: OnlineDdl, pace: Pace, rows: copying.Rows, target_s: float, tell: Tell) -> None:
    """Try to put the copy in place until nobody is in the way."""
    _catch_up(ddl, pace, rows, target_s)
    ddl.session.run("vacuum_change_log")
    complete_since: Any = ddl.session.row("moment")
    tell(Progress(Kind.CUTOVER, "copy: exchange"))
    while True:
        if holders := copying.older_snapshots(ddl.session, complete_since):
            ddl.wait_turn(TABLE, holders)
            continue
        _catch_up(ddl, pace, rows, target_s)
        try:
            with ddl.brief_transaction():
                copying.exchange(ddl.session, rows, complete_since)
        except LockNotHad:
            ddl.wait_turn(TABLE)
        else:
            return
