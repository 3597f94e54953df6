"""Connections to Postgres, transactions, and statements run by name.

Every session has the time zone UTC, an application name and a timeout for connecting. Errors of the
driver become errors of memsync. The module knows no table and no statement: callers pass the name
and the parameters, and get rows whose columns are attributes.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString, Self

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo
from psycopg.rows import namedtuple_row
from psycopg.types.json import Json
from psycopg_pool import ConnectionPool, PoolTimeout

from memsync.errors import (
    GateClosed,
    InvalidInput,
    MemsyncError,
    MissingRight,
    SchemaMismatch,
    StoreBusy,
    StoreUnreachable,
)
from memsync.stores.postgres.statements import statement

CONNECT_TIMEOUT_S = 5
POOL_CONNECTIONS_MAX = 4
_CANCEL_TIMEOUT_S = 5

OWN_STATEMENT = "/* memsync */"
"""memsync's own statements begin with it, which tells its sessions from the app's."""

Connection = psycopg.Connection[Any]
Statement = LiteralString | sql.SQL | sql.Composed


def _conninfo(url: str) -> str:
    given = _parsed(url)
    # PG* variables win over these defaults.
    of_environment = _of_environment()
    ours: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "memsync"}
    for name, value in ours.items():
        if name not in of_environment:
            given.setdefault(name, value)
    return make_conninfo("", **given)


def _parsed(url: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # libpq's own message repeats the URL, and with it the password.
        raise InvalidInput(
            "postgres_url is not a URL that libpq understands; write it as "
            "postgresql://user@host:5432/database, special characters percent-encoded",
            field="postgres_url",
        ) from None


def _of_environment() -> dict[str, str]:
    """The connection's settings from PG* variables and libpq's defaults, for a URL to override."""
    defaults = Conninfo.get_defaults()
    return {each.keyword.decode(): each.val.decode() for each in defaults if each.val}


def _label(conninfo: str) -> str:
    facts = _of_environment() | conninfo_to_dict(conninfo)
    host = facts.get("host") or facts.get("hostaddr") or "its local socket"
    return f"Postgres at {host}/{facts.get('dbname', '')}".rstrip("/")


_Drivers = tuple[type[psycopg.Error], ...]

# memsync's error for each of the driver's. The first match wins; {why} is the server's message.
_MEANINGS: tuple[tuple[_Drivers, type[MemsyncError], str], ...] = (
    (
        (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName),
        SchemaMismatch,
        "{label} is not at the schema this needs: {why}. See `memsync migrate plan`",
    ),
    (
        (errors.DependentObjectsStillExist,),
        GateClosed,
        "another object depends on one that this step drops at {label}: {why}. Drop it first, and "
        "run again",
    ),
    ((errors.WrongObjectType,), SchemaMismatch, "{label} is not as memsync knows it: {why}"),
    (
        (errors.InsufficientPrivilege,),
        MissingRight,
        "the role may not do this at {label}: {why}. Grant it, or connect as the owner of the "
        "tables",
    ),
    (
        (errors.ReadOnlySqlTransaction,),
        SchemaMismatch,
        "{label} takes no writes, not even temporary ones: {why}. Connect to the primary",
    ),
    (
        (errors.ForeignKeyViolation,),
        InvalidInput,
        "a value refers to something that does not exist: {why}. Nothing was written",
    ),
    (
        (errors.CheckViolation,),
        GateClosed,
        "a row does not meet what this step asks for: {why}. Run again; `memsync migrate plan` "
        "lists users without a persona",
    ),
    ((psycopg.DataError,), InvalidInput, "a value does not fit: {why}. Nothing was written"),
    (
        (
            errors.ObjectInUse,
            errors.LockNotAvailable,
            errors.DeadlockDetected,
            errors.SerializationFailure,
            errors.QueryCanceled,
        ),
        StoreBusy,
        "{label} is busy: {why}. Run again",
    ),
    (
        (errors.AdminShutdown, errors.CrashShutdown),
        StoreUnreachable,
        "{label} ended the session: {why}. Committed work is kept; run again once it answers",
    ),
    (
        (errors.DiskFull,),
        StoreUnreachable,
        "the disk of {label} is full: {why}. Committed work is kept; make room, run again",
    ),
    (
        (psycopg.OperationalError, psycopg.InterfaceError),
        StoreUnreachable,
        "{label} does not answer: {why}. Check that it runs and that postgres_url is right",
    ),
)


@contextlib.contextmanager
def translated(label: str) -> Iterator[None]:
    """Turn the driver's errors into memsync's. One not in `_MEANINGS` is a bug, and passes."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnreachable(f"no connection to {label}: {error}") from None
    except psycopg.Error as error:
        for drivers, ours, text in _MEANINGS:
            if isinstance(error, drivers):
                raise ours(text.format(label=label, why=_first_line(error))) from error
        raise


def _first_line(error: psycopg.Error) -> str:
    said = error.diag.message_primary or str(error)
    if isinstance(error, errors.ForeignKeyViolation | errors.DependentObjectsStillExist):
        said = error.diag.message_detail or said
    return said.strip().splitlines()[0].rstrip(".")


def json_value(value: object) -> object:
    """`value` as a parameter for a column of type json."""
    return Json(value)


class Session:
    """One connection in autocommit: statements by name, transactions where asked for."""

    def __init__(self, connection: Connection, label: str) -> None:
        self.connection = connection
        self.label = label

    def rows(self, name: str, /, **params: Any) -> list[Any]:
        """Every row that the named statement returns; columns are attributes."""
        with translated(self.label):
            return self._execute(statement(name), params).fetchall()

    def rows_for_app(self, name: str, /, **params: Any) -> list[Any]:
        """As `rows`, without memsync's own mark: for what the app asks through the library."""
        with translated(self.label):
            return self.connection.execute(statement(name), params).fetchall()

    def rows_with(self, fragments: Mapping[str, str], name: str, /, **params: Any) -> list[Any]:
        """As `rows`, for a statement whose holes the caller fills with named fragments."""
        with translated(self.label):
            return self._execute(statement(name, **fragments), params).fetchall()

    def row(self, name: str, /, **params: Any) -> Any:
        """The first row that the named statement returns, or None."""
        with translated(self.label):
            return self._execute(statement(name), params).fetchone()

    def run(self, name: str, /, **params: Any) -> int:
        """Run the named statement; return the number of rows that it affected."""
        with translated(self.label):
            return self._execute(statement(name), params).rowcount

    def run_with(self, fragments: Mapping[str, str], name: str, /, **params: Any) -> int:
        """As `run`, for a statement whose holes the caller fills with named fragments."""
        with translated(self.label):
            return self._execute(statement(name, **fragments), params).rowcount

    def run_many(self, name: str, rows: Sequence[dict[str, Any]], /) -> None:
        """Run the named statement once for each of `rows`, in one batch."""
        with translated(self.label), self.connection.cursor() as cursor:
            cursor.executemany(f"{OWN_STATEMENT} {statement(name)}", rows)

    def execute(self, *statements: Statement) -> None:
        """Run composed statements, one after the other."""
        with translated(self.label):
            for each in statements:
                self.connection.execute(each)

    def run_script(self, script: str) -> None:
        """Run a text of several statements, as one transaction unless it says otherwise."""
        with translated(self.label):
            self.connection.execute(script.encode())

    def copy_rows(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Write rows into a table by COPY."""
        target = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with (
            translated(self.label),
            self.connection.cursor() as cursor,
            cursor.copy(target) as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def cancel(self) -> None:
        """Ask the server to cancel the running statement. Another thread calls this."""
        # A lost session has no statement to cancel.
        with contextlib.suppress(psycopg.Error):
            self.connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Self]:
        """All statements inside happen together, or none does."""
        with translated(self.label), self.connection.transaction():
            yield self

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Self]:
        """All statements inside see one snapshot of the database, and cannot write."""
        with self.transaction():
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield self

    def _execute(self, text: str, params: dict[str, Any]) -> psycopg.Cursor[Any]:
        # statement() returns only text from the package's own .sql files.
        return self.connection.execute(f"{OWN_STATEMENT} {text}", params)


class Postgres:
    """A Postgres database. `label` names it in messages, without secrets; `conninfo` has them."""

    def __init__(
        self, url: str, *, label: str | None = None, on_close: contextlib.ExitStack | None = None
    ) -> None:
        self.conninfo = _conninfo(url)
        self._on_close = on_close or contextlib.ExitStack()
        self.label = label or _label(self.conninfo)
        self._pool = ConnectionPool(
            self.conninfo,
            connection_class=Connection,
            kwargs={"autocommit": True, "row_factory": namedtuple_row},
            configure=_configure,
            min_size=0,
            max_size=POOL_CONNECTIONS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            open=False,
        )

    @classmethod
    def open(
        cls, url: str, *, label: str | None = None, on_close: contextlib.ExitStack | None = None
    ) -> Self:
        """Connect once to see that the database answers, and open a pool.

        `label` names the database in messages; the default is its host and name. `on_close` is
        closed with the store, which stops an embedded server.

        Raises: StoreUnreachable, InvalidInput.
        """
        store = cls(url, label=label, on_close=on_close)
        try:
            store.dedicated().connection.close()
        except MemsyncError:
            store.close()
            raise
        store._pool.open()
        return store

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A session from the pool."""
        with translated(self.label), self._pool.connection() as connection:
            yield Session(connection, self.label)

    def dedicated(self) -> Session:
        """A session outside the pool, for locks that last as long as their connection.

        Raises: StoreUnreachable.
        """
        with translated(self.label):
            try:
                connection: Connection = psycopg.connect(
                    self.conninfo, autocommit=True, row_factory=namedtuple_row
                )
            except psycopg.ProgrammingError as error:
                raise InvalidInput(
                    f"postgres_url cannot be used: {_first_line(error)}", field="postgres_url"
                ) from None
            _configure(connection)
        return Session(connection, self.label)

    def close(self) -> None:
        """Close the pool and `on_close`."""
        self._pool.close()
        self._on_close.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _configure(connection: Connection) -> None:
    # The app's columns hold UTC without a zone, but their defaults follow the session's zone.
    connection.execute("SET TIME ZONE 'UTC'")
