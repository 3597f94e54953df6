"""Checks what an operator must decide before a run: users, personas and memories.

A run stops before its first change while a decision is open. So each is a blocker here, with the
command that takes the decision, unless the options of the run take it. Unlike the other checks
these read messages, so their time grows with the history.
"""

from collections.abc import Sequence

from memsync.migrate.attribution import UnresolvedUser, awaited
from memsync.migrate.checks import Check, blocker, fine, warning
from memsync.migrate.options import RunOptions
from memsync.migrate.redesign import Prospect
from memsync.model.wording import listed
from memsync.stores.history.catalog import TABLE, Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session

_SAMPLES = 5
_BEFORE_CONTRACT = tuple(phase for phase in Phase if phase is not Phase.CONTRACT)


def users(catalog: Catalog, without: Sequence[UnresolvedUser], options: RunOptions) -> Check:
    """Users who have messages but no persona."""
    if "user_id" not in catalog.columns:
        return fine("users", "every message has its persona; there is no user_id")
    if not without:
        return fine("users", "every user with messages has a persona")
    messages = sum(user.rows for user in without)
    found = f"{len(without)} have messages ({messages}) but no persona: " + listed(
        f"{user.user_id} {user.username}" for user in without
    )
    if options.for_unresolved == "create":
        return fine("users", f"{found}; the run makes a default persona for each")
    create = options.command(to=Phase.BACKFILL, unresolved="create")
    if not awaited(catalog):
        return warning("users", found, f"give them one, or {create}")
    return blocker(
        "users", found, f"give them one, or {create}", _BEFORE_CONTRACT, ("unresolved", "create")
    )


def personas(
    session: Session, catalog: Catalog, ahead: Prospect | None, options: RunOptions
) -> Check:
    """Messages of personas that do not exist, and personas without an owner."""
    if "persona_id" in catalog.columns and (
        unknown := session.rows("preflight_unknown", limit=_SAMPLES)
    ):
        found = (
            f"{unknown[0].total} messages have a persona that does not exist, such as "
            + listed(f"message {row.id} ({row.persona_id})" for row in unknown)
        )
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
        named = listed(f"{each.persona_id} {each.name}" for each in open_ones)
        found = f"{len(open_ones)} have no owner, and not exactly one user uses each: {named}"
        if options.orphan_owners != "fail":
            return fine("personas", f"{found}; --orphan-owners {options.orphan_owners} settles it")
        quarantine = options.command(to=Phase.BACKFILL, orphan_owners="quarantine")
        return blocker(
            "personas",
            found,
            f"set owner_id, or {quarantine}, or with --orphan-owners assign:USER_ID",
            decision=("orphan_owners", "quarantine"),
        )
    if ownerless := session.rows("preflight_ownerless", limit=_SAMPLES):
        named = listed(f"{each.id} {each.name}" for each in ownerless)
        return warning(
            "personas",
            f"{ownerless[0].total} have no owner: {named}",
            "nothing, where that is right: the run gives each to the only user who uses it",
        )
    return fine("personas", "every persona has an owner")


def evidence(why: str, options: RunOptions) -> Check:
    """Memories that cannot be read, although a run asks them who spoke."""
    ignore = options.command(to=Phase.BACKFILL, evidence="ignore")
    return blocker(
        "evidence",
        f"the memories cannot be read, and they say who spoke: {why}",
        f"mend it, or {ignore} to go by the settings alone",
        _BEFORE_CONTRACT,
    )
