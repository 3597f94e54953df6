"""Limits the load of a fill on the server: standbys' lag, the rate of WAL, clients that wait.

One look at the server between two batches decides whether the fill must wait, and why; pace.py does
the waiting. Lag is the longer of what the server reports and what is measured here, because a
standby that stopped replaying still reports its old lag. The rate is that of the whole server,
clients included, because they share its disk.
"""

import time
from collections import deque

from memsync.errors import MissingRight
from memsync.migrate.options import RunOptions
from memsync.model.progress import Kind
from memsync.stores.history.catalog import TABLE
from memsync.stores.postgres import Session

CLIENT_WAIT_S = 0.1
"""How long a client may wait for a lock on the history before the fill waits for it."""

_ASIDE_MAX_S = 5.0
_MB = 1_000_000


class Throttle:
    """The limits of one run, and its observations of the server so far."""

    def __init__(self, session: Session, options: RunOptions) -> None:
        self._session = session
        self._lag_max_ms = options.max_lag_ms
        self._rate_max = options.max_rate_mb_s
        self._written: deque[tuple[float, int]] = deque()
        self._anchor: tuple[float, int] | None = None
        self._aside_since: float | None = None

    def require_sight(self) -> None:
        """Stop where a limit was given that this role cannot observe.

        Raises: MissingRight.
        """
        if self._lag_max_ms is not None and not self._session.row("sees_all_sessions").yes:
            raise MissingRight(
                "--max-lag-ms cannot be kept: this role does not see the standbys' lag. "
                "GRANT pg_read_all_stats to it, or leave the limit out; nothing was changed"
            )

    def reason(self) -> tuple[Kind, str] | None:
        """Why the fill must wait now: the kind of wait, and the figures. None: it may go on."""
        now = time.monotonic()
        seen = self._session.row("pressure", relation=TABLE, longest_s=CLIENT_WAIT_S)
        reason = (
            self._by_clients(now, seen.waiting)
            or self._by_lag(now, seen.written, seen.replayed, seen.lag_ms)
            or self._by_rate(now, seen.written)
        )
        if reason is None:
            self._anchor = (now, seen.written)
        return reason

    def _by_clients(self, now: float, waiting: list[int]) -> tuple[Kind, str] | None:
        """Wait while clients wait for the table, although the fill holds no lock on it now.

        It waits for a few seconds only, because clients that block one another must not stop it.
        """
        if not waiting:
            self._aside_since = None
            return None
        self._aside_since = self._aside_since or now
        if now - self._aside_since > _ASIDE_MAX_S:
            self._aside_since = None
            return None
        pids = ", ".join(map(str, waiting))
        return (
            Kind.WAITING_FOR_CLIENTS,
            f"clients wait for {TABLE} over {CLIENT_WAIT_S * 1000:.0f} ms: pid {pids}",
        )

    def _by_lag(
        self, now: float, written: int, replayed: int | None, reported_ms: float
    ) -> tuple[Kind, str] | None:
        if self._lag_max_ms is None or replayed is None:
            return None
        self._written.append((now, written))
        while self._written and self._written[0][1] <= replayed:
            self._written.popleft()
        seen_ms = (now - self._written[0][0]) * 1000 if self._written else 0.0
        lag_ms = max(reported_ms, seen_ms)
        if lag_ms <= self._lag_max_ms:
            return None
        return (
            Kind.WAITING_FOR_STANDBY,
            f"a standby is {lag_ms:.0f} ms behind, the limit is {self._lag_max_ms:g} ms",
        )

    def _by_rate(self, now: float, written: int) -> tuple[Kind, str] | None:
        if self._rate_max is None or self._anchor is None:
            return None
        since, before = self._anchor
        rate = (written - before) / _MB / max(now - since, 1e-3)
        if rate <= self._rate_max:
            return None
        return (
            Kind.WAITING_FOR_RATE,
            f"WAL grows by {rate:.1f} MB/s, the limit is {self._rate_max:g} MB/s",
        )
