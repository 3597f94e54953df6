"""How long a run waits for something that is down: growing pauses, for a bounded time.

The time counts from the last success, so a run that gets on is never given up. This module decides
the pauses; the caller says what failed and what succeeded.
"""

import time

from memsync.errors import EmbedderUnreachable

_FIRST_PAUSE_S = 1.0
PAUSE_S_MAX = 60.0


class Patience:
    """The pauses of one run that waits `wait_s` seconds at most without a success."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._pause_s = _FIRST_PAUSE_S
        self._until: float | None = None

    def succeeded(self) -> None:
        """Something was done: the next outage is a new one."""
        self._pause_s, self._until = _FIRST_PAUSE_S, None

    def next_pause_s(self, outage: Exception) -> float | None:
        """How long to pause before the next try; None when the wait would not end in time."""
        asked_s = 0.0
        if isinstance(outage, EmbedderUnreachable):
            if not outage.passes:
                return None
            asked_s = outage.retry_after_s or 0.0
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._wait_s
        pause_s = max(self._pause_s, asked_s)
        self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)
        return pause_s if now + pause_s <= self._until else None
