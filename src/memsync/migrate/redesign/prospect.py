"""The orphans, forks and windows that the redesign has to decide or change. Reads only."""

from dataclasses import dataclass
from uuid import UUID

from memsync.errors import SchemaMismatch
from memsync.migrate.redesign.owners import Orphan, orphans
from memsync.migrate.redesign.requirements import unmet
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
class Prospect:
    """The matters that the redesign has to decide or change.

    `windows_taken` counts users' own choices of a config, which take the config's window from then
    on. `windows_unused` counts personalities without a config, whose window is only archived.
    """

    orphans: tuple[Orphan, ...]
    forks: tuple[Fork, ...]
    windows_taken: int
    windows_unused: int


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
    return Prospect(
        orphans=tuple(orphans(session, settings)),
        forks=tuple(forks),
        windows_taken=taken,
        windows_unused=unused,
    )


def require_met(session: Session, catalog: Catalog) -> None:
    """Stop, before anything is changed, if the redesign cannot go on from what the app made.

    Raises: SchemaMismatch naming the requirements that are not met.
    """
    if catalog.settings.missing or catalog.settings.old_is_gone:
        return
    if found := unmet(session, catalog.settings):
        raise SchemaMismatch(
            "the redesign of the settings cannot go on from what is there: "
            f"{'; '.join(found)}. Change that and run again; nothing was changed",
            misfits=found,
        )
