"""The scripts for psql: they end as the engine does, from every start, with the right status."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, LiteralString

import pytest

from memsync.errors import StoreBusy
from memsync.stores.history.phases import REACHED, Phase, Stage
from support.live import Client, expected_of
from support.psql import PSQL, needs_psql
from support.roles import OWNER_GRANTS, at_url, role
from support.scripts import (
    BACK,
    BACKUP,
    LOST,
    STEPS,
    STOPPED,
    made,
    migrated,
    psql,
    started,
    state,
    untouched,
)
from support.starts import (
    ADD_COLUMN,
    CREATE_MISSING,
    DROP_USER,
    FILL_RIGHTLY,
    HALF,
    REDESIGN,
    changed_since,
    script,
)

if TYPE_CHECKING:
    from support.app import App, NewApp

    Eventually = Callable[[Callable[[], bool], str], None]

pytestmark = needs_psql

# Settings that the redesign must fork, derive and archive, besides those of the world.
HARD = """
    UPDATE personalities SET llm_config_id = (SELECT id FROM llm_configs ORDER BY id LIMIT 1);
    UPDATE personalities SET context_window_size = 50
    WHERE id = (SELECT id FROM personalities ORDER BY id LIMIT 1);
    UPDATE personalities SET llm_config_id = NULL, context_window_size = 33
    WHERE id = (SELECT id FROM personalities ORDER BY id DESC LIMIT 1);
    UPDATE personas SET is_global = true WHERE id = (SELECT id FROM personas ORDER BY id LIMIT 1);
    UPDATE personas SET owner_id = NULL
    WHERE id = (SELECT global_persona_id FROM users WHERE global_persona_id IS NOT NULL
                ORDER BY id LIMIT 1);
    UPDATE users u SET global_persona_id = (SELECT p.id FROM personas p WHERE p.owner_id <> u.id
                                            ORDER BY p.id LIMIT 1)
    WHERE u.id = (SELECT h.user_id FROM conversation_history h JOIN users u ON u.id = h.user_id
                  WHERE u.global_persona_id IS NOT NULL ORDER BY h.user_id DESC LIMIT 1);
    GRANT SELECT, INSERT ON users, user_personality_settings TO pg_monitor;
    GRANT SELECT ON personalities TO PUBLIC;
    GRANT UPDATE ON personalities TO pg_monitor WITH GRANT OPTION;
    GRANT UPDATE (global_persona_id) ON users TO pg_read_all_stats;
    GRANT SELECT (persona_id), UPDATE (persona_id, llm_config_id) ON user_personality_settings
    TO pg_read_all_stats;
"""


@pytest.fixture
def hard(new_app: NewApp) -> NewApp:
    """Call it for an app whose redesign has more to do."""

    def make() -> App:
        app = new_app()
        script(app, HARD)
        return app

    return make


@pytest.fixture
def by_engine(hard: NewApp) -> App:
    """Such an app, migrated by the engine."""
    app = hard()
    assert Stage.CONTRACTED == app.run()
    return app


def test_same_result_as_the_engine_and_twice(hard: NewApp, by_engine: App) -> None:
    """The script leaves exactly what `memsync migrate run` leaves; again, it changes nothing."""
    app = hard()
    said = migrated(app)
    assert by_engine.catalog() == app.catalog()
    assert by_engine.contents() == app.contents()
    assert state(by_engine) == state(app)
    assert app.query("SELECT FROM memsync.config_fork")
    assert app.query("SELECT FROM memsync.orphan_persona")
    assert app.query("SELECT FROM memsync.row_archive")
    runs: LiteralString = (
        "SELECT verb, phase, outcome, user_id_dropped, rows_filled FROM memsync.runs ORDER BY id"
    )
    assert by_engine.query(runs) == app.query(runs)
    assert f"messages                     | {len(app.personas())}" in said
    before = app.query(runs), state(app)

    migrated(app)
    assert before == (app.query(runs), state(app))
    assert by_engine.catalog() == app.catalog()


def test_each_step_ends_where_the_engines_phase_ends(hard: NewApp) -> None:
    """After each step the catalog is the engine's, and memsync sees the stage."""
    app, other = hard(), hard()
    for phase in Phase:
        migrated(app, STEPS[phase])
        other.run(phase)
        assert REACHED[phase] == app.plan().stage
        assert other.catalog() == app.catalog()
        assert made(other) == made(app)
    assert state(other) == state(app)


@pytest.mark.slow
@pytest.mark.parametrize("phase", list(Phase)[:-1])
def test_script_and_engine_go_on_from_each_other(
    hard: NewApp, by_engine: App, phase: Phase
) -> None:
    """After each phase that one of them did, the other goes on to the same end."""
    by_script, by_both = hard(), hard()
    for each in list(Phase)[: list(Phase).index(phase) + 1]:
        migrated(by_script, STEPS[each])
    by_both.run(phase)
    assert Stage.CONTRACTED == by_script.run()
    migrated(by_both)
    for app in (by_script, by_both):
        assert by_engine.catalog() == app.catalog()
        assert by_engine.contents() == app.contents()
        assert state(by_engine) == state(app)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((ADD_COLUMN,), id="column by hand", marks=pytest.mark.slow),
        pytest.param((ADD_COLUMN, FILL_RIGHTLY, HALF), id="half filled"),
        pytest.param(
            (CREATE_MISSING, ADD_COLUMN, FILL_RIGHTLY, ";", DROP_USER),
            id="all by hand",
            marks=pytest.mark.slow,
        ),
        pytest.param((REDESIGN,), id="redesigned by the app"),
    ],
)
def test_from_where_a_deployment_stands(new_app: NewApp, parts: tuple[str, ...]) -> None:
    """Work that the app or a person did already is kept, as by the engine."""
    app, other = new_app(), new_app()
    for each in (app, other):
        script(each, *parts)
    migrated(app)
    other.run()
    assert other.catalog() == app.catalog()
    assert other.contents() == app.contents()
    assert state(other) == state(app)


def test_messages_of_a_persona_that_was_deleted_meanwhile(app: App) -> None:
    """Messages of a persona deleted before the foreign key stands get the user's next persona."""
    app.run(Phase.EXPAND)
    _, _, before, now = changed_since(app)
    app.do("UPDATE conversation_history SET persona_id = %s WHERE channel_id = 'since'", before)
    app.do("DELETE FROM personas WHERE id = %s", before)
    migrated(app)
    assert before not in app.personas().values()
    assert [(now,)] == app.query(
        "SELECT persona_id FROM conversation_history WHERE channel_id = 'since'"
    )


@pytest.mark.slow
def test_from_half_way_back(hard: NewApp, by_engine: App) -> None:
    """The script goes forward from a way back that stopped half way."""
    app = hard()
    app.run()
    app.back(Phase.EXPAND)
    migrated(app)
    assert by_engine.catalog() == app.catalog()
    assert by_engine.contents() == app.contents()


@pytest.mark.slow
def test_forward_again_after_all_was_taken_back(hard: NewApp) -> None:
    """After the whole way back the script ends as the engine does, forks and new rows included."""
    app, other = hard(), hard()
    for each in (app, other):
        each.run()
        assert Stage.LEGACY == each.back()
        changed_since(each)
    migrated(app)
    other.run()
    assert other.catalog() == app.catalog()
    assert other.contents() == app.contents()
    assert state(other) == state(app)


def test_memsync_takes_it_back(hard: NewApp) -> None:
    """After the script `verify` is ok, and `rollback` restores the app."""
    app = hard()
    catalog, users = app.catalog(), app.query("SELECT id, user_id FROM conversation_history")
    configs = app.query("SELECT id, llm_config_id, context_window_size FROM personalities")
    migrated(app)
    assert app.verify().ok
    assert Stage.CONTRACTED == app.status().stage

    assert Stage.LEGACY == app.back()
    kinds = ("columns", "indexes", "constraints", "triggers")
    after = app.catalog()
    assert [catalog[kind] for kind in kinds] == [after[kind] for kind in kinds]
    assert sorted(users) == sorted(app.query("SELECT id, user_id FROM conversation_history"))
    again = app.query("SELECT id, llm_config_id, context_window_size FROM personalities")
    assert sorted(configs) == sorted(again)


@pytest.mark.slow
def test_back_before_contract_and_forward_again(hard: NewApp) -> None:
    """The script takes persona_id back as memsync does; forward again, each row is as it was."""
    app, other = hard(), hard()
    for each in (app, other):
        each.run(Phase.BACKFILL)
        each.do(
            "UPDATE conversation_history"
            " SET persona_id = (SELECT max(id::text)::uuid FROM personas)"
            " WHERE id = (SELECT min(id::text)::uuid FROM conversation_history)"
        )
    personas = app.personas()
    app.do("DROP INDEX conversation_history_persona_id_idx")
    status, said = psql(app, BACK)
    assert 0 == status, said
    other.back(Phase.REDESIGN)
    assert other.catalog() == app.catalog()
    assert state(other) == state(app)
    runs: LiteralString = "SELECT verb, phase, outcome FROM memsync.runs ORDER BY id"
    assert other.query(runs) == app.query(runs)
    assert 0 == psql(app, BACK)[0]

    migrated(app, STEPS[Phase.EXPAND])
    migrated(app, STEPS[Phase.BACKFILL])
    assert personas == app.personas()


DOOM = """
    CREATE SCHEMA doom;
    CREATE SEQUENCE doom.deaths;
    CREATE FUNCTION doom.step() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF current_query() NOT LIKE 'CREATE OR REPLACE%%'
           AND nextval('doom.deaths') = %(victim)s THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(10);
        END IF;
    END $$;
    CREATE FUNCTION doom.of_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM doom.step(); END $$;
    CREATE FUNCTION doom.of_fill() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM doom.step(); RETURN NULL; END $$;
    CREATE TRIGGER doom AFTER UPDATE ON conversation_history
        FOR EACH STATEMENT EXECUTE FUNCTION doom.of_fill();
    CREATE EVENT TRIGGER doom ON ddl_command_end EXECUTE FUNCTION doom.of_ddl();
"""


def doom(app: App, victim: int) -> None:
    """Makes the session die in its `victim`-th change of the schema or batch of the fill."""
    script(app, DOOM % {"victim": victim})


def spare(app: App) -> int:
    """End that; return how many changes and batches there were."""
    ((steps,),) = app.query("SELECT last_value FROM doom.deaths")
    script(
        app,
        "DROP EVENT TRIGGER doom; DROP TRIGGER doom ON conversation_history;"
        " DROP SCHEMA doom CASCADE",
    )
    return int(steps)


def die_and_go_on(app: App, reference: App, victim: int) -> None:
    doom(app, victim)
    status, said = psql(app, unresolved="create", backup_confirmed=BACKUP, batch_target_ms=1)
    assert LOST == status, said
    spare(app)
    migrated(app)
    assert reference.catalog() == app.catalog(), victim
    assert reference.contents() == app.contents(), victim
    assert state(reference) == state(app), victim


def steps_of(app: App) -> int:
    doom(app, -1)
    migrated(app)
    return spare(app)


@pytest.mark.slow
def test_killed_anywhere_it_goes_on(hard: NewApp, by_engine: App, seed: int) -> None:
    """A session that dies at a seeded change or batch is finished by the next script."""
    total = steps_of(hard())
    assert 60 < total
    for victim in random.Random(seed).sample(range(1, total + 1), 2):
        die_and_go_on(hard(), by_engine, victim)


@pytest.mark.slow
def test_killed_everywhere_it_goes_on(hard: NewApp, by_engine: App) -> None:
    """The same holds at every change and batch."""
    for victim in range(1, steps_of(hard()) + 1):
        die_and_go_on(hard(), by_engine, victim)


def test_one_migration_at_a_time(app: App, eventually: Eventually) -> None:
    """While a script waits for a lock, memsync and another script are refused."""
    app.run(Phase.REDESIGN)
    with app.connected(autocommit=False) as client:
        client.execute("SELECT FROM conversation_history WHERE content = 'my words'")
        pid = client.info.backend_pid
        status, said = psql(app, unresolved="create", lock_deadline_s=0.2)
        assert STOPPED == status
        assert f"pid {pid} (idle in transaction" in said
        assert "content = '...'" in said
        assert "my words" not in said

        with started(app, unresolved="create", backup_confirmed=BACKUP) as process:
            begun: LiteralString = "SELECT FROM memsync.runs WHERE phase = 'expand'"
            eventually(lambda: len(app.query(begun)) == 2, "the script has tried for the lock")
            with pytest.raises(StoreBusy, match="another migration"):
                app.run(lock_deadline_s=1)
            status, said = psql(app, unresolved="create", lock_deadline_s=1)
            assert (STOPPED, True) == (status, "another migration is running" in said)
            client.rollback()
            _, said = process.communicate(timeout=60)
        assert 0 == process.returncode, said
        assert f"pid {pid}" in said
    assert Stage.CONTRACTED == app.plan().stage


def test_an_owner_in_a_schema_of_its_own(app: App) -> None:
    """Owning the tables and CREATE on the database are enough, whatever the schema is called."""
    name = app.query("SELECT current_database()")[0][0]
    with role(app, *OWNER_GRANTS) as url:
        owner = url.partition("//")[2].partition(":")[0]
        for statement in (
            'ALTER SCHEMA public RENAME TO "the app"',
            f'ALTER DATABASE "{name}" SET search_path = "the app"',
            f'GRANT CREATE ON DATABASE "{name}" TO "{owner}"',
        ):
            script(app, statement)
        migrated(at_url(app, url))
        assert app.expected() == app.personas()
        assert Stage.CONTRACTED == app.plan().stage


@pytest.mark.slow
def test_clients_meet_no_error(large_app: App, seed: int) -> None:
    """Both versions of the app write before, during and after; each row ends with its persona."""
    app = large_app
    old = [Client(app, f"{seed}/old/{n}", by_persona=False) for n in range(2)]
    new = Client(app, f"{seed}/new", by_persona=True)
    try:
        for client in old:
            client.start()
        for phase in (Phase.ISOLATE, Phase.REDESIGN, Phase.EXPAND):
            migrated(app, STEPS[phase])
        new.start()
        status, said = psql(app, unresolved="create", batch_target_ms=5)
        assert (STOPPED, True) == (status, "backup" in said)
        for client in old:
            client.stop()
        migrated(app)
    finally:
        for client in (*old, new):
            client.stop()

    assert [] == [error for client in (*old, new) for error in client.errors]
    after, expected = app.personas(), app.expected()
    for client in (*old, new):
        assert client.written
        expected |= expected_of(app, client)
    assert expected == after
    assert max(client.longest_s for client in (*old, new)) < 1.0


def piped(app: App, text: str, *more: str) -> tuple[int, str]:
    """Run a script that was printed; `more` are arguments of psql."""
    done = subprocess.run(
        [
            str(PSQL),
            "--no-psqlrc",
            "--set=unresolved=create",
            "--set=backup_confirmed=yes",
            *more,
            app.url,
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_plan_prints_what_is_ahead(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """`memsync migrate plan --sql` prints the phases that are not done yet; psql does them."""
    app.run(Phase.EXPAND)
    before = untouched(app)
    assert 0 == app.command("plan", "--sql")
    text = capsys.readouterr().out
    assert before == untouched(app)
    parts = re.findall(r"^-- ==== (\w+) ====$", text, re.MULTILINE)
    assert ["backfill", "contract", "verify", "back", "summary"] == parts
    assert 0 != piped(app, text, "--set=only=verify")[0]
    assert 0 == app.command("plan", "--sql", "--json")
    assert text == json.loads(capsys.readouterr().out)["sql"]

    status, said = piped(app, text)
    assert 0 == status, said
    assert Stage.CONTRACTED == app.plan().stage
    assert 0 == app.command("plan", "--sql")
    assert "ahead: nothing" in (nothing := capsys.readouterr().out)
    assert all(line.startswith("--") for line in nothing.splitlines())
