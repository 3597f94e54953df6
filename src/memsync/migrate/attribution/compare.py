"""Compares the personas that messages have with the memories that were made from them.

`verify` asks this while messages still name their user, because evidence is a persona of the user
who spoke. Nothing is decided here. A store that was not read is said, and never counts as agreeing.
"""

from memsync.migrate.attribution.choice import (
    CHECK,
    IGNORED,
    NAME_IT,
    UNNAMED,
    OpenMemories,
    emptiness,
    report_of,
)
from memsync.migrate.attribution.evidence import Evidence
from memsync.migrate.checks import Check, failed, fine, not_applicable
from memsync.migrate.options import EvidenceUse
from memsync.model.wording import count
from memsync.settings import Settings
from memsync.stores.postgres import Session

_SAMPLES = 5


def compare(
    session: Session,
    chosen: EvidenceUse | None,
    settings: Settings,
    memories: OpenMemories | None,
) -> tuple[Check, bool]:
    """The check, and whether it could be made; `session` must be a dedicated one.

    `chosen` is how the run used evidence, None when no run of memsync decided the messages.
    """
    if chosen == "ignore":
        return not_applicable(CHECK, IGNORED), True
    if memories is None:
        return _unnamed(session, chosen)
    evidence = Evidence(session, decided_too=True)
    report = report_of(evidence, settings, memories)
    if report.not_read is not None:
        return not_applicable(CHECK, f"NOT COMPARED: {report.not_read}"), False
    if not report.points:
        return not_applicable(CHECK, emptiness(report)), chosen == "none-expected"
    against = evidence.against_rows(limit=_SAMPLES)
    if not against:
        have = count(report.rows, "message has", "messages have")
        return fine(CHECK, f"{have} the persona of their memory"), True
    named = "; ".join(
        f"message {row.history_id} has persona {row.persona_id}, its memory {row.source} says "
        f"{row.by_evidence}"
        for row in against
    )
    first = against[0]
    have = count(first.total, "message has", "messages have")
    return (
        failed(
            CHECK,
            f"{have} another persona than their memories say: {named}",
            f"where the memory is right: {_mend(first.history_id, first.by_evidence)}",
        ),
        True,
    )


def _unnamed(session: Session, chosen: EvidenceUse | None) -> tuple[Check, bool]:
    kept = session.row("kept_evidence").total if chosen else 0
    if not kept and chosen != "none-expected":
        found = f"NOT COMPARED: {UNNAMED}; {NAME_IT}, or say --evidence ignore"
        return not_applicable(CHECK, found), False
    have = count(kept, "message has", "messages have")
    found = f"not compared again: {UNNAMED}; a run read it, {have} its persona"
    return not_applicable(CHECK, found), True


def _mend(row: object, persona: object) -> str:
    """SQL by which a message gets the persona of its memory, so that the proof knows why."""
    # Text for the operator; memsync does not run it. The ids come from the database.
    return (
        "BEGIN; INSERT INTO memsync.row_archive (history_id, user_id, persona_id, reason) "  # noqa: S608
        f"SELECT id, user_id, '{persona}', 'evidence' FROM conversation_history WHERE id = '{row}' "
        "ON CONFLICT (history_id) DO UPDATE SET persona_id = excluded.persona_id, "
        "reason = excluded.reason, source = NULL; "
        f"UPDATE conversation_history SET persona_id = '{persona}' WHERE id = '{row}'; COMMIT"
    )
