"""The settings of memsync's sessions, whatever a role, a database or the environment says.

Decides what every session pins, and what memory and patience a session for long work gets. It does
not know the work itself.
"""

from dataclasses import dataclass

from memsync.stores.postgres.session import Session


@dataclass(frozen=True, slots=True)
class Pins:
    """The pinned settings that are not the same for every session.

    `search_path` is where the app's tables are; None leaves it to the role. `filtered` lets row
    level security hide rows from this session, as it does from the app; else a policy that would
    hide one is an error. `statement_timeout_ms` ends a statement that takes longer; 0 lets it take
    any time. `idle_in_transaction_ms` ends a session that does nothing in a transaction for longer;
    None leaves that to the role.
    """

    search_path: str | None = None
    filtered: bool = False
    statement_timeout_ms: int = 0
    idle_in_transaction_ms: int | None = 0


def pin(session: Session, pins: Pins, *, local: bool = False) -> None:
    """Pin the settings of the session, or with `local` those of its open transaction.

    default_transaction_read_only, synchronous_commit and the role itself are left as they are,
    because an operator sets them on purpose; but see `make_commits_durable`.
    """
    idle_ms = pins.idle_in_transaction_ms
    session.rows(
        "pin_settings",
        local=local,
        search_path=pins.search_path,
        row_security="on" if pins.filtered else "off",
        statement_timeout=f"{pins.statement_timeout_ms}ms",
        idle_in_transaction=None if idle_ms is None else f"{idle_ms}ms",
    )


def make_commits_durable(session: Session, *, local: bool = False) -> None:
    """Let a commit of the session, or with `local` that of its open transaction, wait for the disk.

    For what must not be lost before another store is changed. A higher level stays.
    """
    session.rows("durable_commits", local=local)


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
