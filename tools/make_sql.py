"""Writes the script for psql in `sql/` from `sql/parts/`: `python tools/make_sql.py [--check]`.

The parts in `sql/parts` are the migration for psql. Statements that memsync also runs are not
repeated there: the hole `{{query:freeze_map}}` is replaced by the named statement, and
`{{catalog:TABLE}}` by a constant. Holes in single braces stay, because the script fills them with
what it finds in the database. `--check` writes nothing, and exits with 1 when the script is stale.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from generated import keep
from memsync.migrate.backfill import fill
from memsync.migrate.redesign import sync_triggers
from memsync.stores.history import catalog, settings_tables
from memsync.stores.history.phases import Phase
from memsync.stores.postgres.locks import LockKey
from memsync.stores.postgres.statements import load, statements_of

ROOT = Path(__file__).parents[1]
PARTS = ROOT / "sql" / "parts"
SCRIPT = ROOT / "sql" / "migrate-persona-all-in-one.sql"

_CONSTANTS: Mapping[str, ModuleType] = {"catalog": catalog, "settings": settings_tables}
_HOLE = re.compile(r"\{([a-z_]+)\}")
_ABOUT = """\
The migration in one script: it moves conversation_history from user_id to persona_id with psql
alone, while the app runs, and does what `memsync migrate run` does, with the same result. memsync
makes finer steps, asks whether old clients are gone, and can take evidence from long-term memory,
which SQL cannot. It may be run again at any time: it goes on from where the database stands.
Where the app redesigned its settings by half, or a copy of the history is half filled, it stops
before it changes anything: use `memsync migrate run` there.

    psql "$URL" -f sql/migrate-persona-all-in-one.sql \\
        -v unresolved=create -v backup_confirmed='which one'

Choices: -v unresolved=create makes a default persona for each user who has none (without: stop);
-v backup_confirmed='which one' lets it drop user_id (without: stop before that).
Also lock_timeout_ms (50), lock_deadline_s (300), batch_target_ms (50).
-v only=PHASE runs one phase: isolate, redesign, expand, backfill or contract, in this order.
-v only=verify fails unless every message has the right persona; it changes nothing.
-v only=back takes expand and backfill back, before contract. Messages keep their users; going
forward again gives each the persona that it had. What the redesign of the settings made stays, in
step with the old places. From contract on, and for the redesign: `memsync migrate rollback`.
It needs a session of its own: no pooler in transaction mode, no psql -1 or -c.
Exit status 0: all is done. 3: it stopped, and the last message says why.

Made by `make sql` from sql/parts; do not edit it here.
"""


def script() -> str:
    """The script, whole."""
    lines = (f"-- {line}".rstrip() for line in _ABOUT.splitlines())
    text = "\n".join(lines) + "\n\n" + "".join(_sections())
    text.encode("ascii")  # any client encoding can read it
    return text


def _sections() -> Iterable[str]:
    yield f"{part('head')}\n\\if :only_verify\n\\else\n{part('lock')}\\endif\n\n{part('helpers')}"
    yield f"\n\n\\if :forward\n{part('decide')}\\endif\n"
    for phase in Phase:
        # A phase is skipped when nothing is left to do.
        yield (
            f"\n\n-- ==== {phase} ====\n"
            f"SELECT :'run_{phase}'::boolean AND NOT pg_temp.finished() AS ahead \\gset\n"
            f"\\if :ahead\n{part(phase)}\\endif\n"
        )
    yield f"\n\n-- ==== verify ====\n\\if :only_verify\n{part('verify')}\\endif\n"
    yield f"\n\n-- ==== back ====\n\\if :only_back\n{part('back')}\\endif\n"
    yield f"\n\n-- ==== summary ====\n{part('summary')}"


def part(name: str) -> str:
    """A part of the script, its holes in double braces filled.

    Raises: ValueError when a statement has a parameter for which the part has no variable, or a
    hole that no part fills.
    """
    text = (PARTS / f"{name}.sql").read_text()

    def fill_hole(hole: re.Match[str]) -> str:
        before, path = hole[1], hole[2]
        taken = _taken_in(path)
        for param in _parameters(path):
            if f" _{param} " not in text and f"(_{param} " not in text:
                raise ValueError(f"{name}.sql gives no _{param} to {path}")
        for left in set(_HOLE.findall(taken)):
            if f"'{{{left}}}'" not in _all_parts():
                raise ValueError(f"{path} has a hole {left}, and no part fills it")
        # A text between quotes stays as it is; a statement is indented like the lines around it.
        stated = path.startswith("query:") and not before.endswith("$q$")
        indent = before[: len(before) - len(before.lstrip())] if stated else ""
        return before + taken.replace("\n", f"\n{indent}")

    return re.sub(r"(?m)([^\n{]*)\{\{([\w:]+)\}\}", fill_hole, text).rstrip() + "\n"


def query(name: str) -> str:
    """A named statement; each parameter becomes the variable of its name with `_` before it."""

    def fragment(hole: re.Match[str]) -> str:
        # SQL cannot read the evidence from long-term memory.
        name = "by_evidence_unread" if hole[1] == "by_evidence" else hole[1]
        found = load().get(name)
        return query(name) if found and found.kind == "fragment" else hole[0]

    text = _HOLE.sub(fragment, load()[name].sql)
    return re.sub(r"%\((\w+)\)s", r"_\1", text).replace("%%", "%")


@cache
def computed() -> Mapping[str, str]:
    """The texts for holes without a colon."""
    objects = query("objects_of").replace("_names", "ARRAY[_relation]")
    indexes = settings_tables.INDEXES
    return {
        "version": version("memsync"),
        "objects_of_relation": objects,
        "constraints_of_table": query("constraints").replace("_relation", "_table"),
        "app_tables": _array(catalog.APP_TABLES),
        "fill_parts": str(fill.PARTS),
        "lock_key": str(LockKey.MIGRATE.value),
        "new_columns": _array(settings_tables.NEW_COLUMNS),
        "old_columns": _values(settings_tables.OLD_COLUMNS),
        "own_schema": _array(statements_of("migrate/isolate/own_schema.sql")),
        "settings_indexes": _values((table, name) for table, name, _ in indexes),
        "settings_index_columns": _values(indexes),
        "sync_triggers": _values(_sync_triggers()),
        "sync_trigger_tables": _values(
            (*sync_triggers.CREATE_TRIGGER, sync_triggers.ON_PERSONALITIES)
        ),
    }


def _sync_triggers() -> Iterable[tuple[str, ...]]:
    """Each old column of the settings with its sync triggers, and the statement for each."""
    on_personalities = query("create_config_trigger_on_personalities")
    for (table, column), triggers in settings_tables.SYNC_TRIGGERS.items():
        for on_table, name in triggers:
            create = sync_triggers.CREATE_TRIGGER.get((on_table, name), on_personalities)
            yield table, column, on_table, name, create


def _taken_in(path: str) -> str:
    if path in computed():
        return computed()[path]
    source, _, name = path.partition(":")
    return query(name) if source == "query" else str(getattr(_CONSTANTS[source], name))


def _parameters(path: str) -> set[str]:
    source, _, name = path.partition(":")
    text = load()[name].sql if source == "query" else ""
    return set(re.findall(r"%\((\w+)\)s", text))


@cache
def _all_parts() -> str:
    return "".join(each.read_text() for each in PARTS.glob("*.sql"))


def _quoted(text: str) -> str:
    if "$q$" in text:
        raise ValueError(f"a statement quotes with $q$ itself: {text}")
    text = text.strip()
    return f"$q${text}$q$" if re.search(r"['\n\\]", text) else f"'{text}'"


def _values(rows: Iterable[tuple[str, ...]]) -> str:
    quoted = ("(" + ", ".join(map(_quoted, row)) + ")" for row in rows)
    return ",\n           ".join(quoted)


def _array(texts: Iterable[str]) -> str:
    return "ARRAY[" + ",\n        ".join(map(_quoted, texts)) + "]"


def main() -> int:
    """Write the script, or say that it is stale."""
    return keep(SCRIPT, script(), "sql")


if __name__ == "__main__":
    sys.exit(main())
