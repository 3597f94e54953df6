"""Backs up the tables that the migration touches, and reads the backup back before it counts.

This module decides which tables are in it. pg_dump sees the same snapshot in which the rows are
counted. A dump is good when its contents name every table, all of its data can be read, and it has
as many messages as the snapshot. Only then does it get its name and an entry in `memsync.backup`,
where contract looks for it (contract/gates.py). stores/postgres/pg_dump.py runs pg_dump.
"""

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memsync.errors import BackupFailed, InvalidInput
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.wording import count
from memsync.stores.history import settings_tables
from memsync.stores.history.catalog import TABLE, Catalog
from memsync.stores.postgres import Postgres, Session, composed, relations, sql
from memsync.stores.postgres.locks import LockKey, exclusive
from memsync.stores.postgres.pg_dump import Programs, address, find_programs

TABLES = sorted((TABLE, "pending_memories", settings_tables.PROMPTS, *settings_tables.TABLES))
"""The tables that the migration changes or reads, and those they refer to. An app may lack some."""

_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was written and read back. `tables` are names with their schemas.

    `restore` are the commands for a shell that restore it into a new database, in their order.
    """

    file: Path
    bytes: int
    sha256: str
    tables: tuple[str, ...]
    history_rows: int
    taken_at: datetime
    restore: tuple[str, ...]


def backup(postgres: Postgres, to: Path | None = None, *, tell: Tell = silent) -> Backup:
    """Dump the affected tables into a new file, check it, record it.

    It takes the migration's lock, because pg_dump's locks and a run's would wait for each other.
    Raises: InvalidInput (the file exists, or its folder does not), BackupFailed (no table to record
    it in, no pg_dump of the server's version, or the dump is not whole), StoreBusy (a run holds the
    lock).
    Effects: one file, one row in memsync.backup.
    """
    file = (to or Path(f"memsync-backup-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump")).absolute()
    _require_new(file)
    with exclusive(postgres, LockKey.MIGRATE, "migration or backup") as session:
        Catalog.read(session)
        if not relations.existing(session, ["memsync.backup"]):
            raise BackupFailed(
                "no backup was made: memsync has no tables here yet in which to record it. "
                "Next: memsync migrate run --to isolate"
            )
        programs = find_programs(relations.server_version(session) // 10000)
        with _partial(file) as partial:
            with session.snapshot():
                seen = session.row("export_snapshot")
                tables = session.rows("backup_tables", names=TABLES)
                messages = count(seen.history_rows, "message")
                what = f"dumping {messages} and what belongs to them into {file}"
                tell(Progress(Kind.STEP, what))
                _dump(programs, postgres.conninfo, partial, seen.id, tables)
            tell(Progress(Kind.STEP, "reading the dump back"))
            kept = [each for each in tables if each.kept and each.kind == "r"]
            _require_whole(programs, partial, kept, seen.history_rows)
            made = Backup(
                file=file,
                bytes=partial.stat().st_size,
                sha256=_sha256(partial),
                tables=tuple(f"{each.schema}.{each.name}" for each in kept),
                history_rows=seen.history_rows,
                taken_at=seen.taken_at,
                restore=_restoring(session, programs, postgres.conninfo, file, tables),
            )
            _publish(partial, file)
        _record(session, made, seen.id)
    return made


def _require_new(file: Path) -> None:
    if os.path.lexists(file):
        raise InvalidInput(f"{file} is there already; name another file with --out", field="out")
    if not file.parent.is_dir():
        raise InvalidInput(f"there is no folder {file.parent} to write the backup in", field="out")


@contextlib.contextmanager
def _partial(file: Path) -> Iterator[Path]:
    """A new file beside `file` that only its owner may read; removed afterwards, if still there."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE))
    except OSError as error:
        raise InvalidInput(
            f"cannot write in {file.parent}: {error.strerror}", field="out"
        ) from None
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _dump(
    programs: Programs, conninfo: str, partial: Path, snapshot: str, tables: list[Any]
) -> None:
    """Dump whole schemas without the other tables, because triggers need the schemas' functions."""
    programs.dump(
        conninfo,
        partial,
        snapshot=snapshot,
        schemas=sorted({each.schema for each in tables}),
        without=[(each.schema, each.name) for each in tables if not each.kept],
    )


def _require_whole(programs: Programs, partial: Path, kept: list[Any], history_rows: int) -> None:
    """Stop unless the dump has every table, can be read to its end, and has the history's rows."""
    contents = programs.listed(partial)
    missing = [
        each.name
        for each in kept
        for entry in ("TABLE", "TABLE DATA")
        if f" {entry} {each.schema} {each.name} " not in contents
    ]
    rows = programs.rows(partial)
    found = sum(count for table, count in rows.items() if table.rpartition(".")[2] == TABLE)
    if missing or len(rows) < len(kept) or found != history_rows:
        raise BackupFailed(
            "no backup was made: the dump is not whole. Missing tables: "
            f"{', '.join(dict.fromkeys(missing)) or 'none'}; tables with data: {len(rows)} of "
            f"{len(kept)}; messages: {found:,} of {history_rows:,}. Nothing was kept"
        )


def _restoring(
    session: Session, programs: Programs, conninfo: str, file: Path, tables: list[Any]
) -> tuple[str, ...]:
    """The commands that make a new database of the dump, and take the rest from this one.

    Nothing is restored over the tables that stand, because foreign keys of the app's other tables
    hold them, and because they are the only copy of what was written since the backup.
    """
    here = address(conninfo)
    name = f"{session.row('database_name').name}_restored"
    there = address(conninfo, name)
    psql = f"{programs.command('psql')} --no-psqlrc --set=ON_ERROR_STOP=1"
    restore = programs.command("pg_restore")
    made = composed("create_restored", database=sql.Identifier(name)).as_string()
    extensions = session.rows("backup_extensions")
    standing = "|".join(sorted({"public", *(re.escape(each.schema) for each in extensions)}))
    dump, contents, rest = (shlex.quote(f"{file}{end}") for end in ("", ".list", ".rest"))
    schemas = shlex.quote(f" SCHEMA - ({standing}) ")
    left_out = " ".join(
        "--table=" + shlex.quote(sql.Identifier(each.schema, each.name).as_string())
        for each in tables
        if not each.kept
    )
    commands = [
        f"{psql} --dbname={here} --command={shlex.quote(made)}",
        *(f"{psql} --dbname={there} --command={shlex.quote(each.made)}" for each in extensions),
        f"{restore} --list {dump} | grep -vE {schemas} > {contents}",
        f"{restore} --exit-on-error --use-list={contents} --dbname={there} {dump}",
    ]
    if left_out:
        copy = f"{programs.command('pg_dump')} --format=custom --file={rest}"
        commands += [
            f"{copy} --dbname={here} {left_out}",
            f"{restore} --single-transaction --dbname={there} {rest}",
        ]
    return (*commands, f"{psql} --dbname={there} --command='ANALYZE'")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _publish(partial: Path, file: Path) -> None:
    """Give the file its name once it is on disk; never replace a file that has appeared there."""
    _sync(partial)
    try:
        file.hardlink_to(partial)
    except FileExistsError:
        raise InvalidInput(f"{file} has appeared meanwhile; name another with --out") from None
    _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _record(session: Session, made: Backup, snapshot: str) -> None:
    session.run(
        "note_backup",
        file=str(made.file),
        bytes=made.bytes,
        sha256=made.sha256,
        tables=list(made.tables),
        history_rows=made.history_rows,
        snapshot=snapshot,
        taken_at=made.taken_at,
    )
