"""Runs DDL and other statements that need strong locks, and blocks clients only briefly.

Clients queue behind a statement that waits for a strong lock. So such a statement waits no longer
than lock_timeout
(https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT), gives up,
sleeps for a random time and tries again. After a deadline the error names the sessions in the way.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self, TypeVar

from psycopg import errors, sql

from memsync.errors import GateClosed, InvalidInput, StoreBusy
from memsync.model.progress import Kind, Progress, Tell
from memsync.stores.postgres import relations
from memsync.stores.postgres.driver_errors import translated
from memsync.stores.postgres.relations import Blocker, Wanted
from memsync.stores.postgres.session import Session, Statement

Result = TypeVar("Result")

_BACKOFF_START_S = 0.05
_BACKOFF_MAX_S = 2.0
_TELL_EVERY_S = 5.0


class LockNotHad(Exception):
    """No lock within lock_timeout, or a deadlock; the transaction is rolled back."""


class OnlineDdl:
    """Runs statements that take locks, on one session.

    `tell` gets a report of every wait, and every 5 s of a long one. `between` is called before an
    index is built and before a lock is tried again, while no transaction is open.
    """

    def __init__(
        self,
        session: Session,
        *,
        lock_timeout_ms: int,
        deadline_s: float,
        tell: Tell,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.session = session
        self._lock_timeout_ms = lock_timeout_ms
        self.deadline_s = deadline_s
        self._tell = tell
        self._between = between
        self.waits = 0
        self._waiting_since: float | None = None
        self._told_at = 0.0
        self._backoff_s = _BACKOFF_START_S

    @contextlib.contextmanager
    def brief_transaction(self, *, ends_wait: bool = True) -> Iterator[None]:
        """A transaction in which no statement waits longer than lock_timeout for a lock.

        Its success ends the wait for the lock. `ends_wait` is false for a step before that.

        Raises: LockNotHad, after rolling back.
        """
        try:
            with self.session.transaction():
                self._queue_for(self._lock_timeout_ms)
                yield
        except StoreBusy as error:
            if isinstance(error.__cause__, errors.LockNotAvailable | errors.DeadlockDetected):
                raise LockNotHad from error
            raise
        if ends_wait:
            self.had_turn()

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """Inside a brief transaction: lift lock_timeout where only memsync's own locks block."""
        self._queue_for(0)
        yield
        self._queue_for(self._lock_timeout_ms)

    def _queue_for(self, timeout_ms: int) -> None:
        self.session.connection.execute(
            sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(timeout_ms))
        )

    def had_turn(self) -> None:
        """End the wait for a lock, because it was granted."""
        self._waiting_since, self._backoff_s = None, _BACKOFF_START_S

    def beside(self, session: Session) -> Self:
        """An OnlineDdl with the same limits on another session, for work at the same time."""
        return type(self)(
            session,
            lock_timeout_ms=self._lock_timeout_ms,
            deadline_s=self.deadline_s,
            tell=self._tell,
        )

    def wait_turn(self, table: str, blockers: Sequence[Blocker] | None = None) -> None:
        """Sleep before the next try for a lock on `table`, longer each time in a row.

        `blockers` are the sessions in the way; without it, those that hold any lock on the table.

        Raises: StoreBusy, naming the sessions in the way, when the deadline has passed.
        """
        now = time.monotonic()
        self.waits += 1
        self._waiting_since = self._waiting_since or now
        if blockers is None:
            blockers = relations.blockers(self.session, table)
        who = "; ".join(map(str, blockers))
        if now - self._waiting_since > self.deadline_s:
            raise StoreBusy(
                f"no lock on {table} within {self.deadline_s:.0f} s. In the way: "
                f"{who or 'nobody now'}. End that transaction and run again; nothing is lost",
                table=table,
                pids=[b.pid for b in blockers if b.pid],
            )
        if now == self._waiting_since or now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            waiting = f"waiting for a lock on {table}; in the way: {who or 'nobody now'}"
            self._tell(Progress(Kind.WAITING_FOR_LOCK, waiting))
        time.sleep(self._backoff_s * (0.5 + random.random()))  # noqa: S311  jitter, no secret
        self._backoff_s = min(self._backoff_s * 2, _BACKOFF_MAX_S)
        self._between()

    def run(self, *statements: Statement, table: str, wanted: Wanted = "any lock") -> None:
        """Run the statements as one transaction, and try again until it gets its locks.

        `table` is the one whose lock is hardest to get, `wanted` that lock. Raises: StoreBusy after
        the deadline.
        """

        def execute() -> None:
            began, left_ms = time.monotonic(), self._lock_timeout_ms
            for statement in statements:
                # Clients that queue for the first lock wait for the others, too, so all the
                # statements share one lock_timeout.
                used_ms = int((time.monotonic() - began) * 1000)
                share_ms = max(self._lock_timeout_ms - used_ms, self._lock_timeout_ms // 4, 1)
                if left_ms - share_ms > self._lock_timeout_ms // 10:
                    left_ms = share_ms
                    self._queue_for(left_ms)
                self.session.connection.execute(statement)

        self.do(execute, table=table, wanted=wanted)

    def do(self, work: Callable[[], Result], *, table: str, wanted: Wanted = "any lock") -> Result:
        """As `run`, for `work` that also reads or decides; return its result."""
        while True:
            try:
                with self.brief_transaction():
                    return work()
            except LockNotHad:
                self.wait_turn(table, relations.blockers(self.session, table, wanted))

    def run_long(self, statement: Statement) -> None:
        """Run a statement that takes long but does not block readers and writers.

        It has no lock_timeout, because CREATE INDEX CONCURRENTLY waits for open transactions by
        design (https://www.postgresql.org/docs/current/sql-createindex.html).
        """
        with translated(self.session.label):
            self.session.connection.execute(statement)

    def foreign_key(self, table: str, column: str, parent: str, *, sets_null: bool = False) -> None:
        """Add the foreign key NOT VALID, named as the app's are; `validate` must follow.

        Locks: SHARE ROW EXCLUSIVE on both tables, for a moment.
        """
        name = f"{table}_{column}_fkey"
        if name not in relations.constraints(self.session, table):
            text = (
                "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} (id)"
                " ON UPDATE CASCADE ON DELETE CASCADE NOT VALID"
            )
            if sets_null:
                text = text.replace("ON DELETE CASCADE", "ON DELETE SET NULL")
            names = map(sql.Identifier, (table, name, column, parent))
            self.run(sql.SQL(text).format(*names), table=table, wanted="key")

    def validate(self, table: str, constraint: str) -> None:
        """Validate the constraint unless it is valid; readers and writers are not blocked."""
        if not relations.constraints(self.session, table)[constraint]:
            self.run_long(
                sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                    sql.Identifier(table), sql.Identifier(constraint)
                )
            )

    def require_not_null(self, table: str, column: str, check: str) -> None:
        """Make the column NOT NULL without a scan that blocks clients.

        SET NOT NULL scans under ACCESS EXCLUSIVE, unless a validated check proves the same
        (https://www.postgresql.org/docs/current/sql-altertable.html). The check is dropped in a
        separate statement, because ALTER TABLE executes its drops first.

        Raises: GateClosed when a row has no value; the check is dropped, so that it does not refuse
        clients' writes.
        """
        of_table, of_column, named = map(sql.Identifier, (table, column, check))
        try:
            if not relations.columns(self.session, table)[column]:
                if check not in relations.constraints(self.session, table):
                    self.run(
                        sql.SQL(
                            "ALTER TABLE {} ADD CONSTRAINT {} CHECK ({} IS NOT NULL) NOT VALID"
                        ).format(of_table, named, of_column),
                        table=table,
                    )
                self.validate(table, check)
                # lint: allow SET-NOT-NULL the check validated above proves it without a scan
                self.run(
                    sql.SQL("ALTER TABLE {} ALTER {} SET NOT NULL").format(of_table, of_column),
                    table=table,
                )
        except InvalidInput as error:
            if not isinstance(error.__context__, errors.CheckViolation):
                raise
            self._drop_constraint(table, check)
            raise GateClosed(
                f"a row of {table} has no {column}. Run again; `memsync migrate plan` lists users "
                "without a persona"
            ) from error
        self._drop_constraint(table, check)

    def _drop_constraint(self, table: str, name: str) -> None:
        if name in relations.constraints(self.session, table):
            self.run(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                    sql.Identifier(table), sql.Identifier(name)
                ),
                table=table,
            )

    def index(self, name: str, statement: Statement, *, table: str) -> None:
        """Build the index concurrently unless a valid one exists; an INVALID one is rebuilt.

        An interrupted build leaves an INVALID index, which every write updates and no query uses.
        """
        standing = relations.indexes(self.session, table)
        if standing.get(name):
            return
        self._between()
        if name in standing:
            rebuilding = f"index {name} is INVALID, its build was cut short: rebuilding"
            self._tell(Progress(Kind.STEP, rebuilding))
            self.run_long(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(name)))
        if blockers := relations.blockers(self.session, table, "index"):
            who = "; ".join(map(str, blockers))
            waiting = f"waiting, if they stay open, for transactions on {table}: {who}"
            self._tell(Progress(Kind.WAITING_FOR_TRANSACTIONS, waiting))
        self.run_long(statement)
