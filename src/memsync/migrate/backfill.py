"""The backfill: decide once who every (user, personality) was, then fill row after row.

Decides the order of work and the size of a batch, steered by time. A batch and its checkpoint are
one transaction, so a kill costs one batch. Rows written meanwhile are the trigger's
(migrations/versions/0003), which was there before this starts.
"""

import time
from typing import Literal

from memsync.errors import GateClosed, PartlyDone
from memsync.model.progress import Progress, Tell
from memsync.stores.ddl import LockNotHad, OnlineDdl
from memsync.stores.postgres import Session

Unresolved = Literal["fail", "create"]

_BLOCKS_START = 32
_BLOCKS_MAX = 8192
_PASSES_MAX = 5
_NAMED_MAX = 10


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
        "`--unresolved create` to make a default persona for each; nothing was changed",
        users=users,
        rows=rows,
    )


def backfill(ddl: OnlineDdl, unresolved: Unresolved, batch_target_ms: int, tell: Tell) -> None:
    """Fill persona_id of every message that has none.

    Raises: GateClosed for users without a persona under `fail`; PartlyDone when rows are left
    after several passes.
    """
    session = ddl.session
    blocks = session.row("history_size").blocks + 1
    _freeze(session, unresolved)
    session.run("start_backfill", end_block=blocks, unresolved=unresolved)
    for _ in range(_PASSES_MAX):
        _fill(ddl, batch_target_ms, tell)
        session.run("thaw_vanished")
        session.run("clear_vanished_personas")
        if not session.row("history_has_null_persona").found:
            return
        # What is left lost its persona to a deletion, or appeared before the freeze saw it.
        _freeze(session, unresolved)
        session.run("restart_backfill", end_block=session.row("history_size").blocks + 1)
    left = session.row("messages_without_persona", limit=1)
    raise PartlyDone(
        f"{left.total} messages still have no persona after {_PASSES_MAX} passes, the first is "
        f"{left.id}. Run again; if it stays, `memsync migrate plan` lists users without a persona",
        rows=left.total,
    )


def _freeze(session: Session, unresolved: Unresolved) -> None:
    """Decide every pair that is not decided yet; all of one pass or none."""
    with session.transaction():
        session.run("freeze_map")
        without = [str(row.user_id) for row in session.rows("unmapped_users")]
        if without and unresolved == "fail":
            rows = session.row("messages_without_persona", limit=1).total
            require_resolved(without, rows)
        for user_id in without:
            session.run("create_default_persona", user_id=user_id)
        if without:
            session.run("freeze_map")
    session.run("analyze_map")


def _fill(ddl: OnlineDdl, batch_target_ms: int, tell: Tell) -> None:
    """One pass over the blocks from the checkpoint on."""
    session = ddl.session
    state = session.row("backfill_state")
    block, done, size = state.next_block, state.rows_done, _BLOCKS_START
    target_s = batch_target_ms / 1000
    while block < state.end_block:
        stop = min(block + size, state.end_block)
        started = time.monotonic()
        try:
            with ddl.brief_transaction():
                rows = session.run("fill_batch", start=f"({block},0)", stop=f"({stop},0)")
                took_s = time.monotonic() - started
                session.run("save_backfill", next_block=stop, rows=rows, busy_s=took_s)
        except LockNotHad:
            # A client holds one of the rows. Smaller steps leave more of the others alone.
            size = max(1, size // 2)
            ddl.wait_turn("conversation_history")
            continue
        block, done = stop, done + rows
        tell(Progress("backfill", done, state.rows_total))
        size = max(1, min(_BLOCKS_MAX, int(size * min(2.0, target_s / max(took_s, 1e-4)))))
