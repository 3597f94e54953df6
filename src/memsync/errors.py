"""Every error that memsync raises on purpose, and the exit status that each one means.

MemsyncError
├── InvalidInput              2   a value from the caller cannot be used
│   └── SettingsError         2   the settings cannot be used (all bad fields at once)
├── PartlyDone                3   some work is left; running again resumes it
│   └── Cancelled             3   the operator asked the run to end
├── StoreUnreachable         10   Postgres or Qdrant does not answer
│   ├── EmbedderUnreachable  10   the embedder fails, whatever the text is
│   └── OutcomeUnknown       10   the connection ended while a transaction was being committed
├── StoreBusy                11   another process holds the lock or the data directory
├── SchemaMismatch           12   memsync does not know this schema, or it is not at the right stage
│   └── DimensionMismatch    12   the vectors and the collection differ in size
├── StalePlan                13   a store changed since the plan was made
├── GateClosed               14   a phase of the migration may not go forward or back yet
├── IncompleteAudit          15   something could not be read, so nothing is proven
├── MissingRight             16   the role may not do or see this
├── BackupFailed             17   no backup was made
└── NothingRuns              18   there is no run to pause, resume or cancel

Each status has one meaning; cli/statuses.py has them all, with those that are no errors.

A message says what failed, why (with the expected and the actual value), and what to do. No message
may hold a password or an API key: pass URLs through `memsync.model.secrets.redacted` first.
"""

from collections.abc import Mapping


class MemsyncError(Exception):
    """Base of all errors that memsync raises on purpose.

    `fields` holds the facts of the failure by name; `--json` prints them beside the message.
    """

    exit_status = 70

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields: Mapping[str, object] = fields


class InvalidInput(MemsyncError, ValueError):
    """A value from the caller cannot be used; nothing was written. Correct it and call again."""

    exit_status = 2


class SettingsError(InvalidInput):
    """The settings cannot be used; the message lists every bad field. Correct them all at once."""


class PartlyDone(MemsyncError):
    """Part of the work is done and kept. Run the same command again to finish the rest."""

    exit_status = 3


class Cancelled(PartlyDone):
    """The operator asked the run to end. Its work so far is kept; run again to continue."""


class StoreUnreachable(MemsyncError):
    """A store does not answer. Check that it runs and that its URL is right."""

    exit_status = 10


class EmbedderUnreachable(StoreUnreachable):
    """The embedder fails, whatever the text is: it is down, or refuses for now. Try again later.

    `passes`: the failure may end by itself, so waiting is of use. `retry_after_s` is how long the
    embedder's service asks to be left alone, in seconds; None when it does not say.
    """

    def __init__(
        self, message: str, *, passes: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.passes = passes
        self.retry_after_s = retry_after_s


class OutcomeUnknown(StoreUnreachable):
    """The connection ended during a commit, so it is not known whether anything was written.

    A `remember` with a key of the caller's is repeated by itself, because it writes once.
    """


class StoreBusy(MemsyncError):
    """Another process holds the lock or the data directory. Wait for it, or stop it."""

    exit_status = 11


class SchemaMismatch(MemsyncError):
    """memsync does not know the database or collection, or it is not at the stage for this call.

    Check the URL first.
    """

    exit_status = 12


class DimensionMismatch(SchemaMismatch):
    """The embedder's vectors and the collection's differ in size. Use the collection's embedder."""


class StalePlan(MemsyncError):
    """A store changed since the plan was made. Audit and plan again."""

    exit_status = 13


class GateClosed(MemsyncError):
    """A gate of contract, a blocker or the stage stops a phase, or a change of layout must wait.

    The message names the obstacle and the command that removes it.
    """

    exit_status = 14


class IncompleteAudit(MemsyncError):
    """Something could not be read, so its state is unknown. Fix the cause and audit again."""

    exit_status = 15


class MissingRight(MemsyncError):
    """The role may not do this. Grant it what the message names, or connect as the owner."""

    exit_status = 16


class BackupFailed(MemsyncError):
    """No backup was made, and no partial file is kept. The message says what is needed."""

    exit_status = 17


class NothingRuns(MemsyncError):
    """There is no run to pause, resume or cancel: it has ended, or none was started."""

    exit_status = 18
