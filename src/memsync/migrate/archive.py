"""The archive that the way back needs: what it holds, and its removal."""

from dataclasses import dataclass

from memsync.stores.postgres import Session


@dataclass(frozen=True, slots=True)
class Archive:
    """What the archive of the way back holds.

    `pairs` are decisions, `rows` messages that differ from them; `settings` are values of dropped
    columns, `personas` those that were quarantined for want of an owner.
    """

    pairs: int
    rows: int
    settings: int
    personas: int


def archive_of(session: Session) -> Archive:
    """What the archive holds now. Reads only."""
    size = session.row("archive_size")
    return Archive(size.pairs, size.rows, size.settings, size.personas)


def remove_archive(session: Session) -> None:
    """Empty the archive, in the caller's transaction. There is no way back from contract then."""
    session.run("remove_archive")
    session.run("remove_merged")
