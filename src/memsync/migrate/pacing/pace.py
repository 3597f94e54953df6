"""Paces a run: what it does between two batches or steps, when no transaction is open.

One object serves a whole run. It reads requests to pause or cancel, at most every 200 ms, and makes
a fill wait for clients, for standbys and for the limit on WAL. Each kind of wait is reported once.

A fill calls `before_commit(session)` when a batch's rows are written and still locked, and
`between_batches()` after its transaction. The latter returns the share of its usual time, at most
1, that the next batch should take. `worked_s()` measures the work between two calls, pauses left
out, so that an estimate after a pause goes by the rate of the work.
"""

import threading
import time

from memsync.migrate.options import RunOptions
from memsync.migrate.pacing.control import Control
from memsync.migrate.pacing.throttle import Throttle
from memsync.model.progress import Kind, Progress, Tell
from memsync.stores.postgres import Session

LOOK_EVERY_S = 0.2
_PAUSE_POLL_S = 0.2
_BACKOFF_START_S = 0.05
_BACKOFF_MAX_S = 1.0
_SHARE_MIN = 1 / 16


class Pace:
    """The pace of one run. `waited_s` is how long the run waited, pauses included."""

    def __init__(self, session: Session, options: RunOptions, tell: Tell, again: str) -> None:
        self._session = session
        self._control = Control(session, again)
        self._throttle = Throttle(session, options)
        self._tell = tell
        self._told: set[Kind] = set()
        self._looked = 0.0
        self._looked_inside: dict[int, float] = {}
        self._waiting_for_us = False
        self._share = 1.0
        self.waited_s = 0.0
        self._lap = threading.Lock()
        self._paused_s = 0.0
        self._lap_at = (0.0, 0.0)

    def begin(self) -> None:
        """Refuse limits that cannot be kept, and start to read requests.

        Raises: MissingRight.
        """
        self._throttle.require_sight()
        self._control.open()

    def between_steps(self) -> None:
        """Read the request to the run; wait while it asks for a pause.

        Raises: Cancelled.
        """
        self._control.open()
        self._looked = time.monotonic()
        if (by := self._control.must_pause()) is None:
            return
        self._tell(Progress(Kind.PAUSED, f"paused by {by}; `memsync migrate resume` goes on"))
        while by is not None:
            self._wait(_PAUSE_POLL_S)
            self._paused_s = self._paused_s + time.monotonic() - self._looked
            self._looked = time.monotonic()
            by = self._control.must_pause()
        self._tell(Progress(Kind.RESUMED, "going on"))

    def between_tries(self) -> None:
        """The same while the run waits for a lock, at most every 200 ms."""
        if time.monotonic() - self._looked >= LOOK_EVERY_S:
            self.between_steps()

    def before_commit(self, session: Session) -> None:
        """Note whether clients wait for the batch's locks, because its commit will release them."""
        now, pid = time.monotonic(), session.connection.info.backend_pid
        if now - self._looked_inside.get(pid, 0.0) >= LOOK_EVERY_S:
            self._looked_inside[pid] = now
            if session.rows("waiting_for_us"):
                self._waiting_for_us = True

    def between_batches(self) -> float:
        """Read the request, wait until every limit is kept; return the share for the next batch.

        Raises: Cancelled.
        """
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return self._share
        self.between_steps()
        made_wait, self._waiting_for_us = self._waiting_for_us, False
        backoff_s = _BACKOFF_START_S
        if made_wait:
            self._say_once(
                Kind.WAITING_FOR_CLIENTS, "clients wait for rows of a batch; batches get smaller"
            )
            self._wait(backoff_s / self._share)
        while (reason := self._throttle.reason()) is not None:
            self._say_once(*reason)
            made_wait = made_wait or reason[0] is Kind.WAITING_FOR_CLIENTS
            self._wait(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
            self.between_tries()
        self._share = max(self._share / 2, _SHARE_MIN) if made_wait else min(self._share * 2, 1.0)
        return self._share

    def start_work(self) -> None:
        """Begin to measure the work: the next `worked_s` counts from here."""
        self._lap_at = (time.monotonic(), self._paused_s)

    def worked_s(self) -> float:
        """The seconds of work since the last call, by whichever session; pauses do not count."""
        with self._lap:
            (then, paused_then), now = self._lap_at, (time.monotonic(), self._paused_s)
            self._lap_at = now
        return max(0.0, now[0] - then - (now[1] - paused_then))

    def _say_once(self, kind: Kind, why: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._tell(Progress(kind, f"waiting: {why}"))

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)
        self.waited_s += seconds


def steered(size: int, took_s: float, target_s: float, most: int) -> int:
    """The size of the next step, after one of `size` took `took_s`: at most twice as large."""
    return max(1, min(most, int(size * min(2.0, target_s / max(took_s, 1e-4)))))
