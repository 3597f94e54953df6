"""Sizes of files and functions, and other rules that ruff does not check."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
TESTS = ROOT / "tests"
FOLDERS = (SRC, ROOT / "migrations", ROOT / "tools", TESTS / "support")
MODULES = sorted(module for folder in FOLDERS for module in folder.rglob("*.py"))
TEST_MODULES = sorted(TESTS.rglob("*.py"))
PLURAL = re.compile(r" (?:more |other )?(?!has\b|is\b|was\b)[a-z]+s\b(?!/)")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
TEST_FILE_LINES_MAX = 600


def name_of(path: Path) -> str:
    """A file's path from the top of the checkout."""
    return str(path.relative_to(ROOT))


every_module = pytest.mark.parametrize("module", MODULES, ids=name_of)
every_test_module = pytest.mark.parametrize("module", TEST_MODULES, ids=name_of)
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
    """Modules are found, so that the tests below have something to check."""
    assert SRC / "memsync" / "errors.py" in MODULES
    assert set(FOLDERS) == {folder for folder in FOLDERS for m in MODULES if folder in m.parents}
    assert Path(__file__) in TEST_MODULES


@every_module
def test_file_is_short(module: Path) -> None:
    """No module is longer than FILE_LINES_MAX."""
    assert len(module.read_text().splitlines()) <= FILE_LINES_MAX


@every_module
def test_functions_are_short(module: Path) -> None:
    """No function is longer than FUNCTION_LINES_MAX, its docstring not counted."""
    lengths = {f.name: lines_without_docstring(f) for f in functions(ast.parse(module.read_text()))}

    assert {} == {name: n for name, n in lengths.items() if n > FUNCTION_LINES_MAX}


@every_module
def test_module_says_what_it_decides(module: Path) -> None:
    """Every module opens with a docstring."""
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_only_cli_and_demo_print() -> None:
    """Only the command line and the demo print; ruff's T20 can be silenced, this test cannot."""
    quiet = [m for m in SRC.rglob("*.py") if m.relative_to(SRC).parts[1] not in {"cli", "demo"}]
    nodes = ((module, node) for module in quiet for node in ast.walk(ast.parse(module.read_text())))

    assert [] == [f"{module}:{node.lineno}" for module, node in nodes if is_print(node)]


def is_print(node: ast.AST) -> TypeGuard[ast.Call]:
    """Whether the node is a call of print()."""
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


def uncounted(tree: ast.Module) -> list[str]:
    """The numbers of an f-string that a plural follows, which is wrong after 1."""
    found = []
    for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
        for number, after in pairwise(text.values):
            if isinstance(number, ast.FormattedValue) and isinstance(after, ast.Constant):
                shown = ast.unparse(number.value)
                form = ast.unparse(number.format_spec) if number.format_spec else ""
                is_number = "," in form or shown.startswith("len(")
                if is_number and PLURAL.match(str(after.value)):
                    found.append(f"{shown}{after.value!r}")
    return found


@pytest.mark.parametrize("module", sorted((SRC / "memsync").rglob("*.py")), ids=name_of)
def test_a_number_with_a_noun_is_made_by_count(module: Path) -> None:
    """`memsync.model.wording.count` puts a noun behind its number, because one place knows of 1."""
    assert [] == uncounted(ast.parse(module.read_text()))


def test_a_planted_plural_is_found() -> None:
    """A plural behind a number is found, also behind another word; a rate and a verb are none."""
    for text in ("{n:,} messages", "{len(x)} more rows are", "{a} of {n:,} other points"):
        assert uncounted(ast.parse(f'f"{text}"')), text
    for text in ("{n:,} of them", "{n:,} messages/s", "{n:,} are left", "{name} messages"):
        assert not uncounted(ast.parse(f'f"{text}"')), text


@every_test_module
def test_test_file_is_short(module: Path) -> None:
    """A test file may be longer than a module, but not by much."""
    assert len(module.read_text().splitlines()) <= TEST_FILE_LINES_MAX


@every_test_module
def test_no_test_imports_a_test(module: Path) -> None:
    """Test files share what is in tests/support; pytest would run an imported test twice."""
    assert [] == imported_tests(module.read_text())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from migrate.test_live import Client", "migrate.test_live"),
        ("from migrate.conftest import App", "migrate.conftest"),
        ("from conftest import PostgresCluster", "conftest"),
        ("from migrate import test_live", "migrate.test_live"),
        ("import test_docs", "test_docs"),
        ("import reconcile.conftest as shared", "reconcile.conftest"),
        ("if TYPE_CHECKING:\n    from migrate.conftest import App", "migrate.conftest"),
        ("def test_it():\n    import migrate.test_live", "migrate.test_live"),
    ],
)
def test_a_planted_import_of_a_test_is_found(line: str, found: str) -> None:
    """An import is found in every form, also for type checkers only, and inside a function."""
    assert [found] == imported_tests(f"import pytest\n{line}\n")


def test_other_imports_are_no_imports_of_tests() -> None:
    """A module whose name only resembles a test file's is not taken for one."""
    assert [] == imported_tests(
        "import latest_news\nfrom support.app import App\nfrom support.app import test_data\n"
    )


def imported_tests(source: str) -> list[str]:
    """The test files and conftests that a source imports, by the name in the statement."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if is_test(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            found += [module] if is_test(module) else filter(is_test, names)
    return found


TEST_NAMES = {"conftest", *(path.stem for path in TESTS.rglob("test_*.py"))}


def is_test(module: str) -> bool:
    """Whether the last part of a dotted name is one of a test file or a conftest."""
    return module.rpartition(".")[2] in TEST_NAMES
