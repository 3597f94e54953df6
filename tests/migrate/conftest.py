"""A legacy app in a database of its own, and the questions that these tests ask of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, LiteralString
from uuid import UUID

import psycopg
import pytest

from memsync import migrate
from memsync.cli.app import main
from memsync.demo.world import Recipe, World, load_rows, make_world
from memsync.migrate.backfill import cutover as swap
from memsync.migrate.backfill import fill as backfill
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.settings import Settings
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.postgres import pg_dump as dump
from support.kills import DurableLab, Lab, Way

if TYPE_CHECKING:
    from conftest import NewDatabase, PostgresCluster
    from memsync.stores.vectors.protocol import VectorStore

DEADLINE_S = 30.0

PSQL = shutil.which("psql", path=os.pathsep.join([os.environ["PATH"], *map(str, dump._folders())]))
"""psql of PATH, else of where pg_dump is looked for, of the embedded wheel at last."""

needs_psql = pytest.mark.skipif(PSQL is None, reason="no psql, nor the embedded wheel")

Rows = list[tuple[Any, ...]]
Catalog = Mapping[str, set[tuple[Any, ...]]]
"""What stands in the app's schema, by kind of object."""

CATALOG: dict[str, LiteralString] = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
          AND a.attnum > 0 AND NOT a.attisdropped""",
    "indexes": """
        SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid AND i.indisready
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = 'public'::regnamespace""",
    # Postgres 18 lists NOT NULL here too; the columns say it already.
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated
        FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'""",
    "triggers": """
        SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal""",
    "views": """
        SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('v', 'm') AND n.nspname IN ('public', 'memsync')""",
    "functions": """
        SELECT n.nspname, p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('public', 'memsync')""",
    "schemas": """
        SELECT nspname FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'""",
}

# Created personas have ids of chance; a persona's owner and name say which one it is.
CONTENTS: LiteralString = """
    SELECT h.id, h.channel_id, h.personality_id, h.role, h.content, h.created_at,
           p.owner_id, p.name
    FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id"""

REDESIGN = """
    CREATE TABLE user_default_personas (
        user_id uuid NOT NULL PRIMARY KEY
            REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
        persona_id uuid NOT NULL REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE,
        created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at timestamp(3) NOT NULL);
    INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    SELECT id, global_persona_id, updated_at FROM users WHERE global_persona_id IS NOT NULL;
    ALTER TABLE user_personality_settings RENAME TO user_personality_configs;
    ALTER TABLE users DROP COLUMN global_persona_id;
"""


@dataclass(frozen=True)
class App:
    """A legacy app's database. `world` says what is true of it."""

    url: str
    world: World

    def url_with(self, parameter: str) -> str:
        """Its URL with one more parameter."""
        return f"{self.url}{'&' if '?' in self.url else '?'}{parameter}"

    def settings(self, **given: object) -> Settings:
        """Settings that lead to it."""
        return Settings.model_validate({"postgres_url": self.url, **given})

    def run(
        self,
        to: Phase = Phase.CONTRACT,
        *,
        tell: Tell = silent,
        unresolved: Literal["fail", "create"] = "create",
        options: Mapping[str, Any] | None = None,
        vectors: VectorStore | None = None,
        **given: object,
    ) -> Stage:
        """`memsync migrate run`; `options` are more of RunOptions, `given` are settings."""
        held_back: dict[str, Any] = {"quiet_minutes": 0, "backup_confirmed": "test"}
        chosen = migrate.RunOptions(
            to=to, unresolved=unresolved, **(held_back | dict(options or {}))
        )
        with Postgres.open(self.url) as postgres:
            settings = self.settings(**given)
            return migrate.run(postgres, settings, chosen, vectors=vectors, tell=tell)

    def verify(self) -> migrate.Verification:
        """`memsync migrate verify`."""
        with Postgres.open(self.url) as postgres:
            return migrate.verify(postgres)

    def outlook(self, vectors: VectorStore | None = None) -> migrate.Outlook:
        """`memsync migrate plan`; without `vectors` as if --evidence ignore."""
        with Postgres.open(self.url) as postgres:
            return migrate.outlook(
                postgres, self.settings(), (lambda: vectors) if vectors else None
            )

    def status(self) -> migrate.Status:
        """`memsync migrate status`."""
        with Postgres.open(self.url) as postgres:
            return migrate.status(postgres)

    def command(self, *arguments: str, qdrant: str = ":memory:") -> int:
        """The exit status of `memsync migrate …`; never on anybody's own vector store."""
        return main(["--postgres-url", self.url, "--qdrant-url", qdrant, "migrate", *arguments])

    @contextmanager
    def connected(self, **given: Any) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A client's connection, in autocommit unless told otherwise."""
        connection = psycopg.connect(self.url, **{"autocommit": True, **given})
        try:
            yield connection
        finally:
            connection.close()

    def query(self, text: LiteralString, *params: object) -> Rows:
        """The rows of a query."""
        with self.connected() as connection:
            return connection.execute(text, params or None).fetchall()

    def do(self, text: LiteralString, *params: object) -> int:
        """Run a statement; the number of rows that it touched."""
        with self.connected() as connection:
            return connection.execute(text, params or None).rowcount

    def catalog(self) -> Catalog:
        """What stands in the app's schema."""
        return {kind: set(self.query(text)) for kind, text in CATALOG.items()}

    def contents(self) -> set[tuple[Any, ...]]:
        """Every message with its persona's owner and name."""
        return set(self.query(CONTENTS))

    def personas(self) -> dict[UUID, UUID | None]:
        """The persona of each message."""
        return dict(self.query("SELECT id, persona_id FROM conversation_history"))

    def expected(self) -> dict[UUID, UUID]:
        """The persona that each message of the world must have, created ones included."""
        created: dict[UUID, UUID] = dict(
            self.query("SELECT owner_id, id FROM personas WHERE description = 'Default persona'")
        )
        return {
            row.id: self.world.resolved(row.user_id, row.personality_id) or created[row.user_id]
            for row in self.world.history()
        }


NewApp = Callable[[], App]


@contextmanager
def _template(cluster: PostgresCluster, world: World) -> Iterator[str]:
    name = cluster.create()
    with Postgres.open(cluster.url_of(name)) as postgres, postgres.session() as session:
        load_rows(world, session)
    yield name
    cluster.drop(name)


@pytest.fixture(scope="session")
def world() -> World:
    """About a thousand messages of 24 users, 3 of them without a persona."""
    return make_world(Recipe(points=False))


@pytest.fixture(scope="session")
def large_world() -> World:
    """About twenty thousand messages: a run over them takes long enough to meet live clients."""
    return make_world(Recipe(points=False, users=80, personalities=6, dialogues=4000, days=900))


@pytest.fixture(scope="session")
def world_template(postgres_cluster: PostgresCluster, world: World) -> Iterator[str]:
    """The name of a database that holds the world."""
    with _template(postgres_cluster, world) as name:
        yield name


@pytest.fixture(scope="session")
def large_template(postgres_cluster: PostgresCluster, large_world: World) -> Iterator[str]:
    """The name of a database that holds the large world."""
    with _template(postgres_cluster, large_world) as name:
        yield name


@pytest.fixture
def new_app(new_database: NewDatabase, world_template: str, world: World) -> NewApp:
    """Call it for another copy of the app."""
    return lambda: App(new_database(template=world_template), world)


@pytest.fixture
def app(new_app: NewApp) -> App:
    """The app as it was deployed."""
    return new_app()


@pytest.fixture
def redesigned(app: App) -> App:
    """The app after its redesign: defaults and overrides in tables of other names."""
    with app.connected() as connection:
        connection.execute(REDESIGN.encode())
    return app


@pytest.fixture
def large_app(new_database: NewDatabase, large_template: str, large_world: World) -> App:
    """A larger app, as it was deployed."""
    return App(new_database(template=large_template), large_world)


@pytest.fixture
def settled(new_app: NewApp) -> App:
    """An app whose migration nobody disturbed: what every other run is compared with."""
    app = new_app()
    app.run()
    return app


@pytest.fixture(scope="module")
def way_for(postgres_cluster: PostgresCluster, world: World) -> Iterator[Callable[..., Way]]:
    """Call it with direction, fate and method for a way on which that fate may strike."""
    with ExitStack() as after:

        @cache
        def lab(*, durable: bool) -> Lab:
            made: Lab
            if durable:
                folder = Path(after.enter_context(tempfile.TemporaryDirectory(prefix="memsync-")))
                folder.chmod(0o755)
                made = DurableLab(type(postgres_cluster), folder / "data", world, App)
            else:
                made = Lab(postgres_cluster, world, App)
            after.callback(made.close)
            return made

        @cache
        def way(direction: type[Way], method: str, *, durable: bool) -> Way:
            return direction(lab(durable=durable), method)

        yield lambda direction, fate, method: way(direction, method, durable=fate == "server")


def until(holds: Callable[[], bool], what: str) -> None:
    """Poll until it holds; fail after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S:.0f} s: {what}")
        pause.wait(0.01)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str], None]:
    """Polls until something holds."""
    return until


def at(moment: str, action: Callable[[], object]) -> Tell:
    """A `tell` that acts once, when the phase of this name, or a step of this kind, begins."""
    done = False

    def tell(step: Progress) -> None:
        nonlocal done
        begins = step.what if step.kind is Kind.PHASE else step.kind
        if begins == moment and not done:
            done = True
            action()

    return tell


@pytest.fixture
def when() -> Callable[[str, Callable[[], object]], Tell]:
    """Makes a `tell` that acts once at the start of a phase, `isolate` … `contract`, or of a step:
    a `Kind`.

    A phase is told before anything of it is done: at `backfill` nothing is decided, no row filled.
    """
    return at


def at_share(share: float, action: Callable[[], object]) -> Tell:
    """A `tell` that acts once, after the first batch by which this share of the rows has its
    persona: 0 is after the first of all, 1 after the last, before the indexes and the key.
    """
    done = False

    def tell(step: Progress) -> None:
        nonlocal done
        if done or step.total is None or step.kind not in {Kind.FILL_PERSONAS, Kind.COPY}:
            return
        if step.done >= share * step.total:
            done = True
            action()

    return tell


@pytest.fixture
def when_filled() -> Callable[[float, Callable[[], object]], Tell]:
    """Makes a `tell` that acts once when so large a share of the rows is filled."""
    return at_share


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills that take a block at a time, so that there is a time between batches."""
    for fill in (backfill, swap):
        monkeypatch.setattr(fill, "_BLOCKS_START", 1)
        monkeypatch.setattr(fill, "_BLOCKS_MAX", 1)
