"""MSC rules: every exchange has exactly one memory, every memory has its exchange."""

from collections.abc import Iterator

from memsync.reconcile.cases import Case, Role
from memsync.reconcile.findings import Finding, Grade, Repair, Severity
from memsync.reconcile.rules.base import CaseRule, Evidence, StateRule, words
from memsync.reconcile.state import OUTBOX, State
from memsync.stores.history.outbox import LateEntry
from memsync.stores.ltm.layouts import Layout


class MissingPoint(CaseRule):
    """An exchange has no memory where memories of its persona are kept.

    Why it matters: recall cannot find this exchange. Either the app never stored its memory, the
    row was written without the library, or the point was lost. Where a memory of it lies elsewhere,
    the finding names that point, and `row_id` the exchange.
    Repair: the memory is made from Postgres. In the per-persona layout, one that lies in an older
    collection is copied, with its vector.
    """

    code, name = "MSC001", "missing-point"

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """A copy, where the app's own memory lies elsewhere; else a new one."""
        found = case.found
        if found is None or case.layout is Layout.SHARED or found.contradicts_itself:
            return self.repair, self.grade
        # The app reads one text.
        is_apps = case.said is not None and found.reading.memory.content is not None
        return (Repair.COPY if is_apps else Repair.MAKE), self.grade

    def look(self, case: Case) -> Evidence | None:
        """An exchange without a point at home."""
        if case.role not in {Role.MISSING, Role.ELSEWHERE} or case.exchange is None:
            return None
        evidence: Evidence = {"row": words(case.exchange.text), "point": None}
        if case.found is None:
            return evidence
        row_id, elsewhere = case.exchange.anchor_id, case.found.place.collection
        return {"row_id": row_id, **evidence, "elsewhere": elsewhere, "belongs_in": case.home}


class OrphanPoint(CaseRule):
    """A memory has no exchange, and nothing says that its rows were removed by design.

    Why it matters: recall returns something that is not in the history. The row was deleted, or
    the point's fields are wrong. Its copies in collections that nobody reads are orphans as well.
    Repair: the point is moved to quarantine. It may be the only copy, so this is unsafe. It is only
    reported where it contradicts itself, because its exchange may be another one; in an old
    collection of the shared layout `layout set shared --retire --unsafe` moves it to quarantine.
    """

    code, name = "MSC002", "orphan-point"
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """Removed, where it does not contradict itself."""
        if case.found is None or case.found.contradicts_itself:
            return Repair.NONE, Grade.REPORT_ONLY
        return self.repair, self.grade

    def look(self, case: Case) -> Evidence | None:
        """A point of a known persona that has no exchange and is not archived."""
        if case.role is not Role.ORPHAN or case.found is None or case.found.persona_id is None:
            return None
        if case.found.names_unknown:
            return None
        return {"row": None, "point": words(case.found.reading.memory.text)}


class DuplicatePoint(CaseRule):
    """An exchange has a second memory.

    Why it matters: recall returns the same exchange twice.
    Repair: the one that the app reads, of the better text, stays; of two such, the one whose id is
    not the anchor's, because that is the app's own. The other is moved to quarantine, so this is
    unsafe. It is only reported where it contradicts itself: then remove by hand which one is wrong.
    """

    code, name = "MSC004", "duplicate-point"
    severity = Severity.WARNING
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """Removed, where it does not contradict itself."""
        if case.found is None or case.found.contradicts_itself:
            return Repair.NONE, Grade.REPORT_ONLY
        return self.repair, self.grade

    def look(self, case: Case) -> Evidence | None:
        """A point whose exchange has another point, which is kept."""
        if case.role is not Role.DUPLICATE or case.found is None or case.kept is None:
            return None
        return {"kept": case.kept.point_id, "point": case.found.point.id}


class ForeignPointId(CaseRule):
    """A memory's id is not the id of its exchange's anchor.

    Why it matters: in the shared layout it cannot be compared by id, and a retry would make a
    second one. In the per-persona layout it is a fact: the app gives its points random ids.
    Repair: the memory is made anew under the anchor's id; the old point is moved to quarantine.
    """

    code, name = "MSC005", "foreign-point-id"
    severity, per_persona = Severity.WARNING, Severity.INFO

    def look(self, case: Case) -> Evidence | None:
        """The exchange's only memory, of the right persona, under another id."""
        if case.role is not Role.MEMORY or case.found is None or case.exchange is None:
            return None
        if case.found.point.id == case.exchange.anchor_id:
            return None
        return {"row": case.exchange.anchor_id, "point": case.found.point.id}


class NewerThanHistory(CaseRule):
    """Memories without an exchange are newer than the history, or lie where it has a gap.

    Why it matters: a database that was restored from a backup looks so. Then these memories are the
    only trace of what was said since, and no repair removes them.
    Repair: restore the newer history, or, where these memories are to go, remove them by hand.
    """

    code, name = "MSC008", "newer-than-history"
    severity = Severity.WARNING
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, case: Case) -> Evidence | None:
        """A point after the newest row, or one of several in a stretch without any row."""
        if case.role is not Role.NEWER or case.found is None:
            return None
        return {"row": None, "point": case.found.reading.memory.created_at_ms}


class LegacyCopy(CaseRule):
    """A collection that the app no longer reads holds copies of memories that stand.

    Why it matters: it takes room. Nothing is lost without it.
    Repair: none is needed. `memsync reconcile layout set shared --retire` removes such collections.
    """

    code, name = "MSC009", "legacy-copy"
    severity = Severity.INFO
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, case: Case) -> Evidence | None:
        """A point outside of the layout whose memory stands where it belongs."""
        if case.role is not Role.COPY or case.found is None:
            return None
        return {"kept": case.kept, "point": case.found.place}


class RowVanished(CaseRule):
    """A memory has lost its rows, and not from the old end of its thread, as retention does it.

    Why it matters: recall returns something that is not in the history. Somebody deleted these
    messages, or they were lost.
    Repair: restore the rows. Where they were deleted on purpose, `memsync reconcile adopt --anew
    --point COLLECTION/ID` takes the memory out of the ledger; then it is an orphan, and one plan
    with --unsafe removes it and its old copies. `--persona UUID` does so for all of a persona.
    """

    code, name = "MSC010", "row-vanished"
    severity = Severity.WARNING
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    can_be_accepted = True

    def look(self, case: Case) -> Evidence | None:
        """A point whose ledger entry is live, and whose exchange is gone."""
        if case.role is not Role.VANISHED or case.found is None:
            return None
        return {"row": None, "point": words(case.found.reading.memory.text)}


class ArchivedMissing(CaseRule):
    """A memory whose rows the app no longer keeps is not in the vector store any more.

    Why it matters: it stood nowhere else. The ledger has its digest, and nobody's words.
    Repair: restore the point from a snapshot of the vector store. Where it was removed on purpose,
    `memsync reconcile adopt --anew --point COLLECTION/ID` takes it out of the ledger, and
    `--persona UUID` all of a persona. Where neither helps, `memsync reconcile baseline` lets it be.
    """

    code, name = "MSC011", "archived-missing"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    can_be_accepted = True

    def look(self, case: Case) -> Evidence | None:
        """A memory of the ledger, without a row and without a point."""
        if case.role is not Role.LOST or case.entry is None:
            return None
        return {"ledger": case.entry.stored, "point": None}


class UnacknowledgedOutbox(StateRule):
    """An outbox entry has waited longer than the alarm age.

    Why it matters: its exchange is not in Qdrant yet, and the relay does not seem to run.
    Repair: run the relay.
    """

    code, name = "MSC006", "unacknowledged-outbox"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync sync run"
    # The relay still tries it, so the error is only that of the last attempt.
    moving, in_all = frozenset(("age_s", "attempts", "last_error")), "entries_in_all"

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
    moving, in_all = frozenset(("age_s", "attempts")), "entries_in_all"

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


NOT_JUDGED = frozenset((OrphanPoint.code, NewerThanHistory.code))
"""Nobody can tell these of a memory without an exchange, in a thread with an unreadable time."""
