"""Runs that are cut short at chosen steps; test_cut_short.py does it at drawn statements."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, LiteralString

import pytest

from memsync.errors import MemsyncError, StoreBusy
from memsync.migrate import rollback
from memsync.stores.history.catalog import USER_INDEX
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from support.kills import DOOMED, assert_as_if_undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.app import App, NewApp

    Eventually = Callable[[Callable[[], bool], str], None]


def migrator(app: App, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(DOOMED), app.url, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    with process:
        out, _ = process.communicate(timeout=60)
    return process.returncode, out


def run_when_free(app: App, eventually: Eventually) -> None:
    """Run again; the session of a killed client may hold its lock until its statement ends."""

    def ran() -> bool:
        try:
            return app.run() == Stage.CONTRACTED
        except StoreBusy:
            return False

    eventually(ran, "the killed run's session goes")


def test_runs_killed_one_after_another_get_there(
    app: App, settled: App, eventually: Eventually, seed: int
) -> None:
    """Several killed runs, one after another, are finished by the next one."""
    chance = random.Random(f"{seed}/again")
    for _ in range(3):
        status, out = ended(migrator(app, chance.randint(5, 60), "after"))
        assert status in {-signal.SIGKILL, 0, 11}, out
    run_when_free(app, eventually)
    assert_as_if_undisturbed(app, settled)


def test_killed_during_an_index_build(app: App, settled: App, eventually: Eventually) -> None:
    """A run killed while it builds an index leaves it INVALID, and the next run rebuilds it."""
    app.run(Phase.EXPAND)
    building = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%%'"
        " AND state = 'active' AND datname = current_database()"
    )
    with app.connected(autocommit=False) as hostile:
        hostile.execute(
            "INSERT INTO users (id, discord_id, username, updated_at)"
            " VALUES (gen_random_uuid(), '0', 'open', now())"
        )
        hostile.execute("LOCK TABLE conversation_history IN ROW EXCLUSIVE MODE")
        process = migrator(app)
        eventually(lambda: bool(app.query(building)), "an index is being built")
        process.kill()
        assert -signal.SIGKILL == ended(process)[0]
        for (pid,) in app.query(building):
            app.query("SELECT pg_terminate_backend(%s, 5000)", pid)
        hostile.rollback()
    assert [(1,)] == app.query("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
    assert Stage.EXPANDED == app.plan().stage
    run_when_free(app, eventually)
    assert_as_if_undisturbed(app, settled)


def test_killed_during_validation(app: App, settled: App, eventually: Eventually) -> None:
    """A run killed while it validates the key leaves it NOT VALID, and the next validates it."""
    app.run(Phase.BACKFILL)
    for statement in (
        "ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_persona_id_fkey",
        "ALTER TABLE conversation_history ADD CONSTRAINT conversation_history_persona_id_fkey"
        " FOREIGN KEY (persona_id) REFERENCES personas (id)"
        " ON UPDATE CASCADE ON DELETE CASCADE NOT VALID",
        "UPDATE memsync.alembic_version SET version_num = '0003'",
    ):
        app.do(statement)
    with app.connected(autocommit=False) as hostile:
        hostile.execute("LOCK TABLE personas IN ACCESS EXCLUSIVE MODE")
        process = migrator(app)
        # Its session waits for the lock on personas, to read the catalog or to validate the key.
        eventually(
            lambda: bool(
                app.query(
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND datname = current_database()"
                )
            ),
            "the run waits",
        )
        process.kill()
        assert -signal.SIGKILL == ended(process)[0]
        hostile.rollback()
    assert Stage.EXPANDED == app.plan().stage
    run_when_free(app, eventually)
    assert_as_if_undisturbed(app, settled)


@pytest.mark.parametrize(
    "index",
    [
        "conversation_history_persona_id_idx",
        "conversation_history_channel_id_personality_id_persona_id_c_idx",
    ],
)
def test_an_invalid_index_is_rebuilt(app: App, settled: App, index: LiteralString) -> None:
    """An INVALID index left by a build that was cut short is rebuilt."""
    app.run(Phase.EXPAND)
    app.do("CREATE INDEX " + index + " ON conversation_history (persona_id)")
    app.do("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)", index)
    app.run()
    assert_as_if_undisturbed(app, settled)


SET_VALID: LiteralString = "UPDATE pg_index SET indisvalid = %s WHERE indexrelid = to_regclass(%s)"


@pytest.mark.parametrize("valid", [True, False])
def test_a_user_index_that_stands_before_a_copy_is_had_once(
    app: App, new_app: NewApp, *, valid: bool
) -> None:
    """A user index that stands before a copy, valid or INVALID, is there once afterwards."""
    other = new_app()
    other.run(Phase.ISOLATE)
    other.run(Phase.BACKFILL, options={"method": "in-place"})
    app.run(Phase.ISOLATE)
    app.do(SET_VALID, valid, USER_INDEX)
    app.run(Phase.BACKFILL, options={"method": "copy"})
    assert other.catalog() == app.catalog()


def test_an_invalid_user_index_is_taken_back(app: App) -> None:
    """An INVALID user index is taken back too, because it shows that isolate was begun."""
    before = app.catalog()
    app.run(Phase.ISOLATE)
    app.do(SET_VALID, "false", USER_INDEX)
    with Postgres.open(app.url) as postgres:
        assert Stage.LEGACY == rollback(postgres, app.settings(), to=None)
    assert before["indexes"] == app.catalog()["indexes"]


def test_an_error_of_ours_is_no_other(app: App) -> None:
    """A run on a server that is gone ends with an error of memsync."""
    gone = type(app)("postgresql://nobody@127.0.0.1:1/nothing", app.world)
    with pytest.raises(MemsyncError):
        gone.run()
