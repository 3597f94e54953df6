"""What may still be on its way: a difference that is too young, or that an outbox will mend.

An entry excuses for the alarm age only: of an older one nobody knows whether it is carried out. An
audit may read for minutes. So what was on its way when it began stays excused to its end: the app
may have written such a memory since, under an id of its own, where no second look finds it.
"""

import time
from collections.abc import Collection, Sequence
from uuid import UUID

from memsync.model.records import Exchange
from memsync.reconcile.cases import Case, Found, Role
from memsync.settings import Settings
from memsync.stores.history import outbox
from memsync.stores.history.exchanges import now_ms, on_their_way
from memsync.stores.postgres import Session

_SAID_ANEW = frozenset({Role.DUPLICATE, Role.FOREIGN})
_AHEAD_MS = 3_600_000
"""A time further ahead of both clocks than an hour is no clock's, so it does not count as young."""


class OnItsWay:
    """What was on its way when this was made, before an audit's first read, or is so later."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session, self._alarm_s = session, settings.outbox_alarm_s
        self._named = on_their_way(session, alarm_s=self._alarm_s)
        self._young_ms = min(_clocks(session)) - settings.settle_s * 1000

    def of(self, cases: Sequence[Case], session: Session) -> list[bool]:
        """Whether each of these is young, or will be mended by what an outbox brings."""
        awaited = self.awaited([case.exchange for case in cases if case.exchange], session)
        latest_ms = max(_clocks(session)) + _AHEAD_MS
        return [self._is_young(case, latest_ms) or _is_brought(case, awaited) for case in cases]

    def awaited(self, rows: Sequence[Exchange], session: Session) -> set[UUID]:
        """The anchors of those exchanges whose memories an outbox will bring."""
        if not rows:
            return set()
        ids = {id_ for each in rows for id_ in (each.anchor_id, each.said_id)}
        pending = self._named | on_their_way(session, ids, alarm_s=self._alarm_s)
        anchors = {each.anchor_id for each in rows}
        pending |= outbox.pending_of(session, anchors, alarm_s=self._alarm_s)
        return {r.anchor_id for r in rows if not pending.isdisjoint((r.anchor_id, r.said_id))}

    def may_get_rows(self, found: Found) -> bool:
        """Whether a memory is so young that its rows may still come."""
        at = found.reading.memory.created_at_ms
        # Most are old, and the clocks need not be asked for those.
        return at is not None and self._young_ms < at <= max(_clocks(self._session)) + _AHEAD_MS

    def _is_young(self, case: Case, latest_ms: int) -> bool:
        """Whether the other half may still come: a memory for the row, or a row for the memory.

        What was said before may be said again, and then its memory may come before its row.
        """
        if case.entry is not None:
            # The ledger has it, so it is not on its way.
            return False
        at = None
        if case.role in {Role.MISSING, Role.ELSEWHERE} and case.exchange:
            at = case.exchange.created_at_ms
        elif case.found and (case.exchange is None or case.role in _SAID_ANEW):
            at = case.found.reading.memory.created_at_ms
        return at is not None and self._young_ms < at <= latest_ms


def _is_brought(case: Case, awaited: Collection[UUID]) -> bool:
    """Whether the memory of the exchange is on its way, and mends the case: one that is missing, or
    a point in whose place it comes. A point beside that place stays as it is, whoever has it.
    """
    if case.exchange is None or case.exchange.anchor_id not in awaited:
        return False
    is_missing = case.role in {Role.MISSING, Role.ELSEWHERE}
    return is_missing or (case.found is not None and case.found.place == case.target)


def _clocks(session: Session) -> tuple[int, int]:
    """The time of either side, in ms."""
    return now_ms(session), round(time.time() * 1000)
