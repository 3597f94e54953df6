"""In place or by a copy: which way the backfill goes, and why.

Decides by what hangs on the table, how large it is, and whether there is room for it twice on the
server's disk, as far as that can be known from here. Reads only.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memsync.migrate.options import Method
from memsync.model.wording import listed
from memsync.stores.catalog import Catalog
from memsync.stores.copying import obstacles, require_no_obstacles
from memsync.stores.postgres import Session

SMALL_BYTES = 64 * 2**20
_ROOM_FACTOR = 1.5
"""Table and indexes are written anew (1.0), with three more indexes (0.4); the rest is spare."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The way that is taken, and the reason for it in words."""

    method: Literal["in-place", "copy"]
    reason: str

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


def choose_method(session: Session, catalog: Catalog, asked: Method = "auto") -> Choice:
    """Decide how the backfill goes.

    Raises: GateClosed when a copy is asked for that would lose something, naming what.
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
    if session.row("copy_state").begun:
        return Choice("copy", "a copy is half done")
    if "memsync.backfill" in catalog.own_tables and session.row("fill_is_half_done").found:
        return Choice("in-place", "a fill in place is half done")
    size = int(session.row("history_size").bytes_total)
    if size < SMALL_BYTES:
        return Choice("in-place", f"table and indexes are small, {_mib(size)}")
    return _by_room(session, size)


def _by_room(session: Session, size: int) -> Choice:
    disk = session.row("room_on_disk")
    free = _free_bytes(disk.directory, disk.pid) if disk.is_local else None
    if free is None:
        return Choice(
            "in-place",
            "how much room the server's disk has cannot be known from here; where it has "
            f"{_mib(int(_ROOM_FACTOR * size) + disk.wal_bytes)}, --method copy is quicker",
        )
    needed = int(_ROOM_FACTOR * size) + disk.wal_bytes
    said = (
        f"of {_mib(needed)} for a copy ({_ROOM_FACTOR} times table and indexes, and max_wal_size) "
        f"{_mib(free)} are free"
    )
    return Choice("copy" if free >= needed else "in-place", said)


def _free_bytes(directory: str | None, pid: int) -> int | None:
    """The free room of the server's disk; None unless the server runs on this very machine."""
    if directory is None:
        return None
    try:
        # A tunnel makes a far server look local. Its process would not be here.
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return shutil.disk_usage(directory).free if Path(directory).is_dir() else None


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
