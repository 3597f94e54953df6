"""A statement is run by the folder in which it stands: others call a function with typed results.

So far this is asked of the library, reconcile, the demo and the commands.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from memsync.stores.postgres.statements import parse

PACKAGE = Path(__file__).parents[1] / "src" / "memsync"
ASKED = ("cli", "demo", "memory", "reconcile")
CALLS = {"row", "rows", "rows_for_app", "rows_with", "run", "run_many", "run_with"}


def homes() -> dict[str, Path]:
    """The folder of every statement."""
    return {
        name: file.parent
        for file in PACKAGE.rglob("*.sql")
        for name in parse(file.read_text(encoding="utf-8"))
    }


def called(module: str) -> Iterator[str]:
    """Every statement that a module runs by its name."""
    for node in ast.walk(ast.parse(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            names = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if node.func.attr in CALLS and names and isinstance(names[0], str):
                yield names[0]


@pytest.mark.parametrize("folder", ASKED)
def test_statements_are_run_where_they_stand(folder: str) -> None:
    """No module of the folder runs a statement of another folder."""
    standing = homes()
    away = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        for name in called(path.read_text(encoding="utf-8"))
        if standing.get(name, path.parent) != path.parent
    ]
    assert [] == away


def test_a_statement_of_another_folder_would_be_seen() -> None:
    """The search finds calls, and knows where statements stand."""
    found = list(called('session.row("now_ms").ms; s.rows("claim", limit=1); s.row(x); row("y")'))
    assert ["claim", "now_ms"] == sorted(found)
    assert PACKAGE / "stores" / "history" == homes()["now_ms"]
