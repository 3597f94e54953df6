"""Every call of a named statement agrees with the statement: it exists, its parameters and holes
are those that the call gives, and it stands in the folder that runs it.

No type checker sees that a name in quotes leads to a text in a `.sql` file; this test does. It
reads the calls from the source, so a name must be written where it is called: a literal, or the
variable of a loop over a tuple of literals.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from memsync.migrate.attribution.settings import fragments
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.settings_tables import DEFAULTS, SettingsTables
from memsync.stores.postgres.statements import Query, load, statement

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "memsync"
SESSION = PACKAGE / "stores" / "postgres" / "session.py"
MODULES = sorted(set(PACKAGE.rglob("*.py")) - {SESSION})
"""Every module but the one that looks names up."""
METHODS = frozenset(
    ("row", "rows", "rows_for_app", "rows_with", "run", "run_many", "run_with", "stream")
)
"""The methods of a session that run a statement by its name."""
FUNCTIONS = frozenset(("composed", "statement"))
"""The functions that return the text of a statement."""
_PARAMETER = re.compile(r"%\((\w+)\)s")
_HOLE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Call:
    """A call of a statement by its name, and its keywords: None where these are a dictionary."""

    where: str
    folder: Path
    how: str
    name: str
    given: frozenset[str] | None


def calls_in(source: str, module: Path) -> Iterator[Call | str]:
    """The calls in a module; a text says what is wrong with one whose name cannot be read."""
    tree = ast.parse(source)
    loops: dict[str, list[str]] = {}
    for variable, texts in literal_loops(tree):
        loops.setdefault(variable, []).extend(texts)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or (how := how_called(node)) is None:
            continue
        # In partial(session.run, "name", ...) the method stands before the name; a method whose
        # name ends in `_with` has the fragments there.
        arguments = node.args[1:] if is_partial(node) else node.args
        named = arguments[1:] if how.endswith("_with") else arguments
        where = f"{module.name}:{node.lineno}"
        if not named:
            continue
        names = texts_of(ast.Tuple([named[0]]))
        if isinstance(named[0], ast.Name):
            names = loops.get(named[0].id)
        if names is None:
            yield f"{where}: the name of a statement is not written where it is called"
            continue
        keywords = {each.arg for each in node.keywords}
        if None in keywords:
            yield f"{where}: the parameters of {names[0]} are not written where it is called"
            continue
        given = None if how == "run_many" else frozenset(filter(None, keywords))
        for name in names:
            yield Call(where, module.parent, how, name, given)


def how_called(node: ast.Call) -> str | None:
    """The method or function by which a statement is called; None for any other call."""
    called = node.args[0] if is_partial(node) else node.func
    if isinstance(called, ast.Attribute) and called.attr in METHODS:
        # Other objects have methods called run and row, too.
        return called.attr if ast.unparse(called.value).endswith("session") else None
    if isinstance(called, ast.Name) and (called.id in FUNCTIONS or is_partial(node)):
        return called.id if called.id in FUNCTIONS | METHODS else None
    return None


def is_partial(node: ast.Call) -> bool:
    """Whether it is partial(function, ...)."""
    return isinstance(node.func, ast.Name) and node.func.id == "partial" and bool(node.args)


def literal_loops(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Variables of loops over a tuple of texts, and those texts."""
    constants = {
        node.targets[0].id: texts
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and (texts := texts_of(node.value))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
            over = node.iter
            texts = constants.get(over.id) if isinstance(over, ast.Name) else texts_of(over)
            if texts:
                yield node.target.id, texts


def texts_of(node: ast.expr) -> list[str] | None:
    """The texts of a tuple of literals."""
    if not isinstance(node, ast.Tuple):
        return None
    values = [each.value for each in node.elts if isinstance(each, ast.Constant)]
    texts = [each for each in values if isinstance(each, str)]
    return texts if len(texts) == len(node.elts) else None


def faults(call: Call, known: Mapping[str, Query]) -> Iterator[str]:
    """The disagreements between a call and the statement that it names."""
    found = known.get(call.name)
    if found is None:
        yield f"{call.where}: there is no statement {call.name}"
        return
    if found.kind == "fragment" and call.how in METHODS:
        yield f"{call.where}: {call.name} is a fragment"
        return
    text = expanded(found.sql, known)
    parameters, holes = set(_PARAMETER.findall(text)), set(_HOLE.findall(text))
    given = parameters if call.given is None else set(call.given)
    if call.how == "composed":
        parameters, given, holes = set(), set(), holes ^ given
    elif call.how == "statement":
        # Its keywords name fragments for the holes; its text runs without parameters.
        parameters = parameters if found.kind == "name" else set()
        given, holes = set(), holes - given if found.kind == "name" else set()
    elif call.how.endswith("_with"):
        holes = set()  # see below: the fragments are a dictionary
    if parameters != given:
        yield f"{call.where}: {call.name} takes {sorted(parameters)}, is given {sorted(given)}"
    if holes:
        yield f"{call.where}: holes of {call.name} that do not agree: {sorted(holes)}"


def expanded(text: str, known: Mapping[str, Query]) -> str:
    """The text with its fragments taken in, as far as they fill holes of their own names."""

    def fragment(hole: re.Match[str]) -> str:
        found = known.get(hole[1])
        taken = found is not None and found.kind == "fragment"
        return expanded(found.sql, known) if found and taken else hole[0]

    return _HOLE.sub(fragment, text)


CALLS = [call for module in MODULES for call in calls_in(module.read_text(), module)]


def test_calls_are_found() -> None:
    """Calls of each kind are found, so that the tests below have something to check."""
    found = {call.how for call in CALLS if isinstance(call, Call)}
    assert METHODS | FUNCTIONS == found
    assert len(CALLS) > 300


def test_every_name_is_written_where_it_is_called() -> None:
    """Every call names its statement by a literal, which readers and this test can follow."""
    assert [] == [call for call in CALLS if isinstance(call, str)]


def test_every_call_agrees_with_its_statement() -> None:
    """Every called statement exists, and takes exactly the parameters that it is given."""
    assert [] == [
        fault for call in CALLS if isinstance(call, Call) for fault in faults(call, load())
    ]


def test_statements_are_run_where_they_stand() -> None:
    """A statement is run in its own folder only; others call a function, which has types."""
    away = [
        f"{call.where}: {call.name} stands in {load()[call.name].file}"
        for call in CALLS
        if isinstance(call, Call) and call.folder != (PACKAGE / load()[call.name].file).parent
    ]
    assert [] == away


def test_every_statement_is_used() -> None:
    """Every statement is used: by a call, a statement, a script, or in a file that is run whole."""
    named = {call.name for call in CALLS if isinstance(call, Call)}
    scripts = "".join(part.read_text() for part in (ROOT / "sql" / "parts").glob("*.sql"))
    named |= set(re.findall(r"\{\{query:([a-z_]+)", scripts))
    named |= {hole for query in load().values() for hole in _HOLE.findall(query.sql)}
    run_whole = {"migrate/isolate/own_schema.sql", "migrate/finished_schema.sql"}
    whole = {query.name for query in load().values() if query.file in run_whole}
    chosen = {
        query.name
        for query in load().values()
        if query.kind == "fragment" and query.name.partition("_")[0] in CHOSEN
    }
    assert set() == load().keys() - named - whole - chosen


CHOSEN = frozenset(
    (
        *("open", "override", "default", "by", "choices", "speaker", "same"),
        *("decisions", "archived", "quarantined", "defaults", "threads"),
    )
)
"""Prefixes of fragments' names; of those with one prefix, a caller chooses one for a hole."""


@pytest.mark.parametrize("name", ["pairs_by_settings", "unresolved_users", "match_points"])
def test_the_fragments_of_every_schema_fill_every_hole(name: str) -> None:
    """No hole is left, whichever of the settings' tables, persona_id and the map exist."""
    for choices, defaults, persona_id, own in product(
        (
            {"user_personality_settings"},
            {"user_personality_configs"},
            {"", "user_personality_configs"},
        ),
        (set(), {DEFAULTS}),
        (True, False),
        (frozenset(), frozenset(("memsync.persona_map",))),
    ):
        tables = {(table, "relation", "r") for table in choices | defaults}
        column = {("users", "column", "global_persona_id")}
        settings = SettingsTables(frozenset(tables | column), frozenset(), frozenset())
        columns = {"user_id": True} | ({"persona_id": False} if persona_id else {})
        catalog = Catalog(
            columns=columns,
            indexes={},
            constraints={},
            triggers=frozenset(),
            own_tables=own,
            settings=settings,
            has_null_persona=True,
            users_return=False,
            created=frozenset(),
            dropped=frozenset(),
        )
        assert "{" not in statement(name, **fragments(catalog)).replace("'{}'", "")


SENDERS = frozenset(("SQL", "execute", "run", "run_long", "run_script"))
"""By which methods a text goes to the server."""
_COMMAND = re.compile(
    r"\s*(/\*.*?\*/\s*)?(ALTER|ANALYZE|CALL|COMMENT|COPY|CREATE|DELETE|DO|DROP|GRANT|INSERT|LOCK"
    r"|MERGE|REINDEX|REVOKE|SELECT|SET|TRUNCATE|UPDATE|VACUUM|WITH)\s",
    re.IGNORECASE,
)


def texts_sent(source: str) -> Iterator[tuple[int, str]]:
    """Texts that begin like a command of SQL and are written where they are sent."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in SENDERS:
            continue
        for each in (text for argument in node.args for text in ast.walk(argument)):
            if isinstance(each, ast.Constant) and _COMMAND.match(str(each.value)):
                yield each.lineno, str(each.value)


def test_sql_stands_in_sql_files() -> None:
    """Only the folder that talks to the server has statements of its own in Python."""
    server = PACKAGE / "stores" / "postgres"
    # It keeps values in a file of SQLite's.
    spool = PACKAGE / "reconcile" / "spool.py"
    assert [] == [
        f"{module.name}:{line}: {text}"
        for module in MODULES
        if server not in module.parents and module != spool
        for line, text in texts_sent(module.read_text())
    ]


@pytest.mark.parametrize(
    "line",
    [
        'session.execute("DROP TABLE x")',
        'session.execute(f"DROP TABLE {x}")',
        'ddl.run(sql.SQL("ALTER TABLE {} ADD x int").format(x), table="x")',
        'connection.execute("/* memsync */ SELECT 1")',
    ],
)
def test_a_planted_statement_in_python_is_seen(line: str) -> None:
    """Plain, in an f-string, put together by name, and behind a comment."""
    assert list(texts_sent(line))


PLANTED = """
session.row("now_ms")
session.row("now_mz")
session.run("settle_entries", idz=[1])
session.run("settle_entries", ids=[1], more=2)
session.rows(name)
session.run("settle_entries", **params)
partial(session.run, "settle_entries")
composed("place_shadow", schemas=x)
statement("settle_entries")
for each in ("now_ms", "now_mz"):
    session.row(each)
"""


def test_planted_faults_are_seen() -> None:
    """A misspelt name, parameter or hole, an extra parameter and an unreadable name are found."""
    found = list(calls_in(PLANTED, PACKAGE / "x.py"))
    said = [
        fault
        for call in found
        for fault in ([call] if isinstance(call, str) else faults(call, load()))
    ]
    assert {3, 4, 5, 6, 7, 8, 9, 10, 12} == {int(each.split(":")[1]) for each in said}
