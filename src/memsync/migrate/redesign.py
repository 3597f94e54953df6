"""The redesign's data: defaults and configs copied in batches, and owners for personas without one.

Decides who owns an orphan: the one user who uses it. With none or several it is the operator's to
say; a guess would hand one person's story to another. The tables and triggers are the revisions'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from memsync.errors import GateClosed, InvalidInput
from memsync.migrate.options import RunOptions
from memsync.model.progress import Progress, Tell
from memsync.stores.catalog import Catalog
from memsync.stores.ddl import LockNotHad, OnlineDdl
from memsync.stores.postgres import Session

_BATCH_ROWS = 2000
_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Orphan:
    """A persona without an owner, and the users whose default or choice it is."""

    persona_id: UUID
    name: str
    users: tuple[UUID, ...]

    @property
    def owner(self) -> UUID | None:
        """The one who uses it; None when nobody or several do."""
        return self.users[0] if len(self.users) == 1 else None


def orphans(session: Session, settings: Mapping[str, str]) -> list[Orphan]:
    """Every persona without an owner. Reads only."""
    rows = session.rows_with(dict(settings), "orphan_personas")
    return [Orphan(row.id, row.name, tuple(row.users)) for row in rows]


def require_owners(session: Session, settings: Mapping[str, str], options: RunOptions) -> None:
    """Stop, before anything is changed, when the owner of a persona is the operator's to say.

    Raises: GateClosed naming the personas; InvalidInput when the owner given is no user.
    """
    if (owner := options.assigned_owner) and not session.row("user_exists", user_id=owner).found:
        raise InvalidInput(f"orphan_owners: there is no user {owner}", field="orphan_owners")
    open_ones = [each for each in orphans(session, settings) if each.owner is None]
    if not open_ones or options.orphan_owners != "fail":
        return
    named = ", ".join(f"{each.persona_id} ({len(each.users)} users)" for each in open_ones)
    raise GateClosed(
        f"{len(open_ones)} personas have no owner, and not exactly one user uses each: "
        f"{named:.{_NAMED_MAX * 50}}. Give them an owner, or run again with `--orphan-owners "
        "quarantine` or `--orphan-owners assign:USER_ID`; nothing was changed",
        personas=[str(each.persona_id) for each in open_ones],
    )


def settle_owners(ddl: OnlineDdl, options: RunOptions) -> None:
    """Give every orphan its owner, or quarantine it, one persona a transaction.

    Raises: GateClosed under `fail`, or when messages are attributed to one to be quarantined.
    """
    catalog = Catalog.read(ddl.session)
    require_owners(ddl.session, catalog.settings, options)
    for orphan in orphans(ddl.session, catalog.settings):
        owner = orphan.owner or options.assigned_owner
        decision = "derived" if orphan.owner else "assigned"
        if owner:
            given = {"persona_id": orphan.persona_id, "owner_id": owner, "decision": decision}
            _patiently(ddl, "personas", [("give_owner", given)])
        else:
            _quarantine(ddl, catalog, orphan)


def _quarantine(ddl: OnlineDdl, catalog: Catalog, orphan: Orphan) -> None:
    persona = orphan.persona_id
    if "persona_id" in catalog.columns:
        messages = ddl.session.row("messages_of_persona", persona_id=persona).total
        if messages:
            raise GateClosed(
                f"persona {persona} has no owner and cannot be quarantined: {messages} messages "
                "are attributed to it. Give it an owner, or run again with `--orphan-owners "
                "assign:USER_ID`",
                persona=str(persona),
                rows=messages,
            )
    while True:
        try:
            with ddl.brief_transaction():
                settings = dict(catalog.settings)
                ddl.session.run_with(settings, "quarantine_persona", persona_id=persona)
                ddl.session.run("remove_persona", persona_id=persona)
        except LockNotHad:
            ddl.wait_turn("personas")
        else:
            return


def restore_orphans(ddl: OnlineDdl) -> None:
    """Take the decisions about orphans back: owners go, quarantined personas return.

    Runs when the settings are as they were before the redesign.
    """
    steps = ["disown", "restore_personas"]
    redesign = Catalog.read(ddl.session).redesign
    if redesign.has_column("users", "global_persona_id"):
        steps.append("restore_defaults")
    if redesign.has_table("user_personality_settings"):
        steps.append("restore_choices")
    _patiently(ddl, "personas", [(step, {}) for step in (*steps, "forget_orphans")])


def size_configs(ddl: OnlineDdl) -> None:
    """Give each config the window of its personalities, where they still say it."""
    if Catalog.read(ddl.session).redesign.has_column("personalities", "context_window_size"):
        _patiently(ddl, "llm_configs", [("size_configs", {})])


def copy_settings(ddl: OnlineDdl, tell: Tell) -> None:
    """Copy what the old columns say into the new tables; what is there already stays."""
    redesign = Catalog.read(ddl.session).redesign
    if redesign.has_column("users", "global_persona_id"):
        tell(Progress("copying the users' defaults"))
        _in_batches(ddl, "copy_defaults", "users")
        # Where the app filled the new table itself, what that says counts.
        _in_batches(ddl, "copy_defaults_back", "users")
    if redesign.has_column("personalities", "llm_config_id"):
        tell(Progress("placing the personalities' configs"))
        while _patiently(ddl, "personalities", [("place_configs", {"limit": _BATCH_ROWS})]):
            pass


def copy_settings_back(ddl: OnlineDdl, tell: Tell) -> None:
    """Fill the users' old column from the new table, on the way back."""
    tell(Progress("copying the users' defaults back"))
    _in_batches(ddl, "copy_defaults_back", "users")


def _in_batches(ddl: OnlineDdl, name: str, table: str) -> None:
    after: UUID | None = None
    size = _BATCH_ROWS
    while True:
        try:
            with ddl.brief_transaction():
                last = ddl.session.row(name, after=after, limit=size).last
        except LockNotHad:
            # A client holds one of the rows. Smaller steps leave more of the others alone.
            size = max(1, size // 2)
            ddl.wait_turn(table)
            continue
        if last is None:
            return
        after = last


def _patiently(ddl: OnlineDdl, table: str, steps: list[tuple[str, dict[str, Any]]]) -> int:
    """Run the statements as one brief transaction, again until it gets its locks.

    Returns how many rows the last one touched.
    """
    while True:
        try:
            with ddl.brief_transaction():
                touched = [ddl.session.run(name, **params) for name, params in steps]
        except LockNotHad:
            ddl.wait_turn(table)
        else:
            return touched[-1]
