"""`memsync init`: the schema of a finished migration, made whole where nothing of it stands."""

from __future__ import annotations

import threading
from random import Random
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from memsync import Memory, NewExchange, Settings, migrate, reconcile
from memsync.demo.world import legacy_schema
from memsync.errors import (
    GateClosed,
    InvalidInput,
    MissingRight,
    SchemaMismatch,
    StoreBusy,
    StoreUnreachable,
)
from memsync.memory import drain
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.locks import LockKey, exclusive
from memsync.stores.vectors import open_vectors
from support.app import CATALOG, App
from support.roles import role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.postgres import NewDatabase

LEFT: LiteralString = """
    SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE nspname IN ('public', 'memsync')"""
OWN: dict[str, LiteralString] = {
    "own columns": """
        SELECT c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod),
               a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'memsync'::regnamespace AND c.relkind <> 'i'
          AND a.attnum > 0 AND NOT a.attisdropped""",
    "own indexes": """
        SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = 'memsync'::regnamespace""",
    "own constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'memsync'::regnamespace AND contype <> 'n'""",
    "function bodies": """
        SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p
        WHERE p.pronamespace = 'memsync'::regnamespace""",
}
"""The objects of memsync's own schema, as rows by kind of object."""


def objects(app: App) -> dict[str, set[tuple[Any, ...]]]:
    """Every object of both schemas, without alembic's own table.

    A run writes alembic's table by the catalog, so that its absence says nothing.
    """
    found = {kind: set(app.query(text)) for kind, text in (CATALOG | OWN).items()}
    return {
        kind: {row for row in rows if "alembic_version" not in str(row)}
        for kind, rows in found.items()
    }


@pytest.fixture
def empty(database: str, world: Any) -> App:
    """A new, empty database."""
    return App(database, world)


@pytest.fixture
def emptied(new_database: NewDatabase, world: Any) -> App:
    """A legacy app without a row, before its migration; its ORM keeps no history in it."""
    app = App(new_database(), world)
    with Postgres.open(app.url) as postgres, postgres.session() as session:
        session.run_script(legacy_schema())
        session.run_script("DROP TABLE _prisma_migrations")
    return app


def init(app: App) -> bool:
    """`memsync init`: whether it made the schema."""
    with Postgres.open(app.url) as postgres:
        return migrate.init(postgres)


def test_the_schema_is_that_of_a_finished_migration(empty: App, emptied: App) -> None:
    """Object by object, init leaves what the migration of an app without a row leaves."""
    emptied.run()
    assert init(empty)

    assert objects(emptied) == objects(empty)


def test_one_object_more_or_less_is_seen(empty: App, emptied: App) -> None:
    """The comparison above is not blind: a column, an index and a default more are seen."""
    emptied.run()
    init(empty)
    for change in (
        "ALTER TABLE users ADD COLUMN more int",
        "DROP INDEX users_discord_id_idx",
        "ALTER TABLE memsync.outbox ALTER attempts SET DEFAULT 1",
    ):
        before = objects(empty)
        empty.do(change)
        assert before != objects(empty) != objects(emptied)


def test_nothing_is_ahead_of_it(empty: App) -> None:
    """Status, verify and plan take it for finished; a run has nothing to do, and no way back."""
    init(empty)
    before = objects(empty)

    assert (Stage.CONTRACTED, None) == ((now := empty.status()).stage, now.next)
    assert all(step.done for step in now.steps)
    assert empty.verify().ok
    assert (True, None) == ((ahead := empty.plan()).ok, ahead.next)
    assert Stage.CONTRACTED == empty.run()
    with pytest.raises(GateClosed, match="contract was not done by memsync"):
        empty.back(Phase.BACKFILL)
    assert before == objects(empty)


def test_init_again_changes_nothing(empty: App) -> None:
    """A second init says that the schema stands, and leaves rows and the database's id alone."""
    assert init(empty)
    identity, catalog = empty.query("SELECT id FROM memsync.instance"), objects(empty)
    assert not init(empty)

    assert identity == empty.query("SELECT id FROM memsync.instance")
    assert catalog == objects(empty)


def test_a_migrated_app_stands_already(app: App) -> None:
    """A database that the migration finished needs no init, and is left as it is."""
    app.run()
    before = objects(app)

    assert not init(app)
    assert before == objects(app)


def test_beside_another_app(empty: App) -> None:
    """Tables of other names are no obstacle, and stay as they are."""
    empty.do("CREATE TABLE orders AS SELECT 1 AS id")

    assert init(empty)
    assert [(1,)] == empty.query("SELECT id FROM orders")


@pytest.mark.parametrize("to", [None, Phase.ISOLATE, Phase.EXPAND, Phase.BACKFILL])
def test_a_legacy_app_is_sent_to_migrate(app: App, to: Phase | None) -> None:
    """A legacy or half migrated app is refused, with its stage and the command; nothing changes."""
    if to:
        app.run(to)
    before = objects(app) if to else app.catalog()
    with pytest.raises(SchemaMismatch, match="`memsync migrate plan`") as refused:
        init(app)

    assert f"their history is {app.status().stage}" in refused.value.message
    assert before == (objects(app) if to else app.catalog())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            "CREATE TABLE users (id serial PRIMARY KEY, username text)",
            "users (id is integer, not uuid, discord_id is missing, username is text, not "
            "character varying(255) and 2 more)",
        ),
        (
            "CREATE TABLE personas (id uuid); CREATE VIEW llm_configs AS SELECT 1 AS id",
            "llm_configs (id is integer, not uuid, ",
        ),
        (
            "CREATE TABLE personality_owners (personality_id uuid, user_id uuid, role varchar(50),"
            " created_at timestamp(3), of_its_own text)",
            "personality_owners, without users, personas, system_prompts and 8 more",
        ),
    ],
)
def test_other_tables_of_these_names_are_named(empty: App, made: str, said: str) -> None:
    """A table of another app is refused with what is other about it; nothing is made."""
    with Postgres.open(empty.url) as postgres, postgres.session() as session:
        session.run_script(made)
    before = empty.catalog()
    with pytest.raises(SchemaMismatch) as refused:
        init(empty)

    assert said in refused.value.message
    assert "Name an empty database" in refused.value.message
    assert before == empty.catalog()


def test_four_tables_of_another_app_are_no_legacy_app(empty: App) -> None:
    """Tables with the names of the app's four, but without its settings, are another app's."""
    for table in ("users", "personas", "personalities", "conversation_history"):
        empty.do(f"CREATE TABLE {table} (id uuid)")
    with pytest.raises(SchemaMismatch, match="channel_id is missing"):
        init(empty)


def test_records_without_their_app_are_refused(empty: App) -> None:
    """Tables of memsync's own, whose app is gone, are not taken over by a new one."""
    init(empty)
    for (table,) in empty.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        empty.do(f"DROP TABLE {table} CASCADE")
    before = objects(empty)
    with pytest.raises(SchemaMismatch, match="DROP SCHEMA memsync CASCADE"):
        init(empty)

    assert before == objects(empty)


def test_a_schema_of_its_own(empty: App) -> None:
    """The schema that the URL names gets the tables, beside another app's users in public."""
    empty.do("CREATE TABLE users (id int)")
    empty.do("CREATE SCHEMA chat")
    assert init(App(empty.url_with("schema=chat"), empty.world))

    assert [(12,)] == empty.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'chat'")
    assert [("users",)] == empty.query("SELECT tablename FROM pg_tables WHERE schemaname='public'")


@pytest.mark.parametrize("migrated", [True, False])
def test_an_app_in_another_schema_gets_no_second_set(emptied: App, *, migrated: bool) -> None:
    """An app that the search path does not find is named with its schema, and left as it is."""
    emptied.do("ALTER SCHEMA public RENAME TO app")
    emptied.do("CREATE SCHEMA public")
    if migrated:
        App(emptied.url_with("schema=app"), emptied.world).run()
    before = emptied.query("SELECT count(*) FROM pg_class")

    with pytest.raises(SchemaMismatch, match=r"in the schema app,.*\?schema=app") as refused:
        init(emptied)
    assert ["app"] == refused.value.fields["schemas"]
    assert before == emptied.query("SELECT count(*) FROM pg_class")


def test_a_second_schema_that_the_url_names(emptied: App) -> None:
    """Beside an app in another schema the schema that the URL names gets its tables."""
    emptied.do("CREATE SCHEMA chat")

    assert init(App(emptied.url_with("schema=chat"), emptied.world))


def test_anothers_users_elsewhere_are_no_app(empty: App) -> None:
    """Tables that many apps have, such as the users of a service, are not the app's."""
    empty.do("CREATE SCHEMA auth")
    empty.do("CREATE TABLE auth.users (id uuid)")

    assert init(empty)


def test_a_schema_that_does_not_exist(empty: App) -> None:
    """A schema that nobody made is an error that says so; init makes none but memsync."""
    with pytest.raises(SchemaMismatch, match="CREATE SCHEMA first"):
        init(App(empty.url_with("schema=nowhere"), empty.world))


def test_a_role_without_the_rights(empty: App) -> None:
    """A role that may not make schemas is told so, and makes nothing."""
    with role(empty) as url, pytest.raises(MissingRight, match="permission denied for database"):
        init(App(url, empty.world))
    assert [] == empty.query(LEFT)


def test_a_schema_that_an_administrator_made(empty: App) -> None:
    """An empty schema memsync, made by somebody who may make schemas, is used."""
    empty.do("CREATE SCHEMA memsync")

    assert init(empty)


def statements(app: App, monkeypatch: pytest.MonkeyPatch, *, ends_at: int = 0) -> int:
    """How many statements make the schema; the server ends the session before number `ends_at`."""
    execute, ran = Session.execute, 0

    def counted(session: Session, *statements: Any) -> None:
        nonlocal ran
        for each in statements:
            ran += 1
            if ran == ends_at:
                app.do("SELECT pg_terminate_backend(%s)", session.connection.info.backend_pid)
            execute(session, each)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", counted)
        init(app)
    return ran


def test_cut_short_it_leaves_nothing(new_database: NewDatabase, empty: App, seed: int) -> None:
    """A session that ends at any statement leaves an empty database; the next init makes it all."""
    with pytest.MonkeyPatch.context() as patch:
        total = statements(App(new_database(), empty.world), patch)
        ends = {1, total, *Random(seed).sample(range(2, total), 6)}
        for end in sorted(ends):
            with pytest.raises(StoreUnreachable):
                statements(empty, patch, ends_at=end)
            assert [] == empty.query(LEFT)
    assert total > 20
    assert init(empty)
    assert empty.verify().ok


def test_of_several_at_once_one_makes_it(empty: App) -> None:
    """Several inits at once make the schema once; the others are told, or find it standing."""
    outcomes: list[str] = []
    together = threading.Barrier(4)

    def begin() -> None:
        together.wait(timeout=30)
        try:
            outcomes.append("made" if init(empty) else "stands")
        except StoreBusy:
            outcomes.append("busy")

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert 4 == len(outcomes)
    assert 1 == outcomes.count("made")
    assert set(outcomes) <= {"made", "stands", "busy"}
    assert empty.verify().ok


def test_a_migration_keeps_init_out(empty: App) -> None:
    """While a migration holds its lock, init is refused and makes nothing."""
    with (
        Postgres.open(empty.url) as postgres,
        exclusive(postgres, LockKey.MIGRATE, "migration"),
        pytest.raises(StoreBusy),
    ):
        init(empty)
    assert [] == empty.query(LEFT)


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that part texts by their length."""
    return [[1.0, float(len(text))] for text in texts]


def test_a_new_app_remembers_and_recalls(empty: App) -> None:
    """After init the library works: a persona, a personality, an exchange, its recall; check 0."""
    init(empty)
    settings = Settings(postgres_url=empty.url, qdrant_url=":memory:", settle_s=0, drain="no")
    ltm = LongTermMemory(open_vectors(settings), settings, Embedder("test", embed))
    with Postgres.open(empty.url) as postgres:
        assert reconcile.check(postgres, ltm, settings).ok
        memory = Memory(postgres, settings, ltm)
        alice, nova = memory.add_persona("Alice"), memory.add_personality("Nova")
        memory.remember(NewExchange("1", nova, alice, "I like tea.", "Noted."))
        drain(postgres, ltm)
        (found,) = memory.recall("what do I drink?", persona_id=alice)
        assert "I like tea." == found.user_text
        assert [] == memory.recall("what do I drink?", persona_id=memory.add_persona("Bob"))
        assert reconcile.check(postgres, ltm, settings).ok
    ltm.close()


def test_personas_and_personalities(empty: App) -> None:
    """A persona has its owner; a new user has it as default; names may repeat."""
    init(empty)
    with Memory.open(Settings(postgres_url=empty.url)) as memory:
        alice, nova = memory.add_persona("Alice"), memory.add_personality("Nova Öz!")
        ((user,),) = empty.query("SELECT owner_id FROM personas")
        again = memory.add_persona("Alice", owner_id=str(user))
        other = memory.add_personality("Nova Öz!")
        for name, owner in (("", None), ("x" * 256, None), ("a\0", None), ("Ann", nova)):
            with pytest.raises(InvalidInput):
                memory.add_persona(name, owner_id=owner)
        with pytest.raises(InvalidInput):
            memory.add_personality(" ")

    assert [(user, alice)] == empty.query("SELECT user_id, persona_id FROM user_default_personas")
    assert {(alice, user), (again, user)} == set(empty.query("SELECT id, owner_id FROM personas"))
    assert [("Alice",)] == empty.query("SELECT username FROM users")
    assert {nova, other} == {row[0] for row in empty.query("SELECT id FROM personalities")}
    slugs = {slug for (slug,) in empty.query("SELECT slug FROM personalities")}
    assert 2 == len(slugs)
    assert all(slug.startswith("nova-z-") for slug in slugs)
