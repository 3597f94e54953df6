"""The command line through `main`: statuses, streams, JSON shapes, and no secret anywhere."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memsync import Memory, NewExchange, Settings, migrate
from memsync.cli.app import main
from memsync.demo import story as demo
from memsync.demo import world as legacy
from memsync.errors import MemsyncError
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.embedded.server import start_embedded
from memsync.stores.postgres.locks import LockKey, exclusive
from memsync.stores.vectors.edge import open_edge

NewDatabase = Callable[..., str]
NOWHERE = "postgresql://user@127.0.0.1:1/app"
NO_QDRANT = "http://127.0.0.1:1"
EMBEDDERS = "memsync_cli_embedders"
CANARY = "Canary7Xyzzy"
RECIPE = legacy.Recipe(users=8, dialogues=16, points=False)


THROUGH = (
    *("migrate", "run", "--unresolved", "create"),
    *("--quiet-minutes", "0", "--backup-confirmed", "test"),
)
"""All phases at once, on an app that nobody uses."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command did."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The object on stdout, when all went well."""
        assert "" == self.err
        found: dict[str, Any] = json.loads(self.out)
        return found

    def failure(self) -> dict[str, Any]:
        """The object on stderr, with nothing on stdout."""
        assert "" == self.out
        found: dict[str, Any] = json.loads(self.err)
        assert self.status == found["exit_status"]
        assert 2 == found["schema_version"]
        assert {"error", "message"} <= set(found)
        return found


def run(*arguments: str) -> Ran:
    """Run one command as the console script would."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    return Ran(status, out.getvalue(), err.getvalue())


def on(postgres: str, qdrant: str, *command: str) -> Ran:
    """Run a command on these stores."""
    return run("--postgres-url", postgres, "--qdrant-url", qdrant, *command)


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that are good enough to be stored."""
    return [[1.0 + len(text) % 7, 2.0, 3.0, 4.0] for text in texts]


def embed_nothing(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that no store can compare."""
    return [[0.0] * 4 for _ in texts]


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the caller's, an embedder that loads at once, an empty working folder."""
    for name in list(os.environ):
        if name.startswith("PG") or (
            name.startswith("MEMSYNC_") and not name.startswith("MEMSYNC_TEST_")
        ):
            monkeypatch.delenv(name)
    embedders = ModuleType(EMBEDDERS)
    embedders.__dict__.update(embed=embed, embed_nothing=embed_nothing)
    monkeypatch.setitem(sys.modules, EMBEDDERS, embedders)
    monkeypatch.setenv("MEMSYNC_EMBEDDER", f"{EMBEDDERS}:embed")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def legacy_template(postgres_cluster: Any) -> Iterator[str]:
    """The name of a database with a small legacy app."""
    name = postgres_cluster.create()
    with Postgres.open(postgres_cluster.url_of(name)) as postgres, postgres.session() as session:
        legacy.load_rows(legacy.make_world(RECIPE), session)
    yield name
    postgres_cluster.drop(name)


@pytest.fixture(scope="module")
def contracted_template(postgres_cluster: Any, legacy_template: str) -> Iterator[str]:
    """The same app after the whole migration."""
    name = postgres_cluster.create(template=legacy_template)
    with Postgres.open(postgres_cluster.url_of(name)) as postgres:
        options = migrate.RunOptions(unresolved="create", quiet_minutes=0, backup_confirmed="test")
        migrate.run(postgres, Settings.load(environ={}), options)
    yield name
    postgres_cluster.drop(name)


@pytest.fixture
def legacy_app(new_database: NewDatabase, legacy_template: str) -> str:
    """The URL of a legacy app's database."""
    return new_database(template=legacy_template)


@pytest.fixture
def app(new_database: NewDatabase, contracted_template: str) -> str:
    """The URL of a migrated app's database. Qdrant holds nothing of it."""
    return new_database(template=contracted_template)


@pytest.fixture
def qdrant(tmp_path: Path) -> str:
    """The URL of an empty vector store that outlives a command."""
    return f"edge:{tmp_path / 'qdrant'}"


COMMANDS = [
    ("migrate", "plan"),
    ("migrate", "run"),
    ("migrate", "status"),
    ("migrate", "verify"),
    ("reconcile",),
    ("reconcile", "audit"),
    ("reconcile", "plan"),
    ("check",),
    ("sync", "run"),
    ("sync", "status"),
    ("sync", "retry"),
]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


def remember(url: str) -> None:
    """Say something, so that the outbox holds an entry."""
    with Postgres.open(url) as postgres:
        with psycopg.connect(url) as connection:
            personality, persona = connection.execute(
                "SELECT personality_id, persona_id FROM conversation_history LIMIT 1"
            ).fetchone() or (uuid4(), uuid4())
        Memory(postgres, Settings.load(environ={})).remember(
            NewExchange("cli", personality, persona, "a question", "an answer")
        )


# ------------------------------------------------------------------ statuses


@every_command
def test_unreachable_postgres_is_10(command: tuple[str, ...]) -> None:
    """One clear line with the host, nothing on stdout."""
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


def test_refused_sync_leaves_qdrant_alone(database: str, qdrant: str) -> None:
    """A relay that is pointed at the wrong database makes no collection."""
    assert 12 == on(database, qdrant, "sync", "run").status

    with contextlib.closing(open_edge(Path(qdrant.removeprefix("edge:")))) as vectors:
        assert [] == vectors.collections()


def test_collection_of_another_size_is_12(app: str, qdrant: str) -> None:
    """Vectors that do not fit are refused, with both sizes."""
    with contextlib.closing(open_edge(Path(qdrant.removeprefix("edge:")))) as vectors:
        vectors.create("memories", 7, {})

    ran = on(app, qdrant, "sync", "run")

    assert (12, "") == (ran.status, ran.out)
    assert "7" in ran.err
    assert "4" in ran.err


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
    """What cannot be meant is refused before any store is opened."""
    ran = run(*arguments)

    assert (2, "") == (ran.status, ran.out)
    assert ran.err.startswith("memsync: ")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("text", ["{}", "[]", "", "not json", '{"schema_version": 9}', "\udcff"])
def test_file_that_is_no_plan_is_2(text: str, tmp_path: Path) -> None:
    """Any other file is refused by name."""
    file = tmp_path / "plan.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    ran = on(NOWHERE, ":memory:", "reconcile", "apply", str(file))

    assert (2, "") == (ran.status, ran.out)
    assert "plan.json" in ran.err


def test_plan_that_cannot_be_saved_is_2(app: str, qdrant: str, tmp_path: Path) -> None:
    """A folder that is not there is named."""
    ran = on(app, qdrant, "reconcile", "plan", "--out", str(tmp_path / "none" / "plan.json"))

    assert (2, "") == (ran.status, ran.out)
    assert "plan.json" in ran.err


def test_partly_done_is_3(app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that cannot be carried over are left for another run, and that is said."""
    remember(app)
    monkeypatch.setenv("MEMSYNC_EMBEDDER", f"{EMBEDDERS}:embed_nothing")

    ran = on(app, qdrant, "sync", "run", "--json")

    assert 3 == ran.status
    failure = ran.failure()
    assert ("PartlyDone", 0) == (failure["error"], failure["done"])
    assert 1 <= failure["pending"]


def test_second_migration_is_11(legacy_app: str) -> None:
    """Who holds the lock is named by its pid."""
    with Postgres.open(legacy_app) as postgres, exclusive(postgres, LockKey.MIGRATE, "migration"):
        ran = on(legacy_app, ":memory:", "migrate", "run", "--json")

    assert 11 == ran.status
    assert 1 == len(ran.failure()["pids"])


def behind_a_lock(url: str, *options: str) -> Ran:
    """A run that gives up on a lock, after it said that it waits."""
    with psycopg.connect(url) as client:
        client.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        client.execute("SELECT count(*), count(username), count(discord_id) FROM users")
        return on(url, ":memory:", *THROUGH, *options)


def test_a_failure_after_a_wait_is_one_object(
    legacy_app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json nothing else stands on stderr."""
    monkeypatch.setenv("MEMSYNC_LOCK_DEADLINE_S", "0.5")
    ran = behind_a_lock(legacy_app, "--json")

    assert (11, "StoreBusy") == (ran.status, ran.failure()["error"])


def test_a_wait_is_one_line_of_a_log(legacy_app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long: who it waits for stands in the line that says so."""
    monkeypatch.setenv("MEMSYNC_LOCK_DEADLINE_S", "0.5")
    ran = behind_a_lock(legacy_app)
    waiting, failed = ran.err.splitlines()

    assert waiting.startswith("waiting for a lock on ")
    assert 80 < len(waiting)
    assert failed.startswith("memsync: no lock on ")


def test_held_data_directories_are_11(reachable_dir: Path, app: str, tmp_path: Path) -> None:
    """Both embedded stores are used by one process at a time."""
    with start_embedded(reachable_dir / "postgres", durable=False):
        ran = run("--postgres-url", f"embedded:{reachable_dir / 'postgres'}", "migrate", "status")
    assert (11, "") == (ran.status, ran.out)
    assert str(os.getpid()) in ran.err

    with contextlib.closing(open_edge(tmp_path / "held")):
        ran = on(app, f"edge:{tmp_path / 'held'}", "check")
    assert (11, "") == (ran.status, ran.out)


def test_plan_of_another_database_is_13(
    app: str, legacy_app: str, qdrant: str, tmp_path: Path
) -> None:
    """A plan is carried out on the database that it was made for, or not at all."""
    plan = str(tmp_path / "plan.json")
    assert 0 == on(app, qdrant, "reconcile", "plan", "--out", plan).status
    assert 0 == on(legacy_app, qdrant, *THROUGH).status

    ran = on(legacy_app, qdrant, "reconcile", "apply", plan)

    assert (13, "") == (ran.status, ran.out)
    assert "database" in ran.err


def test_users_without_persona_are_14(legacy_app: str) -> None:
    """The migration stops before it changes anything."""
    ran = on(legacy_app, ":memory:", "migrate", "run", "--unresolved", "fail")

    assert (14, "") == (ran.status, ran.out)
    assert "--unresolved create" in ran.err
    assert "legacy" == on(legacy_app, ":memory:", "migrate", "status", "--json").json()["stage"]


def test_check_of_legacy_database_is_15(legacy_app: str) -> None:
    """What cannot be read is unknown, not clean; what was found is shown all the same."""
    ran = on(legacy_app, ":memory:", "check", "--json")

    assert 15 == ran.status
    report = ran.json()
    assert (False, False) == (report["ok"], report["complete"])
    assert "migration-behind" in report["counts"]
    assert report["not_checked"]


def test_internal_error_is_70(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw has a status and a line, too."""

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("memsync.cli.migrate.migrate.status", broken)
    ran = on(app, ":memory:", "migrate", "status")

    assert (70, "") == (ran.status, ran.out)
    assert "memsync: internal error: a fault of ours" == ran.err.splitlines()[-1]


def test_internal_error_as_json(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json stderr is one object, whatever failed."""

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
    """Who interrupts is told that running again goes on."""
    monkeypatch.setattr("memsync.cli.migrate.migrate.status", interrupt)
    ran = on(app, ":memory:", "migrate", "status", *json_option)

    assert "interrupted; run again to go on" in ran.err


def interrupt(*_: object) -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


def test_closed_pipe_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """`memsync rules | head -1` ends quietly; main returns a status."""
    monkeypatch.setattr("memsync.cli.rules.print_json", closed)

    assert 141 == main(["rules", "--json"])


def closed(**_: object) -> None:
    """As print does when nobody reads."""
    raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_reader_that_has_gone_is_141(json_option: tuple[str, ...]) -> None:
    """Also what was written but not flushed yet; nothing is said of it."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        ran = subprocess.run(
            [sys.executable, "-m", "memsync", "rules", *json_option],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (141, "") == (ran.returncode, ran.stderr)


# ------------------------------------------------------------------ bad values


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://user@127.0.0.1:1/app?connect_timeout=abc"),
        pytest.param("postgresql://user@127.0.0.1:port/app"),
        "postgresql://user@[::1/app",
        "postgresql://127.0.0.1:1/app?nope=1",
    ],
)
def test_postgres_url_that_cannot_be_meant_is_2(url: str) -> None:
    """A wrong URL is wrong settings, not a server that is down."""
    ran = on(url, ":memory:", "migrate", "status")

    assert (2, "") == (ran.status, ran.out)
    assert "postgres_url" in ran.err


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:port", "http://127.0.0.1:99999", "http://[::1", "http:host", "http://"],
)
def test_qdrant_url_that_cannot_be_meant_is_2(url: str) -> None:
    """A wrong URL is wrong settings, found before Postgres is opened."""
    ran = on(NOWHERE, url, "check")

    assert (2, "") == (ran.status, ran.out)
    assert "qdrant_url" in ran.err


@pytest.mark.parametrize("embedder", [".x:y", "builtins:len"])
def test_embedder_that_is_none_is_2(
    embedder: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedder that cannot be loaded or called is a bad setting."""
    monkeypatch.setenv("MEMSYNC_EMBEDDER", embedder)

    assert 2 == on(app, ":memory:", "sync", "run").status


# ------------------------------------------------------------------ shapes

FINDING = {
    *("code", "name", "severity", "grade", "store", "key", "persona_id", "evidence"),
    "next_command",
}
AUDIT = {
    *("schema_version", "ok", "complete", "counts", "findings", "checked", "settling"),
    "not_checked",
}


def test_the_whole_road(legacy_app: str, qdrant: str, tmp_path: Path) -> None:
    """Every command's object on stdout, from a legacy app to two stores that agree."""
    plan = str(tmp_path / "plan.json")

    def ran(*command: str, expected: int = 0) -> dict[str, Any]:
        done = on(legacy_app, qdrant, *command, "--json")
        assert expected == done.status, done.err
        found = done.json()
        assert 2 == found["schema_version"]
        return found

    assert {
        *("schema_version", "stage", "steps", "rows_estimated", "bytes_total"),
        *("rows_by_decision", "unresolved", "server_version", "checks", "next"),
        *("evidence", "redesign", "method"),
    } == set(ran("migrate", "plan"))
    assert not ran("migrate", "verify", expected=1)["ok"]
    reached = ran(*THROUGH)
    assert {"schema_version": 2, "stage": "contracted"} == reached
    status = ran("migrate", "status")
    assert {
        *("schema_version", "stage", "rows_total", "rows_done", "rows_per_s", "eta_s"),
        *("steps", "run", "prisma", "prisma_unknown", "next"),
    } == set(status)
    assert "contracted" == status["stage"]
    assert {"phase", "what", "done"} == set(status["steps"][0])
    proof = ran("migrate", "verify")
    assert {
        *("schema_version", "ok", "stage", "proven", "rows_total", "unique_personas"),
        *("null_persona_ids", "unknown_persona_ids", "wrong_persona_ids"),
        *("decisions_outdated", "problems", "checks"),
    } == set(proof)
    assert proof["ok"]
    assert {"pending", "dead", "oldest_s", "schema_version"} == set(ran("sync", "status"))
    audit = ran("reconcile", expected=1)
    assert set(AUDIT) == set(audit)
    assert {"rows", "points"} == set(audit["checked"])
    assert FINDING == set(audit["findings"][0])
    assert audit == ran("reconcile", "audit", expected=1)
    made = ran("reconcile", "plan", "--out", plan)
    assert {"schema_version", "plan", "plan_id", "actions", "left"} == set(made)
    UUID(made["plan_id"])
    applied = ran("reconcile", "apply", plan)
    assert {"schema_version": 2, "done": made["actions"], "done_before": 0} == applied
    assert made["actions"] == ran("reconcile", "apply", plan)["done_before"]
    assert {"schema_version": 2, "entries": 0, "memories": 0} == ran("sync", "run")
    assert {"schema_version": 2, "revived": 0} == ran("sync", "retry")
    gate = ran("check")
    assert (True, True, []) == (gate["ok"], gate["complete"], gate["findings"])


def test_the_whole_road_in_words(legacy_app: str, qdrant: str) -> None:
    """The same for people: each ends by saying how it went, and stderr stays empty."""

    def last(*command: str) -> str:
        done = on(legacy_app, qdrant, *command)
        assert "" == done.err
        return done.out.splitlines()[-1]

    assert last("migrate", "plan").endswith("memsync migrate run --unresolved create")
    assert "NOT ok" == last("migrate", "verify")
    assert "stage: contracted" == last(*THROUGH)
    assert "ok" == last("migrate", "verify")
    assert last("reconcile").endswith(" findings")
    assert last("reconcile", "plan").endswith("next: memsync reconcile apply plan.json")
    assert last("reconcile", "apply", "plan.json").endswith("0 were done before")
    assert "clean: both stores agree" == last("reconcile")
    assert "clean: both stores agree" == last("check")
    assert "0 outbox entries drained, 0 memories written" == last("sync", "run")


def test_rules() -> None:
    """Every code can be listed and explained, by code and by name."""
    every = run("rules", "--json").json()["rules"]

    assert {"code", "name", "severity", "grade", "about", "next_command"} == set(every[0])
    for rule in every:
        by_code, by_name = run("rules", rule["code"]), run("rules", rule["name"])
        assert (0, by_code.out) == (by_name.status, by_name.out)
        assert rule["about"].splitlines()[0] in by_code.out


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
    """Also what fails before a command starts."""
    assert (error, 2) == (
        (found := run(*arguments).failure())["error"],
        found["exit_status"],
    )


def test_json_before_a_subcommand_counts(app: str, qdrant: str) -> None:
    """`memsync reconcile --json plan` prints JSON, or refuses."""
    ran = on(app, qdrant, "reconcile", "--json", "plan")

    assert 2 == ran.status or ran.json()


def test_version_and_help_are_data() -> None:
    """What was asked for goes to stdout."""
    assert (0, "") == ((ran := run("--version")).status, ran.err)
    assert ran.out.strip().count(".") == 2
    for command in [(), *COMMANDS, ("migrate",), ("sync",), ("rules",), ("demo",)]:
        ran = run(*command, "--help")
        assert (0, "") == (ran.status, ran.err)
        assert "Exit statuses: 0 done and clean" in " ".join(ran.out.split())


@pytest.mark.parametrize("command", [(), ("migrate",), ("sync",)])
def test_no_command_shows_help_once(command: tuple[str, ...]) -> None:
    """The help stands alone: no prefix before it, no 'Try --help' after it."""
    ran = run(*command)

    assert 2 == ran.status
    assert ran.err.startswith("Usage: ")
    assert "Try 'memsync --help'" not in ran.err


# ------------------------------------------------------------------ secrets


@pytest.mark.parametrize("json_option", [(), ("--json",)])
@pytest.mark.parametrize("command", [("migrate", "status"), ("check",), ("sync", "run")])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:{}@127.0.0.1:1/app",
        "postgresql://user:{}@nowhere.invalid/app",
        "postgresql://user:{}@127.0.0.1:port/app",
        "postgresql://user:{}@127.0.0.1:99999/app",
        "postgresql://user:{}@[::1/app",
        "postgresql://user:%zz{}@127.0.0.1:1/app",
        "postgresql://127.0.0.1:1/app?user=u&password={}",
        "postgresql://127.0.0.1:1/app?pasword={}",
        "postgresql://127.0.0.1:1/app?sslpassword={}&sslmode=nope",
        "postgresql://user:{}@127.0.0.1:1/app?connect_timeout=abc",
        "postgresql://user:a?{}@127.0.0.1:1/app",
        "postgresql://user:a#{}@127.0.0.1:1/app",
        "host=127.0.0.1 port=1 password={}",
        "mysql://user:{}@127.0.0.1/app",
        pytest.param("postgresql://user:a@{}@127.0.0.1:1/app"),
        pytest.param("postgresql://user:a/{}@127.0.0.1:1/app"),
    ],
)
def test_postgres_password_is_never_shown(
    url: str, command: tuple[str, ...], json_option: tuple[str, ...]
) -> None:
    """Whatever is wrong with the URL, its password stays out of both streams."""
    ran = on(url.format(CANARY), ":memory:", *command, *json_option)

    assert 0 != ran.status
    assert CANARY not in ran.out + ran.err


def test_wrong_password_is_never_shown(database: str, postgres_cluster: Any) -> None:
    """A server that answers does not make memsync repeat the password."""
    url = database.replace("postgresql://postgres@", f"postgresql://nobody_of_us:{CANARY}@")
    if url == database:
        pytest.skip(f"{postgres_cluster.url} names another role")

    ran = on(url, ":memory:", "migrate", "status")

    assert 10 == ran.status
    assert CANARY not in ran.out + ran.err


@pytest.mark.parametrize("json_option", [(), ("--json",)])
@pytest.mark.parametrize(
    "url",
    [
        NO_QDRANT,
        "http://nowhere.invalid:6333",
        f"http://user:{CANARY}@127.0.0.1:1",
        f"http://127.0.0.1:1?api_key={CANARY}",
        f"ftp://user:{CANARY}@127.0.0.1:1",
        f"http://user:{CANARY}@[::1",
        pytest.param(f"http://user:{CANARY}/x@127.0.0.1:1"),
    ],
)
def test_qdrant_secrets_are_never_shown(
    url: str, json_option: tuple[str, ...], app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the API key nor a password in the URL."""
    monkeypatch.setenv("MEMSYNC_QDRANT_API_KEY", CANARY)
    ran = on(app, url, "check", *json_option)

    assert 0 != ran.status
    assert CANARY not in ran.out + ran.err


def test_key_that_no_header_carries_is_never_shown(
    app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a line break is refused without repeating it."""
    monkeypatch.setenv("MEMSYNC_QDRANT_API_KEY", f"{CANARY}\n{CANARY}")
    ran = on(app, NO_QDRANT, "check")

    assert 2 == ran.status
    assert CANARY not in ran.out + ran.err


def test_secrets_in_files_are_never_shown(tmp_path: Path) -> None:
    """A settings file that cannot be used is not quoted."""
    config = tmp_path / "memsync.toml"
    for text in (
        f'qdrant_api_key = "{CANARY}',
        f'qdrant_api_key = {{ x = "{CANARY}" }}',
        f'nope = "{CANARY}"\nqdrant_api_key = ["{CANARY}"]',
        f'postgres_url = "nope:{CANARY}"\nsettle_s = "{CANARY}"',
        f"qdrant_api_key = {CANARY}",
    ):
        config.write_text(text)
        for options in ((), ("--json",), ("--config", str(config))):
            ran = run("check", *options) if options != ("--config", str(config)) else None
            ran = ran or run(*options, "check")
            assert 2 == ran.status
            assert CANARY not in ran.out + ran.err


@settings(max_examples=60)
@given(
    around=st.tuples(st.text(max_size=6), st.text(max_size=6)),
    shape=st.sampled_from(
        [
            "postgresql://user:{}@127.0.0.1:1/app",
            "postgresql://user:{}@127.0.0.1:1/app?nope=1",
            "postgresql://user:{}@127.0.0.1:x/app",
            "postgresql://127.0.0.1:1/app?password={}",
            "postgres://127.0.0.1:1/?sslpassword={}&sslmode=nope",
            "postgresq://user:{}@127.0.0.1:1/app",
        ]
    ),
    json_option=st.sampled_from([(), ("--json",)]),
)
def test_encoded_password_is_never_shown(
    around: tuple[str, str], shape: str, json_option: tuple[str, ...]
) -> None:
    """Any password, percent-encoded as a URL asks, stays hidden in every failure."""
    secret = quote(around[0] + CANARY + around[1], safe="", errors="replace")
    ran = on(shape.format(secret), ":memory:", "migrate", "status", *json_option)

    assert 0 != ran.status
    assert "" == ran.out
    assert CANARY not in ran.err


def test_errors_hold_no_password() -> None:
    """Neither in the library's error, its fields, nor in what caused it."""
    with pytest.raises(MemsyncError) as caught:
        Postgres.open(f"postgresql://user:{CANARY}@127.0.0.1:1/app")

    error: BaseException | None = caught.value
    assert CANARY not in repr(caught.value.fields)
    while error is not None:
        assert CANARY not in repr(error) + str(error)
        error = error.__cause__ or error.__context__


# ------------------------------------------------------------------ libpq's variables


def test_libpq_variables_work(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL may leave to PG* whatever it does not say."""
    facts = psycopg.conninfo.conninfo_to_dict(app)
    for variable, name in (("PGHOST", "host"), ("PGPORT", "port"), ("PGUSER", "user")):
        if name in facts:
            monkeypatch.setenv(variable, str(facts[name]))
    if "password" in facts:
        monkeypatch.setenv("PGPASSWORD", str(facts["password"]))

    ran = on(f"postgresql:///{facts['dbname']}", ":memory:", "migrate", "status", "--json")

    assert "contracted" == ran.json()["stage"]


def test_message_names_the_host_of_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator is sent to the server that was asked, not to localhost."""
    monkeypatch.setenv("PGHOST", "127.0.0.2")
    monkeypatch.setenv("PGPORT", "1")

    assert "localhost" not in on("postgresql:///app", ":memory:", "migrate", "status").err


@pytest.mark.parametrize(
    ("variable", "value"), [("PGHOSTADDR", "240.0.0.1"), ("PGOPTIONS", "-c search_path=nowhere")]
)
def test_libpq_variables_do_not_reach_the_embedded_server(
    variable: str, value: str, reachable_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that are meant for another server never redirect the embedded one."""
    monkeypatch.setenv(variable, value)
    ran = run("--postgres-url", f"embedded:{reachable_dir / 'data'}", "migrate", "status")

    assert 12 == ran.status, ran.err


# ------------------------------------------------------------------ demo


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The story comes true on stores of its own, and leaves nothing behind."""
    monkeypatch.delenv("MEMSYNC_EMBEDDER")
    monkeypatch.setenv("MEMSYNC_POSTGRES_URL", NOWHERE)
    monkeypatch.setenv("MEMSYNC_QDRANT_URL", NO_QDRANT)
    left_before = left()

    ran = run("demo")

    assert (0, "") == (ran.status, ran.err)
    assert ran.out.splitlines()[-1].startswith("Everything came true")
    assert "FAILED" not in ran.out
    assert [] == list(tmp_path.iterdir())
    assert left_before == left()


def left() -> set[str]:
    """The demo's folders that are there now."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("memsync-d*")}


@pytest.mark.slow
def test_demo_that_fails_is_70(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expectation that does not come true is said on both streams, and in the status."""

    def play(*_: object) -> Iterator[demo.Scene]:
        yield demo.Scene("A scene", "memsync check", [("clean", False)], ["clean: not at all"])

    monkeypatch.setattr(demo, "play", play)
    ran = run("demo")

    assert 70 == ran.status
    assert "   FAILED clean: not at all" in ran.out.splitlines()
    assert "FAILED A scene: clean: not at all\n" == ran.err
    assert "Everything came true" not in ran.out


@pytest.mark.slow
def test_demo_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a production do not make the story fail: its counts rest on the defaults."""
    monkeypatch.setenv("MEMSYNC_RETENTION_DAYS", "30")
    monkeypatch.setenv("MEMSYNC_SETTLE_S", "99999999")
    seen: list[Settings] = []

    def play(stage: demo.Stage, _: legacy.Recipe) -> Iterator[demo.Scene]:
        seen.append(stage.settings)
        yield demo.Scene("A scene", "", [])

    monkeypatch.setattr(demo, "play", play)

    assert 0 == run("demo").status
    assert [(None, 60.0)] == [(each.retention_days, each.settle_s) for each in seen]


@pytest.mark.parametrize("content", [b"", b"not gzip", b"\x1f\x8b broken"])
def test_demo_refuses_bad_dialogues(content: bytes, tmp_path: Path) -> None:
    """A file that holds no dialogues is refused by name, before a store is started."""
    file = tmp_path / "dialogues.jsonl.gz"
    file.write_bytes(content)

    ran = run("demo", "--dialogues", str(file))

    assert (2, "") == (ran.status, ran.out)
    assert "dialogues.jsonl.gz" in ran.err


def test_demo_reads_plain_lines(tmp_path: Path) -> None:
    """A file with one JSON object a line need not be compressed."""
    turns = [{"role": "user", "text": "Hello"}, {"role": "assistant", "text": "Hi"}]
    file = tmp_path / "dialogues.jsonl"
    file.write_text(json.dumps({"id": 1, "scenario": "s", "turns": turns}) + "\n")

    assert 1 == len(legacy.read_dialogues(file))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGINT,
        pytest.param(signal.SIGHUP),
    ],
)
def test_demo_cleans_up_when_told_to_end(number: signal.Signals, reachable_dir: Path) -> None:
    """Ended in the middle, the demo stops its server and removes its folder."""
    environ = {name: value for name, value in os.environ.items() if name != "MEMSYNC_EMBEDDER"}
    process = subprocess.Popen(
        [sys.executable, "-m", "memsync", "demo"],
        env={**environ, "TMPDIR": str(reachable_dir)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        with process.stdout:
            started = any("Two stores" in line for line in process.stdout)
            process.send_signal(number)
        status = process.wait(timeout=30)
        assert started
        assert 0 != status
        assert [] == list(reachable_dir.iterdir())
    finally:
        process.kill()
        process.wait()
        stop_servers_below(reachable_dir)


def stop_servers_below(folder: Path) -> None:
    """Stop what a demo that was killed left running."""
    for file in folder.glob("*/postgres/postmaster.pid"):
        pid = int(file.read_text().split()[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + 10
        while file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
