"""Sizes and habits that ruff does not check. A median says nothing; the longest is what counts."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

SRC = Path(__file__).parents[1] / "src"
MODULES = sorted(SRC.rglob("*.py"))
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400

every_module = pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: str(path.relative_to(SRC))
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function and method of a module, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines_without_docstring(function: Function) -> int:
    """How many lines a function takes, not counting its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def test_modules_are_found() -> None:
    """The checks below have something to check."""
    assert SRC / "memsync" / "errors.py" in MODULES


@every_module
def test_file_is_short(module: Path) -> None:
    """A file fits in a head."""
    assert len(module.read_text().splitlines()) <= FILE_LINES_MAX


@every_module
def test_functions_are_short(module: Path) -> None:
    """A function fits on a screen."""
    lengths = {f.name: lines_without_docstring(f) for f in functions(ast.parse(module.read_text()))}

    assert {} == {name: n for name, n in lengths.items() if n > FUNCTION_LINES_MAX}


@every_module
def test_module_says_what_it_decides(module: Path) -> None:
    """Every module opens with a docstring."""
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_only_cli_and_demo_print() -> None:
    """A library does not talk on its caller's stdout; ruff's T20 can be silenced, this cannot."""
    quiet = [m for m in MODULES if m.relative_to(SRC).parts[1] not in {"cli", "demo", "demo.py"}]
    nodes = ((module, node) for module in quiet for node in ast.walk(ast.parse(module.read_text())))

    assert [] == [f"{module}:{node.lineno}" for module, node in nodes if is_print(node)]


def is_print(node: ast.AST) -> TypeGuard[ast.Call]:
    """Whether the node is a call of print()."""
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )
