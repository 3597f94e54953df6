"""Tells Prisma's own history, `_prisma_migrations`, what was applied or rolled back by other means.

It writes exactly what `prisma migrate resolve` writes, and refuses what that command refuses. It
also refuses a name without a directory, because `prisma migrate dev` would then offer to reset the
database.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from memsync.errors import InvalidInput, MissingRight, SchemaMismatch, StoreBusy
from memsync.stores.postgres import Postgres, Session, relations

NAMES = (
    "20251026163739_add_persona_id_to_conversation_history",
    "20251026164500_finalize_persona_id_migration",
)
"""The app's own migrations that do what memsync does."""

_TABLE = "_prisma_migrations"
_COLUMNS = frozenset(
    (
        "id",
        "checksum",
        "finished_at",
        "migration_name",
        "logs",
        "rolled_back_at",
        "started_at",
        "applied_steps_count",
    )
)


@dataclass(frozen=True, slots=True)
class PrismaMigration:
    """One row of Prisma's history. A row neither finished nor rolled back failed, or still runs."""

    name: str
    started_at: datetime
    finished_at: datetime | None
    rolled_back_at: datetime | None

    @property
    def state(self) -> str:
        """The state as Prisma names it: applied, failed or rolled back."""
        if self.rolled_back_at is not None:
            return "rolled back"
        return "applied" if self.finished_at is not None else "failed"


def told(postgres: Postgres) -> tuple[list[PrismaMigration], str | None]:
    """The app's own migrations in Prisma's history; else none, and why it cannot be read."""
    with postgres.session() as session:
        try:
            return [each for each in read(session) if each.name in NAMES], None
        except (MissingRight, SchemaMismatch) as error:
            return [], error.message


def read(session: Session) -> tuple[PrismaMigration, ...]:
    """Prisma's history, oldest first; empty where the app does not use Prisma. Reads only.

    Raises: SchemaMismatch for a history that Prisma up to 7 did not write; MissingRight.
    """
    if not require_known(session):
        return ()
    return tuple(PrismaMigration(*row) for row in session.rows("prisma_history"))


def mark_applied(postgres: Postgres, name: str, directory: Path) -> None:
    """Record that the migration `name` of `directory` is applied.

    Raises: InvalidInput when it has no migration.sql there, or is applied already; StoreBusy
    while Prisma migrates; SchemaMismatch for a table that Prisma up to 7 did not make.
    """
    checksum = _checksum(name, directory)
    with postgres.session() as session, session.transaction():
        rows = _locked(session, name)
        if any(row.state == "applied" for row in rows):
            raise InvalidInput(f"{name} is recorded as applied already; nothing was changed")
        session.run("prisma_roll_back", name=name)
        session.run("prisma_apply", id=str(uuid4()), name=name, checksum=checksum)


def mark_rolled_back(postgres: Postgres, name: str) -> None:
    """Record that the migration `name`, which failed, is rolled back.

    Raises: InvalidInput when Prisma's history has no failed row of that name, as Prisma does.
    """
    with postgres.session() as session, session.transaction():
        rows = _locked(session, name)
        if not any(row.state == "failed" for row in rows):
            states = " and ".join(sorted({row.state for row in rows})) or "not there"
            raise InvalidInput(
                f"{name} is {states} in Prisma's history; only a failed migration can be marked as "
                "rolled back. Nothing was changed"
            )
        session.run("prisma_roll_back", name=name)


def _locked(session: Session, name: str) -> list[PrismaMigration]:
    """The rows of that name, with Prisma's own lock held until the transaction ends."""
    if not require_known(session):
        raise SchemaMismatch(
            f"there is no {_TABLE} on the search path: this app's Prisma has not migrated here. "
            "Check postgres_url; nothing was changed"
        )
    if not session.row("prisma_try_lock").taken:
        raise StoreBusy("Prisma holds its migration lock: it is migrating. Wait for it to end")
    rows = [PrismaMigration(*row) for row in session.rows("prisma_history")]
    return [row for row in rows if row.name == name]


def require_known(session: Session) -> bool:
    """Whether the app uses Prisma.

    Raises: SchemaMismatch for a history that Prisma up to 7 did not write: the table has other
    columns, or only tables of another Prisma are there. Prisma 8 replaced the table.
    """
    found = set(relations.columns(session, _TABLE))
    if not found:
        if relatives := [row.name for row in session.rows("prisma_relatives")]:
            raise SchemaMismatch(
                f"there is no {_TABLE}, but {', '.join(relatives)}: the history of a Prisma that "
                "memsync does not know (8 replaced the table). Resolve with Prisma's own command; "
                "nothing was changed",
                found=relatives,
            )
        return False
    if found != _COLUMNS:
        raise SchemaMismatch(
            f"{_TABLE} has the columns {', '.join(sorted(found)) or '(none)'}; memsync writes the "
            "history of Prisma up to 7 only. Resolve with Prisma's own command instead"
        )
    return True


def _checksum(name: str, directory: Path) -> str:
    script = directory / name / "migration.sql"
    if "/" in name or not script.is_file():
        raise InvalidInput(
            f"there is no {script}: Prisma would offer to reset the database over a name without "
            "a directory. Give the app's migrations with --prisma-dir"
        )
    return hashlib.sha256(script.read_bytes()).hexdigest()
