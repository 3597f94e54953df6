"""A small migrated app on both stores, which tests spoil, audit and repair.

The database is migrated once for all tests; a test that alters its schema asks for a copy. There
are three users, one with the personas A (the default one) and B, one with C, and one without, and
two personalities.
"""

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from memsync import migrate, reconcile
from memsync.demo.world import legacy_schema
from memsync.memory import Memory, NewExchange, relay
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point, Vector
from memsync.reconcile.findings import Audit
from memsync.reconcile.plans import Plan
from memsync.reconcile.seen_vectors import Verify
from memsync.settings import Settings
from memsync.stores.history.catalog import instance_id
from memsync.stores.history.exchanges import exchanges_in_order
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.marks import META
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from memsync.stores.vectors.protocol import VectorStore, scan
from support.cast import CAST
from support.releasing import released

if TYPE_CHECKING:
    from support.postgres import NewDatabase, PostgresCluster

DIMS, STORES = 8, ("memory", "edge", "server")
CHANNEL = "1234567890"
UNHINDERED = migrate.RunOptions(quiet_minutes=0, backup_confirmed="test", evidence="ignore")
LONG_AGO = datetime(2025, 5, 1, 12, tzinfo=UTC)

A, B, C = (UUID(f"aaaaaaaa-0000-4000-8000-00000000000{n}") for n in "abc")
ADA, BASIL = (UUID(f"bbbbbbbb-0000-4000-8000-00000000000{n}") for n in "ab")
NOBODY = UUID("aaaaaaaa-0000-4000-8000-0000000000ff")

EMPTY = """TRUNCATE conversation_history, memsync.outbox, memsync.quarantine, memsync.layout,
memsync.repair, memsync.journal, memsync.retired, memsync.memories, memsync.mark,
memsync.acknowledged, memsync.audits CASCADE"""


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Unit vectors that depend on the text alone."""
    return [_unit(text) for text in texts]


def _unit(text: str) -> list[float]:
    values = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:DIMS]]
    length = math.hypot(*values)
    return [value / length for value in values]


def as_told(exchange: Exchange, *, user: str = "", reply: str = "") -> str:
    """The app's text of an exchange, with additions behind the message and the reply."""
    return f"User (Al): {exchange.user_text}{user}\nAda: {exchange.assistant_text}{reply}"


@dataclass
class Lab:
    """Both stores of the app. `said` are the exchanges that `say` wrote, in order; `deployed` the
    ids of the memories that `settled` wrote as the app does, by anchor.
    """

    url: str
    postgres: Postgres
    vectors: VectorStore
    settings: Settings
    ltm: LongTermMemory
    rng: random.Random
    said: list[Exchange] = field(default_factory=list)
    deployed: dict[UUID, PointId] = field(default_factory=dict)
    verify: Verify | None = None  # which vectors an audit looks at

    @property
    def home(self) -> str:
        """The collection of the shared layout."""
        return self.settings.collection

    def place(self, exchange: Exchange) -> Place:
        """Where the memory of an exchange lies, in the layout of this lab."""
        collection = self.ltm.home_of(exchange.persona_id)
        return Place(collection, self.deployed.get(exchange.anchor_id, exchange.anchor_id))

    @property
    def memory(self) -> Memory:
        """The library on these stores."""
        return Memory(self.postgres, self.settings, self.ltm)

    def with_store(self, vectors: VectorStore) -> LongTermMemory:
        """Long-term memory like this lab's on another store."""
        return LongTermMemory(vectors, self.settings, self.ltm.embedder, self.ltm.layout)

    # ------------------------------------------------------------------ writing

    def say(self, count: int = 1, *, persona: UUID = A, personality: UUID = ADA) -> list[Exchange]:
        """Write exchanges a minute apart, dated long ago, into Postgres and the outbox."""
        made: list[Exchange] = []
        for _ in range(count):
            number = len(self.said) + len(made)
            at = LONG_AGO + timedelta(minutes=number)
            exchange = NewExchange(
                channel_id=CHANNEL,
                personality_id=personality,
                persona_id=persona,
                user_text=f"question {number}",
                assistant_text=f"answer {number}",
                said_at=at,
                answered_at=at + timedelta(seconds=3),
            )
            written = self.memory.remember(exchange)
            made.append(self.exchange(written.assistant_message_id))
        self.said += made
        return made

    def exchange(self, anchor: UUID) -> Exchange:
        """The exchange whose anchor has this id."""
        return next(each for each in self.exchanges() if each.anchor_id == anchor)

    def exchanges(self) -> list[Exchange]:
        """All exchanges."""
        with self.postgres.session() as session:
            return list(exchanges_in_order(session))

    def sync(self) -> None:
        """Drain the outbox."""
        with released(self.url):
            relay.drain(self.postgres, self.ltm)

    def settled(self, count: int = 4) -> list[Exchange]:
        """Write exchanges of personas A and C, and their memories, as the layout has them."""
        made = [*self.say(count), *self.say(count, persona=C)]
        if self.ltm.layout is Layout.SHARED:
            self.sync()
            return made
        self.deployed |= {each.anchor_id: self.deploy(each).id for each in made}
        self.sql("DELETE FROM memsync.outbox")
        return made

    def lose(self, exchange: Exchange) -> None:
        """Remove the memory of an exchange."""
        place = self.place(exchange)
        self.vectors.delete(place.collection, [place.point_id])

    def unsay(self, *said: Exchange) -> None:
        """Remove the rows of exchanges."""
        ids = [id_ for each in said for id_ in (each.said_id, each.anchor_id)]
        self.sql("DELETE FROM conversation_history WHERE id = ANY(%(ids)s)", ids=ids)

    def sql(self, statement: str, **params: object) -> list[Any]:
        """Run a statement without the library."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def point(self, point_id: PointId, collection: str | None = None) -> Point:
        """A point with its vector."""
        return self.vectors.retrieve(collection or self.home, [point_id], vectors=True)[0]

    def put(
        self, point_id: PointId, payload: Mapping[str, object], collection: str | None = None
    ) -> Point:
        """Write a point without the library; a missing collection is created without indexes."""
        name = collection or self.home
        if self.vectors.describe(name) is None:
            self.vectors.create(name, DIMS, {})
        said = self.ltm.codec_of(name).decode(payload).memory.text
        vector: Vector = tuple(_unit(str(point_id) if said is None else said))
        self.vectors.upsert(name, [Point(point_id, payload, vector)])
        return self.point(point_id, name)

    def respell(self, memory: Exchange | UUID, **changes: object) -> Point:
        """Write an existing memory again with other values; None leaves a key out.

        An id is that of a memory in the shared collection.
        """
        place = Place(self.home, memory) if isinstance(memory, UUID) else self.place(memory)
        payload = {**self.point(place.point_id, place.collection).payload, **changes}
        whole = {key: value for key, value in payload.items() if value is not None}
        return self.put(place.point_id, whole, place.collection)

    def deploy(
        self,
        exchange: Exchange,
        *,
        collection: str | None = None,
        point_id: PointId | None = None,
        **changes: object,
    ) -> Point:
        """Write the memory of an exchange as the legacy app did; None leaves a key out."""
        payload: dict[str, object] = {
            "personalityId": str(exchange.personality_id),
            "personalityName": "Ada",
            "personaId": str(exchange.persona_id),
            "content": as_told(exchange),
            "createdAt": exchange.created_at_ms,
            "channelId": exchange.channel_id,
            "senders": ["1"],
        } | changes
        return self.put(
            point_id if point_id is not None else self.new_id(),
            {key: value for key, value in payload.items() if value is not None},
            collection or f"persona-{exchange.persona_id}",
        )

    def new_id(self) -> UUID:
        """A random uuid."""
        return UUID(int=self.rng.getrandbits(128), version=4)

    # ------------------------------------------------------------------ reading

    def audit(self, vectors: VectorStore | None = None, *, deep: bool | None = None) -> Audit:
        """The whole audit of `memsync reconcile audit`."""
        ltm = self.with_store(vectors) if vectors else self.ltm
        return reconcile.audit(self.postgres, ltm, self.settings, verify=self.verify, deep=deep)

    def check(self) -> Audit:
        """The audit of `memsync check`, with schema, indexes and outbox."""
        return reconcile.check(self.postgres, self.ltm, self.settings, verify=self.verify)

    def plan(
        self, audit: Audit | None = None, *, unsafe: bool = True, persona: UUID | None = None
    ) -> Plan:
        """Make a plan from an audit, and read it back from its JSON."""
        with self.postgres.session() as session:
            here = instance_id(session)
        found = audit or self.audit()
        made = reconcile.make_plan(
            found, instance_id=here, ltm=self.ltm, unsafe=unsafe, persona=persona
        )
        return Plan.from_json(made.to_json(), "plan.json")

    def apply(
        self,
        plan: Plan,
        vectors: VectorStore | None = None,
        *,
        limit: int | None = None,
        remove_many: bool = True,
    ) -> reconcile.Applied:
        """Carry out a plan."""
        ltm = self.with_store(vectors) if vectors else self.ltm
        with released(self.url):
            return reconcile.apply(
                plan, self.postgres, ltm, self.settings, limit=limit, remove_many=remove_many
            )

    def undo(self, plan: Plan, vectors: VectorStore | None = None) -> reconcile.Undone:
        """Take the run of a plan back."""
        ltm = self.with_store(vectors) if vectors else self.ltm
        with released(self.url):
            return reconcile.undo(plan.plan_id, self.postgres, ltm, self.settings)

    def points(self) -> dict[str, list[tuple[PointId, object, Vector | None]]]:
        """Every point of every collection, whole; memsync's own mark is no memory."""
        return {
            n: [(p.id, dict(p.payload), p.vector) for p in scan(self.vectors, n, vectors=True)]
            for n in self.vectors.collections()
            if n != META
        }

    def memories(self) -> dict[str, list[object]]:
        """Every point, its vector rounded: a store may normalise a vector that is rewritten."""
        return {
            name: [(i, p, v and tuple(round(x, 5) for x in v)) for i, p, v in points]
            for name, points in self.points().items()
        }

    def tables(self) -> dict[str, list[Any]]:
        """Every row of the tables that memsync writes."""
        names = ("conversation_history", "memsync.outbox", "memsync.quarantine")
        return {name: sorted(self.sql(f"SELECT t::text FROM {name} t")) for name in names}  # noqa: S608  names of ours

    def quarantined(self) -> list[tuple[str, str]]:
        """Collection and id of every quarantined point; its vector, if kept, must be whole."""
        rows = self.sql("SELECT collection, point_id, cardinality(vector) FROM memsync.quarantine")
        assert {DIMS, None} >= {dims for *_, dims in rows}
        return sorted((collection, point_id) for collection, point_id, _ in rows)


@pytest.fixture(scope="session")
def migrated(postgres_cluster: "PostgresCluster") -> Iterator[str]:
    """The name of a migrated database with the cast and no messages, to copy."""
    name = postgres_cluster.create()
    url = postgres_cluster.url_of(name)
    with Postgres.open(url) as postgres:
        with postgres.session() as session:
            session.run_script(legacy_schema())
            session.run_script(CAST)
        migrate.run(postgres, Settings(), UNHINDERED)
    yield name
    postgres_cluster.drop(name)


@pytest.fixture(scope="session")
def shared_database(postgres_cluster: "PostgresCluster", migrated: str) -> Iterator[str]:
    """The URL of a copy that tests share, one after another."""
    name = postgres_cluster.create(template=migrated)
    yield postgres_cluster.url_of(name)
    postgres_cluster.drop(name)


@pytest.fixture
def open_lab(
    request: pytest.FixtureRequest, shared_database: str, tmp_path: Path
) -> "Iterator[partial[Lab]]":
    """Call it with the kind of a vector store for a lab; `url` is that of another database."""
    with ExitStack() as after:
        yield partial(_open, request, shared_database, tmp_path, after)


@pytest.fixture
def own_database(new_database: "NewDatabase", migrated: str) -> str:
    """The URL of a migrated database that the test may alter."""
    return new_database(template=migrated)


@contextmanager
def lab_on(settings: Settings, seed: int, embedder: str = "test") -> Iterator[Lab]:
    """A lab on the stores of these settings, which name both and the layout."""
    assert settings.postgres_url
    assert settings.layout
    with (
        closing(open_vectors(settings, create=True)) as vectors,
        Postgres.open(settings.postgres_url) as postgres,
    ):
        ltm = LongTermMemory(vectors, settings, Embedder(embedder, embed), Layout(settings.layout))
        yield Lab(settings.postgres_url, postgres, vectors, settings, ltm, random.Random(seed))


def _open(
    request: pytest.FixtureRequest,
    shared: str,
    tmp_path: Path,
    after: ExitStack,
    store: str = "memory",
    url: str | None = None,
    **settings: Any,
) -> Lab:
    where = {"memory": ":memory:", "edge": f"edge:{tmp_path / uuid4().hex}"}.get(store)
    if where is None:
        where = request.getfixturevalue("qdrant_server_url")
        if where is None:
            pytest.skip("no Qdrant server")
        settings.setdefault("collection", f"memories-{uuid4().hex}")
    if url is None:
        url = shared
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(EMPTY)
    # Tests say when the outbox is drained, unless they ask for a Memory that does it.
    settings.setdefault("drain", "no")
    settings.setdefault("layout", "shared")
    settings.setdefault("writer", "memsync")
    # `remember` writes for the app, which would write long-term memory itself.
    chosen = Settings(postgres_url=url, qdrant_url=where, **settings)
    lab = after.enter_context(lab_on(chosen, request.getfixturevalue("seed")))
    after.callback(_clean, lab.vectors, set(lab.vectors.collections()))
    return lab


def _clean(vectors: VectorStore, before: set[str]) -> None:
    for name in set(vectors.collections()) - before:
        vectors.drop(name)


@pytest.fixture
def lab(open_lab: "partial[Lab]") -> Lab:
    """A lab on the store in memory."""
    return open_lab()


@pytest.fixture(params=STORES)
def any_lab(request: pytest.FixtureRequest, open_lab: "partial[Lab]") -> Lab:
    """A lab on each kind of store."""
    return open_lab(request.param)
