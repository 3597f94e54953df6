"""The documents are true: their examples run, and every command they name exists."""

import ast
import contextlib
import io
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import psycopg
import pytest

from memsync import Settings, errors, migrate
from memsync.cli.app import main
from memsync.cli.statuses import EXIT_STATUSES
from memsync.demo.world import Recipe, load_rows, make_world
from memsync.errors import MemsyncError
from memsync.reconcile import RULES
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Postgres

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = sorted((ROOT / "src").rglob("*.py"))
NewDatabase = Callable[..., str]

# A block in a list is indented.
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TICKED = re.compile(r"`memsync ([a-z-][^`]*)`")
_NEXT = re.compile(r"(?:next: |next: [^;\n]*? or |saved .*; next: )memsync ([a-z][^;\n]*)")
# A text that is a command as a whole, or a choice that ends in one, as a check's `next` is.
_WHOLE = re.compile(r"\A(?:[^;\n]*, or )?memsync ((?:migrate|reconcile|sync|check)\b[^;\n]*)\Z")
_TYPED = re.compile(r"^\$ memsync (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
_HOLE = "0"


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of one language."""
    found = _BLOCK.findall(document.read_text())
    return [textwrap.dedent(code) for _, of, code in found if of == language]


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of every shell block: the document's name and the words."""
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield document.name, words


def hints() -> Iterator[tuple[str, str]]:
    """Every command that a message or a document tells people to run, and where it stands."""
    for document in DOCUMENTS:
        for command in (*_TICKED.findall(document.read_text()), *typed(document)):
            yield document.name, command
    for name, words in shell_lines():
        if "memsync" in words[:2]:
            yield name, shlex.join(words[words.index("memsync") + 1 :])
    for source in SOURCES:
        for text in texts(ast.parse(source.read_text())):
            for command in [
                *_TICKED.findall(text),
                *_NEXT.findall(text),
                *_WHOLE.findall(text),
            ]:
                yield source.name, command
    for rule in RULES:
        for layout in Layout:
            yield rule.code, rule.command_in(layout).removeprefix("memsync ")


def typed(document: Path) -> Iterator[str]:
    """The commands that a document's transcripts begin with."""
    for block in blocks(document, "console"):
        yield from _TYPED.findall(block)


def texts(tree: ast.AST) -> Iterator[str]:
    """Every string of a module, with a number in place of what f-strings fill in."""
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else _HOLE for part in node.values
            )
        elif is_text(node) and id(node) not in inside:
            yield str(node.value)


def is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    """Whether the node is a string as it stands."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


HINTS = sorted(set(hints()))


def answer(*arguments: str) -> tuple[int, str]:
    """The status of a command, and what it said on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return main(arguments), err.getvalue()


def test_hints_are_found() -> None:
    """Hints of each kind are found, so that the test below has something to check."""
    found = {command.split()[0] for _, command in HINTS}

    assert {"check", "migrate", "reconcile", "rules", "sync"} <= found
    assert ("README.md", "reconcile apply plan.json") in HINTS
    assert ("runbook.md", "migrate rollback --to start") in HINTS
    assert ("runbook.md", "migrate backup --out before-contract.dump") in HINTS
    assert ("reconcile.py", f"reconcile apply {_HOLE}") in HINTS
    assert ("standing.py", "migrate backup") in HINTS
    assert ("MSC001", "reconcile plan") in HINTS


def test_hints_that_name_nothing_are_noticed() -> None:
    """The test below tells a command that exists from one that does not."""
    assert 0 == answer("reconcile", "plan", "--help")[0]
    assert 2 == answer("reconcile", "nope", "--help")[0]
    assert 2 == answer("reconcile", "plan", "--nope", "--help")[0]


@pytest.mark.parametrize("command", sorted({command for _, command in HINTS}))
def test_every_command_that_is_named_exists(command: str) -> None:
    """Every command and option that a message or a document names exists."""
    places = [where for where, each in HINTS if each == command]
    assert (0, "") == answer(*shlex.split(command), "--help"), places


def test_make_targets_exist() -> None:
    """Every make target that a document or CI's script names is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for _, words in shell_lines()
        for program, *rest in [[w for w in words if "=" not in w.split("/")[0]] or [""]]
        if program == "make"
        for word in rest
    }
    named |= set(re.findall(r"`make ([a-z]+)", "".join(d.read_text() for d in DOCUMENTS)))
    script = (ROOT / ".ci" / "run").read_text()
    named |= set(re.findall(r"^(?!#)(?:.* )?make ([a-z]+)", script, re.MULTILINE))

    assert {"demo", "test", "setup", "check", "lock", "lint"} <= named
    assert set() == named - targets


def test_links_lead_somewhere() -> None:
    """Every link to a file of the project leads to a file."""
    links = [
        (document.name, link)
        for document in DOCUMENTS
        for link in _LINK.findall(document.read_text())
        if not (document.parent / link).exists()
    ]

    assert [] == links


def test_files_that_are_named_exist() -> None:
    """Every folder and file that CONTRIBUTING names exists."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:src/memsync/|migrations|sql)[\w./]*)`", text)

    assert named
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_paths_of_examples_are_inside_the_checkout() -> None:
    """No example leads out of the checkout, because a clone has nothing beside it."""
    assert [] == [words for _, words in shell_lines() if any("../" in word for word in words)]


def test_exit_statuses_are_said_once_and_the_same() -> None:
    """The table, the error classes and the tree in their docstring name the same statuses."""
    said = [str(each.status) for each in EXIT_STATUSES]
    raised = {
        each.__name__: str(each.exit_status)
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, MemsyncError) and each is not MemsyncError
    }
    tree = dict(re.findall(r"── (\w+) +(\d+) ", errors.__doc__ or ""))
    assert raised == tree
    assert set(raised.values()) <= set(said)


def test_every_command_takes_json() -> None:
    """The README says that every command takes `--json`, and so does `memsync demo`."""
    assert "Every command takes `--json`" in (ROOT / "README.md").read_text()
    assert 0 == answer("demo", "--json", "--help")[0]


def test_readme_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two variables of the README lead to the stores of the compose file."""
    exports = dict(words[1].split("=", 1) for _, words in shell_lines() if words[0] == "export")
    compose = (ROOT / "docker-compose.yml").read_text()
    monkeypatch.chdir(ROOT / "tests")

    found = Settings.load(environ=exports)

    assert {"MEMSYNC_POSTGRES_URL", "MEMSYNC_QDRANT_URL"} == set(exports)
    postgres, qdrant = found.named("postgres_url", "qdrant_url")
    assert "5432" in postgres
    assert "5432" in compose
    assert "6333" in qdrant
    assert "6333" in compose


def test_readme_example_runs(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's example runs as written: after a flush it recalls what it wrote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMSYNC_POSTGRES_URL", database)
    (tmp_path / "qdrant").mkdir()
    monkeypatch.setenv("MEMSYNC_QDRANT_URL", f"edge:{tmp_path / 'qdrant'}")
    monkeypatch.setenv("MEMSYNC_LAYOUT", "shared")
    recipe = Recipe(users=8, dialogues=16, points=False)
    with Postgres.open(database) as postgres:
        with postgres.session() as session:
            load_rows(make_world(recipe), session)
        options = migrate.RunOptions(
            unresolved="create", quiet_minutes=0, backup_confirmed="test", evidence="ignore"
        )
        migrate.run(postgres, Settings(), options)
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT personality_id, persona_id FROM conversation_history")
        personality_id, persona_id = row.fetchone() or (None, None)
    (example,) = blocks(ROOT / "README.md", "python")
    first = run_example(example, personality_id, persona_id)
    assert 0 == answer("sync", "status")[0]
    second = run_example(example, personality_id, persona_id)

    assert ["user", "assistant"] == [message.role for message in first["window"]]
    assert 1 == len(first["memories"])
    assert ["I am allergic to peanuts.", "No peanuts for you, ever. Noted."] == [
        message.content for message in first["window"]
    ]
    assert 4 == len(second["window"])
    assert "peanuts" in (second["memories"][0].user_text)


def run_example(code: str, personality_id: object, persona_id: object) -> dict[str, Any]:
    """Run the example; return the variables that it leaves behind."""
    names: dict[str, Any] = {"personality_id": personality_id, "persona_id": persona_id}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102  the claim is that it runs
    return names
