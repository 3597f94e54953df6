"""The library for an app: `Memory` reads and writes, the relay updates long-term memory."""

from memsync.memory.api import Memory, NewExchange, Remembered
from memsync.memory.relay import Drained, drain, outbox_status, revive
from memsync.stores.history.outbox import OutboxStatus
from memsync.stores.ltm import Recollection

__all__ = [
    "Drained",
    "Memory",
    "NewExchange",
    "OutboxStatus",
    "Recollection",
    "Remembered",
    "drain",
    "outbox_status",
    "revive",
]
