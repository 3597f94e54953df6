"""Waits until what was remembered can be recalled, whoever writes the memories.

It decides what is waited for: the outbox entries that stood when the wait began. It writes nothing.
"""

import time
from functools import partial

from memsync.errors import MemsyncError, PartlyDone, StoreBusy, StoreUnreachable
from memsync.memory.follow import Follower, told_dead
from memsync.model.wording import count
from memsync.stores.history import outbox
from memsync.stores.history.outbox import Left
from memsync.stores.postgres import Postgres

_PAUSE_START_S = 0.01
_PAUSE_MAX_S = 0.25
_PASSING = (StoreUnreachable, StoreBusy)
"""The troubles of a relay that may end by themselves."""


def flush(postgres: Postgres, relay: Follower | None, timeout_s: float) -> None:
    """Wait until no entry that stands now is left; `relay` is this process's own, if it has one.

    Raises: PartlyDone for dead entries, at the deadline, and for a relay that cannot go on;
    StoreUnreachable when Postgres does not answer.
    """
    until, pause_s = time.monotonic() + timeout_s, _PAUSE_START_S
    last = postgres.call(outbox.last_id, repeatable=True)
    asked = relay.ask() if relay else 0
    while True:
        left = postgres.call(partial(outbox.left, last=last), repeatable=True)
        trouble = relay.trouble if relay else None
        rest_s = until - time.monotonic()
        # A trouble from before this call may be mended by now.
        is_new = relay is not None and relay.answered >= asked
        lasts = is_new and trouble is not None and not isinstance(trouble, _PASSING)
        if not left.pending or rest_s <= 0 or lasts:
            break
        time.sleep(min(pause_s, rest_s))
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)
    if left.pending or left.dead:
        raise _cut_short(left, relay, trouble, timeout_s)


def _cut_short(
    left: Left, relay: Follower | None, trouble: MemsyncError | None, timeout_s: float
) -> PartlyDone:
    """The error that says what is left, why, and what to do."""
    said = []
    if left.pending:
        waiting = count(left.pending, "memory is", "memories are")
        said.append(f"{waiting} not written after {timeout_s:g} s")
        if trouble:
            said.append(f"the relay of this process waits: {trouble.message}")
        elif left.pending_error:
            said.append(f"the last failure: {left.pending_error}")
        elif relay is None:
            said.append(
                "no relay runs in this process (drain): see that `memsync sync run --follow` runs"
            )
        else:
            said.append("the relay is at work: give it more time")
    if left.dead:
        said.append(told_dead(left.dead, left.dead_error))
    return PartlyDone(
        "; ".join(said),
        pending=left.pending,
        dead=left.dead,
        pending_error=left.pending_error,
        dead_error=left.dead_error,
    )
