"""A session on Postgres: statements by name, transactions, snapshots.

It decides how transactions are isolated, and that a session serves only the process that opened it.
`session_settings` has the settings that it runs under. The module knows no table and no statement:
callers pass the name and the parameters, and get rows whose columns are attributes.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString, Self

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Json

from memsync.errors import MemsyncError, OutcomeUnknown
from memsync.stores.postgres.driver_errors import reason, translated
from memsync.stores.postgres.statements import statement

OWN_STATEMENT = "/* memsync */"
"""memsync's own statements begin with it, which tells its sessions from the app's."""

_CANCEL_TIMEOUT_S = 5

Connection = psycopg.Connection[Any]
Statement = LiteralString | sql.SQL | sql.Composed


def json_value(value: object) -> object:
    """`value` as a parameter for a column of type json."""
    return Json(value)


class Session:
    """One connection in autocommit: statements by name, transactions where asked for.

    `pin_each` pins the settings of each transaction, for a connection through a pooler: there the
    settings of a session would stay behind for other clients. Each statement then has a
    transaction.
    """

    def __init__(
        self,
        connection: Connection,
        label: str,
        *,
        pin_each: Callable[["Session"], None] | None = None,
    ) -> None:
        self.connection = connection
        self.label = label
        self._pin_each = pin_each
        self._pid = os.getpid()

    def rows(self, name: str, /, **params: Any) -> list[Any]:
        """Every row that the named statement returns; columns are attributes."""
        with self._running():
            return self._execute(statement(name), params).fetchall()

    def rows_for_app(self, name: str, /, **params: Any) -> list[Any]:
        """As `rows`, without memsync's own mark: for what the app asks through the library."""
        with self._running():
            return self.connection.execute(statement(name), params).fetchall()

    def rows_with(self, fragments: Mapping[str, str], name: str, /, **params: Any) -> list[Any]:
        """As `rows`, for a statement whose holes the caller fills with named fragments."""
        with self._running():
            return self._execute(statement(name, **fragments), params).fetchall()

    def row(self, name: str, /, **params: Any) -> Any:
        """The first row that the named statement returns, or None."""
        with self._running():
            return self._execute(statement(name), params).fetchone()

    def run(self, name: str, /, **params: Any) -> int:
        """Run the named statement; return the number of rows that it affected."""
        with self._running():
            return self._execute(statement(name), params).rowcount

    def run_with(self, fragments: Mapping[str, str], name: str, /, **params: Any) -> int:
        """As `run`, for a statement whose holes the caller fills with named fragments."""
        with self._running():
            return self._execute(statement(name, **fragments), params).rowcount

    def run_many(self, name: str, rows: Sequence[dict[str, Any]], /) -> None:
        """Run the named statement once for each of `rows`, in one batch."""
        with self._running(), self.connection.cursor() as cursor:
            cursor.executemany(f"{OWN_STATEMENT} {statement(name)}", rows)

    def execute(self, *statements: Statement) -> None:
        """Run composed statements, one after the other."""
        with self._running():
            for each in statements:
                self.connection.execute(each)

    def run_script(self, script: str) -> None:
        """Run a text of several statements, as one transaction unless it says otherwise."""
        with self._running():
            self.connection.execute(script.encode())

    def copy_rows(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Write rows into a table by COPY."""
        target = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self._running(), self.connection.cursor() as cursor, cursor.copy(target) as copy:
            for row in rows:
                copy.write_row(row)

    def stream(
        self, name: str, types: Sequence[str], /, **fragments: str
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a statement without parameters, one by one, whose columns have these types.

        However many there are, memory does not grow. Until all are read the session serves nothing
        else.
        """
        query = f"{OWN_STATEMENT} COPY ({statement(name, **fragments)}) TO STDOUT (FORMAT BINARY)"
        with self._running(), self.connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types(list(types))
            yield from copy.rows()

    def cancel(self) -> None:
        """Ask the server to cancel the running statement. Another thread calls this."""
        # A lost session has no statement to cancel.
        with contextlib.suppress(psycopg.Error):
            self.connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended, so that only another session can go on."""
        return self.connection.closed

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Self]:
        """All statements inside happen together, or none does.

        Raises: OutcomeUnknown when the connection ends while the commit is under way.
        """
        with translated(self.label), self._begun():
            yield self

    @contextlib.contextmanager
    def snapshot(self, of: str | None = None) -> Iterator[Self]:
        """All statements inside see one snapshot of the database, and cannot write.

        `of` is the id of one that another session exported; not through a pooler, where the pinned
        settings come first.
        """
        with translated(self.label), self._begun(IsolationLevel.REPEATABLE_READ, read_only=True):
            if of is not None:
                self.connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(of))
            yield self

    @contextlib.contextmanager
    def _begun(
        self, level: IsolationLevel = IsolationLevel.READ_COMMITTED, *, read_only: bool = False
    ) -> Iterator[None]:
        """A transaction that says how it is isolated, or a savepoint inside one."""
        self._require_own_process()
        connection, committing = self.connection, False
        outermost = connection.info.transaction_status is TransactionStatus.IDLE
        if outermost:
            connection.isolation_level = level
            # None leaves it to the server: a role may be read-only on purpose.
            connection.read_only = read_only or None
        try:
            with connection.transaction():
                if outermost and self._pin_each:
                    self._pin_each(self)
                yield
                committing = outermost
        except psycopg.Error as error:
            if committing and connection.closed:
                raise OutcomeUnknown(
                    f"the connection to {self.label} ended while a transaction was being "
                    f"committed: {reason(error)}. It may be committed or not; read before you "
                    "write again"
                ) from error
            raise

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Around a statement: errors are translated; through a pooler it has a transaction."""
        self._require_own_process()
        with translated(self.label):
            if self._pin_each is None:
                yield
            else:
                with self._begun():
                    yield

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise MemsyncError(
                f"this session on {self.label} was opened by process {self._pid}, and process "
                f"{os.getpid()} uses it. Two processes on one connection get each other's "
                "answers; open a session in each"
            )

    def _execute(self, text: str, params: dict[str, Any]) -> psycopg.Cursor[Any]:
        # statement() returns only text from the package's own .sql files.
        return self.connection.execute(f"{OWN_STATEMENT} {text}", params)
