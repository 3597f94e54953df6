"""The redesign's data: defaults and configs copied in batches, and owners for personas without one.

Decides who owns an orphan: the one user who uses it. With none or several it is the operator's to
say; a guess would hand one person's story to another. The tables and triggers are the revisions'.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from memsync.errors import GateClosed, InvalidInput, SchemaMismatch
from memsync.migrate.options import RunOptions
from memsync.migrate.redesign.requirements import misfits
from memsync.model.progress import Kind, Progress, Tell
from memsync.model.wording import listed
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import (
    CHOICES,
    DEFAULTS,
    OLD_CHOICES,
    SIZED,
    Redesign,
    bring_back,
    references_to,
)
from memsync.stores.postgres import Session
from memsync.stores.postgres.ddl import LockNotHad, OnlineDdl

_BATCH_ROWS = 500
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


@dataclass(frozen=True, slots=True)
class Fork:
    """A config whose personalities have several windows: it is copied once for each but one."""

    config_id: UUID
    name: str
    windows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prospect:
    """What the redesign would have to decide or change, where that is not plain.

    `windows_taken` counts users' own choices of a config: its window is theirs from then on.
    `windows_unused` counts personalities without a config: their window is kept in the archive.
    """

    orphans: tuple[Orphan, ...]
    forks: tuple[Fork, ...]
    windows_taken: int
    windows_unused: int


def prospect(session: Session, catalog: Catalog) -> Prospect | None:
    """What lies ahead of the redesign; None once nothing is. Reads only."""
    standing = catalog.redesign
    if standing.missing_tables or standing.old_is_gone:
        return None
    forks: list[Fork] = []
    taken = unused = 0
    if ("personalities", "context_window_size") in standing.old_columns and (
        "personalities",
        "llm_config_id",
    ) in standing.old_columns:
        found = session.rows("conflicting_windows")
        forks = [Fork(row.config_id, row.name, tuple(row.windows)) for row in found]
        old = standing.has_table(OLD_CHOICES)
        choices = {"choices": f"choices_{'legacy' if old else 'redesigned'}"}
        windows = session.rows_with(choices, "windows_taken")[0]
        taken, unused = windows.choices, windows.unused
    return Prospect(
        orphans=tuple(orphans(session, catalog.settings)),
        forks=tuple(forks),
        windows_taken=taken,
        windows_unused=unused,
    )


def orphans(session: Session, settings: Mapping[str, str]) -> list[Orphan]:
    """Every persona without an owner. Reads only."""
    rows = session.rows_with(dict(settings), "orphan_personas")
    return [Orphan(row.id, row.name, tuple(row.users)) for row in rows]


def require_fit(session: Session, catalog: Catalog) -> None:
    """Stop, before anything is changed, where the redesign cannot go on from what the app made.

    Raises: SchemaMismatch saying what does not fit.
    """
    if catalog.redesign.missing_tables or catalog.redesign.old_is_gone:
        return
    if found := misfits(session, catalog.redesign):
        raise SchemaMismatch(
            "the redesign of the settings cannot go on from what is there: "
            f"{'; '.join(found)}. Change that and run again; nothing was changed",
            misfits=found,
        )


def require_owners(session: Session, settings: Mapping[str, str], options: RunOptions) -> None:
    """Stop, before anything is changed, when the owner of a persona is the operator's to say.

    Raises: GateClosed naming the personas; InvalidInput when the owner given is no user.
    """
    if (owner := options.assigned_owner) and not session.row("user_exists", user_id=owner).found:
        raise InvalidInput(f"orphan_owners: there is no user {owner}", field="orphan_owners")
    open_ones = [each for each in orphans(session, settings) if each.owner is None]
    if not open_ones or options.orphan_owners != "fail":
        return
    named = [f"{each.persona_id} ({len(each.users)} users)" for each in open_ones]
    raise GateClosed(
        f"{len(open_ones)} personas have no owner, and not exactly one user uses each: "
        f"{listed(named, _NAMED_MAX)}. Give them an owner, or run again with `--orphan-owners "
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
    persona, session = orphan.persona_id, ddl.session

    def remove() -> dict[str, int]:
        session.run("lock_persona", persona_id=persona)
        if not (referred := references_to(session, persona)):
            session.run_with(dict(catalog.settings), "quarantine_persona", persona_id=persona)
            session.run("remove_persona", persona_id=persona)
        return referred

    if referred := ddl.do(remove, table="personas"):
        # They would go with it, and they are somebody's.
        named = ", ".join(f"{total} of {name}" for name, total in referred.items())
        raise GateClosed(
            f"persona {persona} has no owner and cannot be quarantined, rows refer to it: {named}. "
            "Give it an owner, or run again with `--orphan-owners assign:USER_ID`",
            persona=str(persona),
            rows=sum(referred.values()),
        )


def restore_orphans(ddl: OnlineDdl) -> None:
    """Take the decisions about orphans back: owners go, quarantined personas return.

    Runs when the settings are as they were before the redesign.
    """
    redesign = Catalog.read(ddl.session).redesign
    steps = []
    if redesign.has_column("users", "global_persona_id"):
        steps.append("restore_defaults")
    if redesign.has_table(DEFAULTS):
        steps.append("restore_new_defaults")
    if redesign.has_table(OLD_CHOICES):
        steps.append("restore_choices")
    if redesign.has_table(CHOICES):
        steps.append("restore_new_choices")

    def restore() -> None:
        ddl.session.run("disown")
        bring_back(ddl.session, "personas", "kept_personas")
        for step in (*steps, "forget_orphans"):
            ddl.session.run(step)

    ddl.do(restore, table="personas")


def restore_forks(ddl: OnlineDdl) -> None:
    """Make the forks again that the way back removed, for those who had them."""
    session = ddl.session
    redesign = Catalog.read(session).redesign
    if not redesign.has_column("personalities", "context_window_size"):
        return

    def restore() -> None:
        bring_back(session, "llm_configs", "kept_forks")
        for step in ("take_forks", "take_chosen_forks", "forget_forks"):
            session.run(step)

    ddl.do(restore, table="llm_configs")


def size_configs(ddl: OnlineDdl) -> None:
    """Give each config the window of its personalities, once, where memsync made the column."""
    redesign = Catalog.read(ddl.session).redesign
    if (
        "llm_configs.context_window_size" in redesign.made
        and SIZED not in redesign.made
        and redesign.has_column("personalities", "context_window_size")
    ):
        _patiently(ddl, "llm_configs", [("size_configs", {}), ("note_sized", {})])


def copy_settings(ddl: OnlineDdl, tell: Tell) -> None:
    """Copy what the old columns say into the new tables; what is there already stays and counts.

    Where the way back was cut short it is the other way round: the old columns are not filled yet.
    """
    redesign = Catalog.read(ddl.session).redesign
    returning = redesign.is_halfway_out
    if redesign.stands and not returning:
        return
    if redesign.has_column("users", "global_persona_id"):
        tell(Progress(Kind.STEP, "copying the users' defaults"))
        _in_batches(ddl, "users", partial(_copy_defaults, ddl.session))
        if returning or DEFAULTS not in redesign.made:
            _in_batches(ddl, "users", partial(_copy_defaults_back, ddl.session))
    if redesign.has_column("personalities", "llm_config_id"):
        tell(Progress(Kind.STEP, "placing the personalities' configs"))
        for step in _placing(redesign, returning=returning):
            _patiently(ddl, "personalities", [(step, {})])
        while _patiently(ddl, "personalities", [("place_configs", {"limit": _BATCH_ROWS})]):
            pass


def _placing(redesign: Redesign, *, returning: bool) -> tuple[str, ...]:
    """What comes first: the personalities take what the new table and the configs say."""
    if not redesign.has_column("personalities", "context_window_size"):
        return ("take_placed",)
    if returning:
        return ("copy_configs_back", "restore_windows")
    if "llm_configs.context_window_size" not in redesign.made:
        return ("copy_configs_back",)
    return ("take_placed", "settle_windows")


def copy_settings_back(ddl: OnlineDdl, tell: Tell) -> None:
    """Fill the users' old column from the new table, on the way back."""
    tell(Progress(Kind.STEP, "copying the users' defaults back"))
    _in_batches(ddl, "users", partial(_copy_defaults_back, ddl.session))


def settle_sync(ddl: OnlineDdl) -> None:
    """Say again what the mirror let go where two clients crossed and the later one failed."""
    columns = set(Catalog.read(ddl.session).redesign.old_columns)
    if ("users", "global_persona_id") in columns:
        _patiently(ddl, "users", [("settle_defaults", {})])
    if ("personalities", "llm_config_id") in columns:
        _patiently(ddl, "personalities", [("settle_configs", {})])
        if ("personalities", "context_window_size") in columns:
            _patiently(ddl, "personalities", [("settle_windows", {})])


def _copy_defaults(session: Session, after: UUID | None, limit: int) -> UUID | None:
    last: UUID | None = session.row("copy_defaults", after=after, limit=limit).last
    return last


def _copy_defaults_back(session: Session, after: UUID | None, limit: int) -> UUID | None:
    # Two statements: the second one sees what was written until the first one had the locks.
    last: UUID | None = session.row("lock_users", after=after, limit=limit).last
    if last is not None:
        session.run("copy_defaults_back", after=after, last=last)
    return last


def _in_batches(
    ddl: OnlineDdl, table: str, copy: Callable[[UUID | None, int], UUID | None]
) -> None:
    after: UUID | None = None
    size = _BATCH_ROWS
    while True:
        try:
            with ddl.brief_transaction():
                ddl.session.run("copying")
                last = copy(after, size)
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
    return ddl.do(
        lambda: [ddl.session.run(name, **params) for name, params in steps][-1], table=table
    )
