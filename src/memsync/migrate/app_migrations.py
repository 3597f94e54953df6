"""The app's own migrations that do what memsync does: their names, their files, their lines.

A migration is known by the part of its name after the timestamp, because an app may have made it
at another time. The catalog says whether the database holds it: all that its script would have
made is there, and all that it would have dropped is gone. Prisma's table is not read here.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from memsync.errors import InvalidInput
from memsync.stores.history.catalog import (
    PERSONA_INDEX,
    PERSONA_KEY,
    RETRIEVAL_INDEX,
    TABLE,
    USER_INDEX,
    Catalog,
)
from memsync.stores.history.settings_tables import OLD_CHOICES
from memsync.stores.postgres import Session

DEFAULT_FOLDER = Path("prisma/migrations")
_PLACEHOLDER = Path("PATH/TO/prisma/migrations")
_SCRIPT = "migration.sql"


@dataclass(frozen=True, slots=True)
class Script:
    """A migration of the app on disk: its full name, and the text of its migration.sql."""

    name: str
    text: bytes

    @property
    def checksum(self) -> str:
        """The checksum that Prisma records: SHA-256 in lowercase hex."""
        return hashlib.sha256(self.text).hexdigest()

    def matches(self, checksum: str) -> bool:
        """Whether Prisma takes the script for the one with this checksum.

        It ignores how lines end, and its early versions left out the zeros before a digit.
        """
        unix = self.text.replace(b"\r\n", b"\n")
        for text in (self.text, unix, self.text.replace(b"\n", b"\r\n")):
            digest = hashlib.sha256(text).digest()
            if checksum in {digest.hex(), "".join(f"{byte:x}" for byte in digest)}:
                return True
        return False


def _redesign_lacks(catalog: Catalog) -> str | None:
    settings = catalog.settings
    if not settings.stands:
        return "the new tables of the settings are not all there"
    left = [f"{table}.{column}" for table, column in settings.old_columns]
    if settings.has_view(OLD_CHOICES) or settings.has_table(OLD_CHOICES):
        left.append(OLD_CHOICES)
    if left:
        return f"{', '.join(left)} still there"
    return None if settings.owners_required else "personas.owner_id may be NULL"


def _column_lacks(catalog: Catalog) -> str | None:
    if "persona_id" not in catalog.columns:
        return f"{TABLE} has no persona_id"
    missing = [
        name
        for name, there in (
            (PERSONA_INDEX, catalog.indexes.get(PERSONA_INDEX)),
            (PERSONA_KEY, catalog.constraints.get(PERSONA_KEY)),
        )
        if not there
    ]
    return f"{' and '.join(missing)} not there, or not valid" if missing else None


def _end_lacks(catalog: Catalog) -> str | None:
    if "user_id" in catalog.columns:
        return f"{TABLE} has user_id"
    return None if catalog.columns.get("persona_id") else "persona_id may be NULL"


_LACKS: Mapping[str, Callable[[Catalog], str | None]] = {
    "schema_redesign_remove_circular_fks": _redesign_lacks,
    "add_persona_id_to_conversation_history": _column_lacks,
    "finalize_persona_id_migration": _end_lacks,
}
PARTS = tuple(_LACKS)
"""The app's own migrations that do what memsync does, without their timestamps, in order."""


def part_of(name: str) -> str | None:
    """The part after the timestamp where the name is one of PARTS, else None."""
    part = name.lstrip("0123456789_-")
    return part if part in _LACKS else None


def lacks(part: str, catalog: Catalog) -> str | None:
    """Why the database does not hold this one of PARTS yet; None where it does."""
    return _LACKS[part](catalog)


def gone(part: str, catalog: Catalog) -> str | None:
    """Why the database does not hold this one of PARTS any more; None where it may.

    The way back brings user_id back before anything else. Without user_id, what is missing was
    damaged, or changed by a later version of the app.
    """
    return lacks(part, catalog) if "user_id" in catalog.columns else None


def folder_of(given: Path) -> Path:
    """The folder of the migrations: `given`, or `migrations` in it where that is there.

    Raises: InvalidInput when it holds no migration at all.
    """
    folder = given / "migrations" if (given / "migrations").is_dir() else given
    if not folder.is_dir() or not any(folder.glob(f"*/{_SCRIPT}")):
        raise InvalidInput(
            f"there are no migrations in {folder}: no folder there holds a {_SCRIPT}. Give the "
            "app's prisma/migrations, or its parent, with --prisma-dir; nothing was changed"
        )
    return folder


def script_of(name: str, folder: Path) -> Script:
    """The migration of that full name.

    Raises: InvalidInput when it has no readable migration.sql, because `prisma migrate dev` offers
    to reset a database that records a name without a folder.
    """
    script = folder / name / _SCRIPT
    if "/" in name or not script.is_file():
        raise InvalidInput(
            f"there is no {script}: Prisma would offer to reset the database over a name without "
            "a directory. Give the app's migrations with --prisma-dir; nothing was changed"
        )
    try:
        return Script(name, script.read_bytes())
    except OSError as error:
        raise InvalidInput(
            f"{script} cannot be read: {error.strerror}. Nothing was changed"
        ) from None


def scripts_in(folder: Path) -> dict[str, Script]:
    """The app's migrations in the folder that are among PARTS, by part.

    Raises: InvalidInput when there is none, one lacks its script, or two have the same part.
    """
    names: dict[str, list[str]] = {part: [] for part in PARTS}
    for each in sorted(folder.iterdir()):
        if each.is_dir() and (part := part_of(each.name)):
            names[part].append(each.name)
    if not any(names.values()):
        raise InvalidInput(
            f"{folder} holds none of {', '.join(PARTS)}: it is another app's, or an older version "
            "of this one. Give the app's migrations with --prisma-dir; nothing was changed"
        )
    for twins in names.values():
        if len(twins) > 1:
            raise InvalidInput(
                f"{folder} holds {' and '.join(twins)}, which differ in their timestamps only. "
                "Record the right one with --applied NAME; nothing was changed"
            )
    return {part: script_of(found[0], folder) for part, found in names.items() if found}


def resolve_all_command() -> str:
    """The command that records everything, from here; a placeholder where the folder is unknown."""
    folder = DEFAULT_FOLDER if DEFAULT_FOLDER.is_dir() else _PLACEHOLDER
    return f"memsync migrate resolve --all --prisma-dir {folder}"


def schema_lines(session: Session) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lines for schema.prisma, and SQL, that tell Prisma of the indexes that memsync left.

    The SQL is a migration's. It may run anywhere and any number of times: on the migrated database
    it finds the indexes, on a developer's and in Prisma's shadow database it makes them.
    """
    model: list[str] = []
    script: list[str] = []
    for index in session.rows("prisma_indexes", names=[USER_INDEX, RETRIEVAL_INDEX]):
        fields = [
            _field(column) + ("(sort: Desc)" if falling else "")
            for column, falling in zip(index.columns, index.falling, strict=True)
        ]
        columns = [
            f'"{column}"' + (" DESC" if falling else "")
            for column, falling in zip(index.columns, index.falling, strict=True)
        ]
        model.append(f'@@index([{", ".join(fields)}], map: "{index.name}")')
        script.append(
            f'CREATE INDEX IF NOT EXISTS "{index.name}"\n    ON "{TABLE}" ({", ".join(columns)});'
        )
    return tuple(model), tuple(script)


def _field(column: str) -> str:
    """The name of a column in the app's schema.prisma: camel case."""
    first, *rest = column.split("_")
    return first + "".join(word.capitalize() for word in rest)
