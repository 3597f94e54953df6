"""Tells which columns a database lacks because an older memsync made the tables of repairs.

`memsync migrate run` adds them. What only reads says so and leaves the rest out; what would write
is refused before its first write.
"""

from memsync.errors import SchemaMismatch
from memsync.model.wording import listed
from memsync.stores.postgres import Session, relations

LATER = {
    "memsync.repair": ("done_before", "set_aside"),
    "memsync.journal": ("source_collection", "source_id", "is_replaced", "noted_before"),
}
"""The columns that came after the first build that made the table."""


def why_older(session: Session) -> str | None:
    """What an older memsync did not make, and the command that adds it; None where all stands."""
    lacking = []
    for table, later in LATER.items():
        # Where there is no table there is nothing older.
        if standing := relations.columns(session, table):
            lacking += [f"{table}.{each}" for each in later if each not in standing]
    if not lacking:
        return None
    return (
        f"{session.label} has no {listed(lacking)}: an older memsync made its schema. `memsync "
        "migrate run` adds what is missing"
    )


def require_columns(session: Session) -> None:
    """Refuse a database that an older memsync made. Raises: SchemaMismatch."""
    if why := why_older(session):
        raise SchemaMismatch(f"nothing was changed, because {why}")
