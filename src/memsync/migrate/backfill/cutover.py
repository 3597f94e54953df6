"""The backfill by a shadow table: a filled copy of the history takes the history's place.

This module decides the order of the steps; shadow_table.py does each of them. Rows are copied
first, in slices: ranges of blocks, each in one transaction with its checkpoint. Indexes and keys
follow, because they cost far less on a finished table than row by row. Then the change log is
replayed until it is short, because clients must wait while the cut-over replays the rest.
"""

import time
from functools import partial

from memsync.errors import PartlyDone
from memsync.migrate.backfill import shadow_table
from memsync.migrate.backfill.checkpoint import opened_fill, save_fill
from memsync.migrate.pacing.pace import steered
from memsync.migrate.pacing.workers import open_workers
from memsync.migrate.run import Run
from memsync.model.progress import Kind, Progress, Tell
from memsync.stores.history.catalog import TABLE
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl

_BLOCKS_START = 256
_BLOCKS_MAX = 8192
_REPLAY_MIN = 256
"""A smaller replay gains nothing: most of its time would be the cost of the transaction itself."""
_REPLAY_MAX = 4096
_ENOUGH = 128
"""If the change log has fewer entries than this, the cut-over can replay them."""
_SLOWER = 8
"""A slice only reads the history, so it may take this many times the target time of a batch."""
_STARTS_MAX = 5


def settle(ddl: OnlineDdl, *, keep_copy: bool = False) -> bool:
    """Finish a cut-over that was cut short, or drop a shadow table; whether there was either.

    `keep_copy` keeps a shadow table that is half done.
    """
    state = shadow_table.shadow_state(ddl.session)
    if state.cut_over:
        shadow_table.finish(ddl)
    elif state.found and not (keep_copy and state.begun):
        shadow_table.clear(ddl)
    return state.cut_over or state.found


def fill_by_copy(run: Run) -> int:
    """Replace the history by a copy whose rows have their personas; how many rows were copied.

    If a shadow table is half done, the copy goes on with it.

    Raises: PartlyDone when the history is truncated, rewritten or altered each time, or the change
    log cannot be replayed in time; GateClosed for an obstacle that appeared meanwhile; StoreBusy.
    """
    for _ in range(_STARTS_MAX):
        try:
            return _copy_and_cut_over(run)
        except shadow_table.Moved as moved:
            run.tell(Progress(Kind.COPY_AGAIN, f"starting the copy over: {moved}"))
            shadow_table.clear(run.ddl)
    raise PartlyDone(
        f"the copy of {TABLE} was started {_STARTS_MAX} times, each time the table was truncated, "
        "rewritten or altered meanwhile. Run again when that has ended, or with --method in-place"
    )


def _copy_and_cut_over(run: Run) -> int:
    ddl, session = run.ddl, run.session
    if not shadow_table.shadow_state(session).begun:
        shadow_table.begin(ddl)
    rows = shadow_table.Rows(session)
    copied = _slices(run, rows)
    run.tell(Progress(Kind.BUILD, "copy: indexes and keys"))
    shadow_table.require_alone(ddl)
    # Before the indexes are built, because VACUUM would have to scan them too.
    shadow_table.vacuum_shadow(session)
    builds = [partial(_build, each, run.tell) for each in shadow_table.indexes_to_build(session)]
    with open_workers(run.postgres, ddl, run.options.workers) as workers:
        workers.together(builds, between=run.pace.between_steps)
    shadow_table.add_keys(ddl)
    shadow_table.analyze_shadow(session)
    # The validation would fail on rows whose user was deleted before the key existed.
    _catch_up(run, rows)
    shadow_table.validate_keys(ddl)
    _try_cut_over(run, rows)
    shadow_table.finish(ddl)
    return copied


def _slices(run: Run, rows: shadow_table.Rows) -> int:
    """Copy the blocks from the checkpoint on; how many rows they had."""
    session = run.session
    progress = shadow_table.require_unmoved(session)
    state = opened_fill(session, "personas")
    target_s = run.batch_target_ms / 1000 * _SLOWER
    block, copied, size = progress.next_block, 0, _BLOCKS_START
    vacuum_at, worked_s = 0, state.busy_s
    run.pace.start_work()
    while block < progress.end_block:
        stop = min(block + size, progress.end_block)
        started = time.monotonic()
        try:
            with run.ddl.brief_transaction():
                found = rows.copy(block, stop)
                took_s = time.monotonic() - started
                # For `status` only; the checkpoint of the copy is memsync_shadow.checkpoint.
                # next_block 0 says that no row is filled in place.
                lap_s = run.pace.worked_s()
                save_fill(session, "personas", next_block=0, rows=found, busy_s=lap_s)
                run.pace.before_commit(session)
        except LockNotHad:
            run.ddl.wait_turn(TABLE)
            continue
        block, copied, worked_s = stop, copied + found, worked_s + lap_s
        counts = state.rows_done + copied, state.rows_total, worked_s
        run.tell(Progress(Kind.COPY, "copy", *counts))
        if block >= vacuum_at:
            # VACUUM cannot mark pages that an older snapshot may not see. It then runs less often.
            vacuum_at = block + shadow_table.vacuum_shadow(session)
        share = run.pace.between_batches()
        size = steered(size, took_s, target_s * share, _BLOCKS_MAX)
    return copied


def _build(index: shadow_table.IndexBuild, tell: Tell, ddl: OnlineDdl) -> None:
    tell(Progress(Kind.INDEX, f"copy: index {index.name}"))
    ddl.run_long(index.build)


def _catch_up(run: Run, rows: shadow_table.Rows) -> None:
    """Replay the change log until one short transaction can replay the rest.

    Raises: PartlyDone when the log grows as quickly as it is replayed.
    """
    # Only the time of the replays counts, because a pause may last long.
    size, replayed_s = _REPLAY_MIN, 0.0
    while True:
        if replayed_s > run.ddl.deadline_s:
            raise PartlyDone(
                f"the change log of {TABLE} could not be replayed within "
                f"{run.ddl.deadline_s:.0f} s: clients write as quickly. Run again at a quieter "
                "time, or with --method in-place; nothing is lost"
            )
        started = time.monotonic()
        try:
            with run.ddl.brief_transaction(ends_wait=False):
                taken = rows.replay(size)
        except LockNotHad:
            # The user of a row is being deleted, and the deletion must end first.
            run.ddl.wait_turn(TABLE)
            continue
        if taken < _ENOUGH:
            return
        took_s = time.monotonic() - started
        replayed_s += took_s
        target_s = run.batch_target_ms / 1000 * run.pace.between_batches()
        size = max(_REPLAY_MIN, steered(size, took_s, target_s, _REPLAY_MAX))


def _try_cut_over(run: Run, rows: shadow_table.Rows) -> None:
    """Try the cut-over until no session is in the way."""
    _catch_up(run, rows)
    shadow_table.vacuum_change_log(run.session)
    complete_since = shadow_table.moment(run.session)
    run.tell(Progress(Kind.CUTOVER, "copy: cut-over"))
    while True:
        if holders := shadow_table.older_snapshots(run.session, complete_since):
            run.ddl.wait_turn(TABLE, holders)
            continue
        _catch_up(run, rows)
        try:
            with run.ddl.brief_transaction():
                shadow_table.cut_over(run.session, rows, complete_since)
        except LockNotHad:
            run.ddl.wait_turn(TABLE)
        else:
            return
