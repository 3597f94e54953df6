"""The exit statuses of all commands, and what each means. `memsync help exit-statuses` prints them.

The statuses of errors stand in `memsync.errors`; a test compares the two.
"""

from typing import NamedTuple

from memsync.errors import IncompleteAudit, InvalidInput, MemsyncError

FINDINGS = 1
USAGE = InvalidInput.exit_status
INCOMPLETE = IncompleteAudit.exit_status
INTERNAL_ERROR = MemsyncError.exit_status
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 plus the number of SIGPIPE: the status that a shell reports."""


class ExitStatus(NamedTuple):
    """A status, what it means, and what to do then."""

    status: int
    means: str
    then: str


EXIT_STATUSES = (
    ExitStatus(0, "Done, and clean where the command compares.", ""),
    ExitStatus(
        FINDINGS,
        "Something was found: `migrate verify`, `reconcile`, `check`.",
        "Read it, mend it.",
    ),
    ExitStatus(
        USAGE,
        "An argument, a setting or a file cannot be used; nothing was changed.",
        "Correct it.",
    ),
    ExitStatus(
        3,
        "Part is done and kept, or the run was cancelled; `migrate verify` while a run is at work.",
        "Run it again; for dead entries of the outbox: `memsync sync retry`.",
    ),
    ExitStatus(
        10,
        "Postgres, Qdrant or the embedder does not answer.",
        "Mend it, run the command again.",
    ),
    ExitStatus(11, "Another process holds a lock or a data directory.", "Wait for it, or end it."),
    ExitStatus(
        12,
        "Not the app's database or collection, or not at the stage for this.",
        "Check the URL first.",
    ),
    ExitStatus(13, "The stores have changed since the plan was saved.", "Plan again."),
    ExitStatus(
        14,
        "A phase may not go forward or back yet: a gate of contract, a blocker, no way back; "
        "`migrate plan` where that would stop a run; `reconcile layout set` before its time.",
        "Mend what is named.",
    ),
    ExitStatus(
        INCOMPLETE,
        "Not everything could be read, so nothing is proven.",
        "Mend the cause, audit again.",
    ),
    ExitStatus(16, "The role may not do or see this.", "Grant what is named."),
    ExitStatus(17, "No backup was made.", "Mend what is named."),
    ExitStatus(18, "There is no run to pause, resume or cancel.", "See `memsync migrate status`."),
    ExitStatus(
        INTERNAL_ERROR,
        "An error of memsync's own; a scene of `memsync demo` that does not come true.",
        "Report it.",
    ),
    ExitStatus(INTERRUPTED, "Interrupted.", "Run it again."),
    ExitStatus(PIPE_CLOSED, "The reader of the output has gone, as `head` does.", ""),
)
