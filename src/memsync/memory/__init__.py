"""The library for an app: `Memory` reads and writes, the relay updates long-term memory."""

from memsync.memory.api import Memory, NewExchange, Remembered
from memsync.memory.relay import Drained, drain, outbox_status, revive
from memsync.model.records import Message, Recollection, UserMessage
from memsync.reconcile import Audit, Finding
from memsync.stores.history.outbox import OutboxStatus

__all__ = [
    "Audit",
    "Drained",
    "Finding",
    "Memory",
    "Message",
    "NewExchange",
    "OutboxStatus",
    "Recollection",
    "Remembered",
    "UserMessage",
    "drain",
    "outbox_status",
    "revive",
]
