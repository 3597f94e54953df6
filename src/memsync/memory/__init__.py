"""The library: what retrieval code calls, and the relay that keeps LTM in step."""

from memsync.memory.api import Memory, NewExchange, Recollection, Remembered
from memsync.memory.relay import Drained, OutboxStatus, drain, outbox_status, revive

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
