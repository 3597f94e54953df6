"""memsync: one layer over an app's short-term memory (Postgres) and long-term memory (Qdrant)."""

from memsync.errors import MemsyncError
from memsync.memory import Memory, NewExchange, Recollection, Remembered
from memsync.settings import Settings

__all__ = [
    "Memory",
    "MemsyncError",
    "NewExchange",
    "Recollection",
    "Remembered",
    "Settings",
]
