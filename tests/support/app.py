"""A legacy app in a database of its own, with the queries that tests run on it.

The fixtures are at the end; the conftest.py of a folder that needs them imports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, LiteralString
from uuid import UUID

import psycopg
import pytest

from memsync import migrate
from memsync.cli.app import main
from memsync.demo.world import Recipe, World, load_rows, make_world
from memsync.model.progress import Tell, silent
from memsync.settings import Settings
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres

if TYPE_CHECKING:
    from memsync.stores.vectors.protocol import VectorStore
    from support.postgres import NewDatabase, PostgresCluster

Rows = list[tuple[Any, ...]]
Catalog = Mapping[str, set[tuple[Any, ...]]]
"""The objects of the app's schema, as rows by kind of object."""

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

# The ids of created personas are random, so a persona is identified by its owner and name.
CONTENTS: LiteralString = """
    SELECT h.id, h.channel_id, h.personality_id, h.role, h.content, h.created_at,
           p.owner_id, p.name
    FROM conversation_history h LEFT JOIN personas p ON p.id = h.persona_id"""


@dataclass(frozen=True)
class App:
    """A legacy app's database; `world` is the generated data that it was filled with."""

    url: str
    world: World

    def url_with(self, parameter: str) -> str:
        """Its URL with one more parameter."""
        return f"{self.url}{'&' if '?' in self.url else '?'}{parameter}"

    def settings(self, **given: object) -> Settings:
        """Settings whose postgres_url is this database."""
        return Settings.model_validate({"postgres_url": self.url, "drain": "no", **given})

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
        """Do `memsync migrate run`, with --evidence prefer; without `vectors`, with ignore.

        `options` are further RunOptions, `given` are settings.
        """
        held_back: dict[str, Any] = {"quiet_minutes": 0, "backup_confirmed": "test"}
        held_back["evidence"] = "ignore" if vectors is None else "prefer"
        chosen = migrate.RunOptions(
            to=to, unresolved=unresolved, **(held_back | dict(options or {}))
        )
        with Postgres.open(self.url) as postgres:
            settings = self.settings(**given)
            memories = (lambda: vectors) if vectors else None
            return migrate.run(postgres, settings, chosen, memories=memories, tell=tell)

    def back(self, to: Phase | None = None, *, tell: Tell = silent, **given: object) -> Stage:
        """`memsync migrate rollback`; `given` are settings."""
        with Postgres.open(self.url) as postgres:
            return migrate.rollback(postgres, self.settings(**given), to=to, tell=tell)

    def verify(self) -> migrate.Verification:
        """Do `memsync migrate verify`."""
        with Postgres.open(self.url) as postgres:
            return migrate.verify(postgres)

    def plan(self, vectors: VectorStore | None = None) -> migrate.Plan:
        """Do `memsync migrate plan`; without `vectors`, with --evidence ignore."""
        with Postgres.open(self.url) as postgres:
            if vectors is None:
                by_settings = migrate.RunOptions(evidence="ignore")
                return migrate.plan(postgres, self.settings(), options=by_settings)
            return migrate.plan(postgres, self.settings(), lambda: vectors)

    def status(self) -> migrate.Status:
        """Do `memsync migrate status`."""
        with Postgres.open(self.url) as postgres:
            return migrate.status(postgres)

    def command(self, *arguments: str, qdrant: str | None = None) -> int:
        """The exit status of `memsync migrate …`; without `qdrant`, with --evidence ignore."""
        if qdrant is None and arguments[0] in {"plan", "run"} and "--evidence" not in arguments:
            arguments = (*arguments, "--evidence", "ignore")
        store = ["--qdrant-url", qdrant] if qdrant else []
        return main(["--postgres-url", self.url, *store, "migrate", *arguments])

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
        """Run a statement; return the number of rows that it affected."""
        with self.connected() as connection:
            return connection.execute(text, params or None).rowcount

    def catalog(self) -> Catalog:
        """The objects of the app's schema, by kind."""
        return {kind: set(self.query(text)) for kind, text in CATALOG.items()}

    def contents(self) -> set[tuple[Any, ...]]:
        """Every message with its persona's owner and name."""
        return set(self.query(CONTENTS))

    def personas(self) -> dict[UUID, UUID | None]:
        """The persona of each message."""
        return dict(self.query("SELECT id, persona_id FROM conversation_history"))

    def expected(self) -> dict[UUID, UUID]:
        """The persona that each message of the world must have, created personas included."""
        created: dict[UUID, UUID] = dict(
            self.query("SELECT owner_id, id FROM personas WHERE description = 'Default persona'")
        )
        return {
            row.id: self.world.resolved(row.user_id, row.personality_id) or created[row.user_id]
            for row in self.world.history()
        }


NewApp = Callable[[], App]


@contextmanager
def filled_database(cluster: PostgresCluster, world: World) -> Iterator[str]:
    """The name of a new database that holds the world."""
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
def world_template(postgres_cluster: PostgresCluster, world: World) -> Iterator[str]:
    """The name of a database that holds the world."""
    with filled_database(postgres_cluster, world) as name:
        yield name


@pytest.fixture
def new_app(new_database: NewDatabase, world_template: str, world: World) -> NewApp:
    """Call it for another copy of the app."""
    return lambda: App(new_database(template=world_template), world)


@pytest.fixture
def app(new_app: NewApp) -> App:
    """The app before any migration."""
    return new_app()
