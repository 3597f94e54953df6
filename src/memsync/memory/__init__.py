"""The library for an app: `Memory` reads and writes, the relay updates long-term memory."""

from memsync.memory.api import Memory, NewExchange, Remembered
from memsync.memory.follow import Follower
from memsync.memory.relay import Drained, drain, outbox_status, revive
from memsync.memory.stores import Stores
from memsync.model.records import Message, Recollection, UserMessage
from memsync.reconcile import Audit, Finding
from memsync.stores.history.outbox import OutboxStatus

__all__ = [
    "Audit",
    "Drained",
    "Finding",
    "Follower",
    "Memory",
    "Message",
    "NewExchange",
    "OutboxStatus",
    "Recollection",
    "Remembered",
    "Stores",
    "UserMessage",
    "drain",
    "outbox_status",
    "revive",
]
