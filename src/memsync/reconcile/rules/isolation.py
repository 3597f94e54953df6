"""MSI rules: every memory and every message belongs to the right persona, and only to that one."""

from collections.abc import Iterator

from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Finding, Grade, Repair
from memsync.reconcile.rules.base import CaseRule, Evidence, StateRule
from memsync.reconcile.state import HISTORY, State
from memsync.stores.ltm.layouts import persona_of_collection


class PersonaMismatch(CaseRule):
    """A memory belongs to another persona than its exchange does.

    Why it matters: recall returns one persona's memories to another. memsync was made to prevent
    this fault.
    Repair: the memory is made anew for the row's persona; the point is moved to quarantine.
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

    Why it matters: nobody can recall it, delete it, or tell whose it was.
    Repair: the point is moved to quarantine. It may be the only copy, so this is unsafe.
    """

    code, name = "MSI002", "unknown-persona"
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def look(self, case: Case) -> Evidence | None:
        """A point whose persona Postgres does not have."""
        if case.found is None or case.found.persona_id is None or case.persona_is_known:
            return None
        return {"row": None, "point": case.found.persona_id}


class MissingPersona(CaseRule):
    """A memory's payload names no persona, or several of them.

    Why it matters: at best, its collection's name shows whose it is; recall leaves it out.
    Repair: the memory is made anew where its exchange is known. Otherwise it is only reported.
    """

    code, name = "MSI003", "missing-persona"

    def look(self, case: Case) -> Evidence | None:
        """A point whose payload does not name one persona."""
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
    """An archived memory lies in a deployed collection; its exchange is no longer in Postgres.

    Why it matters: recall looks in the home collection only.
    Repair: it is moved to the home collection with its text unchanged; the old point is kept in
    quarantine. It is only reported where payload and collection name different personas, or the
    payload several, because then nobody knows whose it is.
    """

    code, name = "MSI004", "misplaced-point"
    repair = Repair.MOVE

    def can_be_repaired(self, case: Case) -> bool:
        """Whether payload and collection agree on the persona."""
        found = case.found
        if found is None or found.reading.names_several_personas:
            return False
        return found.reading.memory.persona_id in {None, found.persona_id}

    def look(self, case: Case) -> Evidence | None:
        """An archived point outside the home collection, of a known persona."""
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

    Why it matters: they are in no persona's history, and their exchanges have no memory.
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
