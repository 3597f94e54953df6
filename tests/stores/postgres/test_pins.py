"""Whatever a role or a database sets, a session of memsync has its own settings."""

from __future__ import annotations

import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from memsync import migrate, reconcile
from memsync.demo.world import legacy_schema
from memsync.errors import InvalidInput, MissingRight, SchemaMismatch
from memsync.memory import Memory, NewExchange, relay
from memsync.migrate.checks import State
from memsync.stores.history.phases import Stage
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.postgres import Postgres, statement, translated
from memsync.stores.postgres.session_settings import Pins
from memsync.stores.vectors import open_vectors
from support.app import App, app, new_app, world, world_template
from support.lab import embed
from support.psql import needs_psql
from support.roles import APP_GRANTS, role
from support.scripts import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import PostgresCluster

__all__ = ["app", "new_app", "world", "world_template"]

# The most hostile value that each setting takes.
HOSTILE = {
    "TimeZone": "America/St_Johns",
    "timezone_abbreviations": "India",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "client_encoding": "SQL_ASCII",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "lc_monetary": "POSIX",
    "lc_numeric": "POSIX",
    "lc_time": "POSIX",
    "gin_fuzzy_search_limit": "1",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "stats_fetch_consistency": "snapshot",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "session_replication_role": "replica",
    "check_function_bodies": "off",
    "plpgsql.extra_errors": "all",
    "plpgsql.extra_warnings": "all",
    "client_min_messages": "error",
    "default_tablespace": "nowhere",
    "temp_tablespaces": "nowhere",
    "default_table_access_method": "nothing",
    # Shorter ones could end a session before it has said anything.
    "statement_timeout": "300ms",
    "lock_timeout": "1ms",
    "transaction_timeout": "300ms",
    "idle_in_transaction_session_timeout": "1s",
    "idle_session_timeout": "1s",
    "row_security": "on",
    "tcp_keepalives_idle": "7200",
    "tcp_keepalives_interval": "75",
    "tcp_keepalives_count": "9",
}


KEEPALIVES = {name for name in HOSTILE if name.startswith("tcp_")}


def pinned() -> set[str]:
    """The settings that the statement names."""
    return set(re.findall(r"\('([\w.]+)',", statement("pin_settings")))


@contextmanager
def hostile(app: App, scope: LiteralString) -> Iterator[None]:
    """Every setting hostile for new sessions on the app's database, by role or by database."""
    database = app.query("SELECT current_database()")[0][0]
    elsewhere = psycopg.conninfo.make_conninfo(app.url, dbname="postgres")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        known = {name for (name,) in connection.execute("SELECT lower(name) FROM pg_settings")}
        target = sql.SQL("ALTER " + scope).format(
            database=sql.Identifier(database), role=sql.Identifier(connection.info.user)
        )
        for name, value in HOSTILE.items():
            if name.lower() in known or "." in name:
                parts = map(sql.Identifier, name.lower().split("."))
                values = map(sql.Literal, value.split(", "))
                connection.execute(
                    sql.SQL("{} SET {} TO {}").format(
                        target, sql.SQL(".").join(parts), sql.SQL(", ").join(values)
                    )
                )
        try:
            yield
        finally:
            connection.execute(sql.SQL("{} RESET ALL").format(target))


SCOPES = ("DATABASE {database}", "ROLE {role} IN DATABASE {database}")
by_scope = pytest.mark.parametrize("scope", SCOPES, ids=["database", "role"])


def test_every_pinned_setting_has_a_hostile_value() -> None:
    """A setting that is pinned from now on is tried here, too."""
    assert pinned() - {"search_path"} == HOSTILE.keys()


@by_scope
def test_a_session_has_its_own_settings(app: App, scope: LiteralString) -> None:
    """Each pinned setting differs from the hostile one, in dedicated sessions and the pool's."""
    shown: LiteralString = (
        "SELECT name, current_setting(name, true) AS value FROM unnest(%s::text[]) name"
    )
    names = list(HOSTILE)
    with hostile(app, scope):
        with app.connected() as client:
            # The client's encoding is hostile, too, so psycopg gives it bytes.
            rows = client.execute(shown, [names]).fetchall()
            bad = {name.decode(): value and value.decode() for name, value in rows}
        with Postgres.open(app.url) as postgres, postgres.session() as pooled:
            own = postgres.dedicated()
            for session in (own, pooled):
                good = dict(session.connection.execute(shown, [names]).fetchall())
                same = {name for name in names if good[name] == bad[name] and good[name]}
                # The server has no other access method, so this one cannot be made hostile; and
                # no keepalives are sent on a socket of Unix.
                is_local = {"0"} == {good[name] for name in KEEPALIVES}
                unlike = {"default_table_access_method", *(KEEPALIVES if is_local else ())}
                assert unlike == same
            own.connection.close()
        with Postgres.open(app.url, pins=Pins(idle_in_transaction_ms=None)) as postgres:
            named = ["idle_in_transaction_session_timeout"]
            with postgres.session() as session:
                assert [(*named, "1s")] == session.connection.execute(shown, [named]).fetchall()


@by_scope
def test_a_whole_migration_and_the_library(app: App, scope: LiteralString) -> None:
    """Engine, verify, gate and library do their work under the most hostile settings."""
    with hostile(app, scope):
        assert ["users"] == migrate_plan_blockers(app)
        assert Stage.CONTRACTED == app.run()
        assert app.verify().ok
    with app.connected() as client:
        persona, personality = client.execute(
            "SELECT p.id, o.id FROM personas p, personalities o"
        ).fetchall()[0]
    with hostile(app, scope):
        settings = app.settings(qdrant_url=":memory:", settle_s=0)
        with (
            Memory.open(settings) as memory,
            Postgres.open(app.url) as postgres,
            closing(LongTermMemory(open_vectors(settings), settings, Embedder("t", embed))) as ltm,
        ):
            said = NewExchange("c", personality, persona, "é?", "'ok' \\\\")
            memory.remember(said)
            history = memory.get_recent_history("c", said.personality_id, persona_id=persona)
            assert ["é?", "'ok' \\\\"] == [each.content for each in history]
            assert 1 == relay.drain(postgres, ltm).memories
            audit = reconcile.check(postgres, ltm, settings)
            assert audit.complete
            assert {"missing-point"} >= set(audit.counts), audit.counts
    of_the_world = {each.id for each in app.world.history()}
    assert app.expected() == {
        row: persona for row, persona in app.personas().items() if row in of_the_world
    }


def migrate_plan_blockers(app: App) -> list[str]:
    """The blockers that `plan` names."""
    return [each.name for each in app.plan().checks if each.state is State.BLOCKER]


@needs_psql
@by_scope
def test_the_script_for_psql(app: App, scope: LiteralString) -> None:
    """Psql alone migrates under the most hostile settings."""
    with hostile(app, scope), started(app, unresolved="create", backup_confirmed="test") as psql:
        _, errors = psql.communicate(timeout=120)
        assert "ERROR" not in errors
        assert 0 == psql.returncode
    assert app.verify().ok


def test_the_schema_of_a_url_is_where_the_tables_are(app: App) -> None:
    """`?schema=` of Prisma's URL finds tables that the role's search_path does not."""
    app.do("ALTER SCHEMA public RENAME TO character_app")
    with Postgres.open(app.url_with("schema=character_app")) as postgres:
        assert Stage.LEGACY == migrate.status(postgres).stage
    with Postgres.open(app.url) as postgres, pytest.raises(SchemaMismatch):
        migrate.status(postgres)


def test_a_text_that_is_not_utf8_is_named(postgres_cluster: PostgresCluster) -> None:
    """A database in SQL_ASCII may hold bytes that are no text; the error says so."""
    name = f"memsync_ascii_{uuid4().hex}"
    with psycopg.connect(postgres_cluster.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0").format(
                sql.Identifier(name)
            )
        )
    try:
        with Postgres.open(postgres_cluster.url_of(name)) as postgres, postgres.session() as own:
            own.run_script(legacy_schema())
            assert Stage.LEGACY == migrate.status(postgres).stage
            own.run_script(
                "INSERT INTO users (id, discord_id, username, updated_at)"
                " VALUES (gen_random_uuid(), '1', E'\\xff', now())"
            )
            with pytest.raises(InvalidInput, match="SQL_ASCII may hold"), translated("x"):
                own.connection.execute("SELECT username FROM users").fetchone()
    finally:
        postgres_cluster.drop(name)


def test_a_role_that_is_read_only_on_purpose_stays_so(app: App) -> None:
    """default_transaction_read_only is not overridden, and the error says who sets it."""
    url = app.url_with("options=-c%20default_transaction_read_only%3Don")
    with Postgres.open(url) as postgres, pytest.raises(SchemaMismatch, match="read_only"):
        postgres.call(lambda session: session.execute("UPDATE users SET username = 'x'"))


def test_row_level_security_hides_rows_from_the_app_only(app: App) -> None:
    """A command refuses to read what a policy filters; the library is under the policy."""
    app.do("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    with role(app, *APP_GRANTS) as url:
        for filtered in (True, False):
            with (
                Postgres.open(url, pins=Pins(filtered=filtered)) as postgres,
                postgres.session() as session,
            ):
                if filtered:
                    assert 0 == session.connection.execute("TABLE users").rowcount
                else:
                    with pytest.raises(MissingRight, match="row-level security"):
                        session.execute("TABLE users")
