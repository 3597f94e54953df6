"""Chooses the method of the backfill, in place or by a shadow table (copy), and gives the reason.

The choice depends on obstacles to a shadow table, the size of the history, and whether the server's
disk has space for a copy (disk.py), as far as that can be known from here. Reads only.
"""

from dataclasses import dataclass
from typing import Literal

from memsync.migrate.backfill.checkpoint import fill_is_half_done
from memsync.migrate.backfill.disk import COPY_FACTOR, DiskSpace, disk_space
from memsync.migrate.backfill.shadow_table import obstacles, require_no_obstacles, shadow_state
from memsync.migrate.options import Method
from memsync.model.wording import listed, size
from memsync.stores.history.catalog import Catalog
from memsync.stores.postgres import Session

SMALL_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Choice:
    """The method, and the reason for it in words."""

    method: Literal["in-place", "copy"]
    reason: str

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


def choose_method(session: Session, catalog: Catalog, asked: Method = "auto") -> Choice:
    """Choose the method of the backfill.

    Raises: GateClosed, naming the obstacles, if `asked` is a copy that would lose something.
    """
    if asked == "in-place":
        return Choice("in-place", "asked for")
    if "persona_id" in catalog.columns and not catalog.has_null_persona:
        return Choice("in-place", "no message is without a persona")
    if asked == "copy":
        require_no_obstacles(session)
        return Choice("copy", "asked for")
    return _chosen(session, catalog, obstacles(session))


def _chosen(session: Session, catalog: Catalog, in_the_way: list[str]) -> Choice:
    if in_the_way:
        lost = listed(in_the_way, separator="; ")
        return Choice("in-place", f"a copy would lose something: {lost}")
    if shadow_state(session).begun:
        return Choice("copy", "a copy is half done")
    if catalog.has_own_table("backfill") and fill_is_half_done(session):
        return Choice("in-place", "a fill in place is half done")
    return _by_disk(disk_space(session))


def _by_disk(found: DiskSpace) -> Choice:
    if found.size_bytes < SMALL_BYTES:
        return Choice("in-place", f"table and indexes are small, {size(found.size_bytes)}")
    needed, free = found.copy_bytes, found.free_bytes
    if free is None:
        return Choice(
            "in-place",
            "the free space on the server's disk cannot be known from here; if it is "
            f"{size(needed)} or more, --method copy is quicker",
        )
    said = (
        f"a copy needs {size(needed)} ({COPY_FACTOR} times table and indexes, and WAL), "
        f"{size(free)} are free"
    )
    return Choice("copy" if free >= needed else "in-place", said)
