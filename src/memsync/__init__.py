"""memsync: one layer over an app's short-term memory (Postgres) and long-term memory (Qdrant)."""

import logging as _logging

from memsync.errors import (
    DimensionMismatch,
    EmbedderUnreachable,
    IncompleteAudit,
    InvalidInput,
    MemsyncError,
    MissingRight,
    OutcomeUnknown,
    PartlyDone,
    SchemaMismatch,
    SettingsError,
    StoreBusy,
    StoreUnreachable,
)
from memsync.memory import (
    Audit,
    Finding,
    Memory,
    Message,
    NewExchange,
    Recollection,
    Remembered,
    UserMessage,
)
from memsync.settings import Settings

# Without a handler of the app's own, Python would print warnings to stderr.
_logging.getLogger("memsync").addHandler(_logging.NullHandler())

__all__ = [
    "Audit",
    "DimensionMismatch",
    "EmbedderUnreachable",
    "Finding",
    "IncompleteAudit",
    "InvalidInput",
    "Memory",
    "MemsyncError",
    "Message",
    "MissingRight",
    "NewExchange",
    "OutcomeUnknown",
    "PartlyDone",
    "Recollection",
    "Remembered",
    "SchemaMismatch",
    "Settings",
    "SettingsError",
    "StoreBusy",
    "StoreUnreachable",
    "UserMessage",
]
