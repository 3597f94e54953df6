"""The examples of the pages work: each line of a block, typed in order, ends as the page says."""

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from memsync import Memory, NewExchange, Settings, migrate
from memsync.demo.world import Recipe, load, make_world
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors, scan
from support.cli import embed, run
from support.moments import later, until
from support.postgres import NewDatabase, PostgresCluster
from support.psql import PSQL, needs_psql

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
EMBEDDER = "support.cli:embed"
FINDINGS, BEFORE_CONTRACT = 1, 3


@dataclass(frozen=True, slots=True)
class Stores:
    """A legacy app whose users all have a persona: its two databases, and its memories."""

    legacy: str
    contracted: str
    memories: Path


@pytest.fixture(scope="module")
def stores(
    postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stores]:
    """The names of both databases, which tests copy, and the folder of the vector store."""
    memories = tmp_path_factory.mktemp("memories")
    legacy = postgres_cluster.create()
    settings = Settings(qdrant_url=f"edge:{memories}", embedder=EMBEDDER)
    with (
        Postgres.open(postgres_cluster.url_of(legacy)) as postgres,
        postgres.session() as session,
        closing(open_vectors(settings, create=True)) as vectors,
    ):
        world = make_world(Recipe(users=4, personalities=2, dialogues=8, unresolved_share=0))
        load(world, session, vectors, lambda texts: [tuple(each) for each in embed(texts)])
    contracted = postgres_cluster.create(template=legacy)
    with (
        Postgres.open(postgres_cluster.url_of(contracted)) as postgres,
        migrate.memories_of(settings) as found,
    ):
        options = migrate.RunOptions(quiet_minutes=0, backup_confirmed="test")
        migrate.run(postgres, settings, options, memories=found)
    yield Stores(legacy, contracted, memories)
    for name in (legacy, contracted):
        postgres_cluster.drop(name)


@dataclass(slots=True)
class Terminal:
    """Types the lines of a page. `before` is what happens before a line that needs time to pass or
    somebody to write.
    """

    postgres_url: str
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    typed: list[tuple[str, int]] = field(default_factory=list)

    def types(self, *shell_blocks: str) -> None:
        """Type each line, and keep it with its exit status."""
        for line in (each for block in shell_blocks for each in block.splitlines()):
            words = shlex.split(line, comments=True)
            command = shlex.join(words)
            self.before.get(command, lambda: None)()
            self.typed.append((command, self._status(line, words)))

    def _status(self, line: str, words: list[str]) -> int:
        if words[-1] == "--follow":
            return self._followed(words)
        if words[0] == "memsync":
            ran = run(*words[1:])
            assert "--quiet" not in words or ran.out == ""
            return ran.status
        return subprocess.run(
            ["bash", "-c", line], env=environ(), capture_output=True, check=False
        ).returncode

    def _followed(self, words: list[str]) -> int:
        """The status of a service that is asked to end once it has drained the outbox."""
        command = [sys.executable, "-m", *words, "--every", "0.1"]
        with subprocess.Popen(command, env=environ(), stderr=subprocess.DEVNULL) as relay:
            try:
                until(lambda: self._pending() == 0, "the relay drains the outbox")
                relay.send_signal(signal.SIGTERM)
                return relay.wait(30)
            finally:
                relay.kill()

    def _pending(self) -> int:
        with psycopg.connect(self.postgres_url) as connection:
            found = connection.execute("SELECT count(*) FROM memsync.outbox").fetchone()
        assert found is not None
        return int(found[0])


def environ() -> dict[str, str]:
    """What a program that is started needs: this package, and psql."""
    path = os.pathsep.join([str(Path(PSQL or "").parent), os.environ["PATH"]])
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": path}


@pytest.fixture
def terminal(
    new_database: NewDatabase,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Terminal]:
    """Call it with the name of a database for a terminal with a copy of both stores."""
    for name in list(os.environ):
        if name.startswith("MEMSYNC_") and not name.startswith("MEMSYNC_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sql").symlink_to(ROOT / "sql")
    shutil.copytree(stores.memories, tmp_path / "memories")

    def opened(template: str) -> Terminal:
        url = new_database(template=template)
        monkeypatch.setenv("MEMSYNC_POSTGRES_URL", url)
        monkeypatch.setenv("MEMSYNC_QDRANT_URL", f"edge:{tmp_path / 'memories'}")
        monkeypatch.setenv("MEMSYNC_EMBEDDER", EMBEDDER)
        return Terminal(url)

    return opened


def blocks(page: Path, language: str, heading: str = "") -> list[str]:
    """The code blocks of one language; with a heading, those of its section."""
    text = page.read_text()
    if heading:
        (text,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, of, code in _BLOCK.findall(text) if of == language]


def remember(url: str) -> None:
    """Write an exchange, as the app does, and leave its memory to a relay."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT personality_id, persona_id FROM conversation_history LIMIT 1"
        ).fetchone()
    personality, persona = found or (None, None)
    with Memory.open(Settings.load(drain="no")) as memory:
        memory.remember(NewExchange("follow", personality, persona, "a question", "an answer"))


def lose_a_memory() -> str:
    """Remove a memory, as a fault of the app would. Returns the id of its persona."""
    with closing(open_vectors(Settings.load())) as vectors:
        collection, *_ = vectors.collections()
        point, *_ = scan(vectors, collection)
        vectors.delete(collection, [point.id])
    return collection.removeprefix("persona-")


def lose_an_old_memory(url: str) -> Callable[[], None]:
    """The ledger has a memory that stands nowhere."""
    return lambda: _execute(
        url,
        b"INSERT INTO memsync.memories (collection, point_id, stored, state) SELECT collection,"
        b" gen_random_uuid(), stored, 'archived' FROM memsync.memories LIMIT 1",
    )


def find_it_again(url: str) -> Callable[[], None]:
    """The ledger does not have it any more."""
    return lambda: _execute(url, b"DELETE FROM memsync.memories WHERE anchor_id IS NULL")


def _execute(url: str, statement: bytes) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def quiet(url: str) -> Callable[[], None]:
    """Ten minutes pass in which nobody uses user_id."""
    return lambda: later(url, 600)


OpenTerminal = Callable[[str], Terminal]


def test_the_migration_of_the_readme(terminal: OpenTerminal, stores: Stores) -> None:
    """Every line under "Migrate" ends with 0, once ten minutes have passed before the last run."""
    typist = terminal(stores.legacy)
    typist.before = {"memsync migrate run": quiet(typist.postgres_url)}
    typist.types(*blocks(ROOT / "README.md", "sh", "Migrate"))

    assert [
        ("memsync migrate plan", 0),
        ("memsync migrate run --to backfill", 0),
        ("memsync migrate verify", 0),
        ("memsync migrate backup", 0),
        ("memsync migrate run", 0),
        ("memsync migrate rollback --to backfill", 0),
    ] == typist.typed


def test_the_stores_of_the_readme(
    terminal: OpenTerminal, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay drains beside what the app wrote, and every comparison is clean."""
    typist = terminal(stores.contracted)
    monkeypatch.setenv("MEMSYNC_WRITER", "memsync")
    remember(typist.postgres_url)
    typist.types(*blocks(ROOT / "README.md", "sh", "Keep the stores in step"))

    assert [
        ("memsync sync run --follow", 0),
        ("memsync reconcile", 0),
        ("memsync reconcile plan --out plan.json", 0),
        ("memsync reconcile show plan.json", 0),
        ("memsync reconcile apply plan.json", 0),
        ("memsync check --quiet", 0),
    ] == typist.typed


def test_the_page_of_the_migration(terminal: OpenTerminal, stores: Stores) -> None:
    """The phases forward, and the way back."""
    typist = terminal(stores.legacy)
    typist.before = {"memsync migrate run": quiet(typist.postgres_url)}
    for heading in ("The phases", "The way back"):
        typist.types(*blocks(ROOT / "docs/migrate.md", "sh", heading))

    assert [
        ("memsync migrate plan", 0),
        ("memsync migrate run --to backfill", 0),
        ("memsync migrate backup", 0),
        ("memsync migrate run", 0),
        ("memsync migrate status", 0),
        ("memsync migrate verify", 0),
        ("memsync migrate finalize", 0),
        ("memsync migrate rollback --to backfill", 0),
    ] == typist.typed


@needs_psql
def test_the_migration_with_psql(terminal: OpenTerminal, stores: Stores) -> None:
    """The first call stops before contract, the second one ends the migration."""
    typist = terminal(stores.legacy)
    typist.types(*blocks(ROOT / "docs/migrate.md", "sh", "With psql alone"))

    assert [
        ("psql", BEFORE_CONTRACT),
        ("psql", 0),
        ("memsync", 0),
    ] == [(command.split()[0], status) for command, status in typist.typed]


def test_the_page_of_the_repairs(terminal: OpenTerminal, stores: Stores) -> None:
    """A lost memory is found, none of the family MSI; the plan repairs it, and the gate is open.

    One that cannot be repaired is acknowledged. Then the layout is changed, the old collections are
    retired, and everything is changed back.
    """
    typist = terminal(stores.contracted)
    known = "memsync reconcile baseline --select MSC011 --reason"
    typist.before = {
        f"{known} 'lost in March, there is no snapshot'": lose_an_old_memory(typist.postgres_url),
        "memsync reconcile baseline drop --outdated": find_it_again(typist.postgres_url),
    }
    lose_a_memory()
    typist.types(*blocks(ROOT / "docs/reconcile.md", "sh"))

    assert [
        ("memsync reconcile", FINDINGS),
        ("memsync reconcile --select MSI", 0),
        ("memsync reconcile plan --out plan.json", 0),
        ("memsync reconcile show plan.json", 0),
        ("memsync reconcile apply plan.json", 0),
        ("memsync reconcile runs", 0),
        ("memsync reconcile adopt", 0),
        ("memsync reconcile baseline list", 0),
        ("memsync reconcile layout", 0),
        ("memsync check", 0),
        ("memsync rules MSC001", 0),
        ("memsync check", 0),
        ("memsync check --deep", 0),
        ("memsync check --by-fingerprint", 0),
        ("memsync check --workers 4", 0),
        ("memsync check --scheduler tls://10.0.0.1:8786", 0),
        ("memsync check --deep --max-points-per-s 5000", 0),
        ("memsync check --state nightly.state", 0),
        ("memsync check --verify-vectors 200", 0),
        ("memsync check --verify-vectors 200 --verify-seed 7", 0),
        ("memsync reconcile --verify-vectors all", 0),
        ("memsync reconcile plan --verify-vectors all --out vectors.json", 0),
        (f"{known} 'lost in March, there is no snapshot'", 0),
        ("memsync check --acknowledged", 0),
        ("memsync reconcile baseline list", 0),
        ("memsync reconcile baseline drop --select MSC011", 0),
        ("memsync reconcile baseline drop --outdated", 0),
        ("memsync reconcile layout", 0),
        ("memsync reconcile layout set shared --app-stopped", 0),
        ("memsync reconcile layout set shared --retire", 0),
        ("memsync reconcile layout set per-persona", 0),
    ] == typist.typed
    assert 0 == run("check").status


def test_the_page_of_reports(terminal: OpenTerminal, stores: Stores) -> None:
    """Each report is written, again over the one before, and the record is kept."""
    typist = terminal(stores.contracted)
    lose_a_memory()
    typist.types(*blocks(ROOT / "docs/reports.md", "sh"))

    assert [
        ("memsync check --report html=report.html", FINDINGS),
        ("memsync check --report junit=report.xml --report json=report.json", FINDINGS),
        ("memsync check --record --report html=report.html", FINDINGS),
        ("memsync reconcile audit --select MSI --report text=report.txt", 0),
    ] == typist.typed
    assert {"html", "xml", "json", "txt"} == {each.suffix[1:] for each in Path().glob("report.*")}


def test_the_morning_after(terminal: OpenTerminal, stores: Stores) -> None:
    """One person's lost memory is made anew, and the undo takes it away again."""
    typist = terminal(stores.contracted)
    persona = lose_a_memory()
    look, repair, adopt = blocks(ROOT / "docs/morning-after.md", "sh")
    (somebody,) = set(re.findall(r"--persona (\S+)", repair))
    repair, undo, _ = repair.replace(somebody, persona).partition("memsync reconcile undo RUN")
    typist.types(look, repair)
    plan = json.loads(Path("one.json").read_text())
    typist.types(undo.replace("RUN", plan["plan_id"]), adopt)

    assert [
        ("memsync check", FINDINGS),
        (f"memsync reconcile plan --persona {persona} --out one.json", 0),
        ("memsync reconcile show one.json", 0),
        ("memsync reconcile apply one.json", 0),
        (f"memsync check --persona {persona}", 0),
        (f"memsync reconcile undo {plan['plan_id']}", 0),
        ("memsync reconcile adopt", 0),
    ] == typist.typed
    assert FINDINGS == run("check", "--persona", persona).status


EXAMPLES = [(page.name, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_the_examples_in_python(page: str, code: str) -> None:
    """Every example compiles, and whatever it imports or calls of the library exists."""
    tree = ast.parse(code, page)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                importlib.import_module(each.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert [] == [each.name for each in node.names if not hasattr(module, each.name)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "memory" or hasattr(Memory, node.attr), node.attr


def test_examples_in_python_are_found() -> None:
    """The README and the pages of the library have examples, so that there is something to try."""
    assert {"README.md", "library.md", "relay.md", "tutorial.md"} <= {name for name, _ in EXAMPLES}
