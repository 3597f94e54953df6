"""MSI rules: every memory and every message belongs to the right persona, and only to that one."""

from collections.abc import Iterator

from memsync.reconcile.cases import Case, Role
from memsync.reconcile.findings import Finding, Grade, Repair, Severity
from memsync.reconcile.rules.base import (
    CaseRule,
    Evidence,
    StateRule,
    patched,
    persona_named,
    words,
)
from memsync.reconcile.state import HISTORY, State
from memsync.stores.ltm.layouts import Layout, persona_of_collection


class PersonaMismatch(CaseRule):
    """A memory belongs to another persona than its exchange does.

    Why it matters: recall returns one persona's memories to another. memsync was made to prevent
    this fault.
    Repair: the memory is given to the row's persona, or only removed where that one has it already;
    the old point is moved to quarantine. Moving a memory from one person to another is unsafe,
    unless its id is the anchor's. It is only reported where it contradicts itself, as where its
    payload and its collection name two personas: see whose it is, and correct it by hand, or remove
    it.
    """

    code, name = "MSI001", "persona-mismatch"
    grade = Grade.UNSAFE

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """Written anew in place under the anchor's id, else moved, else removed."""
        in_place = case.found is not None and case.found.place == case.target
        if in_place:
            return Repair.MAKE, Grade.SAFE
        if case.found is not None and case.found.contradicts_itself:
            return Repair.NONE, Grade.REPORT_ONLY
        if case.kept is not None:
            return Repair.REMOVE, Grade.UNSAFE
        # A text that is not the row's would be wrong there, too.
        is_moved = case.layout is Layout.PER_PERSONA and case.said is not None
        return (Repair.MOVE if is_moved else Repair.MAKE), Grade.UNSAFE

    def look(self, case: Case) -> Evidence | None:
        """A pair whose personas differ."""
        if case.role is not Role.FOREIGN or case.exchange is None or case.found is None:
            return None
        if case.found.names_unknown:
            return None
        text = words(case.found.reading.memory.text)
        return {"row": case.exchange.persona_id, "point": case.found.persona_id, "text": text}


class UnknownPersona(CaseRule):
    """A memory belongs to a persona that does not exist, or to a user who has none.

    Why it matters: nobody can recall it, delete it, or tell whose it was.
    Repair: where its exchange is known, the memory is made anew, or its payload mended where its
    collection is the right one. Otherwise the point is moved to quarantine. It may be the only
    copy, so this is unsafe. Where its collection names a persona who exists, it is only reported:
    see whose it is, and correct it by hand, or remove it; in the shared layout
    `layout set shared --retire --unsafe` moves it to quarantine.
    """

    code, name = "MSI002", "unknown-persona"
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """Mended or made anew from the row, where there is one."""
        found = case.found
        if case.exchange is not None and case.kept is None:
            in_place = case.layout is Layout.PER_PERSONA and found and found.place == case.target
            return (Repair.PATCH if in_place and case.said else Repair.MAKE), Grade.SAFE
        if case.exchange is None and found and found.contradicts_itself:
            return Repair.NONE, Grade.REPORT_ONLY
        return self.repair, self.grade

    def look(self, case: Case) -> Evidence | None:
        """A point whose persona Postgres does not have."""
        found = case.found
        if found is None or not found.names_unknown:
            return None
        if case.role not in {Role.ORPHAN, Role.FOREIGN}:
            return None
        named = found.reading.memory.persona_id or persona_of_collection(found.place.collection)
        return {"row": case.exchange and case.exchange.persona_id, "point": named}


class MissingPersona(CaseRule):
    """A memory's payload names no persona, or in the shared layout several of them.

    Why it matters: in the shared layout recall leaves it out. In the per-persona layout it does
    not, because the name of its collection says whose it is. There, what is no id in the persona's
    place is payload-drift, or misplaced-point where no row is left.
    Repair: the payload is mended where its exchange is known. Otherwise it is only reported: see
    whose it is, and write its persona into the payload by hand, or remove it.
    """

    code, name = "MSI003", "missing-persona"
    per_persona = Severity.INFO
    repair = Repair.PATCH

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """Mended by what the row says."""
        if case.exchange is None:
            return Repair.NONE, Grade.REPORT_ONLY
        return self.repair, self.grade

    def look(self, case: Case) -> Evidence | None:
        """A point whose payload does not name one persona, where that matters."""
        found = case.found
        if found is None or not found.home or found.reading.memory.persona_id is not None:
            return None
        if case.role not in {Role.MEMORY, Role.ARCHIVED, Role.VANISHED, Role.ORPHAN}:
            return None
        # There, whatever else stands in the persona's place does not agree with the collection.
        if case.layout is Layout.PER_PERSONA and found.is_left_out:
            return None
        return {
            "row": case.exchange and case.exchange.persona_id,
            "point": None,
            "collection": found.place.collection,
            "created_at": found.reading.memory.created_at_ms,
            "text": words(found.reading.memory.text),
        }


class MisplacedPoint(CaseRule):
    """An archived memory is where its persona's recall does not look, or nobody knows whose it is.

    Why it matters: its exchange is no longer in Postgres, so this is the only record of it.
    Repair: it is copied, with its vector, to where its persona's memories are. From the shared
    collection, which stays after a way back to the per-persona layout, that is unsafe: the app may
    have deleted the memory since. Then remove the point by hand, or drop that collection. Where it
    lies at home, and its payload names a user or what is no id, the app's collection says whose it
    is, and the payload is mended. It is only reported in the shared collection, or where the ledger
    has it; and where it contradicts itself: payload and collection name different personas, or the
    payload several. See whose it is, and correct it by hand, or remove it; in the shared layout
    `layout set shared --retire --unsafe` moves it to quarantine.
    """

    code, name = "MSI004", "misplaced-point"
    repair = Repair.COPY

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """Copied, where it does not contradict itself. At home its collection may name it."""
        found = case.found
        if found and found.home and case.layout is Layout.PER_PERSONA:
            return patched(case, self.grade)
        if found is None or found.contradicts_itself or found.home:
            return Repair.NONE, Grade.REPORT_ONLY
        # There, memsync has left it. The app deletes memories in its own collections only.
        is_left = case.layout is Layout.PER_PERSONA and not found.codec.of_app
        return self.repair, Grade.UNSAFE if is_left else self.grade

    def look(self, case: Case) -> Evidence | None:
        """An archived point outside of its home, or one that nobody can tell whose it is."""
        found = case.found
        if found is None or found.names_unknown:
            return None
        several = found.reading.names_several_personas
        if case.role is not Role.ARCHIVED:
            disputed = case.role is Role.ORPHAN and several and found.persona_id is None
            if not disputed or found.home:
                return None
        elif found.home and not found.is_left_out and not several:
            return None
        memory = found.reading.memory
        return {
            "collection": found.place.collection,
            "collection_persona": persona_of_collection(found.place.collection),
            "point": "several personas" if several else persona_named(found),
            "belongs_in": case.home,
            "created_at": memory.created_at_ms,
            "text": words(memory.text),
        }


class BelongsToNobody(CaseRule):
    """A memory in an older collection names nobody, and no exchange explains it.

    Why it matters: nobody can recall it, delete it, or tell whose it was.
    Repair: the point is moved to quarantine. It may be the only copy, so this is unsafe.
    """

    code, name = "MSI005", "nobodys-point"
    severity = Severity.WARNING
    grade, repair = Grade.UNSAFE, Repair.REMOVE

    def look(self, case: Case) -> Evidence | None:
        """A point without a persona, outside of its home, that matches nothing."""
        found = case.found
        if found is None or found.home or case.role is not Role.ORPHAN:
            return None
        if found.persona_id is not None or found.names_unknown:
            return None
        if found.reading.names_several_personas:
            return None
        return {"row": None, "point": found.point.id}


class HistoryWithoutPersona(StateRule):
    """Messages have no persona.

    Why it matters: they are in no persona's history, and their exchanges have no memory.
    Repair: the migration fills them.
    """

    code, name = "MSI006", "history-without-persona"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate run --to backfill"
    only_in_check = False
    in_all = "messages_in_all"

    def look(self, state: State) -> Iterator[Finding]:
        """Messages whose persona is NULL."""
        if not state.catalog.has_null_persona:
            return
        for message in state.messages_without_persona:
            yield self.finding(
                HISTORY, str(message.id), persona_id=None, messages_in_all=message.total
            )


class HistoryWithUnknownPersona(StateRule):
    """Messages have a persona that does not exist.

    Why it matters: nobody can read them, and their memories are removed as nobody's. A foreign key
    forbids them; a restore without triggers goes past it.
    Repair: restore the rows of `personas`, or delete the messages.
    """

    code, name = "MSI007", "history-with-unknown-persona"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    in_all = "messages_in_all"

    def can_look(self, state: State) -> bool:
        """Where messages have personas."""
        return state.catalog.knows_personas

    def look(self, state: State) -> Iterator[Finding]:
        """The first messages of personas that have no row."""
        for message in state.messages_of_unknown_personas if self.can_look(state) else ():
            yield self.finding(
                HISTORY,
                str(message.id),
                persona_id=message.persona_id,
                messages_in_all=message.total,
            )
