"""Checks what an operator must decide before a run, of users and personas.

A run stops before its first change while a decision is open. So each is a blocker here, with the
command that takes the decision, unless the options of the run take it. Unlike the other checks
these read messages, so their time grows with the history. attribution/choice.py checks memories.
"""

from collections.abc import Sequence

from memsync.migrate import runs
from memsync.migrate.attribution import UnresolvedUser, awaited
from memsync.migrate.backfill import refused_existing
from memsync.migrate.checks import (
    BEFORE_CONTRACT,
    Check,
    blocker,
    fine,
    warning,
)
from memsync.migrate.options import RunOptions
from memsync.migrate.redesign import Prospect
from memsync.model.wording import count, listed
from memsync.stores.history.catalog import TABLE, Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session

_SAMPLES = 5


def users(
    catalog: Catalog,
    without: Sequence[UnresolvedUser],
    ahead: Prospect | None,
    options: RunOptions,
) -> Check:
    """Users who have messages but no persona, or none once orphans are quarantined."""
    if "user_id" not in catalog.columns:
        return fine("users", "every message has its persona; there is no user_id")
    quarantine = ahead.quarantine if ahead else None
    if quarantine and not quarantine.refused and options.for_orphans == "fail":
        # The check of the personas takes this decision.
        without = quarantine.left
    if not without:
        return fine("users", "every user with messages has a persona")
    messages = sum(user.rows for user in without)
    has = count(len(without), "user has", "users have")
    found = f"{has} messages ({messages:,}) but no persona: " + listed(
        str(user.user_id) for user in without
    )
    if options.for_unresolved == "create":
        return fine("users", f"{found}; the run makes a default persona for each")
    create = options.command(to=Phase.BACKFILL, unresolved="create")
    if not awaited(catalog):
        return warning("users", found, f"give them one, or {create}")
    return blocker(
        "users", found, f"give them one, or {create}", BEFORE_CONTRACT, ("unresolved", "create")
    )


def personas(
    session: Session, catalog: Catalog, ahead: Prospect | None, options: RunOptions
) -> Check:
    """Messages of personas that do not exist, and personas without an owner."""
    if "persona_id" in catalog.columns and (
        unknown := session.rows("preflight_unknown", limit=_SAMPLES)
    ):
        have = count(unknown[0].total, "message has", "messages have")
        named = listed(f"message {row.id} ({row.persona_id})" for row in unknown)
        found = f"{have} a persona that does not exist, such as {named}"
        if "user_id" in catalog.columns:
            anew = options.command(to=Phase.BACKFILL)
            return warning("personas", found, f"{anew} decides them anew")
        return blocker(
            "personas",
            found,
            f"restore those personas from a backup, or delete their rows of {TABLE}",
        )
    open_ones = [each for each in ahead.orphans if each.owner is None] if ahead else []
    if open_ones and not catalog.settings.owners_required:
        named = listed(str(each.persona_id) for each in open_ones)
        have = count(len(open_ones), "persona has", "personas have")
        found = f"{have} no owner, and not exactly one user uses each: {named}"
        quarantine = ahead.quarantine if ahead else None
        if quarantine and quarantine.refused and not options.assigned_owner:
            return blocker(
                "personas",
                f"{found}; {quarantine}",
                "set owner_id, or memsync migrate run --orphan-owners assign:USER_ID",
            )
        if options.for_orphans != "fail":
            return fine("personas", f"{found}; --orphan-owners {options.orphan_owners} settles it")
        move = options.command(to=Phase.BACKFILL, orphan_owners="quarantine")
        return blocker(
            "personas",
            f"{found}; {quarantine}" if quarantine else found,
            f"set owner_id, or {move}, or with --orphan-owners assign:USER_ID",
            decision=("orphan_owners", "quarantine"),
        )
    if ownerless := session.rows("preflight_ownerless", limit=_SAMPLES):
        named = listed(str(each.id) for each in ownerless)
        have = count(ownerless[0].total, "persona has", "personas have")
        return warning(
            "personas",
            f"{have} no owner: {named}",
            "nothing, where that is right: the run gives each to the only user who uses it",
        )
    return fine("personas", "every persona has an owner")


def existing(session: Session, catalog: Catalog, options: RunOptions) -> Check:
    """Messages that had a persona before memsync came, and that the proof would refuse."""
    name = "existing personas"
    if catalog.has_own_table("runs") and runs.backfill_stands(session):
        return fine(name, "the backfill ended; the gate of the proof tells")
    found = refused_existing(session, catalog)
    if not found.total:
        return fine(name, "none that the proof would refuse")
    if options.existing == "keep":
        return fine(name, f"{found}; --existing keep keeps them")
    if options.existing == "decide":
        if not found.unsaid or options.for_unresolved == "create":
            return fine(name, f"{found}; --existing decide gives them what the settings say")
        create = options.command(to=Phase.BACKFILL, unresolved="create")
        return blocker(name, str(found), create, decision=("unresolved", "create"))
    keep, decide = (options.command(existing=each) for each in ("keep", "decide"))
    return blocker(
        name,
        str(found),
        f"{keep} where they are right, or {decide} to give them what the settings say",
        [Phase.CONTRACT],
        ("existing", "keep"),
    )
