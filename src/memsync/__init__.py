"""memsync: one layer over an app's short-term memory (Postgres) and long-term memory (Qdrant).

Errors are here at once. All other names are imported when they are first used, because the command
`memsync` imports this package before it can hear Ctrl-C, and drivers take half a second.
"""

import importlib as _importlib
import logging as _logging
import typing as _typing

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

if _typing.TYPE_CHECKING:
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

if not _typing.TYPE_CHECKING:  # a type checker goes by the imports above, and finds a wrong name

    def __getattr__(name: str) -> object:
        """A public name that was not used before; from then on it is an attribute as others are."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "memsync.settings" if name == "Settings" else "memsync.memory"
        found = globals()[name] = getattr(_importlib.import_module(home), name)
        return found

    def __dir__() -> list[str]:
        """All names, also those that were not used before."""
        return sorted({*globals(), *__all__})
