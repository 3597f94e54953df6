"""The preflight: each check finds what is planted, is ok otherwise, and a blocker stops a run."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql

from memsync.errors import InvalidInput
from memsync.migrate import State
from memsync.stores.history.phases import Phase, Stage
from support.preflight import assert_refused, checks
from support.roles import APP_GRANTS, OWNER_GRANTS, at_url, role

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.app import App

    Eventually = Callable[[Callable[[], bool], str], None]


def alter_database(app: App, change: LiteralString) -> None:
    """Do ALTER DATABASE with this change, for sessions to come."""
    name = app.query("SELECT current_database()")[0][0]
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(name), sql.SQL(change))
        )


def test_nothing_in_the_way(app: App) -> None:
    """An app before any migration has one blocker, users without a persona, and no warning."""
    found = checks(app)

    assert set() == {name for name, check in found.items() if check.state is State.WARNING}
    assert {"users"} == {name for name, check in found.items() if check.state is State.BLOCKER}
    assert "3 users have messages" in found["users"].found
    create = "memsync migrate run --to backfill --unresolved create --evidence ignore"
    assert found["users"].next == f"give them one, or {create}"
    assert app.plan().next == create


def test_a_finished_migration_has_nothing_in_the_way(settled: App) -> None:
    """After contract no check is in the way, evidence is not asked for; finalize is next."""
    found = checks(settled)
    assert State.NOT_APPLICABLE is found.pop("evidence").state
    assert {State.OK} == {check.state for check in found.values()}
    assert settled.plan().ok
    assert "memsync migrate finalize" == settled.plan().next
    assert 0 == settled.command("finalize", "--yes")
    assert None is settled.plan().next


def test_plan_shows_the_most_severe_first(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Plan shows blockers, warnings, and the rest if asked; blockers are named; it ends with 14."""
    app.do("CREATE VIEW talk AS SELECT user_id FROM conversation_history")
    app.do(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'conversation_history_user_id_idx'::regclass"
    )
    assert 14 == app.command("plan")
    assert "  ok  " not in capsys.readouterr().out
    assert 14 == app.command("plan", "--verbose")
    lines = capsys.readouterr().out.splitlines()
    at = {
        state: [n for n, line in enumerate(lines) if line.startswith(f"  {state} ")]
        for state in State
    }
    assert at[State.BLOCKER][-1] < at[State.WARNING][0]
    assert at[State.WARNING][-1] < at[State.OK][0]
    assert any("view talk  [stops contract]" in line for line in lines)
    assert lines[-2].startswith("NOT clear: user_id, users; ")
    then = "memsync migrate run --to backfill --unresolved create --evidence ignore"
    assert f"next: {then}" == lines[-1]
    assert 14 == app.command("plan", "--json")
    plan = json.loads(capsys.readouterr().out)
    assert "legacy" == plan["stage"]
    assert [("blocker", ["contract"])] == [
        (each["state"], each["phases"]) for each in plan["checks"] if each["name"] == "user_id"
    ]
    assert not plan["ok"]
    assert plan["next"] == then


@pytest.mark.parametrize(
    ("says", "made"),
    [
        ("has child tables", ["CREATE TABLE old () INHERITS (conversation_history)"]),
        (
            "partitioned",
            [
                "ALTER TABLE conversation_history RENAME TO whole",
                "CREATE TABLE conversation_history (LIKE whole) PARTITION BY HASH (id)",
            ],
        ),
    ],
)
def test_a_table_in_parts_is_refused(app: App, says: str, made: list[LiteralString]) -> None:
    """Partitions and inheritance are refused: indexes cannot be built concurrently there."""
    for each in made:
        app.do(each)
    found = checks(app)["table"]
    assert (State.BLOCKER, True) == (found.state, says in found.found)
    assert_refused(app, "table")


def test_a_history_that_allows_no_user_is_refused(app: App) -> None:
    """A nullable user_id is refused: nobody could say who wrote a message without a user."""
    app.do("ALTER TABLE conversation_history ALTER user_id DROP NOT NULL")
    found = checks(app)["table"]
    assert (State.BLOCKER, True) == (found.state, "user_id" in found.found)
    assert_refused(app, "table")
    app.do("ALTER TABLE conversation_history ALTER user_id SET NOT NULL")
    assert Stage.CONTRACTED == app.run()


def test_a_user_id_that_came_to_be_optional_hides_nothing(app: App) -> None:
    """A user_id made nullable later is not taken for a way back, and the proof still runs."""
    app.run(Phase.BACKFILL)
    app.do("ALTER TABLE conversation_history ALTER user_id DROP NOT NULL")
    app.do(
        "UPDATE conversation_history h SET persona_id ="
        " (SELECT id FROM personas p WHERE p.owner_id <> h.user_id LIMIT 1)"
    )
    assert_refused(app, "table")
    proof = app.verify()
    assert (False, True) == (proof.ok, proof.proven)
    assert proof.wrong_persona_ids
    assert Stage.BACKFILLED == app.plan().stage


def test_an_unlogged_history_is_named(app: App) -> None:
    """An unlogged history is a warning, because a crash of the server empties it."""
    app.do("DROP TABLE pending_memories")
    app.do("ALTER TABLE conversation_history SET UNLOGGED")
    found = checks(app)["table"]
    assert (State.WARNING, True) == (found.state, "unlogged" in found.found)


def test_rows_that_are_hidden_from_us_are_refused(app: App) -> None:
    """Forced row security is refused, because an owner would see and fill a part of the rows."""
    with owner(app) as theirs:
        assert State.OK is checks(theirs)["table"].state
        app.do("ALTER TABLE conversation_history ENABLE ROW LEVEL SECURITY")
        app.do("ALTER TABLE conversation_history FORCE ROW LEVEL SECURITY")
        found = checks(theirs)["table"]
        assert (State.BLOCKER, True) == (found.state, "row security" in found.found)
        assert_refused(theirs, "table")


@contextmanager
def owner(app: App) -> Iterator[App]:
    """The app, seen by a role that owns its tables and may create our schema."""
    with role(app, *OWNER_GRANTS) as url:
        name = url.partition("//")[2].partition(":")[0]
        alter = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
        with app.connected() as connection:
            database = connection.info.dbname
            connection.execute(alter.format(sql.Identifier(database), sql.Identifier(name)))
        yield at_url(app, url)


def test_an_owner_may_do_all_but_not_see_all(app: App) -> None:
    """An owner's privileges are ok; a warning says that other sessions cannot be seen."""
    with owner(app) as theirs:
        found = checks(theirs)
        name = theirs.query("SELECT current_user")[0][0]
        assert State.OK is found["privileges"].state
        assert State.WARNING is found["visibility"].state
        assert f"GRANT pg_read_all_stats TO {name}" == found["visibility"].next
        assert State.OK is checks(app)["visibility"].state


def test_a_role_without_grants_is_told_which(app: App) -> None:
    """Every missing privilege is reported as the GRANT that gives it."""
    with role(app, *APP_GRANTS) as url:
        theirs = at_url(app, url)
        name, database = theirs.query("SELECT current_user, current_database()")[0]
        found = checks(theirs)["privileges"]
        assert State.BLOCKER is found.state
        owner_of = app.query("SELECT current_user")[0][0]
        assert (found.next or "").split("; ") == [
            f"GRANT CREATE ON DATABASE {database} TO {name}",
            f"GRANT {owner_of} TO {name}",
            f"GRANT CREATE ON SCHEMA public TO {name}",
            f"GRANT REFERENCES ON personas TO {name}",
            f"GRANT REFERENCES ON users TO {name}",
        ]
        assert_refused(theirs, "privileges")


REDESIGNED_BY_THE_APP = {
    "llm_configs": "SELECT",  # the app has it
    "personality_default_configs": """
        CREATE TABLE personality_default_configs (
            personality_id uuid PRIMARY KEY REFERENCES personalities ON DELETE CASCADE,
            llm_config_id uuid NOT NULL REFERENCES llm_configs ON DELETE CASCADE,
            updated_at timestamp(3) NOT NULL DEFAULT now())""",
}


@pytest.mark.parametrize("table", REDESIGNED_BY_THE_APP)
def test_a_stranger_s_table_of_the_settings_is_named(app: App, table: str) -> None:
    """A table of the redesign that another role owns blocks the phases that alter it."""
    app.do(REDESIGNED_BY_THE_APP[table])
    with owner(app) as theirs:
        app.do(f"ALTER TABLE {table} OWNER TO CURRENT_USER")
        found = checks(theirs)["privileges"]
        assert (State.BLOCKER, (Phase.REDESIGN, Phase.CONTRACT)) == (found.state, found.phases)
        assert f"{table} is " in found.found


def test_long_transactions_are_named(app: App, eventually: Eventually) -> None:
    """A long transaction is named by pid, state, age and query; a younger one is ok."""
    with app.connected(autocommit=False) as open_one:
        pid = open_one.info.backend_pid
        open_one.execute("SELECT 'thinking'")
        eventually(lambda: str(pid) in checks(app, older_s=0.01)["transactions"].found, "its age")
        found = checks(app, older_s=0.01)["transactions"]
        assert State.WARNING is found.state
        assert f"pid {pid} (idle in transaction, " in found.found
        assert " s): SELECT '...'" in found.found
        assert f"pg_terminate_backend({pid})" in (found.next or "")
        assert State.OK is checks(app)["transactions"].state


@pytest.mark.parametrize(
    ("free", "state"), [(0, State.BLOCKER), (3.0, State.WARNING), (3.5, State.OK)]
)
def test_disk(app: App, monkeypatch: pytest.MonkeyPatch, free: float, state: State) -> None:
    """Disk space for neither method is a blocker; space for a fill in place only is a warning."""
    total = app.query("SELECT pg_total_relation_size('conversation_history')")[0][0]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(free * total)))
    assert state is checks(app)["disk"].state


def test_disk_of_another_machine_is_not_known(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the data folder cannot be read, the disk is reported as not known."""

    def not_there(_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(shutil, "disk_usage", not_there)
    found = checks(app)["disk"]
    assert (State.OK, True) == (found.state, "not known from here" in found.found)


def test_disk_behind_a_tunnel_is_not_known(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's process is not on this machine, its disk is reported as not known."""

    def no_process(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", no_process)
    found = checks(app)["disk"]
    assert (State.OK, True) == (found.state, "not known from here" in found.found)


def test_pooler(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session served by another process than it was told of goes through a pooler: refused."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 1))
    assert State.BLOCKER is checks(app)["pooler"].state
    with pytest.raises(InvalidInput, match="pooler"):
        app.run()


def test_broken_leftovers_are_named(app: App) -> None:
    """INVALID indexes and NOT VALID constraints of the app's tables are named."""
    app.do(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'personas_owner_id_idx'::regclass"
    )
    app.do("ALTER TABLE users ADD CONSTRAINT named CHECK (username <> '') NOT VALID")
    found = checks(app)["indexes"]
    assert State.WARNING is found.state
    assert "index personas_owner_id_idx is INVALID" in found.found
    assert "constraint named of users is NOT VALID" in found.found


def test_column_grants_are_wanted_for_persona_id(app: App) -> None:
    """Column grants on user_id are a warning; the GRANT that it names mends it."""
    with role(app, "GRANT SELECT (user_id), UPDATE (user_id) ON conversation_history TO {}"):
        found = checks(app)["column grants"]
        assert State.WARNING is found.state
        app.run(Phase.EXPAND)
        grant = (found.next or "").removeprefix("after expand: ")
        with app.connected() as connection:
            connection.execute(grant.encode())
        assert State.OK is checks(app)["column grants"].state


def test_references_are_listed(app: App) -> None:
    """Foreign keys that point at the history are listed."""
    key = "pending_memories (pending_memories_conversation_history_id_fkey)"
    assert f"from {key}" == checks(app)["references"].found
    app.do("DROP TABLE pending_memories")
    assert "none from other tables" == checks(app)["references"].found


def test_event_triggers_are_named(app: App) -> None:
    """Event triggers are a warning, because each may refuse our DDL."""
    app.do("CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    app.do("CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION watch()")
    found = checks(app)["event triggers"]
    assert (State.WARNING, True) == (found.state, found.found.startswith("watcher "))
    app.do("ALTER EVENT TRIGGER watcher DISABLE")
    assert State.OK is checks(app)["event triggers"].state


def test_a_vacuum_at_work_is_named(app: App, eventually: Eventually) -> None:
    """A VACUUM that a person started is named, because it gives way to nobody."""
    with app.connected(options="-c vacuum_cost_delay=100 -c vacuum_cost_limit=1") as vacuuming:
        pid = vacuuming.info.backend_pid

        def vacuum() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled):
                vacuuming.execute("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) conversation_history")

        worker = threading.Thread(target=vacuum)
        worker.start()
        try:
            eventually(lambda: State.WARNING is checks(app)["vacuum"].state, "the vacuum")
            assert f"pid {pid} vacuums" in checks(app)["vacuum"].found
        finally:
            app.do("SELECT pg_cancel_backend(%s)", pid)
            worker.join()
    assert State.OK is checks(app)["vacuum"].state


def test_a_vacuum_against_wraparound_that_is_near_is_named(app: App) -> None:
    """A vacuum against wraparound counts as near by the table's own, stricter setting."""
    app.do("ALTER TABLE conversation_history SET (autovacuum_freeze_max_age = 100000)")
    assert State.OK is checks(app)["vacuum"].state
    app.do(
        "DO $$ BEGIN CREATE TEMP TABLE burnt (n int); FOR i IN 1..91000 LOOP"
        " BEGIN INSERT INTO burnt VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;"
        " END LOOP; END $$"
    )
    found = checks(app)["vacuum"]
    assert (State.WARNING, True) == (found.state, "against wraparound is near" in found.found)


@pytest.mark.parametrize(
    ("setting", "name", "state"),
    [
        ("SET statement_timeout = '9min'", "settings", State.OK),
        ("SET session_replication_role = replica", "settings", State.WARNING),
        ("SET track_counts = off", "server", State.WARNING),
        ("SET default_transaction_read_only = on", "server", State.BLOCKER),
    ],
)
def test_settings_of_the_database(
    app: App, setting: LiteralString, name: str, state: State
) -> None:
    """A setting of the database is found and reported."""
    assert State.OK is checks(app)[name].state
    alter_database(app, setting)
    found = checks(app)[name]
    assert state is found.state
    assert setting.split()[1] in found.found or state is State.WARNING


def test_a_lifted_timeout_is_said(app: App) -> None:
    """A timeout that is lifted for the run is named with its value and its source."""
    alter_database(app, "SET statement_timeout = '9min'")
    name = app.query("SELECT current_database()")[0][0]
    said = f"lifted for the run: statement_timeout = 9min (of DATABASE {name})"
    assert said == checks(app)["settings"].found


def test_personas_that_nobody_owns_or_that_are_not_there(app: App) -> None:
    """Ownerless personas are named, and messages of personas that do not exist are counted."""
    assert State.OK is checks(app)["personas"].state
    persona = app.query(
        "UPDATE personas SET owner_id = NULL"
        " WHERE id = (SELECT min(id::text)::uuid FROM personas) RETURNING id"
    )[0][0]
    found = checks(app)["personas"]
    assert (State.WARNING, True) == (
        found.state,
        f"1 persona has no owner: {persona}" in found.found,
    )
    app.do("ALTER TABLE conversation_history ADD COLUMN persona_id uuid")
    app.do(
        "UPDATE conversation_history SET persona_id = gen_random_uuid()"
        " WHERE id = (SELECT min(id::text)::uuid FROM conversation_history)"
    )
    found = checks(app)["personas"]
    assert found.found.startswith("1 message has a persona that does not exist")
    assert "memsync migrate run --to backfill --evidence ignore decides them anew" == found.next
