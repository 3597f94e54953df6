"""Writes the scripts for psql in `sql/` from `sql/parts/`: `python tools/make_sql.py [--check]`.

The parts in `sql/parts` are the migration as psql runs it. Statements that memsync runs too are not
written there twice: a hole such as `{{query:freeze_map}}` takes in the engine's own text, from
queries/, mirror.sql, the revisions or a module of `stores`. What the engine builds by code is
recorded. `--check` writes nothing and exits with 1 when a script is not what it would write.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alembic.script import ScriptDirectory

from memsync.migrate.backfill import fill as backfill
from memsync.migrate.expand import sync_triggers as bridge
from memsync.migrate.redesign import sync_triggers as mirror
from memsync.migrate.revisions import folder
from memsync.stores.history import catalog
from memsync.stores.history import settings_tables as redesign
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import sql
from memsync.stores.postgres.statements import load, statement

ROOT = Path(__file__).parents[1]
PARTS = ROOT / "sql" / "parts"
ALL_IN_ONE = "migrate-persona-all-in-one.sql"
BACK = "steps/back-before-contract.sql"

_MODULES = {
    "bridge": "memsync.migrate.expand.sync_triggers",
    "catalog": "memsync.stores.history.catalog",
    "locks": "memsync.stores.postgres.locks",
    "redesign": "memsync.stores.history.settings_tables",
}

# Filled by the script itself, by what it finds in the database.
_LEFT_OPEN = {"open", "override", "default", "set_default", "search_path"}

_CHOICES = " \\\n        -v unresolved=create -v backup_confirmed='which one'"
_ABOUT = """\
{about}
    psql "$URL" -f sql/{name}{choices}

Made by `make sql` from sql/parts; do not edit it here.
"""
_ALL_ABOUT = """\
The migration in one script: it moves conversation_history from user_id to persona_id with psql
alone, while the app runs, and does what `memsync migrate run` does, with the same result. memsync
makes finer steps, asks whether old clients are gone, and can take evidence from long-term memory,
which SQL cannot. It may be run again at any time: it goes on from where the database stands.
Where the app redesigned its settings by half, or a copy of the history is half filled, it stops
before it changes anything: use `memsync migrate run` there.

Choices: -v unresolved=create makes a default persona for each user who has none (without: stop);
-v backup_confirmed='which one' lets it drop user_id (without: stop before that).
Also lock_timeout_ms (50), lock_deadline_s (300), batch_target_ms (50).
It needs a session of its own: no pooler in transaction mode, no psql -1 or -c.
Exit status 0: all is done. 3: it stopped, and the last message says why.
"""
_STEP_ABOUT = f"""\
One phase of {ALL_IN_ONE}, which says what may be chosen.
The steps run in the order of their numbers; each may be run again.
"""
_VERIFY_ABOUT = "It fails unless every message has the right persona. It changes nothing.\n"
_BACK_ABOUT = """\
The way back before contract: takes expand and backfill back. Messages keep their users; going
forward again gives each the persona that it had. What the redesign of the settings made stays, in
step with the old places. From contract on, and for the redesign: `memsync migrate rollback`.
"""


class Recorder:
    """Stands in for the session and its DDL, and keeps what would be run."""

    def __init__(self) -> None:
        self.session = self
        self.calls: list[tuple[str, list[str]]] = []

    def row(self, name: str) -> SimpleNamespace:
        """The one thing that is asked of the session: where the app's tables are."""
        if name != "search_path":
            raise LookupError(f"{name} cannot be answered without a database")
        return SimpleNamespace(schemas=["{search_path}"])

    def run(self, *statements: str | sql.Composable, table: str) -> None:
        """Keep the statements of one transaction."""
        self.calls.append((table, [_text(each) for each in statements]))

    @property
    def statements(self) -> list[str]:
        """Those of every transaction."""
        return [each for _, statements in self.calls for each in statements]


def _text(given: str | sql.Composable) -> str:
    text = given if isinstance(given, str) else given.as_string(None)
    return text.replace('"{search_path}", "pg_temp"', "{search_path}").replace(
        '"{search_path}", pg_temp', "{search_path}"
    )


def _quoted(text: str) -> str:
    if "$q$" in text:
        raise ValueError(f"a statement quotes with $q$ itself: {text}")
    text = text.strip()
    return f"$q${text}$q$" if re.search(r"['\n\\]", text) else f"'{text}'"


def _values(rows: Iterator[tuple[str, ...]]) -> str:
    quoted = ("(" + ", ".join(map(_quoted, row)) + ")" for row in rows)
    return ",\n           ".join(quoted)


def _array(texts: Iterator[str] | list[str]) -> str:
    return ",\n        ".join(map(_quoted, texts))


def bridge_build() -> str:
    """The calls that build the bridge, its fragments left open."""
    settings = {"override": "override_redesigned", "default": "default_redesigned"}
    recorder: Any = Recorder()
    found: Any = SimpleNamespace(settings=settings, triggers=frozenset())
    bridge.build(recorder, found)
    open_again = {statement(name): f"{{{hole}}}" for hole, name in settings.items()}
    open_again[getattr(bridge, "_SET_DEFAULT")["default_redesigned"]] = "{set_default}"  # noqa: B009
    calls = []
    for table, statements in recorder.calls:
        texts = []
        for each in statements:
            text = each
            for said, hole in open_again.items():
                text = text.replace(said, hole)
            texts.append(f"pg_temp.pinned(pg_temp.filled({_quoted(text)}))")
        call = f"CALL pg_temp.run('{table}', ARRAY[\n            " + ",\n            ".join(texts)
        kind, what, name, *_ = statements[0].split()
        if (kind, what) == ("CREATE", "TRIGGER"):
            guard = f"IF NOT pg_temp.has_trigger('{table}', '{name}') THEN"
            calls.append(f"{guard}\n        {call}]);\n        END IF;")
        else:
            calls.append(f"{call}]);")
    return "\n        ".join(calls)


def bridge_remove(*with_it: str) -> str:
    """The statements that take the bridge down, and others with it."""
    recorder: Any = Recorder()
    bridge.remove(recorder, *with_it)
    return _array(recorder.statements)


def mirror_functions() -> str:
    """The functions of the mirror, their holes left open, and that they are nobody else's."""
    texts = [_mirror()[name] for name in getattr(mirror, "_FUNCTIONS")]  # noqa: B009
    of = (_text(each) for each in getattr(mirror, "_signatures")())  # noqa: B009
    texts += [f"REVOKE ALL ON FUNCTION {each} FROM PUBLIC" for each in of]
    return ",\n        ".join(f"pg_temp.mirror_filled({_quoted(each)})" for each in texts)


def mirror_triggers() -> str:
    """Each old column of the settings with the triggers that keep it in step."""

    def rows() -> Iterator[tuple[str, ...]]:
        for (table, column), triggers in redesign.MIRRORS.items():
            standing = redesign.Redesign(
                frozenset({(table, "column", column)}), frozenset(), frozenset()
            )
            for on_table, name in triggers:
                recorder: Any = Recorder()
                mirror.build_triggers(recorder, standing, on_table)
                (stated,) = (each for each in recorder.statements if f'"{name}"' in each)
                yield table, column, on_table, name, stated

    return _values(rows())


@cache
def computed() -> Mapping[str, str]:
    """What holes without a colon take in."""
    objects = statement("objects_of").replace("%(names)s", "ARRAY[_relation]")
    builds = redesign.INDEXES
    return {
        "version": version("memsync"),
        "objects_of_relation": objects,
        "constraints_of_table": statement("constraints").replace("%(relation)s", "_table"),
        "app_tables": _list(getattr(catalog, "_APP_TABLES")),  # noqa: B009
        "fill_parts": str(backfill.PARTS),
        "new_columns": _list(redesign.NEW_COLUMNS),
        "old_columns": _values(iter(redesign.OLD_COLUMNS)),
        "redesign_indexes": _values((table, name) for table, name, _ in builds),
        "redesign_index_builds": _values(
            (table, name, f"CREATE INDEX CONCURRENTLY {name} ON {table} ({column})")
            for table, name, column in builds
        ),
        "mirror_functions": mirror_functions(),
        "mirror_triggers": mirror_triggers(),
        "mirror_drop_functions": _array(_text(each) for each in mirror.drop_functions()),
        "bridge_build": bridge_build(),
        "bridge_remove": bridge_remove(
            "ALTER TABLE conversation_history DROP COLUMN user_id",
            statement("note_user_id_dropped"),
        ),
        "bridge_remove_persona": bridge_remove(
            "ALTER TABLE conversation_history DROP COLUMN IF EXISTS persona_id"
        ),
    }


def _list(names: tuple[str, ...]) -> str:
    return "ARRAY[" + ", ".join(f"'{name}'" for name in names) + "]"


@cache
def _revisions() -> dict[str, Any]:
    script = ScriptDirectory(str(folder()))
    found = {Path(each.path).stem: each.module for each in script.walk_revisions()}
    return {name.split("_", 1)[1]: module for name, module in found.items()}


@cache
def _queries() -> dict[str, str]:
    return {name: query.sql for name, query in load().items()}


@cache
def _mirror() -> dict[str, str]:
    return _queries()


def _query(name: str) -> str:
    """A statement of queries/; its parameters are the variables of that name, after a `_`."""

    def fragment(hole: re.Match[str]) -> str:
        # There is no evidence from long-term memory in SQL.
        name = "by_evidence_unread" if hole[1] == "by_evidence" else hole[1]
        return hole[0] if name in _LEFT_OPEN else _query(name)

    text = re.sub(r"\{([a-z_]+)\}", fragment, _queries()[name])
    return re.sub(r"%\((\w+)\)s", r"_\1", text).replace("%%", "%")


def _taken_in(path: str) -> str:
    source, *names = path.split(":")
    if source == "query":
        return _query(names[0])
    if source == "mirror":
        return _mirror()[names[0]]
    found: Any = _revisions().get(source) or import_module(_MODULES[source])
    for name in names:
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    if isinstance(found, tuple):
        return _array(list(found))
    return str(found.value) if hasattr(found, "value") else str(found).strip()


def part(name: str) -> str:
    """A part of the scripts, its holes filled.

    Raises: ValueError when a statement has a parameter for which the part has no variable.
    """
    text = (PARTS / f"{name}.sql").read_text()

    def fill(hole: re.Match[str]) -> str:
        before, path = hole[1], hole[2]
        taken = computed()[path] if path in computed() else _taken_in(path)
        for param in _parameters(path):
            if f" _{param} " not in text and f"(_{param} " not in text:
                raise ValueError(f"{name}.sql gives no _{param} to {path}")
        # A text between quotes is taken as it is; a statement goes with the lines around it.
        stated = path.startswith("query:") and not before.endswith("$q$")
        indent = before[: len(before) - len(before.lstrip())] if stated else ""
        return before + taken.replace("\n", f"\n{indent}")

    return re.sub(r"(?m)([^\n{]*)\{\{([\w:.]+)\}\}", fill, text).rstrip() + "\n"


def _parameters(path: str) -> set[str]:
    source, _, name = path.partition(":")
    text = _queries()[name] if source == "query" else ""
    return set(re.findall(r"%\((\w+)\)s", text))


def section(name: str) -> str:
    """A phase, which is passed over when nothing is left to do."""
    return (
        f"\n\n-- ==== {name} ====\n"
        f"SELECT NOT pg_temp.finished() AS ahead \\gset\n\\if :ahead\n{part(name)}\\endif\n"
    )


def scripts() -> dict[str, str]:
    """Every script by its path in `sql/`."""
    head, helpers = part("head"), part("helpers")
    locked = f"{head}\n{part('lock')}\n\n{helpers}\n\n"
    start = locked + part("decide")
    end = f"\n\n-- ==== summary ====\n{part('summary')}"
    phases = {phase: section(phase) for phase in Phase}
    made = {ALL_IN_ONE: _titled(_ALL_ABOUT, start + "".join(phases.values()) + end, ALL_IN_ONE)}
    for number, phase in enumerate(Phase, start=1):
        name = f"steps/{number}-{phase}.sql"
        about = f"Step {number}, {phase}. {_STEP_ABOUT}"
        made[name] = _titled(about, start + phases[phase] + end, name)
    name = f"steps/{len(Phase) + 1}-verify.sql"
    verify = f"{head}\n\n{helpers}\n\n-- ==== verify ====\n{part('verify')}{end}"
    made[name] = _titled(_VERIFY_ABOUT, verify, name, choices="")
    back = f"{locked}\n\n-- ==== back ====\n{part('back')}{end}"
    made[BACK] = _titled(_BACK_ABOUT, back, BACK, choices="")
    return made


def _titled(about: str, text: str, name: str, choices: str = _CHOICES) -> str:
    lines = _ABOUT.format(about=about, name=name, choices=choices).splitlines()
    text = "".join(f"-- {line}".rstrip() + "\n" for line in lines) + "\n" + text
    text.encode("ascii")  # whatever the client's encoding is
    return text


def main() -> int:
    """Write the scripts, or say which are stale."""
    stale = []
    for name, text in scripts().items():
        path = ROOT / "sql" / name
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    for name in stale:
        print(f"{name}: {'stale, run `make sql`' if '--check' in sys.argv[1:] else 'written'}")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
