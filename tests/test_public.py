"""The promise of `import memsync`: these names, each importable, and nothing else."""

import ast
import importlib
import inspect
import logging
import pkgutil
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import memsync
from memsync import errors

MODULES = sorted(
    each.name
    for each in pkgutil.walk_packages(memsync.__path__, "memsync.")
    if not each.name.endswith("__main__")
    and not each.name.startswith(("memsync._migrations", "memsync._sql"))
)
RAISED = (
    *("MemsyncError", "InvalidInput", "SettingsError", "PartlyDone", "IncompleteAudit"),
    *("StoreUnreachable", "EmbedderUnreachable", "OutcomeUnknown", "StoreBusy"),
    *("SchemaMismatch", "DimensionMismatch", "MissingRight"),
)
"""The errors of the library's calls, and the base of all."""
every_module = pytest.mark.parametrize("name", MODULES)
PACKAGES = [
    "memsync",
    *(name for name in MODULES if hasattr(importlib.import_module(name), "__path__")),
]


def test_public_names() -> None:
    """The public names are exactly these, because the library is small on purpose."""
    assert {
        *("Memory", "Settings", "NewExchange", "Remembered"),
        *("Message", "UserMessage", "Recollection", "Audit", "Finding"),
        *RAISED,
    } == set(memsync.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_importable(name: str) -> None:
    """Every name in `__all__` exists and stands there once; memsync's own list is sorted."""
    package = importlib.import_module(name)
    exported = list(getattr(package, "__all__", ()))

    assert sorted(set(exported)) == sorted(exported)
    assert [] == [each for each in exported if not hasattr(package, each)]
    if name == "memsync":
        assert sorted(exported) == exported


def test_nothing_else_is_public() -> None:
    """Every other public name of the package is one of its modules."""
    others = {
        name: value
        for name, value in vars(memsync).items()
        if not name.startswith("_") and name not in memsync.__all__
    }

    assert {} == {n: v for n, v in others.items() if not isinstance(v, ModuleType)}


@pytest.mark.parametrize("name", RAISED)
def test_what_is_raised_is_caught_as_one(name: str) -> None:
    """Every exported error is a MemsyncError, and the very class that the library raises."""
    assert issubclass(getattr(memsync, name), memsync.MemsyncError)
    assert getattr(memsync, name) is getattr(errors, name)


@pytest.mark.parametrize(
    "given", [{"nope": 1}, {"pool_connections": 0}, {"postgres_url": "mysql://user:secret@h"}]
)
def test_settings_that_are_built_raise_as_those_that_are_loaded(given: dict[str, Any]) -> None:
    """A caller who builds Settings catches the same error, which names the field, not its value."""
    with pytest.raises(memsync.SettingsError, match=next(iter(given))) as refused:
        memsync.Settings(**given)
    with pytest.raises(memsync.SettingsError) as loaded:
        memsync.Settings.load(environ={}, **given)
    assert str(loaded.value) == str(refused.value)
    assert "secret" not in str(refused.value)


def test_one_class_is_named_memory() -> None:
    """The only class of that name is the public one, so that no message or import means another."""
    named = {
        value
        for name in MODULES
        for value in vars(importlib.import_module(name)).values()
        if inspect.isclass(value) and "Memory" == value.__name__
    }

    assert {memsync.Memory} == named


def test_a_caller_without_logging_hears_nothing() -> None:
    """Python's handler of last resort prints no warning of memsync's; loggers stand below it."""
    code = "import memsync, logging; logging.getLogger('memsync.any').warning('printed')"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    logs = [
        value
        for name in MODULES
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, logging.Logger)
    ]

    assert ("", "") == (said.stdout, said.stderr)
    assert logs
    assert [] == [each.name for each in logs if not each.name.startswith("memsync.")]


@pytest.mark.parametrize("name", memsync.__all__)
def test_public_names_explain_themselves(name: str) -> None:
    """A class and all its own public methods have docstrings."""
    public = getattr(memsync, name)
    methods = [
        value
        for key, value in vars(public).items()
        if not key.startswith("_") and inspect.isfunction(value)
    ]

    assert public.__doc__
    assert [] == [each.__name__ for each in methods if not each.__doc__]


@every_module
def test_every_module_imports_and_says_what_it_is(name: str) -> None:
    """Every module can be imported, and has a docstring."""
    assert importlib.import_module(name).__doc__


def test_main_module_does_nothing_when_imported() -> None:
    """Tools that import every module (pydoc, doctest) do not run the program."""
    spec = importlib.util.find_spec("memsync.__main__")
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123  read once
        body = ast.parse(file.read()).body

    assert [] == [
        node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]


def test_persona_is_required_by_keyword() -> None:
    """No reading call of the library can leave the persona out, or pass it by position."""
    for name in ("get_recent_history", "recall"):
        parameter = inspect.signature(getattr(memsync.Memory, name)).parameters["persona_id"]
        assert parameter.KEYWORD_ONLY == parameter.kind
    # recall requires it. get_recent_history takes a user instead; its own tests say that it
    # refuses neither.
    assert parameter.empty is parameter.default
