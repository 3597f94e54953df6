"""Tests what all commands share: exit statuses, the use of both streams, the shape of errors."""

import contextlib
import json
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from memsync import Memory, NewExchange, SchemaMismatch, Settings
from memsync.cli.app import main
from memsync.model.records import Point
from memsync.reconcile.plans import Plan, Target
from memsync.stores.ltm.layouts import Layout
from memsync.stores.vectors import open_vectors
from support.cli import COMMANDS, NO_QDRANT, NOWHERE, every_command, on, run
from support.terminal import on_terminal


@every_command
def test_unreachable_postgres_is_10(command: tuple[str, ...]) -> None:
    """Stderr has one line, which names the host and the setting; stdout stays empty."""
    ran = on(NOWHERE, ":memory:", *command)

    assert (10, "") == (ran.status, ran.out)
    assert 1 == len(ran.err.splitlines())
    assert "127.0.0.1" in ran.err
    assert "postgres_url" in ran.err


@pytest.mark.parametrize(
    "command", [("check",), ("reconcile",), ("reconcile", "plan"), ("sync", "run")], ids=" ".join
)
def test_unreachable_qdrant_is_10(command: tuple[str, ...], app: str) -> None:
    """Every command that reads memories says which store does not answer."""
    ran = on(app, NO_QDRANT, *command)

    assert (10, "") == (ran.status, ran.out)
    assert 1 == len(ran.err.splitlines())
    assert f"Qdrant at {NO_QDRANT}" in ran.err


@every_command
def test_database_that_is_not_ours_is_12(command: tuple[str, ...], database: str) -> None:
    """An empty database is refused, and nothing is written into it."""
    ran = on(database, ":memory:", *command)

    assert (12, "") == (ran.status, ran.out)
    assert 1 == len(ran.err.splitlines())
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'memsync'"
        ).fetchone()
    assert (0,) == found


def test_a_wrong_database_is_told_before_a_layout_that_is_not_clear(
    database: str, tmp_path: Path
) -> None:
    """Whoever named another database has no layout to name."""
    store = f"edge:{tmp_path}"
    with contextlib.closing(open_vectors(Settings(qdrant_url=store), create=True)) as vectors:
        for name in ("memories", f"persona-{uuid4()}"):
            vectors.create(name, 2, {})
            vectors.upsert(name, [Point(uuid4(), {}, (1.0, 0.0))])

    ran = on(database, store, "check")

    assert (12, True) == (ran.status, "is not the app's database" in ran.err)


def test_a_database_that_is_not_migrated(legacy_app: str, tmp_path: Path) -> None:
    """What needs the migration says so, and what to type, in place of the server's words."""
    plan = tmp_path / "saved.json"
    target = Target(uuid4(), "x", Layout.PER_PERSONA, "memories", "snake", None)
    plan.write_text(Plan(uuid4(), target, (), {}).to_json())
    for command in (
        *(("sync", "run"), ("sync", "status"), ("sync", "retry"), ("sync", "run", "--follow")),
        *(("reconcile", "plan"), ("reconcile", "apply", str(plan))),
    ):
        ran = on(legacy_app, ":memory:", *command)
        assert (12, "") == (ran.status, ran.out), (command, ran.err)
        assert " is not migrated: it has no memsync." in ran.err.splitlines()[-1]
        assert "`memsync migrate plan` says what is ahead" in ran.err
        assert "does not exist" not in ran.err
    with Memory.open(Settings(postgres_url=legacy_app, qdrant_url=":memory:")) as memory:
        said = NewExchange("1", uuid4(), uuid4(), "I like tea.", "Noted.")
        with pytest.raises(SchemaMismatch, match="is not migrated: it has no persona_id"):
            memory.remember(said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("migrate", "nope"),
        ("reconcile", "nope"),
        ("migrate", "run", "--to", "nope"),
        ("migrate", "run", "--unresolved", "nope"),
        ("migrate", "status", "--nope"),
        ("reconcile", "apply"),
        ("reconcile", "apply", "missing.json"),
        ("--config", "missing.toml", "check"),
        ("--postgres-url", "mysql://host/db", "check"),
        ("--qdrant-url", "ftp://host", "check"),
        ("rules", "NOPE"),
        ("demo", "--seed", "many"),
        ("demo", "--dialogues", "missing.jsonl.gz"),
    ],
    ids=" ".join,
)
def test_usage_is_2(arguments: tuple[str, ...]) -> None:
    """Wrong usage is refused with one message before any store is opened."""
    ran = run(*arguments)

    assert (2, "") == (ran.status, ran.out)
    assert ran.err.startswith("memsync: ")
    assert "Traceback" not in ran.err


def test_every_without_follow_is_refused() -> None:
    """An option that would do nothing is refused, before a store is opened."""
    ran = on(NOWHERE, NO_QDRANT, "sync", "run", "--every", "2")

    assert (2, "") == (ran.status, ran.out)
    assert "--every 2 is how often --follow looks, and --follow was not given" in ran.err


def test_internal_error_is_70(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 70. The text of an unexpected exception may be people's words, so it is asked for."""
    words = "a fault of ours"

    def broken(*_: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr("memsync.cli.migrate.migrate.status", broken)
    ran = on(app, ":memory:", "migrate", "status")
    assert (70, "") == (ran.status, ran.out)
    assert "memsync: internal error: RuntimeError (-v prints its text)" == ran.err.splitlines()[-1]
    assert words not in ran.err

    ran = on(app, ":memory:", "--verbose", "migrate", "status")
    assert f"memsync: internal error: {words}" == ran.err.splitlines()[-1]


def test_internal_error_as_json(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json stderr is one object, even for an unexpected exception."""

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("memsync.cli.migrate.migrate.status", broken)

    assert "RuntimeError" == on(app, ":memory:", "migrate", "status", "--json").failure()["error"]


def test_interrupt_is_130(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command with the status that shells expect."""
    monkeypatch.setattr("memsync.cli.migrate.migrate.status", interrupt)

    assert 130 == on(app, ":memory:", "migrate", "status").status


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_interrupt_says_so(
    app: str, monkeypatch: pytest.MonkeyPatch, json_option: tuple[str, ...]
) -> None:
    """The message says what is true of every command: it may be run again."""
    monkeypatch.setattr("memsync.cli.migrate.migrate.status", interrupt)
    ran = on(app, ":memory:", "migrate", "status", *json_option)

    assert "interrupted; it is safe to run it again" in ran.err


def interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, as Ctrl-C does."""
    raise KeyboardInterrupt


@every_command
def test_failures_have_a_shape(command: tuple[str, ...]) -> None:
    """With --json a failure is one object on stderr."""
    failure = on(NOWHERE, ":memory:", *command, "--json").failure()

    assert ("StoreUnreachable", 10) == (failure["error"], failure["exit_status"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nope", "--json"), "UsageError"),
        (("migrate", "run", "--to", "nope", "--json"), "UsageError"),
        (("--qdrant-url", "x", "check", "--json"), "SettingsError"),
        (("rules", "NOPE", "--json"), "InvalidInput"),
    ],
)
def test_usage_errors_have_a_shape(arguments: tuple[str, ...], error: str) -> None:
    """A failure before a command starts its work is one object on stderr, too."""
    assert (error, 2) == (
        (found := run(*arguments).failure())["error"],
        found["exit_status"],
    )


def test_a_failure_for_a_program_is_one_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A break would stand inside a string, and no program could read it."""
    told = on_terminal(40, lambda: main(["rules", "NOPE", "--json"]), monkeypatch)

    assert 2 == json.loads(told)["exit_status"]


def test_an_argument_is_shown_by_its_name_alone() -> None:
    """No type of Python's and no bracket of a library's stands in the help."""
    for command, usage, line in (
        (("reconcile", "show"), "{} [OPTIONS] PLAN", "  PLAN  A file that"),
        (("init",), "{} [OPTIONS] [DIR]", "  DIR  With --embedded"),
        (("rules",), "{} [OPTIONS] [CODE]", "  CODE  A code, a name, or a family"),
        (("help",), "{} [OPTIONS] [TOPIC...]", "  TOPIC...  exit-statuses"),
    ):
        said = run(*command, "--help").out
        assert f"Usage: {usage.format(' '.join(('memsync', *command)))}\n" in said
        assert f"\n{line}" in said


def test_version_and_help_are_data() -> None:
    """Version and help are what was asked for, so they go to stdout with status 0."""
    assert (0, "") == ((ran := run("--version")).status, ran.err)
    assert ran.out.strip().count(".") == 2
    for command in [(), *COMMANDS, ("migrate",), ("sync",), ("rules",), ("demo",)]:
        ran = run(*command, "--help")
        assert (0, "") == (ran.status, ran.err)
        assert ran.out.endswith("Exit statuses: memsync help exit-statuses.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("migrate", "run", "--to", "nope"), "'--to': 'nope' is not one of 'isolate', "),
        (("reconcile", "undo", "nope"), "'nope' is no id of a run"),
        (("reconcile", "plan", "--persona", "nope"), "'--persona': must be a valid UUID\n"),
        (("demo", "--seed", "nope"), "'--seed': must be a valid integer\n"),
        (("sync", "run", "--every", "soon"), "'--every': must be a valid number"),
    ],
)
def test_a_bad_value_is_told_in_words_for_people(arguments: tuple[str, ...], said: str) -> None:
    """No word of the library that reads the values comes through."""
    ran = run(*arguments)

    assert 2 == ran.status
    assert said in ran.err
    assert "Value error" not in ran.err
    assert "Input" not in ran.err


@pytest.mark.parametrize("command", [(), ("migrate",), ("sync",)])
def test_no_command_shows_help_once(command: tuple[str, ...]) -> None:
    """Without a command stderr is the help alone: no prefix, no 'Try --help' after it."""
    ran = run(*command)

    assert 2 == ran.status
    assert ran.err.startswith("Usage: ")
    assert "Try 'memsync --help'" not in ran.err


def test_every_page_that_a_help_names_can_be_read() -> None:
    """`memsync help` prints the pages, which an installed package has no folder docs for."""
    for command in ((), ("migrate",), ("sync",), ("reconcile",), ("check",), ("init",), ("rules",)):
        more = " ".join(run(*command, "--help").out.split()).partition("More: memsync ")[2]
        named = more.partition(". ")[0].removeprefix("help ").split(" or ")
        assert named[0], command
        for page in named:
            ran = run("help", page)
            assert (0, "") == (ran.status, ran.err)
            assert ran.out.startswith("# ")


def test_a_page_is_found_by_its_name_alone() -> None:
    """A topic that is no command is a page; a command comes first, and a slip names both lists."""
    assert run("help", "docs/tutorial.md").out == run("help", "tutorial").out
    assert run("migrate", "--help").out == run("help", "migrate").out
    assert run("help", "docs/tutorial").out == run("help", "tutorial").out
    assert run("help", "docs/README.md").out == run("help", "docs").out == run("help", "docs/").out
    for slip, word in (
        ("tutorail", "tutorial"),
        ("migrat", "migrate"),
        ("exit-status", "exit-statuses"),
    ):
        told = run("help", slip).err
        assert f"did you mean {word}? " in told
        assert "`memsync help docs/README.md` the pages" in told
    for topic in ("tutorial", "migrate"):
        assert run("help", topic).out.strip() == run("help", topic, "--json").json()["help"].strip()


def test_a_page_that_is_not_there_is_answered_with_where_they_are_listed() -> None:
    """No name leads out of the folder of the pages."""
    for name in ("docs/nope.md", "docs/../README.md", "docs//etc/passwd", "README.md"):
        ran = run("help", name)
        assert (2, "") == (ran.status, ran.out)
        assert f"there is no help for {name!r}; " in ran.err
