"""MSI: whether every memory and message is its own persona's, and nobody else's."""

from collections.abc import Iterator

from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Finding, Grade, Repair
from memsync.reconcile.rules.base import CaseRule, Evidence, StateRule
from memsync.reconcile.state import HISTORY, State
from memsync.stores.ltm.layouts import persona_of_collection


class PersonaMismatch(CaseRule):
    """A memory belongs to another persona than its exchange does.

    Why it matters: one persona's story is told to another. This is the fault memsync exists for.
    Repair: the memory is made anew for the row's persona; the point goes to quarantine.
    """

    code, name = "MSI001", "persona-mismatch"

    def look(self, case: Case) -> Evidence | None:
        """A pair whose personas differ."""
        if case.exchange is None or case.found is None or case.persona_agrees:
            return None
        if not case.persona_is_known:
            return None
        return {"row": case.exchange.persona_id, "point": case.found.persona_id}


class UnknownPersona(CaseRule):
    """A memory belongs to a persona that does not exist.

    Why it matters: nobody can recall it, forget it, or say whose it was.
    Repair: the point goes to quarantine, whole; it may be the only trace, so this is unsafe.
    """

    code, name = "MSI002", "unknown-persona"
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def look(self, case: Case) -> Evidence | None:
        """A point whose persona Postgres does not have."""
        if case.found is None or case.found.persona_id is None or case.persona_is_known:
            return None
        return {"row": None, "point": case.found.persona_id}


class MissingPersona(CaseRule):
    """A memory's payload names no persona.

    Why it matters: only its collection's name says whose it is, if that.
    Repair: where its exchange is known the memory is made anew. Else it is reported only.
    """

    code, name = "MSI003", "missing-persona"

    def look(self, case: Case) -> Evidence | None:
        """A point without a persona in its payload."""
        if case.found is None or case.found.reading.memory.persona_id is not None:
            return None
        if case.kept is not None or not case.persona_is_known:
            return None
        return {
            "row": case.exchange and case.exchange.persona_id,
            "point": None,
            "collection": case.found.collection,
        }


class MisplacedPoint(CaseRule):
    """A memory lies in another collection than it belongs in, and has no exchange to make it from.

    Why it matters: recall does not look there. So it is with archived memories in deployed
    collections.
    Repair: it is carried over, with its text as it is; the old point goes to quarantine. Where
    payload and collection name two personas, nobody knows whose it is: it is reported only.
    """

    code, name = "MSI004", "misplaced-point"
    repair = Repair.MOVE

    def can_be_repaired(self, case: Case) -> bool:
        """Whether payload and collection agree whose it is."""
        found = case.found
        return found is not None and found.reading.memory.persona_id in {None, found.persona_id}

    def look(self, case: Case) -> Evidence | None:
        """An archived point outside the home collection, or one in another persona's."""
        found = case.found
        if found is None or case.exchange is not None or not case.archived or found.home:
            return None
        if not case.persona_is_known or found.persona_id is None:
            return None
        return {
            "collection": found.collection,
            "collection_persona": persona_of_collection(found.collection),
            "point": found.reading.memory.persona_id,
        }


class HistoryWithoutPersona(StateRule):
    """Messages have no persona.

    Why it matters: they are in nobody's history, and their exchanges have no memory.
    Repair: the migration fills them.
    """

    code, name = "MSI006", "history-without-persona"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate run --to backfill"
    only_in_check = False

    def look(self, state: State) -> Iterator[Finding]:
        """Messages whose persona is NULL."""
        if not state.catalog.has_null_persona:
            return
        for message in state.messages_without_persona:
            yield self.finding(
                HISTORY, str(message.id), persona_id=None, messages_in_all=message.total
            )
