"""How much disk each method of the backfill needs on the server, and how much is free there.

The need is the size of the history times a factor for each method, and WAL. The free space is known
only if the server runs on this machine and its folder can be read; otherwise it is None. Reads
only.
"""

import os
import shutil
from dataclasses import dataclass

from memsync.stores.postgres import Session

IN_PLACE_FACTOR = 0.5
"""Table and indexes grow by a third (docs/benchmarks.md); the rest is a reserve."""
COPY_FACTOR = 1.4
"""Table and indexes are written anew, with two more indexes (1.2). The rest is a reserve, and for
sorting.
"""
_WAL_FACTOR = 2


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes that the history takes, that WAL may take, and that are free (None: not known)."""

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
        """Bytes for WAL: max_wal_size, but for a small table no more than its fill writes."""
        return min(self.wal_bytes_max, _WAL_FACTOR * self.size_bytes)

    @property
    def in_place_bytes(self) -> int:
        """Bytes that a fill in place needs."""
        return int(IN_PLACE_FACTOR * self.size_bytes) + self.wal_bytes

    @property
    def copy_bytes(self) -> int:
        """Bytes that a shadow table needs."""
        return int(COPY_FACTOR * self.size_bytes) + self.wal_bytes


def disk_space(session: Session) -> DiskSpace:
    """Ask the server for the size of the history, and its disk for the free space."""
    found = session.row("disk_space")
    free = _free_bytes(found.folder, found.pid) if found.here and found.folder else None
    return DiskSpace(found.table_bytes, found.index_bytes, found.wal_bytes, free)


def _free_bytes(folder: str, pid: int) -> int | None:
    """Free bytes at `folder`; None unless the server's process `pid` runs on this machine."""
    try:
        # A tunnel makes a remote server look local, but its process does not run here.
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # not on this machine after all, or not readable
        return None
