"""MSC rules: every exchange has exactly one memory, every memory has its exchange."""

from collections.abc import Iterator

from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Finding, Grade, Repair, Severity
from memsync.reconcile.rules.base import CaseRule, Evidence, StateRule, words
from memsync.reconcile.state import OUTBOX, State
from memsync.stores.history.outbox import LateEntry


class MissingPoint(CaseRule):
    """An exchange has no memory.

    Why it matters: recall cannot find this exchange. Either the app never stored its memory, the
    row was written without the library, or the point was lost.
    Repair: the memory is made from Postgres.
    """

    code, name = "MSC001", "missing-point"

    def look(self, case: Case) -> Evidence | None:
        """An exchange without a point."""
        if case.exchange is None or case.found is not None:
            return None
        return {"row": words(case.exchange.text), "point": None}


class OrphanPoint(CaseRule):
    """A memory from within the horizon has no exchange.

    Why it matters: recall returns something that is not in the history. The row was deleted, or
    the point's fields are wrong.
    Repair: the point is moved to quarantine. It may be the only copy, so this is unsafe.
    """

    code, name = "MSC002", "orphan-point"
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def look(self, case: Case) -> Evidence | None:
        """A point of a known persona that has no exchange and is not archived."""
        if case.found is None or case.exchange is not None or case.archived:
            return None
        if case.found.persona_id is None or not case.persona_is_known:
            return None
        return {"row": None, "point": words(case.found.reading.memory.text)}


class DuplicatePoint(CaseRule):
    """An exchange has a second memory.

    Why it matters: recall returns the same exchange twice.
    Repair: the point with the anchor's id (or else the first by id) stays; the other is moved to
    quarantine.
    """

    code, name = "MSC004", "duplicate-point"
    severity = Severity.WARNING

    def look(self, case: Case) -> Evidence | None:
        """A point whose exchange has another point, which is kept."""
        if case.found is None or case.exchange is None or case.kept is None:
            return None
        return {"kept": case.kept, "point": case.found.point.id}


class ForeignPointId(CaseRule):
    """A memory's id is not the id of its exchange's anchor.

    Why it matters: it cannot be compared by id, and a retry would make a second one. This is so
    for all points of a deployed collection.
    Repair: the memory is made anew under the anchor's id; the old point is moved to quarantine.
    """

    code, name = "MSC005", "foreign-point-id"
    severity = Severity.WARNING

    def look(self, case: Case) -> Evidence | None:
        """The exchange's only memory, of the right persona, under another id."""
        if case.found is None or case.exchange is None or case.is_anchored:
            return None
        if not case.persona_agrees or case.kept is not None or not case.persona_is_known:
            return None
        return {"row": case.exchange.anchor_id, "point": case.found.point.id}


class UnacknowledgedOutbox(StateRule):
    """An outbox entry has waited longer than the alarm age.

    Why it matters: its exchange is not in Qdrant yet, and the relay does not seem to run.
    Repair: run the relay.
    """

    code, name = "MSC006", "unacknowledged-outbox"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync sync run"

    def look(self, state: State) -> Iterator[Finding]:
        """Entries older than the alarm age that the relay still tries."""
        for entry in state.late_entries:
            if not entry.dead:
                yield self.finding(OUTBOX, str(entry.id), **_facts(entry))


class DeadOutboxEntry(StateRule):
    """An outbox entry failed too often, and the relay no longer tries it.

    Why it matters: its exchange will not be in Qdrant until somebody removes the cause.
    Repair: remove the cause that `last_error` names, then retry.
    """

    code, name = "MSC007", "dead-outbox-entry"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync sync retry"

    def look(self, state: State) -> Iterator[Finding]:
        """Entries that the relay no longer tries."""
        for entry in state.late_entries:
            if entry.dead:
                yield self.finding(OUTBOX, str(entry.id), **_facts(entry))


def _facts(entry: LateEntry) -> Evidence:
    return {
        "memory": entry.anchor_id,
        "age_s": round(entry.age_s),
        "attempts": entry.attempts,
        "last_error": entry.last_error,
        "entries_in_all": entry.total,
    }
