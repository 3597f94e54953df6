"""How much room each way of the backfill needs on the server's disk, and how much is free there.

Decides one factor for each way. What is free is known only where the server runs on this machine
and its folder may be looked at; where it is not known, nothing is claimed. Reads only.
"""

import os
import shutil
from dataclasses import dataclass

from memsync.stores.postgres import Session

IN_PLACE_FACTOR = 0.5
"""Table and indexes grow by a third (docs/benchmarks.md); the rest is spare."""
COPY_FACTOR = 1.4
"""Both are written anew, with two more indexes (1.2); the rest is spare, and for sorting."""
_WAL_FACTOR = 2


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """What the history takes, what its WAL may, and what is free: None where that is not known."""

    table_bytes: int
    index_bytes: int
    wal_bytes_max: int
    free_bytes: int | None

    @property
    def size_bytes(self) -> int:
        """The table with its indexes."""
        return self.table_bytes + self.index_bytes

    @property
    def wal_bytes(self) -> int:
        """The WAL: max_wal_size at most, and no more than the fill of a small table writes."""
        return min(self.wal_bytes_max, _WAL_FACTOR * self.size_bytes)

    @property
    def in_place_bytes(self) -> int:
        """What a fill in place needs."""
        return int(IN_PLACE_FACTOR * self.size_bytes) + self.wal_bytes

    @property
    def copy_bytes(self) -> int:
        """What a copy needs."""
        return int(COPY_FACTOR * self.size_bytes) + self.wal_bytes


def disk_space(session: Session) -> DiskSpace:
    """Ask the server what the history takes, and its disk what is free."""
    found = session.row("disk_space")
    free = _free_bytes(found.folder, found.pid) if found.here and found.folder else None
    return DiskSpace(found.table_bytes, found.index_bytes, found.wal_bytes, free)


def mib(size: int) -> str:
    """A size for people."""
    return f"{size / 2**20:.1f} MiB"


def _free_bytes(folder: str, pid: int) -> int | None:
    """The free room at `folder`; None unless the server's process `pid` is on this very machine."""
    try:
        # A tunnel makes a far server look local. Its process would not be here.
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # not on this machine after all, or not for our eyes
        return None
