"""What a session of memsync asks of the server before long work.

Decides which settings of a role or a database do not hold for it. Knows no statement of that work.
"""

from memsync.stores.postgres.connection import Session


def lift_timeouts(session: Session) -> None:
    """Lift the timeouts that a role or a database sets for its clients: long steps take long."""
    session.run("no_timeouts")


def prepare_heavy_work(session: Session) -> None:
    """Give the session memory to sort indexes, and have it write to the disk early.

    What a checkpoint has to sync all at once makes clients wait for their commits.
    """
    session.run("heavy_work")


def deadlock_patience_ms(session: Session) -> int:
    """Half of the server's deadlock_timeout: a wait no longer than this ends before a deadlock is
    looked for, so that of a deadlock the client is never the victim.
    """
    return int(session.row("deadlock_patience").half_ms)
