"""Reads from the catalog a table's columns, indexes, constraints, triggers and blockers.

Every function asks the server each time and caches nothing. Relations are found by the session's
search_path. The module does not know what a table means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import errors, sql

from memsync.stores.postgres.driver_errors import translated
from memsync.stores.postgres.session import Session
from memsync.stores.postgres.statements import composed


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session or a prepared transaction that blocks a lock; a prepared one has no pid.

    `open_s` is the age of its transaction. `query` is the session's statement, or the statement
    that ends the prepared transaction.
    """

    pid: int | None
    state: str
    query: str
    open_s: float

    def __str__(self) -> str:
        who = f"pid {self.pid}" if self.pid else "prepared transaction"
        return f"{who} ({self.state}, {self.open_s:.0f} s): {self.query}"


def existing(session: Session, names: Sequence[str]) -> frozenset[str]:
    """Which of the named relations exist."""
    return frozenset(row.name for row in session.rows("relations", names=list(names)))


def columns(session: Session, relation: str) -> dict[str, bool]:
    """The columns of a table in their order, each with whether it is NOT NULL."""
    return {row.name: row.not_null for row in session.rows("columns", relation=relation)}


def insertable_columns(session: Session, relation: str) -> list[str]:
    """The columns that an INSERT may name, in their order; generated ones are left out."""
    return [row.name for row in session.rows("insertable", relation=relation)]


def indexes(session: Session, relation: str) -> dict[str, bool]:
    """The indexes of a table, each with whether it is valid and ready."""
    return {row.name: row.valid for row in session.rows("indexes", relation=relation)}


def constraints(session: Session, relation: str) -> dict[str, bool]:
    """The constraints of a table, each with whether it is validated."""
    return {row.name: row.valid for row in session.rows("constraints", relation=relation)}


def triggers(session: Session, relation: str) -> frozenset[str]:
    """The triggers on a table, without the server's internal ones."""
    return frozenset(row.name for row in session.rows("triggers", relation=relation))


def schema_of(session: Session, relation: str) -> sql.Identifier:
    """The schema in which the search path finds the relation."""
    return sql.Identifier(session.row("schema_of", relation=relation).name)


def search_path(session: Session) -> tuple[str, ...]:
    """The schemas in which the session finds the app's tables."""
    return tuple(session.row("search_path").schemas)


def server_version(session: Session) -> int:
    """The server's version as one number: 150004 is 15.4."""
    return int(session.row("server_version").number)


_MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
"""The modes of a lock on a table, weakest first."""

Wanted = Literal["any lock", "rows", "key", "index"]

_IN_THE_WAY: Mapping[Wanted, Sequence[str]] = {
    "any lock": _MODES,
    "rows": _MODES[1:],
    "key": _MODES[2:],
    "index": [mode for mode in _MODES[2:] if mode != "ShareLock"],
}
"""The modes that block: ACCESS EXCLUSIVE; row locks of a writer, which each come with one of these;
SHARE ROW EXCLUSIVE, as a foreign key takes it; SHARE, for which a concurrent index build waits.
https://www.postgresql.org/docs/current/explicit-locking.html#TABLE-LOCK-COMPATIBILITY"""


def blockers(session: Session, relation: str, wanted: Wanted = "any lock") -> list[Blocker]:
    """The sessions that block the lock that is wanted, or else those who wait; the five oldest."""
    rows = session.rows("blockers", relation=relation, modes=list(_IN_THE_WAY[wanted]))
    return [Blocker(row.pid, row.state, row.query, row.open_s) for row in rows]


def refused_write(session: Session, table: str) -> str | None:
    """Why the server refuses every UPDATE or DELETE of the table; None if it does not.

    A publication does that where a row's replica identity is missing, or is not published whole.
    The server is asked by EXPLAIN, which checks it, fires no trigger and writes nothing.
    """
    named = sql.Identifier(table)
    column = sql.Identifier(insertable_columns(session, table)[0])
    for probe in (
        composed("probe_update", table=named, column=column),
        composed("probe_delete", table=named),
    ):
        # A transaction of its own, or a savepoint: a refusal must not end the caller's.
        with translated(session.label):
            try:
                with session.connection.transaction():
                    session.connection.execute(probe)
            except (errors.ObjectNotInPrerequisiteState, errors.InvalidColumnReference) as error:
                said = (error.diag.message_primary, error.diag.message_detail)
                return ": ".join(each.rstrip(".") for each in said if each)
            except errors.InsufficientPrivilege:
                return None
    return None
