"""Sets up a session of memsync for long work.

Decides what memory and patience it gets, and does not know the work itself. The settings that every
session pins are in `session.Pins`.
"""

from memsync.stores.postgres.session import Session


def prepare_heavy_work(session: Session) -> None:
    """Give the session memory to sort indexes, and make it write to disk early.

    A checkpoint that has to sync much at once makes clients wait for their commits.
    """
    session.run("heavy_work")


def deadlock_patience_ms(session: Session) -> int:
    """Half of the server's deadlock_timeout.

    A wait for a lock of at most this length ends before the server looks for deadlocks
    (https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-DEADLOCK-TIMEOUT), so a
    client is never the victim of one.
    """
    return int(session.row("deadlock_patience").half_ms)
