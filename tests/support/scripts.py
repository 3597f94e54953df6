"""The scripts of `sql/`, run by psql as an operator does, and what they leave."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

from memsync.stores.history.phases import Phase
from support.psql import PSQL

if TYPE_CHECKING:
    from support.app import App

ROOT = Path(__file__).parents[2]
ALL_IN_ONE = "migrate-persona-all-in-one.sql"
STEPS = {phase: f"steps/{number}-{phase}.sql" for number, phase in enumerate(Phase, start=1)}
BACK = "steps/back-before-contract.sql"
VERIFY = f"steps/{len(Phase) + 1}-verify.sql"
BACKUP = "the dump of last night"
STOPPED = 3
LOST = 2

WHO: LiteralString = "(SELECT (p.owner_id, p.name)::text FROM personas p WHERE p.id = persona_id)"

# All that a migration leaves, but for random ids and times, which differ between two runs.
STATE: tuple[LiteralString, ...] = (
    "SELECT to_jsonb(c) FROM llm_configs c",
    "SELECT id, to_jsonb(p) - 'updated_at' FROM personalities p",
    "SELECT owner_id, name, description, content FROM personas",
    "SELECT id, to_jsonb(u) - 'updated_at' - 'global_persona_id' FROM users u",
    "SELECT user_id, WHO FROM user_default_personas",
    "SELECT to_jsonb(c) FROM personality_default_configs c",
    "SELECT to_jsonb(c) FROM user_personality_configs c",
    "SELECT user_id, personality_id, reason, rows_count, WHO FROM memsync.persona_map",
    "SELECT history_id, user_id, reason, source, WHO FROM memsync.row_archive",
    "SELECT object, change FROM memsync.redesign_change",
    "SELECT object, change FROM memsync.history_change",
    "SELECT column_name, row_id, value FROM memsync.column_archive",
    "SELECT fork_id, config_id, window_size, config_row FROM memsync.config_fork",
    "SELECT persona_id, decision, owner_id, persona_row, used_by FROM memsync.orphan_persona",
    "SELECT user_id, WHO FROM memsync.created_persona",
)

# The definitions and grants of the objects that a migration makes.
MADE: tuple[LiteralString, ...] = (
    "SELECT pg_get_functiondef(p.oid), p.proacl::text FROM pg_proc p"
    " WHERE p.pronamespace = 'memsync'::regnamespace",
    "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT attrelid::regclass, attname, attacl::text FROM pg_attribute WHERE attacl IS NOT NULL"
    " AND attrelid >= 16384",
    "SELECT c.relname, c.relacl::text, c.reloptions, pg_get_userbyid(c.relowner),"
    " CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END FROM pg_class c"
    " WHERE c.relnamespace IN ('public'::regnamespace, 'memsync'::regnamespace)"
    " AND c.relkind IN ('r', 'v') AND c.relname <> 'alembic_version'",
)


@contextmanager
def started(
    app: App, name: str = ALL_IN_ONE, *more: str, stdin: bool = False, **choices: object
) -> Iterator[subprocess.Popen[str]]:
    """Start a script of `sql/` as an operator does, from a file or through stdin."""
    path = ROOT / "sql" / name
    given = [f"--set={key}={value}" for key, value in choices.items()]
    source = [] if stdin else ["--file", str(path)]
    with (
        path.open() as file,
        subprocess.Popen(
            [str(PSQL), "--no-psqlrc", *more, *given, *source, app.url],
            stdin=file if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def psql(
    app: App, name: str = ALL_IN_ONE, *more: str, stdin: bool = False, **choices: object
) -> tuple[int, str]:
    """Run a script; return its exit status and all that it printed."""
    with started(app, name, *more, stdin=stdin, **choices) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def migrated(app: App, name: str = ALL_IN_ONE) -> str:
    """Run a script with the choices that it asks for; it must succeed. Returns what it printed."""
    status, said = psql(app, name, unresolved="create", backup_confirmed=BACKUP)
    assert 0 == status, said
    return said


def state(app: App) -> list[list[str]]:
    """The rows of the app's and memsync's tables, but for random ids and times."""
    return [sorted(map(str, app.query(text.replace("WHO", WHO)))) for text in STATE]


def made(app: App) -> list[list[str]]:
    """The definitions and grants of the objects in the catalog."""
    return [sorted(map(str, app.query(text))) for text in MADE]


def untouched(app: App) -> object:
    """Everything that a script must leave unchanged when it refuses to begin."""
    tables: tuple[LiteralString, ...] = (
        "SELECT to_jsonb(h) FROM conversation_history h",
        "SELECT to_jsonb(u) FROM users u",
        "SELECT to_jsonb(p) FROM personas p",
    )
    return app.catalog(), [sorted(map(str, app.query(text))) for text in tables]


def unchanged(app: App, status: int, said: str, before: object, *naming: str) -> None:
    assert STOPPED == status, said
    for each in naming:
        assert each in said
    assert before == untouched(app)
