"""The library: what retrieval code calls, and the relay that keeps LTM in step."""

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
