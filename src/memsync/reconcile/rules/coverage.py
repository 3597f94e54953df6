"""MSC: whether every exchange has its memory, and every memory its exchange, exactly once."""

from collections.abc import Iterator

from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Finding, Grade, Repair, Severity
from memsync.reconcile.rules.base import CaseRule, Evidence, StateRule
from memsync.reconcile.state import OUTBOX, State
from memsync.stores.history.outbox import LateEntry


class MissingPoint(CaseRule):
    """An exchange has no memory.

    Why it matters: recall cannot find what was said. Either the app never stored it, the row was
    written past the library, or the point was lost.
    Repair: its memory is made from Postgres.
    """

    code, name = "MSC001", "missing-point"

    def look(self, case: Case) -> Evidence | None:
        """An exchange without a point."""
        if case.exchange is None or case.found is not None:
            return None
        return {"row": case.exchange.content, "point": None}


class OrphanPoint(CaseRule):
    """A memory from within the horizon has no exchange.

    Why it matters: recall tells of something that history does not know. The row was deleted, or
    the point is not what it says.
    Repair: the point goes to quarantine, whole; memories exist nowhere else, so this is unsafe.
    """

    code, name = "MSC002", "orphan-point"
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def look(self, case: Case) -> Evidence | None:
        """A point of a known persona, with neither a row nor the age to be without one."""
        if case.found is None or case.exchange is not None or case.archived:
            return None
        if case.found.persona_id is None or not case.persona_is_known:
            return None
        return {"row": None, "point": case.found.reading.memory.content}


class DuplicatePoint(CaseRule):
    """An exchange has a second memory.

    Why it matters: recall spends two of its places on one exchange.
    Repair: the one with the exchange's id (or the first by id) stays, the other goes to quarantine.
    """

    code, name = "MSC004", "duplicate-point"
    severity = Severity.WARNING

    def look(self, case: Case) -> Evidence | None:
        """A point whose exchange has another that is kept."""
        if case.found is None or case.exchange is None or case.kept is None:
            return None
        return {"kept": case.kept, "point": case.found.point.id}


class ForeignPointId(CaseRule):
    """A memory's id is not its exchange's.

    Why it matters: it cannot be compared by id, and a retry would make a second one. All points of
    a deployed collection are so.
    Repair: the memory is made anew under the exchange's id; the old point goes to quarantine.
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
    """An intent to write a memory has waited longer than the alarm age.

    Why it matters: what was said is not in LTM, and the relay does not seem to run.
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
    """An intent to write a memory failed too often and is no longer tried.

    Why it matters: what was said will not be in LTM until somebody mends the cause.
    Repair: mend what `last_error` names, then retry.
    """

    code, name = "MSC007", "dead-outbox-entry"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync sync retry"

    def look(self, state: State) -> Iterator[Finding]:
        """Entries that the relay has given up."""
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
