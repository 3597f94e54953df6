"""Proves the migration: recomputes every message's persona from the settings, and counts.

This module decides when a row's persona is right, independently of the fill's statement. It takes
the settings as they are now, and the frozen decision only where they were changed after the freeze.
A row with a decision of its own in the archive must have that persona, and evidence must name a
persona of the row's user.
"""

from dataclasses import dataclass

from memsync.migrate.checks import Check
from memsync.model.wording import count
from memsync.stores.history.catalog import IDENTITY_TRIGGER, TABLE, Catalog, history_rows
from memsync.stores.history.phases import Stage
from memsync.stores.postgres import Session

SAMPLES_MAX = 20


@dataclass(frozen=True, slots=True)
class Verification:
    """The checklist after `migrate run`. `proven` says whether every row was recomputed.

    After contract there is no user_id left to recompute from, so only the counts and the catalog
    can be checked. `wrong_ids` are the first messages with a wrong persona. `unfinished` says which
    run is at work, where messages are still to be filled by it; then the report is not ok, but
    nothing of that is a problem. `complete` is False when the memories could not be compared.
    """

    ok: bool
    stage: Stage
    proven: bool
    rows_total: int
    unique_personas: int
    null_persona_ids: int
    unknown_persona_ids: int
    wrong_persona_ids: int
    decisions_outdated: int
    problems: tuple[str, ...]
    wrong_ids: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    unfinished: str | None = None
    complete: bool = True


def prove(session: Session, catalog: Catalog) -> Verification:
    """Prove the history as it is now. Reads only; verify.py adds the rest of the checklist."""
    if "persona_id" not in catalog.columns:
        return _not_started(session, catalog)
    counts = session.row("verify_counts")
    problems = []
    if counts.null_persona_ids:
        have = count(counts.null_persona_ids, "message has", "messages have")
        problems.append(f"{have} no persona")
    if counts.unknown_persona_ids:
        have = count(counts.unknown_persona_ids, "message has", "messages have")
        problems.append(f"{have} a persona that does not exist")
    wrong, outdated = [], 0
    recomputable = catalog.has_users and IDENTITY_TRIGGER in catalog.triggers
    if recomputable:
        wrong = session.rows("verify_rows", limit=SAMPLES_MAX)
        outdated = session.row("verify_drift").pairs
    problems += [
        f"message {row.id} has persona {row.persona_id}, {row.by_whom} {row.expected}"
        for row in wrong
    ]
    return Verification(
        # A way back that is half done can prove nothing, so it is not ok.
        ok=not problems and (recomputable or "user_id" not in catalog.columns),
        stage=catalog.stage,
        proven=recomputable,
        rows_total=counts.rows_total,
        unique_personas=counts.unique_personas,
        null_persona_ids=counts.null_persona_ids,
        unknown_persona_ids=counts.unknown_persona_ids,
        wrong_persona_ids=wrong[0].wrong_total if wrong else 0,
        decisions_outdated=outdated,
        problems=tuple(problems),
        wrong_ids=tuple(str(row.id) for row in wrong),
    )


def _not_started(session: Session, catalog: Catalog) -> Verification:
    rows = history_rows(session)
    return Verification(
        ok=False,
        stage=catalog.stage,
        proven=False,
        rows_total=rows,
        unique_personas=0,
        null_persona_ids=rows,
        unknown_persona_ids=0,
        wrong_persona_ids=0,
        decisions_outdated=0,
        problems=(f"{TABLE} has no persona_id yet",),
    )
