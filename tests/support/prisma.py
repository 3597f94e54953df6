"""What an app with Prisma has: a folder of migrations, and a table that says which were applied."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from pathlib import Path

    from support.app import App

REDESIGN = "20251023164923_schema_redesign_remove_circular_fks"
COLUMN = "20251026163739_add_persona_id_to_conversation_history"
END = "20251026164500_finalize_persona_id_migration"
NAMES = (REDESIGN, COLUMN, END)

FAILED: LiteralString = """
    INSERT INTO _prisma_migrations (id, checksum, migration_name, started_at)
    VALUES (gen_random_uuid()::text, repeat('0', 64), %s, clock_timestamp())"""
APPLIED: LiteralString = """
    INSERT INTO _prisma_migrations
        (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
    VALUES (gen_random_uuid()::text, %s, %s, clock_timestamp(), clock_timestamp(), 1)"""


def folder_with(parent: Path, *names: str) -> Path:
    """Make `parent`/migrations, as Prisma does, with these migrations after an older one."""
    folder = parent / "migrations"
    for name in ("20250811090412_init", *names):
        (folder / name).mkdir(parents=True)
        (folder / name / "migration.sql").write_text(f"-- {name}\nSELECT 1;\n")
    (folder / "migration_lock.toml").write_text('provider = "postgresql"\n')
    return folder


def checksum_of(folder: Path, name: str) -> str:
    """The checksum that Prisma has for a migration of the folder."""
    return hashlib.sha256((folder / name / "migration.sql").read_bytes()).hexdigest()


def history(app: App) -> list[tuple[str, str]]:
    """Each row of Prisma's history that the app did not begin with: its name and state."""
    return [
        (name, state)
        for name, state in app.query(
            "SELECT migration_name, CASE WHEN rolled_back_at IS NOT NULL THEN 'rolled back'"
            " WHEN finished_at IS NOT NULL THEN 'applied' ELSE 'failed' END"
            " FROM _prisma_migrations WHERE started_at > '2025-10-18'"
            " ORDER BY started_at, migration_name"
        )
    ]


def applied(app: App) -> set[str]:
    """The migrations that `prisma migrate deploy` would not run."""
    return {name for name, state in history(app) if state != "rolled back"}
