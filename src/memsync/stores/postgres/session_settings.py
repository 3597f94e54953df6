"""Sets up a session of memsync for long work.

Decides which settings of a role or a database it overrides, and does not know the work itself.
"""

from memsync.stores.postgres.connection import Session


def lift_timeouts(session: Session) -> None:
    """Lift the timeouts that a role or a database sets for its clients: long steps take long."""
    session.run("no_timeouts")


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
