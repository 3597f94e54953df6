"""Tells Prisma's own history, `_prisma_migrations`, what was applied or rolled back by other means.

It writes what `prisma migrate resolve` writes. It also writes where that command refuses and the
catalog is certain: a migration that Prisma counts as applied, and that the database no longer
holds. It refuses a name without a directory, because `prisma migrate dev` would then offer to reset
the database. app_migrations.py knows the migrations and their files.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from memsync.errors import InvalidInput, MissingRight, SchemaMismatch, StoreBusy
from memsync.migrate.app_migrations import (
    PARTS,
    Script,
    folder_of,
    gone,
    lacks,
    part_of,
    resolve_all_command,
    script_of,
    scripts_in,
)
from memsync.migrate.checks import Check, not_applicable, warning
from memsync.stores.history.catalog import Catalog
from memsync.stores.postgres import Postgres, Session, relations

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
    checksum: str
    started_at: datetime
    finished_at: datetime | None
    rolled_back_at: datetime | None

    @property
    def state(self) -> str:
        """The state as Prisma names it: applied, failed or rolled back."""
        if self.rolled_back_at is not None:
            return "rolled back"
        return "applied" if self.finished_at is not None else "failed"


@dataclass(frozen=True, slots=True)
class Told:
    """The report of Prisma's history on the app's own migrations, and of those that failed.

    `unknown` says why it cannot be read. `checks` are the differences from the catalog, each with
    the command that mends it.
    """

    rows: tuple[PrismaMigration, ...]
    unknown: str | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The outcome of `resolve --all` for one of the app's own migrations.

    `state`: applied, applied already, not yet (`note` says why), or not in the folder.
    """

    name: str
    state: str
    note: str | None = None


def told(postgres: Postgres) -> Told:
    """Read Prisma's history, and compare it with the catalog. Reads only."""
    with postgres.session() as session:
        try:
            rows = read(session)
            if rows is None:
                return Told((), None, ())
            shown = (each for each in rows if part_of(each.name) or each.state == "failed")
            return Told(tuple(shown), None, _differences(rows, Catalog.read(session)))
        except (MissingRight, SchemaMismatch) as error:
            return Told((), error.message, ())


def differences(session: Session, catalog: Catalog) -> tuple[Check, ...]:
    """Where Prisma's history and the catalog differ, each with what mends it. Reads only."""
    try:
        # In a transaction of its own, because the caller's must outlive a missing right.
        with session.transaction():
            rows = read(session)
    except (MissingRight, SchemaMismatch) as error:
        return (not_applicable("prisma", error.message),)
    return () if rows is None else _differences(rows, catalog)


def read(session: Session) -> tuple[PrismaMigration, ...] | None:
    """Prisma's history, oldest first; None where the app does not use Prisma. Reads only.

    Raises: SchemaMismatch for a history that Prisma up to 7 did not write; MissingRight.
    """
    if not require_known(session):
        return None
    return tuple(PrismaMigration(*row) for row in session.rows("prisma_history"))


def states(rows: Iterable[PrismaMigration]) -> dict[str, str]:
    """The state of each migration as Prisma judges it; a name may have several rows.

    A failed row stops `prisma migrate deploy` whatever the others say. One that is applied counts
    before those that were rolled back.
    """
    weights = ("rolled back", "applied", "failed")
    found: dict[str, str] = {}
    for row in rows:
        found[row.name] = max(found.get(row.name, weights[0]), row.state, key=weights.index)
    return found


def _differences(rows: Iterable[PrismaMigration], catalog: Catalog) -> tuple[Check, ...]:
    known = states(rows)
    found = []
    for name, state in known.items():
        part = part_of(name)
        take_back = f"memsync migrate resolve --rolled-back {shlex.quote(name)}"
        if state == "failed":
            stops = f"{name} failed, and `prisma migrate deploy` stops there (P3009)"
            if not part:
                rest = "Undo what it did; or do the rest of it, and record --applied"
                found.append((f"{stops}. {rest}", take_back))
            elif why := lacks(part, catalog):
                rest = "A run through contract does the rest; or undo what it did"
                found.append((f"{stops}. It is not done: {why}. {rest}", take_back))
            else:
                found.append((f"{stops}. The database holds all of it", resolve_all_command()))
        elif state == "applied" and part and (why := gone(part, catalog)):
            found.append(
                (
                    f"{name} counts as applied, but the database does not hold it: {why}. A run "
                    "through contract makes it true; once it is taken back here, Prisma applies "
                    "it with the next deployment that has it",
                    take_back,
                )
            )
    recorded = {part_of(name) for name, state in known.items() if state != "rolled back"}
    if owed := [part for part in PARTS if part not in recorded and not lacks(part, catalog)]:
        found.append(
            (
                f"done, and not recorded as applied: {', '.join(owed)}. The next `prisma migrate "
                "deploy` would run that again, and fail half way",
                resolve_all_command(),
            )
        )
    return tuple(warning("prisma", said, command) for said, command in found)


def mark_all(postgres: Postgres, given: Path) -> tuple[Resolved, ...]:
    """Record as applied each of the app's migrations in the folder that the database holds.

    A migration that the catalog does not show to be done stays as it is. All is written, or
    nothing.

    Raises: InvalidInput when the folder is not the app's; StoreBusy while Prisma migrates;
    SchemaMismatch for a table that Prisma up to 7 did not make.
    """
    scripts = scripts_in(folder_of(given))
    with postgres.session() as session, session.transaction():
        rows, catalog = _locked(session), Catalog.read(session)
        found = []
        for part in PARTS:
            script = scripts.get(part)
            if why := lacks(part, catalog):
                found.append(Resolved(script.name if script else part, "not yet", why))
            elif script:
                found.append(_settle(session, script, rows))
            else:
                found.append(Resolved(part, "not in the folder"))
        return tuple(found)


def mark_applied(postgres: Postgres, name: str, given: Path) -> Resolved:
    """Record that the migration `name` of the folder is applied.

    Raises: InvalidInput when it has no migration.sql there, or is applied already; StoreBusy
    while Prisma migrates; SchemaMismatch for a table that Prisma up to 7 did not make.
    """
    script = script_of(name, folder_of(given))
    with postgres.session() as session, session.transaction():
        rows = _locked(session)
        if states(rows).get(name) == "applied":
            raise InvalidInput(f"{name} is recorded as applied already; nothing was changed")
        return _settle(session, script, rows)


def mark_rolled_back(postgres: Postgres, name: str) -> Resolved:
    """Record that the migration `name` is rolled back: it failed, or the way back undid it.

    Raises: InvalidInput when Prisma's history has no failed row of that name, and no applied one
    that the catalog refutes; StoreBusy, SchemaMismatch as above.
    """
    with postgres.session() as session, session.transaction():
        was = {row.state for row in _locked(session) if row.name == name}
        part = part_of(name) if "applied" in was else None
        if part and gone(part, Catalog.read(session)):
            session.run("prisma_take_back", name=name)
        elif "failed" in was:
            session.run("prisma_roll_back", name=name)
        else:
            held = ", and the database holds it" if part else ""
            raise InvalidInput(
                f"{name} is {' and '.join(sorted(was)) or 'not there'} in Prisma's history{held}; "
                "only a migration that failed, or that the way back undid, can be marked as rolled "
                "back. Nothing was changed"
            )
    return Resolved(name, "rolled back")


def _settle(session: Session, script: Script, rows: Iterable[PrismaMigration]) -> Resolved:
    """Bring the rows of one migration to the one state `applied`."""
    mine = [row for row in rows if row.name == script.name]
    was = {row.state for row in mine}
    if "failed" in was:
        session.run("prisma_roll_back", name=script.name)
    if "applied" not in was:
        session.run("prisma_apply", id=str(uuid4()), name=script.name, checksum=script.checksum)
    # Prisma compares the first row of a name with the file, whatever the state of that row.
    edited = mine and not script.matches(mine[0].checksum)
    return Resolved(
        script.name,
        "applied already" if "applied" in was and "failed" not in was else "applied",
        "Prisma warns that the file was modified: its first row has another checksum"
        if edited
        else None,
    )


def _locked(session: Session) -> tuple[PrismaMigration, ...]:
    """Prisma's history, with Prisma's own lock held until the transaction ends."""
    if not require_known(session):
        raise SchemaMismatch(
            f"there is no {_TABLE} on the search path: this app's Prisma has not migrated here. "
            "Check postgres_url; nothing was changed"
        )
    if not session.row("prisma_try_lock").taken:
        raise StoreBusy(
            "Prisma's migration lock is taken: Prisma migrates, or another `memsync migrate "
            "resolve` writes. Wait for it to end; nothing was changed"
        )
    return tuple(PrismaMigration(*row) for row in session.rows("prisma_history"))


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
