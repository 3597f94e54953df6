"""MSD rules: a memory has its exchange's content and fields, in the agreed form."""

from collections.abc import Iterator

from memsync.model.records import Exchange
from memsync.reconcile.cases import Case, Found, Role
from memsync.reconcile.findings import Finding, Grade, Repair, Severity
from memsync.reconcile.rules.base import (
    CaseRule,
    Evidence,
    StateRule,
    differing,
    from_field,
    from_payload,
    patched,
    persona_named,
)
from memsync.reconcile.state import HISTORY, State
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import standing_digest
from memsync.stores.ltm.payload import memory_digest_of
from memsync.stores.ltm.texts import Said


class StaleContent(CaseRule):
    """A memory's text is not that of its exchange.

    Why it matters: recall returns text that was not said. The row was edited after the memory was
    made, or a message was inserted in between.
    Repair: the memory is made anew from Postgres, under the id that it has.
    """

    code, name = "MSD001", "stale-content"

    def look(self, case: Case) -> Evidence | None:
        """A pair of one persona whose texts differ."""
        if case.role is not Role.MEMORY or case.exchange is None or case.found is None:
            return None
        if case.said is not None:
            return None
        row, memory = case.exchange, case.found.reading.memory
        if memory.content is not None or case.layout is Layout.PER_PERSONA:
            return {"field": "content", **differing(row.text, memory.content)}
        if memory.user_text != row.user_text:
            return {"field": "user_text", **differing(row.user_text, memory.user_text)}
        return {"field": "assistant_text", **differing(row.assistant_text, memory.assistant_text)}


class PayloadDrift(CaseRule):
    """A memory's text is right, but another field of its payload differs from the row.

    Why it matters: filters by personality, channel or time miss it, or recall leaves it out,
    because its payload does not name its collection's persona: it names another one, a user, or
    what is no id. The app does not look at that name; memsync's recall does. In the shared layout
    its digest is wrong, or its two texts are joined in one, as an earlier build kept them.
    Repair: the payload is mended. In the shared layout the memory is made anew from Postgres; the
    app's text of the exchange, and keys of others beside it, stay.
    """

    code, name = "MSD002", "payload-drift"

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """A payload of the app's is mended and keeps its vector."""
        shared = case.layout is Layout.SHARED
        return (Repair.MAKE if shared else Repair.PATCH), self.grade

    def look(self, case: Case) -> Evidence | None:
        """A memory in its place, of the right text, whose fields or digest differ."""
        if case.role is not Role.MEMORY or case.exchange is None or case.found is None:
            return None
        reading = case.found.reading
        if case.said is None or reading.wrong_unit or reading.wrong_keys:
            return None
        if case.layout is Layout.PER_PERSONA:
            return _differs_as_deployed(case, case.exchange, case.found)
        if case.found.point.id != case.exchange.anchor_id or reading.memory.persona_id is None:
            return None
        return _differs_as_shared(case.exchange, case.found)


def _differs_as_deployed(case: Case, row: Exchange, found: Found) -> Evidence | None:
    """The first field in which a payload of the app's differs, as far as the app or recall reads
    it. The raw personality is compared, because filters use it.
    """
    memory, window = found.reading.memory, found.reading.time_window_ms
    payload = found.point.payload
    if found.is_left_out:
        return {"field": "personaId", "row": row.persona_id, "point": persona_named(found)}
    pairs = (
        ("personalityId", str(row.personality_id), payload.get("personalityId")),
        ("channelId", row.channel_id, memory.channel_id or row.channel_id),
    )
    for field, wanted, there in pairs:
        if wanted != there:
            point = from_payload(payload.get(field))
            return {"field": field, "row": from_payload(wanted), "point": point}
    skew_ms = None if window is None else _distance_ms(window, row.created_at_ms)
    if skew_ms is None or skew_ms > case.tolerance_ms:
        point = found.point.payload.get("createdAt")
        return {"field": "createdAt", "row": row.created_at_ms, "point": from_payload(point)}
    return None


def _differs_as_shared(row: Exchange, found: Found) -> Evidence | None:
    """The first field in which a payload of the shared layout differs.

    The raw payload is compared, not the decoded one, because filters use the raw payload. The
    embedder is left out: it does not follow from the row.
    """
    payload, key = found.point.payload, found.codec.key
    deployed = payload.get(key("text_form")) == "deployed"
    expected = found.codec.encode(row, embedder="")
    expected.pop(key("embedder"))
    if deployed:
        expected = found.codec.encode_deployed(row, found.reading.memory.content or "")
    for name, value in expected.items():
        if payload.get(name) != value or type(payload.get(name)) is not type(value):
            there = from_field(name, payload.get(name))
            return {"field": name, "row": from_field(name, value), "point": there}
    for name in () if deployed else map(key, ("content", "text_form")):
        if name in payload:
            return {"field": name, "row": None, "point": from_field(name, payload[name])}
    return None


def _distance_ms(window: tuple[int, int], at: int) -> int:
    return max(window[0] - at, at - window[1], 0)


class WrongPayloadKey(CaseRule):
    """A payload has a key, or an app's archived memory its personality, in a wrong spelling.

    Why it matters: the value under that key is not seen. The memory seems to lack a text or a time,
    or a filter by persona or personality misses it.
    In its own collections the app reads one text, `content`: two texts stand there without it, or
    beside it, and say something else.
    Repair: the payload is mended, and two texts become the one that the app reads. In the shared
    layout a memory of an exchange is made anew. It is only reported where two texts say something
    else than the one that the app reads.
    """

    code, name = "MSD003", "wrong-payload-key"

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """A payload of the app's is mended and keeps its vector; so does an archived memory."""
        if case.found and case.found.reading.texts_disagree:
            return Repair.NONE, Grade.REPORT_ONLY
        return patched(case, self.grade)

    def look(self, case: Case) -> Evidence | None:
        """A memory whose payload has keys in a wrong spelling, or two texts that the app does not
        read: in place of the one that it reads, or disagreeing with it. Of one with a row the rule
        payload-drift compares the ids.
        """
        if not _is_kept(case) or case.found is None:
            return None
        keys = case.found.reading.wrong_keys
        if case.exchange is None:
            keys += case.found.reading.misspelled
        if case.found.reading.texts_disagree:
            texts = ("user_text", "userText", "assistant_text", "assistantText")
            found = (each for each in texts if each in case.found.point.payload)
            keys = tuple(dict.fromkeys((*keys, *found)))
        return {"point": ", ".join(keys)} if keys else None


class WrongTimeUnit(CaseRule):
    """A memory's time is not whole milliseconds.

    Why it matters: it sorts as if it were from 1970, or does not equal the row's time.
    Repair: the payload is mended. In the shared layout a memory of an exchange is made anew.
    """

    code, name = "MSD004", "wrong-time-unit"
    severity = Severity.WARNING

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """A payload of the app's is mended and keeps its vector; so does an archived memory."""
        return patched(case, self.grade)

    def look(self, case: Case) -> Evidence | None:
        """A memory whose payload gives the time in seconds or as a fraction."""
        if not _is_kept(case) or case.found is None or not case.found.reading.wrong_unit:
            return None
        raw = case.found.point.payload
        at = next((raw[k] for k in ("created_at", "createdAt", "timestamp") if k in raw), None)
        row = case.exchange and case.exchange.created_at_ms
        return {"row": row, "point": from_payload(at)}


def _is_kept(case: Case) -> bool:
    """Whether the point is a memory that stays where it is."""
    if case.role in {Role.ARCHIVED, Role.VANISHED}:
        return case.found is not None and case.found.home
    return case.role is Role.MEMORY


class EnrichedContent(CaseRule):
    """A memory says more than its exchange: something was added behind message or reply.

    Why it matters: it does not. The app adds descriptions of attachments, and both texts stand
    whole.
    Repair: none is needed.
    """

    code, name = "MSD006", "enriched-content"
    severity = Severity.INFO
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, case: Case) -> Evidence | None:
        """A memory whose text holds both texts, with additions."""
        if case.role is not Role.MEMORY or case.said is not Said.MORE:
            return None
        return {"point": case.found and case.found.place}


class ArchivedTampered(CaseRule):
    """An archived memory does not fit its digest: its persona, time or text was changed.

    The digest is the one that the ledger has, else the one that the point carries.

    Why it matters: no row can show whose it is or what was said. Recall may show one person's words
    to another.
    Repair: none. Restore the point from a snapshot, or remove it by hand. Where it was changed on
    purpose, `memsync reconcile adopt --anew --point COLLECTION/ID` takes it as it is, and
    `--persona UUID` all of a persona. Where neither helps, `memsync reconcile baseline` lets it be.
    """

    code, name = "MSD007", "archived-tampered"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    can_be_accepted = True

    def look(self, case: Case) -> Evidence | None:
        """An archived memory at home whose digest is not that of its payload."""
        found = case.found
        if case.role not in {Role.ARCHIVED, Role.VANISHED} or found is None or not found.home:
            return None
        if case.entry is not None:
            stands = standing_digest(found.point.id, found.reading.memory)
            noted = case.entry.stored
            return None if stands == noted else {"ledger": noted, "point": stands}
        stored = found.reading.memory.digest
        if stored is None:
            return None
        digest = memory_digest_of(found.point.id, found.reading.memory)
        return None if digest == stored else {"expected": digest, "point": from_payload(stored)}


class TimeSkew(CaseRule):
    """A memory's time is beside its row's, within the tolerance.

    Why it matters: it does not. The app's own clock wrote older memories.
    Repair: none is needed.
    """

    code, name = "MSD008", "time-skew"
    severity = Severity.INFO
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, case: Case) -> Evidence | None:
        """A memory of the app's whose time is not the row's."""
        if case.role is not Role.MEMORY or case.exchange is None or case.found is None:
            return None
        window = case.found.reading.time_window_ms
        if case.layout is Layout.SHARED or window is None:
            return None
        skew_ms = _distance_ms(window, case.exchange.created_at_ms)
        return {"skew_ms": skew_ms} if 0 < skew_ms <= case.tolerance_ms else None


class UnreadableTime(StateRule):
    """A message's time is infinite, before the year 1, or after the year 9999.

    Why it matters: no memory can hold it, so no read returns the message, and its exchange has no
    memory. A memory of its thread that lacks its exchange is not judged meanwhile:
    `memories_not_judged` says how many there are, and `not_judged` stands for all of them.
    Repair: correct `created_at` of the row, or remove the row; sql/ops/unreadable-times.sql lists
    them.
    """

    code, name = "MSD005", "unreadable-time"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync rules MSD005"
    only_in_check = False
    in_all = "messages_in_all"

    def look(self, state: State) -> Iterator[Finding]:
        """Messages whose time Python cannot hold."""
        unjudged: Evidence = {}
        if number := state.unjudged.points:
            # One that is acknowledged must not hide what comes into the thread later.
            digest = f"{state.unjudged.state:064x}"[:12]
            unjudged = {"memories_not_judged": number, "not_judged": digest}
        for message in state.unreadable_messages:
            yield self.finding(
                HISTORY,
                str(message.id),
                created_at=message.created_at,
                messages_in_all=message.total,
                **unjudged,
            )
