"""The orphans, forks and windows that the redesign has to decide or change. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from memsync.errors import SchemaMismatch
from memsync.migrate.attribution import (
    QUARANTINE,
    UnresolvedUser,
    awaited,
    fragments,
    unresolved_users,
)
from memsync.migrate.redesign.owners import Orphan, orphans, rows_of
from memsync.migrate.redesign.requirements import unmet
from memsync.model.wording import count, listed
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import OLD_CHOICES
from memsync.stores.postgres import Session


@dataclass(frozen=True, slots=True)
class Fork:
    """A config whose personalities have several windows: it is copied for each window but one."""

    config_id: UUID
    name: str
    windows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The obstacles and effects of `--orphan-owners quarantine`.

    `refused` says by persona which rows refer to it: it cannot leave the app's table. `left` are
    the users with messages who have no persona then, those who have none now included.
    """

    refused: Mapping[UUID, str]
    left: tuple[UnresolvedUser, ...]

    def __str__(self) -> str:
        if self.refused:
            rows = listed(f"{persona} ({said})" for persona, said in self.refused.items())
            return f"they cannot be quarantined, rows refer to them: {rows}"
        if not self.left:
            return "they can be quarantined"
        users = count(len(self.left), "user")
        messages = count(sum(user.rows for user in self.left), "message")
        return (
            f"quarantined, they leave {users} ({messages}) without a persona, so "
            "--orphan-owners quarantine needs --unresolved create too"
        )


@dataclass(frozen=True, slots=True)
class Prospect:
    """The matters that the redesign has to decide or change.

    `windows_taken` counts users' own choices of a config, which take the config's window from then
    on. `windows_unused` counts personalities without a config, whose window is only archived.
    `quarantine` is None where every orphan has an owner to come.
    """

    orphans: tuple[Orphan, ...]
    forks: tuple[Fork, ...]
    windows_taken: int
    windows_unused: int
    quarantine: Quarantine | None = None


def prospect(session: Session, catalog: Catalog) -> Prospect | None:
    """Read them from the database; None if the app's tables are missing or nothing old is left."""
    settings = catalog.settings
    if settings.missing or settings.old_is_gone:
        return None
    forks: list[Fork] = []
    taken = unused = 0
    windows = ("personalities", "context_window_size"), ("personalities", "llm_config_id")
    if set(windows) <= set(settings.old_columns):
        found = session.rows("conflicting_windows")
        forks = [Fork(row.config_id, row.name, tuple(row.windows)) for row in found]
        place = "old" if settings.has_table(OLD_CHOICES) else "new"
        (counts,) = session.rows_with({"choices": f"choices_{place}"}, "windows_taken")
        taken, unused = counts.choices, counts.unused
    found_orphans = tuple(orphans(session, settings))
    return Prospect(
        orphans=found_orphans,
        forks=tuple(forks),
        windows_taken=taken,
        windows_unused=unused,
        quarantine=_quarantine(session, catalog, found_orphans),
    )


def _quarantine(session: Session, catalog: Catalog, found: Sequence[Orphan]) -> Quarantine | None:
    ids = [each.persona_id for each in found if each.owner is None]
    if not ids:
        return None
    left: tuple[UnresolvedUser, ...] = ()
    if "user_id" in catalog.columns and awaited(catalog):
        left = unresolved_users(session, {**fragments(catalog), **QUARANTINE})
    return Quarantine(rows_of(session, ids), left)


def require_met(session: Session, catalog: Catalog) -> None:
    """Stop, before anything is changed, if the redesign cannot go on from what the app made.

    Raises: SchemaMismatch naming the tables that are missing, or the requirements that are not met.
    """
    missing = catalog.settings.missing
    if missing and "user_id" in catalog.columns:
        raise SchemaMismatch(
            f"{session.label} has no table {', '.join(missing)}: the redesign of the settings "
            "needs it. Check postgres_url; nothing was changed",
            missing=list(missing),
        )
    if missing or catalog.settings.old_is_gone:
        return
    if found := unmet(session, catalog.settings):
        raise SchemaMismatch(
            "the redesign of the settings cannot go on from what is there: "
            f"{'; '.join(found)}. Change that and run again; nothing was changed",
            misfits=found,
        )
