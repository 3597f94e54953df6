"""A database of Postgres: where it is, its pool of sessions, and calls that are tried again.

It decides how a session is opened, whether it goes through a pooler, and what is tried again: only
what is known not to be committed. A forked process gets a pool of its own. `session` runs the
statements, `driver_errors` translates failures.
"""

import contextlib
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo
from psycopg.rows import namedtuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from memsync import forks
from memsync.errors import MemsyncError, OutcomeUnknown, SettingsError, StoreBusy, StoreUnreachable
from memsync.model.urls import PostgresUrl
from memsync.stores.postgres.driver_errors import connecting, translated
from memsync.stores.postgres.pooler import processes
from memsync.stores.postgres.session import Connection, Session
from memsync.stores.postgres.session_settings import Pins, pin

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 5
POOL_CONNECTIONS_MAX = 4
_PORT = "5432"
_CONFLICTS_MAX = 8
_PAUSE_START_S = 0.005
_PAUSE_MAX_S = 0.1

# A connection whose other end is gone without a word is noticed within a minute or two. Keepalives
# notice it while the connection is quiet, and tcp_user_timeout while a statement is on its way.
DEFAULTS: Mapping[str, str | int] = {
    "application_name": "memsync",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 90_000,
}


class TryAgain(Exception):
    """Raised by the work of `Postgres.call` that must be done again a moment later.

    It is raised for a lock that another session holds: waiting for it would keep a connection from
    other callers. The message says what is awaited.
    """


class Postgres:
    """A Postgres database. `label` names it in messages, without secrets; `conninfo` has them.

    `schema` is the one that the URL names, if any. `is_pooled` is true where a connection pooler
    answers. Threads may share it.
    """

    def __init__(
        self,
        url: str,
        *,
        label: str | None = None,
        pins: Pins | None = None,
        pooled: bool | None = None,
        connections_max: int = POOL_CONNECTIONS_MAX,
        wait_s: float = CONNECT_TIMEOUT_S,
        on_close: contextlib.ExitStack | None = None,
    ) -> None:
        """Nothing is opened yet; see `open`."""
        self._url = url
        parsed = _parsed(url)
        self.conninfo = _conninfo(parsed)
        self.left_out = parsed.left_out
        self.schema = parsed.schema
        self.label = label or _label(self.conninfo)
        self._pins = replace(pins or Pins(), search_path=_quoted(parsed.schema))
        self.is_pooled: bool | None = True if parsed.pooled and pooled is None else pooled
        self._connections_max = connections_max
        self._wait_s = wait_s
        self._on_close = on_close or contextlib.ExitStack()
        self._opening = threading.Lock()
        self._pid = os.getpid()
        self._pool: ConnectionPool[Connection] | None = None
        self._closed = False
        forks.watch(self)

    @classmethod
    def open(cls, url: str, **given: Any) -> Self:
        """Connect once to see that the database answers.

        `label` names the database in messages; the default is its host and name. `pins` are the
        settings of its sessions. `pooled` says whether a transaction pooler answers; None asks the
        server. `connections_max` and `wait_s` are the size of the pool and how long a call waits
        for one of its connections. `on_close` is closed with the store, which stops an embedded
        server.

        Raises: StoreUnreachable, SettingsError, MissingRight.
        """
        store = cls(url, **given)
        try:
            with contextlib.closing(store._connected()) as connection:
                if store.is_pooled is None:
                    promised, serving = processes(Session(connection, store.label))
                    store.is_pooled = promised != serving
                store._dedicated(connection)  # a setting that the role may not pin is told here
        except MemsyncError:
            store.close()
            raise
        return store

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A session from the pool.

        Raises: StoreUnreachable, also after `close`; StoreBusy when all connections are in use.
        """
        pool = self._own_pool()
        with translated(self.label):
            try:
                connection = pool.getconn()
            except PoolTimeout:
                connection = None
        if connection is None:
            alone = self._dedicated(self._connected())  # says why there is none
            with contextlib.closing(alone.connection):
                if pool.get_stats()["pool_size"] >= self._connections_max:
                    raise StoreBusy(
                        f"all {self._connections_max} connections to {self.label} were in use for "
                        f"{self._wait_s:g} s. Raise pool_connections, or make fewer calls at once"
                    )
                # The server is back, and the pool has not tried again yet.
                yield alone
            return
        try:
            yield Session(connection, self.label, pin_each=self._pin_each)
        finally:
            pool.putconn(connection)

    def call(self, work: Callable[[Session], Result], *, repeatable: bool = False) -> Result:
        """Do `work` on a session from the pool, and again where nothing can have been committed.

        Work that writes does so in one transaction.
        `repeatable` work may be done again even then: done twice, it is as if done once.
        It is done again when the server had closed the connection, when Postgres refused it for the
        sake of concurrent transactions (at most 8 times), and when it raises TryAgain (until the
        pool's `wait_s` is over).

        Raises: StoreBusy, OutcomeUnknown, StoreUnreachable, and what `work` raises.
        """
        began, pause_s, conflicts, reconnected = time.monotonic(), _PAUSE_START_S, 0, False
        while True:
            session = None
            try:
                with self.session() as session:
                    return work(session)
            except TryAgain as busy:
                if time.monotonic() - began > self._wait_s:
                    raise StoreBusy(
                        f"{self.label} is busy: {busy} for {self._wait_s:g} s. Call again"
                    ) from None
            except StoreBusy as error:
                conflicts += 1
                if not _is_conflict(error) or conflicts >= _CONFLICTS_MAX:
                    raise
            except StoreUnreachable as error:
                may_repeat = repeatable or not isinstance(error, OutcomeUnknown)
                if session is None or not session.is_lost or reconnected or not may_repeat:
                    raise
                # The others in the pool were probably closed at the same time.
                reconnected = True
                self._own_pool().check()
                continue
            time.sleep(pause_s * (0.5 + random.random()))  # noqa: S311  jitter, no secret
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def dedicated(self, *, filtered: bool = False) -> Session:
        """A session outside the pool, for locks that last as long as their connection.

        `filtered` lets policies hide rows from it, for a look that names such policies itself.

        Raises: StoreUnreachable, SettingsError, MissingRight.
        """
        session = self._dedicated(self._connected())
        if filtered and not self.is_pooled:
            pin(session, replace(self._pins, filtered=True))
        return session

    @contextlib.contextmanager
    def seeing_the_same(self, session: Session) -> Iterator[Session | None]:
        """A second session in the snapshot that `session` has open; None where there is none.

        A pooler cannot give one, a server may have no connection left, and another server that
        answers under the same name has no such snapshot.
        """
        with contextlib.ExitStack() as stack:
            other = None
            if not self.is_pooled:
                with contextlib.suppress(MemsyncError):
                    another = self.dedicated()
                    stack.enter_context(contextlib.closing(another.connection))
                    stack.enter_context(another.snapshot(session.row("own_snapshot").id))
                    other = another
            yield other

    def for_commands(self) -> "Postgres":
        """The same database with a pool of its own, as memsync's commands use it.

        A policy that would hide a row from it is an error, and a statement may take any time.
        Nothing is opened yet. An embedded server stops with the first of the two.
        """
        return Postgres(self._url, label=self.label, pooled=self.is_pooled, wait_s=self._wait_s)

    def close(self) -> None:
        """Close the pool and `on_close`."""
        self._closed = True
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        self._on_close.close()

    def begin_anew(self) -> None:
        """Leave the parent's connections and its embedded server alone; this process has its own.

        Called in a forked process before anything else.
        """
        forks.keep_for_ever((self._pool, self._on_close))
        self._pool, self._on_close = None, contextlib.ExitStack()
        self._opening, self._pid = threading.Lock(), os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ connections

    @property
    def _pin_each(self) -> Callable[[Session], None] | None:
        return partial(pin, pins=self._pins, local=True) if self.is_pooled else None

    def _own_pool(self) -> ConnectionPool[Connection]:
        if self._pid != os.getpid():
            self.begin_anew()  # a fork of which Python was not told, or whose hook failed
        with self._opening:
            if self._closed:
                raise StoreUnreachable(f"{self.label} is closed; open it again to use it")
            if self._pool is None:
                self._pool = ConnectionPool(
                    self.conninfo,
                    connection_class=Connection,
                    kwargs=self._options(),
                    configure=None if self.is_pooled else self._pin,
                    min_size=0,
                    max_size=self._connections_max,
                    timeout=self._wait_s,
                    # Then the next call opens one. It would try ever later, for five minutes.
                    reconnect_timeout=self._wait_s,
                    open=True,
                )
                # A pool that nobody closed is closed while its threads can still be joined: from
                # Python 3.13 on, the end of the process would wait for them, and complain.
                weakref.finalize(self, _close_at_home, self._pool, os.getpid())
            return self._pool

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"autocommit": True, "row_factory": namedtuple_row}
        if self.is_pooled:
            # A pooler hands the next statement to a server process that was not told of it.
            options["prepare_threshold"] = None
        return options

    def _connected(self) -> Connection:
        with connecting(self.label):
            connection: Connection = psycopg.connect(self.conninfo, **self._options())
        return connection

    def _dedicated(self, connection: Connection) -> Session:
        try:
            if not self.is_pooled:
                self._pin(connection)
        except MemsyncError:
            connection.close()
            raise
        return Session(connection, self.label, pin_each=self._pin_each)

    def _pin(self, connection: Connection) -> None:
        pin(Session(connection, self.label), self._pins)


def _is_conflict(error: StoreBusy) -> bool:
    """Whether Postgres rolled the work back for the sake of concurrent transactions."""
    return isinstance(error.__cause__, errors.SerializationFailure | errors.DeadlockDetected)


def _parsed(url: str) -> PostgresUrl:
    try:
        return PostgresUrl.parse(url)
    except ValueError as error:
        raise SettingsError(f"postgres_url: {error}", field="postgres_url") from None


def _conninfo(url: PostgresUrl) -> str:
    try:
        given = conninfo_to_dict(url.uri)
    except psycopg.ProgrammingError as error:
        # libpq's own message may repeat the URL, and with it the password.
        unknown = re.search(r'invalid URI query parameter: "([a-z_]+)"', str(error))
        what = (
            f"the parameter {unknown[1]!r} is none that libpq or memsync knows; remove it"
            if unknown and "@" not in url.uri.partition("?")[2]
            else "it is not a URL that libpq understands; write it as "
            "postgresql://user@host:5432/database, special characters percent-encoded"
        )
        raise SettingsError(f"postgres_url: {what}", field="postgres_url") from None
    # PG* variables win over these defaults.
    of_environment = _of_environment()
    for name, value in DEFAULTS.items():
        if name not in of_environment:
            given.setdefault(name, value)
    return make_conninfo("", **{**given, "client_encoding": "UTF8"})


def _of_environment() -> dict[str, str]:
    """The connection's settings from PG* variables and libpq's defaults, for a URL to override."""
    defaults = Conninfo.get_defaults()
    return {each.keyword.decode(): each.val.decode() for each in defaults if each.val}


def _label(conninfo: str) -> str:
    facts = _of_environment() | conninfo_to_dict(conninfo)
    if service := facts.get("service"):
        return f"Postgres of the service {service}"
    hosts = str(facts.get("host") or facts.get("hostaddr") or "").split(",")
    ports = str(facts.get("port") or "").split(",")
    # libpq takes one port for all hosts, or one for each.
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    place = ",".join(map(_address, hosts, ports))
    return f"Postgres at {place}/{facts.get('dbname', '')}".rstrip("/")


def _address(host: str, port: str) -> str:
    """A host with its port; the folder of a socket has none."""
    if not host or host.startswith(("/", "@")):
        return host or "its local socket"
    return f"{f'[{host}]' if ':' in host else host}:{port or _PORT}"


def _quoted(schema: str | None) -> str | None:
    """A search path of this schema and none other, written as Postgres writes it."""
    return None if schema is None else '"' + schema.replace('"', '""') + '"'


def _close_at_home(pool: ConnectionPool[Connection], pid: int) -> None:
    """Close the pool in its own process; in a forked one its connections are the parent's."""
    if os.getpid() == pid:
        pool.close()
