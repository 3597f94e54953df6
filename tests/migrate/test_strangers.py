"""Unusual roles, names, search paths and settings."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from memsync.errors import GateClosed, MemsyncError, SchemaMismatch, StoreBusy
from memsync.model.progress import WAITS, Progress, Tell, silent
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres, relations
from support.roles import APP_GRANTS, OWNER_GRANTS, at_url, role

if TYPE_CHECKING:
    from support.app import App


def test_a_missing_privilege_has_a_status_of_its_own(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """A role that may not read our tables exits with 16, not as on a database without the app."""
    app.run(Phase.ISOLATE)
    with role(app) as url:
        assert 16 == at_url(app, url).command("status", "--json")
    assert "MissingRight" == json.loads(capsys.readouterr().err)["error"]


def test_the_apps_own_role_writes_on_while_another_role_migrates(app: App) -> None:
    """A role with grants on the app's tables alone can write in every phase before contract."""
    personality, user = app.query("SELECT personality_id, user_id FROM conversation_history")[0]
    with role(app, *APP_GRANTS) as url, psycopg.connect(url, autocommit=True) as client:
        for phase in (Phase.ISOLATE, Phase.EXPAND, Phase.BACKFILL):
            app.run(phase)
            client.execute(
                "INSERT INTO conversation_history"
                " (id, channel_id, personality_id, user_id, role, content)"
                " VALUES (gen_random_uuid(), '1', %s, %s, 'user', 'hello')",
                (personality, user),
            )
    assert [(3,)] == app.query(
        "SELECT count(*) FROM conversation_history WHERE content = 'hello'"
        " AND persona_id IS NOT NULL"
    )


def test_nobody_else_may_execute_what_runs_as_its_owner(app: App) -> None:
    """PUBLIC may execute no SECURITY DEFINER function: as a trigger it could write our tables."""
    ours: LiteralString = """
        SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
        WHERE n.nspname LIKE 'memsync%' AND p.prosecdef"""
    open_to_all: LiteralString = ours + " AND has_function_privilege('public', p.oid, 'EXECUTE')"
    found: list[Any] = []

    def look(_step: object) -> None:
        found.append((app.query(ours), app.query(open_to_all)))

    app.run(Phase.BACKFILL, tell=look, options={"method": "copy"})
    names = {name for (each, _) in found for (name,) in each}
    assert {"memsync.sync_identity()", "memsync_shadow.log_change()"} <= names
    assert all(not each for (_, each) in found)


def test_owner_who_may_not_create_a_schema_is_told(app: App) -> None:
    """Without CREATE on the database nothing starts, and the message says what to grant."""
    with role(app, *OWNER_GRANTS) as url:
        with pytest.raises(GateClosed, match=r"privileges: .* GRANT CREATE ON DATABASE"):
            at_url(app, url).run()
        assert 14 == at_url(app, url).command("run", "--unresolved", "create")


def test_role_that_may_not_read_is_told(app: App) -> None:
    """A role without any grant is refused, and the error says what to grant."""
    with role(app) as url, pytest.raises(GateClosed, match=r"privileges: .* GRANT "):
        at_url(app, url).run(unresolved="fail")


def test_an_owner_who_is_no_superuser_migrates(app: App) -> None:
    """Owning the tables and CREATE on the database are enough."""
    name = app.query("SELECT current_database()")[0][0]
    with role(app, *OWNER_GRANTS) as url:
        owner = url.partition("//")[2].partition(":")[0]
        with app.connected() as connection:
            connection.execute(
                sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                    sql.Identifier(name), sql.Identifier(owner)
                )
            )
        assert Stage.CONTRACTED == at_url(app, url).run()
        assert app.expected() == app.personas()


def test_second_run_by_a_lesser_role_is_told_who_runs(app: App) -> None:
    """A role that may not see others' sessions still hears StoreBusy with the pid."""
    with app.connected() as first, role(app, *APP_GRANTS) as url:
        first.execute("SELECT pg_advisory_lock(%s)", (0x6D656D73796E6301,))
        with pytest.raises(StoreBusy) as busy:
            at_url(app, url).run()
        assert [first.info.backend_pid] == busy.value.fields["pids"]


def test_lesser_role_is_told_who_is_in_the_way(app: App) -> None:
    """The pid of a blocking session is named though its query may not be seen."""
    app.run(Phase.BACKFILL)
    grants: tuple[LiteralString, ...] = (
        *OWNER_GRANTS,
        "GRANT ALL ON SCHEMA memsync TO {}",
        "GRANT ALL ON ALL TABLES IN SCHEMA memsync TO {}",
    )
    with role(app, *grants) as url, app.connected(autocommit=False) as hostile:
        pid = hostile.info.backend_pid
        hostile.execute("UPDATE conversation_history SET content = content")
        with Postgres.open(url) as postgres, postgres.session() as session:
            found = relations.blockers(session, "conversation_history")
        hostile.rollback()
    assert [pid] == [row.pid for row in found]


@pytest.mark.parametrize(
    "username", ["x" * 255, "O'Brien \"; DROP TABLE users; --", "𝔘ser 🐟 é" * 20, "%s {x} \\"]
)
def test_usernames_of_every_kind(app: App, username: str) -> None:
    """A created persona's name holds as much of the username as fits, whatever is in it."""
    user = next(user.id for user in app.world.cast.users if not user.global_persona_id)
    app.do("UPDATE users SET username = %s WHERE id = %s", username, user)
    app.run()

    assert [(username[:244] + "'s Persona",)] == app.query(
        "SELECT name FROM personas WHERE owner_id = %s", user
    )


def test_search_path_with_another_schema_first(app: App) -> None:
    """The app's tables are found by the search path; those of another schema are not touched."""
    app.do("CREATE SCHEMA other")
    app.do("CREATE TABLE other.users (id int)")
    name = app.query("SELECT current_database()")[0][0]
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET search_path = public, other").format(
                sql.Identifier(name)
            )
        )
    assert Stage.CONTRACTED == app.run()
    assert app.expected() == app.personas()


def test_client_with_another_search_path(app: App) -> None:
    """The sync trigger finds its tables whatever search_path the client has."""
    app.run(Phase.EXPAND)
    personality, user = app.query("SELECT personality_id, user_id FROM conversation_history")[0]
    with app.connected(options="-c search_path=pg_catalog") as client:
        client.execute(
            "INSERT INTO public.conversation_history"
            " (id, channel_id, personality_id, user_id, role, content)"
            " VALUES (gen_random_uuid(), '1', %s, %s, 'user', 'hello')",
            (personality, user),
        )


def test_app_in_a_schema_of_its_own(app: App) -> None:
    """An app whose tables are not in public migrates when its schema is on the path."""
    app.do("ALTER SCHEMA public RENAME TO chat")
    name = app.query("SELECT current_database()")[0][0]
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET search_path = chat").format(sql.Identifier(name))
        )
    assert Stage.CONTRACTED == app.run()
    assert app.expected() == app.personas()


def test_a_database_that_is_not_ours(database: str, app: App) -> None:
    """Every command says that the app's tables are not there, and nothing is made."""
    empty = at_url(app, database)
    with pytest.raises(SchemaMismatch, match="no table conversation_history, personalities"):
        empty.run()
    for command in ("plan", "run", "status", "verify"):
        assert 12 == empty.command(command)
    assert {("public",)} == empty.catalog()["schemas"]


def test_a_view_in_the_place_of_the_table(app: App) -> None:
    """A history that is no table is refused with an error of ours, not with a traceback."""
    app.do("ALTER TABLE conversation_history RENAME TO history")
    app.do("CREATE VIEW conversation_history AS SELECT * FROM history")
    with pytest.raises(MemsyncError):
        app.run()


@pytest.mark.parametrize(
    "made",
    [
        "CREATE SCHEMA memsync",
        "CREATE SCHEMA memsync; CREATE TABLE memsync.alembic_version"
        " (version_num varchar(32) NOT NULL PRIMARY KEY)",
        "CREATE SCHEMA memsync; CREATE TABLE memsync.instance (singleton boolean PRIMARY KEY"
        " DEFAULT true, id uuid NOT NULL DEFAULT gen_random_uuid());"
        " INSERT INTO memsync.instance DEFAULT VALUES",
    ],
    ids=["no table", "version table", "instance only"],
)
def test_a_half_made_schema_is_completed(app: App, settled: App, made: str) -> None:
    """A schema that a crash in the first revision left half made is completed."""
    with app.connected() as connection:
        connection.execute(made.encode())
    assert Stage.CONTRACTED == app.run()
    assert settled.catalog() == app.catalog()


def test_a_schema_of_ours_with_the_wrong_tables_is_refused(app: App) -> None:
    """A table of our name with other columns is an error of ours, not a traceback."""
    app.do("CREATE SCHEMA memsync")
    app.do("CREATE TABLE memsync.persona_map (other int)")
    with pytest.raises(SchemaMismatch):
        app.run()


def run_behind_a_client(app: App, tell: Tell) -> None:
    """Run while a client's open transaction makes the index build wait for half a second.

    The time counts from when the run says that it waits, however long it takes to get there.
    """
    with app.connected(autocommit=False) as hostile:
        hostile.execute("UPDATE conversation_history SET content = content WHERE false")
        hostile.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        soon = threading.Timer(0.6, hostile.rollback)
        late = threading.Timer(30, hostile.rollback)
        late.start()

        def heard(step: Progress) -> None:
            tell(step)
            if step.kind in WAITS and "pid" in step.what and soon.ident is None:
                soon.start()

        try:
            app.run(tell=heard)
        finally:
            late.cancel()
        soon.join()


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_timeouts_of_the_role_do_not_cut_the_long_steps(app: App, setting: LiteralString) -> None:
    """A statement_timeout or lock_timeout of the database does not apply to the migration."""
    name = app.query("SELECT current_database()")[0][0]
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET {} = '300ms'").format(
                sql.Identifier(name), sql.Identifier(setting)
            )
        )
    run_behind_a_client(app, silent)
    assert app.expected() == app.personas()


def test_index_build_that_waits_says_for_whom(app: App) -> None:
    """An open transaction that holds up the first index build is named by its pid."""
    told: list[Progress] = []
    run_behind_a_client(app, told.append)
    assert [each for each in told if each.kind in WAITS and "pid" in each.what]


@pytest.mark.xfail(strict=True, reason="user_id stays NOT NULL after expand")
def test_persona_without_owner_is_written_by_the_new_app(app: App) -> None:
    """Between expand and contract a message by persona may have a persona that nobody owns."""
    app.run(Phase.EXPAND)
    personality = app.query("SELECT id FROM personalities LIMIT 1")[0][0]
    persona = uuid4()
    app.do(
        "INSERT INTO personas (id, name, content, updated_at) VALUES (%s, 'x', '', now())", persona
    )
    app.do(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, persona_id, role, content)"
        " VALUES (gen_random_uuid(), '1', %s, %s, 'user', 'hello')",
        personality,
        persona,
    )
