"""Asks the settings for the persona of each message that is still open, and by which rule.

This module picks the fragments of attribution.sql that fit the schema as it stands: where choices
and defaults are, and which messages are still to be decided. Reads only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import SettingsTables
from memsync.stores.postgres import Session

Fragments = Mapping[str, str]
"""The name of a fragment for each hole that a statement leaves to its caller."""


@dataclass(frozen=True, slots=True)
class UnresolvedUser:
    """A user with messages, but without a persona."""

    user_id: str
    username: str
    rows: int


QUARANTINE: Fragments = {"quarantined": "quarantined_orphans"}
"""The fragment for a run that quarantines personas without an owner."""


def fragments(catalog: Catalog, evidence: Fragments | None = None) -> dict[str, str]:
    """The fragments that fit this schema: for {open}, {override}, {default} and {by_evidence}.

    `evidence` names the last one, where evidence was read.
    """
    undecided = "undecided" if catalog.has_own_table("persona_map") else "unfilled"
    return {
        "open": f"open_{undecided}" if "persona_id" in catalog.columns else "open_all",
        "by_evidence": "by_evidence_unread",
        **places(catalog.settings),
        **(evidence or {}),
    }


def places(settings: SettingsTables) -> dict[str, str]:
    """The fragments for {override} and {default}: where a user's choices and default stand."""
    return {
        "override": f"override_{settings.choices_in}",
        "default": f"default_{settings.defaults_in}",
    }


def messages_by_rule(session: Session, given: Fragments) -> dict[str, int]:
    """How many open messages each rule decides today: override, default, or unresolved."""
    rows = session.rows_with(given, "pairs_by_settings")
    return {row.reason: row.rows_count for row in rows}


def unresolved_users(session: Session, given: Fragments) -> tuple[UnresolvedUser, ...]:
    """The users with open messages who have neither a choice nor a default."""
    rows = session.rows_with(given, "unresolved_users")
    return tuple(UnresolvedUser(str(row.user_id), row.username, row.rows_count) for row in rows)
