"""The backfill: decide once who every (user, personality) was, then fill row after row.

Decides the order of work and the size of a batch, steered by time. A batch and its checkpoint are
one transaction, so a kill costs one batch of each session that fills. Rows written meanwhile are
the trigger's (stores/bridge.py), which was there before this starts.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal
from uuid import UUID

from memsync.errors import GateClosed, PartlyDone
from memsync.migrate import swap
from memsync.migrate.crew import Crew, crew_of
from memsync.migrate.method import choose_method
from memsync.migrate.options import RunOptions, Unresolved
from memsync.migrate.pace import Pace, steered
from memsync.model.progress import Progress, Tell
from memsync.stores.catalog import Catalog
from memsync.stores.ddl import LockNotHad, OnlineDdl
from memsync.stores.postgres import Postgres, Session

Fill = Literal["personas", "users"]

_STATEMENTS: Mapping[Fill, tuple[str, ...]] = {
    # What the archive knows of a row itself comes before what the map says of its pair.
    "personas": ("fill_archived", "fill_personas"),
    "users": ("fill_users",),
}
_BLOCKS_START = 32
_BLOCKS_MAX = 8192
_PASSES_MAX = 5
_NAMED_MAX = 10
_VACUUM_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Batch:
    """One range of blocks that was filled: how many rows, and how long their statements took."""

    rows: int
    took_s: float


def require_resolved(users: list[str], rows: int) -> None:
    """Stop when users have no persona and the operator did not say what to do with them.

    Raises: GateClosed naming the first of them.
    """
    if not users:
        return
    named = ", ".join(users[:_NAMED_MAX]) + (" …" if len(users) > _NAMED_MAX else "")
    raise GateClosed(
        f"{len(users)} users ({rows} messages) have no persona: neither a choice for the "
        f"personality nor a default. They are: {named}. Give them one, or run again with "
        "`--unresolved create` to make a default persona for each; no message was changed",
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
    tell(Progress(f"filling {choice}"))
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
    with crew_of(postgres, ddl, options.workers) as crew:
        if choice.method == "copy":
            filled = swap.fill_by_copy(crew, pace, batch_target_ms, tell)
        else:
            filled = _fill(crew, "personas", pace, batch_target_ms, tell)
    for _ in range(_PASSES_MAX):
        session.run("thaw_vanished")
        if session.row("rows_of_vanished_personas").total:
            session.run("clear_vanished_personas")
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
        batches = crew.together(
            [
                partial(_batch, fill, start, min(start + size, state.end_block), block, crew, pace)
                for start in starts
            ]
        )
        done = [batch for batch in batches if batch]
        rows = sum(batch.rows for batch in done)
        filled, dead = filled + rows, dead + rows
        held = batches.index(None) if None in batches else None
        block = min(starts[-1] + size, state.end_block) if held is None else starts[held]
        # Without it the table and every index would grow by a copy of each row.
        if dead and vacuumed // vacuum_every < block // vacuum_every:
            session.run("vacuum_history")
            vacuumed, dead = block, 0
        if held != 0:
            crew.own.had_turn()
        if held is not None:
            # A client holds one of the rows. Smaller steps leave more of the others alone.
            size = max(1, size // 2)
            crew.own.wait_turn("conversation_history")
            continue
        tell(Progress(f"fill {fill}", state.rows_done + filled, state.rows_total))
        took_s = max(batch.took_s for batch in done)
        aim_s = batch_target_ms / 1000 * pace.between_batches()
        size = steered(size, took_s, aim_s, _BLOCKS_MAX)
    if crew.size > 1:
        # The last of the helpers' batches are behind the checkpoint still.
        session.run("save_fill", fill=fill, next_block=block, rows=0, busy_s=0)
    return filled


def _batch(
    fill: Fill, start: int, stop: int, begun: int, crew: Crew, pace: Pace, ddl: OnlineDdl
) -> Batch | None:
    """Fill one range of blocks and note it, in one transaction; None where a client holds a row.

    The checkpoint moves over the first range of those that are filled at the same time: what is
    before it is done, whoever of the others was cut short.
    """
    session = ddl.session
    started = time.monotonic()
    try:
        with ddl.brief_transaction(ends_wait=False):
            blocks = {"start": f"({start},0)", "stop": f"({stop},0)"}
            rows = sum(session.run(each, **blocks) for each in _STATEMENTS[fill])
            took_s = time.monotonic() - started
            # Before the checkpoint, for which the others of the crew may wait.
            pace.before_commit(session)
            checkpoint = {"next_block": stop if start == begun else begun}
            with ddl.unhurried() if crew.size > 1 else contextlib.nullcontext():
                session.run(
                    "save_fill", fill=fill, rows=rows, busy_s=took_s / crew.size, **checkpoint
                )
    except LockNotHad:
        return None
    return Batch(rows, took_s)
