"""Whether a session speaks with the server itself, or with a pooler that stands between.

Decides by one comparison: the process id that came with the connection against the one that the
server names. A pooler makes up its own, for it hands out one server process to many clients.
Refused in every mode: session locks and SET break in transaction mode, from here a pooler in
session mode looks the same, and whoever migrates can always connect directly.
"""

from memsync.errors import InvalidInput
from memsync.stores.postgres.connection import Session


def processes(session: Session) -> tuple[int, int]:
    """The process that the connection was promised, and the one that serves it now."""
    return session.connection.info.backend_pid, session.row("serving_pid").pid


def require_direct(session: Session) -> None:
    """Stop unless the session's process is the one that the connection was promised.

    Raises: InvalidInput. Nothing was changed.
    """
    promised, serving = processes(session)
    if promised != serving:
        raise InvalidInput(
            f"{session.label} is reached through a connection pooler: the connection was made as "
            f"process {promised}, process {serving} answers. This work holds session locks and "
            "settings, which a pooler may hand to other clients. Connect directly: give "
            "postgres_url the server's own host and port; nothing was changed",
            field="postgres_url",
            promised=promised,
            serving=serving,
        )
