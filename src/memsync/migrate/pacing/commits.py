"""Tells that a commit of the run waits for a synchronous standby.

Such a commit waits inside the server, without an end, and the session that waits can tell nothing.
So a thread with a session of its own looks, on servers that have synchronous standbys.
"""

import contextlib
import threading
from collections.abc import Iterator

from memsync.errors import MemsyncError
from memsync.model.progress import Kind, Progress, Tell
from memsync.stores.postgres import Postgres, Session

LOOK_EVERY_S = 1.0
_JOIN_S = 5.0
_TELL_EVERY = 10
"""A wait is told when it is seen for the second time, and at each of so many looks after that."""


@contextlib.contextmanager
def waits_told(postgres: Postgres, session: Session, tell: Tell) -> Iterator[None]:
    """Meanwhile, tell when a commit of `session` waits for a synchronous standby."""
    if not session.row("synchronous_standbys").names:
        yield
        return
    ended = threading.Event()
    pid = session.connection.info.backend_pid
    thread = threading.Thread(target=_watch, args=(postgres, pid, tell, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # The thread may hang where the network is dead, and the run must end all the same.
        thread.join(timeout=_JOIN_S)


def _watch(postgres: Postgres, pid: int, tell: Tell, ended: threading.Event) -> None:
    # A watcher that loses its session ends alone: the run goes on without it.
    with contextlib.suppress(MemsyncError), postgres.session() as session:
        seen = 0
        while not ended.wait(LOOK_EVERY_S):
            waits = session.row("waits_for_standby", pid=pid)
            seen = seen + 1 if waits.yes else 0
            if seen % _TELL_EVERY == 2:
                why = (
                    f"waiting: a commit waits for a synchronous standby ({waits.names}); see "
                    "pg_stat_replication"
                )
                tell(Progress(Kind.WAITING_FOR_STANDBY, why))
