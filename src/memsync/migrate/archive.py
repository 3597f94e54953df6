"""Counts and removes the archive that the way back from contract needs."""

from dataclasses import dataclass

from memsync.stores.history.catalog import way_back_is_open
from memsync.stores.postgres import Session, relations


@dataclass(frozen=True, slots=True)
class Archive:
    """How much the archive of the way back holds, and whether there is a way back.

    `pairs` counts decisions, and `rows` messages with an entry of their own. `settings` counts
    values of dropped columns, and `personas` those quarantined because they had no owner.
    `way_back` is false where memsync did not drop user_id, and after finalize.
    """

    way_back: bool

    pairs: int
    rows: int
    settings: int
    personas: int


def archive_of(session: Session) -> Archive:
    """Count the entries of the archive. Reads only."""
    size = session.row("archive_size")
    way_back = relations.existing(session, ["memsync.runs"]) and way_back_is_open(session)
    return Archive(bool(way_back), size.pairs, size.rows, size.settings, size.personas)


def remove_archive(session: Session) -> None:
    """Empty the archive, in the caller's transaction. This ends the way back from contract."""
    session.run("remove_archive")
    session.run("remove_merged")
