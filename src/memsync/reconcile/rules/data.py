"""MSD rules: a memory has its exchange's content and fields, in the agreed form."""

from collections.abc import Iterator

from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Finding, Grade, Repair, Severity
from memsync.reconcile.rules.base import (
    CaseRule,
    Evidence,
    StateRule,
    differing,
    from_payload,
)
from memsync.reconcile.state import HISTORY, State


class StaleContent(CaseRule):
    """A memory's text is not that of its exchange.

    Why it matters: recall returns text that was not said. The row was edited after the memory was
    made, or a message was inserted in between.
    Repair: the memory is made anew from Postgres.
    """

    code, name = "MSD001", "stale-content"

    def look(self, case: Case) -> Evidence | None:
        """A pair of one persona whose texts differ."""
        if case.exchange is None or case.found is None or case.content_agrees:
            return None
        if not case.persona_agrees or case.kept is not None:
            return None
        row, memory = case.exchange, case.found.reading.memory
        if memory.content is not None:
            return {"field": "content", **differing(row.text, memory.content)}
        if memory.user_text != row.user_text:
            return {"field": "user_text", **differing(row.user_text, memory.user_text)}
        return {"field": "assistant_text", **differing(row.assistant_text, memory.assistant_text)}


class PayloadDrift(CaseRule):
    """A memory's text is right, but another field of its payload differs from the row.

    Why it matters: filters by personality, channel or time miss it, its digest is wrong, or its two
    texts are joined in one, as an earlier build kept them.
    Repair: the memory is made anew from Postgres.
    """

    code, name = "MSD002", "payload-drift"

    def look(self, case: Case) -> Evidence | None:
        """A point at home under the right id whose fields or digest differ."""
        if case.exchange is None or case.found is None or not case.is_anchored:
            return None
        if not case.persona_agrees or not case.content_agrees:
            return None
        reading, payload = case.found.reading, case.found.point.payload
        if reading.wrong_unit or reading.wrong_keys or reading.memory.persona_id is None:
            return None
        # The raw payload is compared, not the decoded one, because filters use the raw payload.
        # The embedder is left out: it does not follow from the row.
        expected = case.found.codec.encode(case.exchange, embedder="")
        expected.pop(case.found.codec.key("embedder"))
        for key, value in expected.items():
            if payload.get(key) != value or type(payload.get(key)) is not type(value):
                there = from_payload(payload.get(key))
                return {"field": key, "row": from_payload(value), "point": there}
        for key in map(case.found.codec.key, ("content", "text_form")):
            if key in payload:
                return {"field": key, "row": None, "point": from_payload(payload[key])}
        return None


class WrongPayloadKey(CaseRule):
    """A payload has a key in a spelling that the app does not read.

    Why it matters: the value under that key is not seen. The memory seems to lack a text or a time.
    Repair: the memory is made anew from Postgres.
    """

    code, name = "MSD003", "wrong-payload-key"

    def look(self, case: Case) -> Evidence | None:
        """A pair whose payload has keys in a wrong spelling."""
        if case.exchange is None or case.found is None or case.kept is not None:
            return None
        if not case.found.reading.wrong_keys or not case.persona_agrees:
            return None
        return {"point": ", ".join(case.found.reading.wrong_keys)}


class WrongTimeUnit(CaseRule):
    """A memory's time is not whole milliseconds.

    Why it matters: it sorts as if it were from 1970, or does not equal the row's time.
    Repair: the memory is made anew from Postgres.
    """

    code, name = "MSD004", "wrong-time-unit"
    severity = Severity.WARNING

    def look(self, case: Case) -> Evidence | None:
        """A pair whose payload gives the time in seconds or as a fraction."""
        if case.exchange is None or case.found is None or case.kept is not None:
            return None
        if not case.found.reading.wrong_unit or not case.persona_agrees:
            return None
        raw = case.found.point.payload
        at = next((raw[k] for k in ("created_at", "createdAt", "timestamp") if k in raw), None)
        return {"row": case.exchange.created_at_ms, "point": from_payload(at)}


class UnreadableTime(StateRule):
    """A message's time is infinite, before the year 1, or after the year 9999.

    Why it matters: no memory can hold it, so no read returns the message, and its exchange has no
    memory. A memory of its thread that lacks its exchange is not judged meanwhile.
    Repair: correct `created_at` of the row, or remove the row; sql/ops/unreadable-times.sql lists
    them.
    """

    code, name = "MSD005", "unreadable-time"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync rules MSD005"
    only_in_check = False

    def look(self, state: State) -> Iterator[Finding]:
        """Messages whose time Python cannot hold."""
        for message in state.unreadable_messages:
            yield self.finding(
                HISTORY,
                str(message.id),
                created_at=message.created_at,
                messages_in_all=message.total,
            )
