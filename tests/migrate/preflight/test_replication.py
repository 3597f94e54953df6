"""Checks that need a server with other settings: prepared transactions and replication."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import pq

from memsync.demo.world import load_rows
from memsync.errors import GateClosed, StoreBusy
from memsync.migrate import Check, State
from memsync.migrate.backfill.method import choose_method
from memsync.migrate.pacing import commits
from memsync.migrate.preflight import server as checks_server
from memsync.model.progress import Kind, Progress, silent
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.postgres.embedded import start_embedded
from support.app import App

if TYPE_CHECKING:
    from collections.abc import Callable

    from memsync.demo.world import World

    Eventually = Callable[[Callable[[], bool], str], None]

SETTINGS: tuple[LiteralString, ...] = (
    "ALTER SYSTEM SET max_prepared_transactions = 4",
    "ALTER SYSTEM SET wal_level = logical",
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server on which transactions can be prepared and rows replicated."""
    with tempfile.TemporaryDirectory(prefix="memsync-test-") as folder:
        Path(folder).chmod(0o755)
        directory = Path(folder) / "data"
        with (
            start_embedded(directory, durable=False) as first,
            psycopg.connect(first.conninfo, autocommit=True) as admin,
        ):
            for setting in SETTINGS:
                admin.execute(setting)
        with start_embedded(directory, durable=False) as second:
            yield second.conninfo


@pytest.fixture
def app(server: str, world: World) -> Iterator[App]:
    """The app before any migration, on that server."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("CREATE DATABASE app")
        url = server.replace("/postgres?", "/app?")
        with Postgres.open(url) as postgres, postgres.session() as session:
            load_rows(world, session)
        yield App(url, world)
        admin.execute("DROP DATABASE app WITH (FORCE)")


def check(app: App, name: str) -> Check:
    """One check of `migrate plan`."""
    return next(check for check in app.plan().checks if check.name == name)


def test_prepared_transactions(app: App) -> None:
    """A prepared transaction is a warning, or a blocker if it locks the history; it is named."""
    assert State.OK is check(app, "prepared transactions").state
    with app.connected() as client:
        client.execute("BEGIN")
        client.execute("SELECT pg_current_xact_id()")
        client.execute("PREPARE TRANSACTION 'idle'")
        try:
            found = check(app, "prepared transactions")
            assert (State.WARNING, True) == (found.state, "idle of postgres" in found.found)
            client.execute("BEGIN")
            client.execute("UPDATE conversation_history SET content = content")
            client.execute("PREPARE TRANSACTION 'holds'")
            try:
                found = check(app, "prepared transactions")
                assert State.BLOCKER is found.state
                assert "holds locks on conversation_history)" in found.found
                with pytest.raises(GateClosed, match="prepared transactions"):
                    app.run()
            finally:
                client.execute("ROLLBACK PREPARED 'holds'")
        finally:
            client.execute("ROLLBACK PREPARED 'idle'")


@contextmanager
def prepared(app: App, lock: LiteralString) -> Iterator[None]:
    """A prepared transaction that holds a lock."""
    with app.connected() as client:
        client.execute("BEGIN")
        client.execute(lock)
        client.execute("PREPARE TRANSACTION 'it''s held'")
        try:
            yield
        finally:
            client.execute("ROLLBACK PREPARED 'it''s held'")


@pytest.mark.parametrize("table", ["user_personality_settings", "llm_configs"])
def test_prepared_transactions_on_the_settings(app: App, table: LiteralString) -> None:
    """A prepared transaction that locks a table of the settings stops the run as well."""
    with prepared(app, "LOCK TABLE " + table + " IN ROW EXCLUSIVE MODE"):
        found = check(app, "prepared transactions")
    assert (State.BLOCKER, True) == (found.state, f"holds locks on {table})" in found.found)


def test_a_prepared_transaction_in_the_way_is_named(app: App) -> None:
    """A prepared transaction has no session, so it is named with the command that ends it."""
    with Postgres.open(app.url) as postgres, prepared(app, "LOCK TABLE users IN SHARE MODE"):
        session = postgres.dedicated()
        ddl = OnlineDdl(session, lock_timeout_ms=10, deadline_s=-1.0, tell=silent)
        with pytest.raises(StoreBusy) as busy:
            ddl.run("LOCK TABLE users", table="users")
        session.connection.close()
    assert "In the way: prepared transaction (no session, 0 s): " in busy.value.message
    assert "ROLLBACK PREPARED 'it''s held'" in busy.value.message
    assert [] == busy.value.fields["pids"]


@contextmanager
def standby(url: str) -> Iterator[None]:
    """A connection that receives the server's log, as a standby does.

    It confirms what was there when it came, and nothing later.
    """
    facts = psycopg.conninfo.make_conninfo(url, replication="true", dbname="")
    connection = pq.PGconn.connect(facts.encode())
    try:
        assert pq.ConnStatus.OK == connection.status, connection.error_message
        position = connection.exec_(b"IDENTIFY_SYSTEM").get_value(0, 2)
        assert position is not None
        begun = connection.exec_(b"START_REPLICATION PHYSICAL " + position)
        assert pq.ExecStatus.COPY_BOTH == begun.status
        high, low = (int(part, 16) for part in position.decode().split("/"))
        confirmed = (high << 32) + low
        # https://www.postgresql.org/docs/current/protocol-replication.html
        connection.put_copy_data(struct.pack("!cQQQQB", b"r", *[confirmed] * 3, 0, 0))
        connection.flush()
        yield
    finally:
        connection.finish()


def test_replicas(app: App, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are counted, and one that is far behind is a warning."""
    assert "none" == check(app, "replicas").found
    with standby(server):
        found = check(app, "replicas")
        assert (State.OK, "1, the last of them 0.0 s behind") == (found.state, found.found)
        monkeypatch.setattr(checks_server, "LAG_S", -1.0)
        assert State.WARNING is check(app, "replicas").state


def test_an_idle_slot_keeps_all_that_is_written(app: App) -> None:
    """An idle slot is a warning, with the call that drops it."""
    assert "none" == check(app, "logical replication").found
    app.do("SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')")
    try:
        found = check(app, "logical replication")
        assert State.WARNING is found.state
        assert "pg_drop_replication_slot('forgotten')" in (found.next or "")
    finally:
        app.do("SELECT pg_drop_replication_slot('forgotten')")


def refusal(app: App) -> GateClosed:
    """The error that refuses a copy."""
    with Postgres.open(app.url) as postgres, postgres.session() as session:
        with pytest.raises(GateClosed, match="cannot be replaced by a copy") as refused:
            choose_method(session, Catalog.read(session), "copy")
        return refused.value


def test_a_copy_is_refused_where_a_slot_reads_the_database(app: App) -> None:
    """A slot forbids a copy: its reader learns of personas only from rows that are updated."""
    app.do("SELECT pg_create_logical_replication_slot('feeds_search', 'pgoutput')")
    try:
        reason = "logical replication slot feeds_search reads this database"
        assert [reason] == refusal(app).fields["obstacles"]
    finally:
        app.do("SELECT pg_drop_replication_slot('feeds_search')")


def test_publications(app: App) -> None:
    """A publication is a warning, because no subscriber learns of the new column by itself."""
    app.do("CREATE PUBLICATION feed FOR TABLE conversation_history")
    found = check(app, "logical replication")
    assert (State.WARNING, True) == (found.state, "published by feed" in found.found)


NO_KEY: dict[str, LiteralString] = {
    "conversation_history": "ALTER TABLE conversation_history DROP CONSTRAINT"
    " conversation_history_pkey CASCADE",
    "user_personality_settings": "ALTER TABLE user_personality_settings DROP CONSTRAINT"
    " user_personality_settings_pkey",
}
REFUSED: dict[str, tuple[str, LiteralString]] = {
    "no identity": (
        "users",
        "ALTER TABLE users REPLICA IDENTITY NOTHING; CREATE PUBLICATION feed FOR TABLE users",
    ),
    "no key": (
        "conversation_history",
        NO_KEY["conversation_history"] + "; CREATE PUBLICATION feed FOR ALL TABLES",
    ),
    "no key in a schema": (
        "user_personality_settings",
        NO_KEY["user_personality_settings"]
        + "; CREATE PUBLICATION feed FOR TABLES IN SCHEMA public",
    ),
    "deletes alone": (
        "llm_configs",
        "ALTER TABLE llm_configs REPLICA IDENTITY NOTHING;"
        " CREATE PUBLICATION feed FOR TABLE llm_configs WITH (publish = 'insert, delete')",
    ),
    "row filter": (
        "personas",
        "CREATE PUBLICATION feed FOR TABLE personas WHERE (name <> 'x')",
    ),
    "column list": (
        "personalities",
        "ALTER TABLE personalities REPLICA IDENTITY FULL;"
        " CREATE PUBLICATION feed FOR TABLE personalities (id, name)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_is_published_so_that_it_cannot_be_updated(app: App, case: str) -> None:
    """The run is refused before anything is changed, with the server's words and what mends it."""
    table, published = REFUSED[case]
    with app.connected() as client:
        client.execute(published.encode())
    found = check(app, "publications")
    assert (State.BLOCKER, True) == (found.state, f'"{table}"' in found.found)
    assert "ALTER PUBLICATION feed SET (publish = 'insert')" in (found.next or "")
    before = app.catalog()
    with pytest.raises(GateClosed, match="publications: the server refuses"):
        app.run()
    assert before == app.catalog()
    with pytest.raises(psycopg.Error, match=r"cannot (update table|delete from)"):
        app.do(f"DELETE FROM {table}")  # noqa: S608  a name of ours

    app.do("ALTER PUBLICATION feed SET (publish = 'insert')")
    assert Stage.CONTRACTED == app.run()


def test_a_view_is_no_fault_of_a_publication(app: App) -> None:
    """The server refuses its updates too, and with the same SQLSTATE."""
    app.do("CREATE VIEW user_default_personas AS SELECT DISTINCT id, owner_id FROM personas")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot update view"):
        app.do("UPDATE user_default_personas SET id = id")
    with Postgres.open(app.url) as postgres, postgres.session() as session:
        assert State.OK is checks_server.publications(session).state


def test_every_publication_of_a_refused_table_is_named(app: App) -> None:
    """Two tables refuse updates for two publications; both must leave them out."""
    for table in ("users", "personas"):
        app.do(f"ALTER TABLE {table} REPLICA IDENTITY NOTHING")
        app.do(f"CREATE PUBLICATION of_{table} FOR TABLE {table}")
    app.do("CREATE PUBLICATION harmless FOR TABLE personalities")
    found = check(app, "publications")
    alter = [
        f"ALTER PUBLICATION of_{each} SET (publish = 'insert')" for each in ("personas", "users")
    ]
    assert (found.next or "").endswith(f"until the run is over: {'; '.join(alter)}")


@pytest.mark.parametrize(
    ("parts", "found_by_name"),
    [
        ("CREATE TABLE part PARTITION OF user_default_personas DEFAULT", True),
        ("CREATE TABLE part () INHERITS (user_default_personas)", False),
    ],
)
def test_a_table_whose_parts_alone_are_published(
    app: App, parts: LiteralString, *, found_by_name: bool
) -> None:
    """A partition's publication is named; where none is found, the advice ends before it."""
    split: LiteralString = " PARTITION BY LIST (user_id)" if found_by_name else ""
    app.do(f"CREATE TABLE user_default_personas (user_id uuid, persona_id uuid){split}")
    app.do(parts)
    app.do("CREATE PUBLICATION feed FOR TABLE part")
    with Postgres.open(app.url) as postgres, postgres.session() as session:
        found = checks_server.publications(session)
    end = "ALTER PUBLICATION feed SET (publish = 'insert')" if found_by_name else "a primary key"
    assert (State.BLOCKER, True) == (found.state, (found.next or "").endswith(end))


def test_a_generated_column_that_is_not_published(app: App) -> None:
    """From 18 on, a stored generated column under REPLICA IDENTITY FULL is a blocker, too."""
    app.do(
        "ALTER TABLE conversation_history"
        " ADD COLUMN words int GENERATED ALWAYS AS (length(content)) STORED"
    )
    app.do("ALTER TABLE conversation_history REPLICA IDENTITY FULL")
    app.do("CREATE PUBLICATION feed FOR TABLE conversation_history")
    found = check(app, "publications")
    of_18 = app.query("SELECT current_setting('server_version_num')::int >= 180000")[0][0]
    if of_18:
        assert (State.BLOCKER, True) == (found.state, "generated columns" in found.found)
        app.do("ALTER PUBLICATION feed SET (publish_generated_columns = stored)")
    assert State.OK is check(app, "publications").state
    assert Stage.CONTRACTED == app.run()


@pytest.mark.parametrize("of", ["ALL TABLES", "TABLES IN SCHEMA public"])
def test_where_all_is_published_memsyncs_own_tables_can_be_written(app: App, of: str) -> None:
    """A run forward and back updates and deletes in its new tables, which are published too."""
    with app.connected() as client:
        client.execute(f"CREATE PUBLICATION feed FOR {of}".encode())
    assert Stage.CONTRACTED == app.run()
    assert Stage.LEGACY == app.back()


def test_a_table_that_is_so_published_meanwhile_is_told_in_words(app: App) -> None:
    """Where the way back meets such a table, the refusal is an error of memsync's."""
    app.run()
    app.do("ALTER TABLE conversation_history REPLICA IDENTITY NOTHING")
    app.do("CREATE PUBLICATION feed FOR TABLE conversation_history")
    with pytest.raises(GateClosed, match="refuses the statement: cannot update table"):
        app.back()
    app.do("ALTER PUBLICATION feed SET (publish = 'insert')")
    assert Stage.LEGACY == app.back()


@contextmanager
def synchronous(server: str) -> Iterator[None]:
    """Commits of the server wait for a standby named `far`."""

    def named(names: LiteralString) -> None:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute("SET synchronous_commit = local")
            admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
            admin.execute("SELECT pg_reload_conf()")

    named("far")
    try:
        yield
    finally:
        named("")


def test_a_synchronous_standby_that_is_away(app: App, server: str) -> None:
    """Every commit would wait for ever, so the run is refused; not where commits are local."""
    assert State.OK is check(app, "synchronous commit").state
    app.do("ALTER DATABASE app SET synchronous_commit = on")
    with synchronous(server):
        found = check(app, "synchronous commit")
        assert State.BLOCKER is found.state
        assert "of 1 such standbys 0 are connected" in found.found
        with pytest.raises(GateClosed, match="synchronous commit"):
            app.run()
    app.do("ALTER DATABASE app SET synchronous_commit = local")
    with synchronous(server):
        assert State.OK is check(app, "synchronous commit").state
        assert Stage.ISOLATED == app.run(Phase.ISOLATE)


def test_a_run_that_waits_for_a_synchronous_standby_says_so(
    app: App, server: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that is connected but confirms nothing lets each commit wait; the run tells."""
    monkeypatch.setattr(commits, "LOOK_EVERY_S", 0.05)
    app.do("ALTER DATABASE app SET synchronous_commit = on")
    told: list[Progress] = []
    with ExitStack() as both:
        both.enter_context(standby(psycopg.conninfo.make_conninfo(server, application_name="far")))
        release = ExitStack()
        release.enter_context(synchronous(server))
        both.enter_context(release)
        eventually(
            lambda: State.OK is check(app, "synchronous commit").state, "the standby is synchronous"
        )

        def tell(step: Progress) -> None:
            told.append(step)
            if step.kind is Kind.WAITING_FOR_STANDBY:
                release.close()

        assert Stage.ISOLATED == app.run(Phase.ISOLATE, tell=tell)
    (said,) = [each.what for each in told if each.kind is Kind.WAITING_FOR_STANDBY]
    assert "a commit waits for a synchronous standby (far)" in said


def test_a_replica_identity_by_user_id(app: App) -> None:
    """An index on user_id as replica identity blocks contract: updates would fail without it."""
    app.do("CREATE UNIQUE INDEX mine ON conversation_history (id, user_id)")
    app.do("ALTER TABLE conversation_history REPLICA IDENTITY USING INDEX mine")
    found = check(app, "logical replication")
    assert (State.BLOCKER, ("contract",)) == (found.state, found.phases)


def test_a_subscribed_history(app: App, server: str) -> None:
    """A subscription to the history blocks: the rows that it writes pass by the sync trigger."""
    app.do("CREATE PUBLICATION feed FOR TABLE conversation_history")
    conninfo = psycopg.conninfo.make_conninfo(server, dbname="app")
    with app.connected() as client:
        client.execute(
            psycopg.sql.SQL(
                "CREATE SUBSCRIPTION follows CONNECTION {} PUBLICATION feed"
                " WITH (create_slot = false, slot_name = 'follows', enabled = false,"
                " copy_data = false)"
            ).format(psycopg.sql.Literal(conninfo))
        )
        try:
            found = check(app, "logical replication")
            assert State.BLOCKER is found.state
            assert "subscription follows" in found.found
            assert ["a subscription writes to it"] == refusal(app).fields["obstacles"]
        finally:
            client.execute("ALTER SUBSCRIPTION follows SET (slot_name = NONE)")
            client.execute("DROP SUBSCRIPTION follows")
