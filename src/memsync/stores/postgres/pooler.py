"""Tells whether a session reaches the server directly or through a connection pooler.

It compares the process id that came with the connection with the one that the server reports. They
differ behind a pooler, which shares server processes between clients and makes up ids for these. A
pooler is refused in every mode: session locks and SET break in transaction mode, and session mode
looks the same from here. An operator can always connect directly.
"""

from memsync.errors import SettingsError
from memsync.stores.postgres.session import Session


def processes(session: Session) -> tuple[int, int]:
    """The process id that came with the connection, and that of the process that serves it now."""
    # Without pinned settings, which take a transaction: a pooler by statements allows none.
    bare_session = Session(session.connection, session.label)
    return session.connection.info.backend_pid, bare_session.row("serving_pid").pid


def require_direct(session: Session) -> None:
    """Refuse a session that goes through a pooler.

    Raises: SettingsError. Nothing was changed.
    """
    promised, serving = processes(session)
    if promised != serving:
        raise SettingsError(
            f"{session.label} is reached through a connection pooler: the connection was made as "
            f"process {promised}, process {serving} answers. This work holds session locks and "
            "settings, which a pooler may hand to other clients. Connect directly: give "
            "postgres_url the server's own host and port; nothing was changed",
            field="postgres_url",
            promised=promised,
            serving=serving,
        )
