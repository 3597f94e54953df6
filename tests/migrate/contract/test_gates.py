"""The gates of contract, proof, quiet and backup: each refuses contract for its own reason."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from memsync import Memory, migrate
from memsync.errors import GateClosed, InvalidInput, StoreBusy
from memsync.model.progress import Kind
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from memsync.model.progress import Progress, Tell
    from support.app import App

    When = Callable[[str, Callable[[], object]], Tell]

HALF_AN_HOUR: Mapping[str, Any] = {"quiet_minutes": 30}
ALL_GATES: Mapping[str, Any] = {"quiet_minutes": 30, "backup_confirmed": None}
READ_BY_USER: LiteralString = "SELECT content FROM conversation_history WHERE user_id = %s LIMIT 1"


@pytest.fixture
def ready(app: App) -> App:
    """The app before contract; for an hour nobody has used user_id."""
    app.run(Phase.BACKFILL)
    long_ago(app, 3600)
    return app


def long_ago(app: App, seconds: int) -> None:
    """Make the last recorded write of user_id older by so many seconds."""
    app.query(
        "SELECT setval('memsync.user_id_written_at', last_value - %s, is_called)"
        " FROM memsync.user_id_written_at",
        seconds,
    )


def anyone(app: App) -> tuple[Any, Any, Any]:
    """A user, a personality, and the persona that the user speaks to it as."""
    return app.query(
        "SELECT user_id, personality_id, persona_id FROM conversation_history LIMIT 1"
    )[0]


def write(app: App, *names: str, on: psycopg.Connection[Any] | None = None) -> None:
    """Insert a message that names these columns besides the others."""
    values = dict(zip(("user_id", "personality_id", "persona_id"), anyone(app), strict=True))
    given = {
        "id": uuid4(),
        "channel_id": "1",
        "role": "user",
        "content": "hello",
        "personality_id": values["personality_id"],
        **{name: values[name] for name in names},
    }
    statement = sql.SQL("INSERT INTO conversation_history ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, given)),
        sql.SQL(", ").join([sql.Placeholder()] * len(given)),
    )
    if on is not None:
        on.execute(statement, [*given.values()])
        return
    with app.connected() as connection:
        connection.execute(statement, [*given.values()])


def refused(app: App, options: Mapping[str, Any]) -> GateClosed:
    """Run contract, which must be refused and change nothing; the error."""
    catalog = app.catalog()
    with pytest.raises(GateClosed) as closed:
        app.run(options=options)
    assert (Stage.BACKFILLED, catalog) == (app.status().stage, app.catalog())
    return closed.value


@contextmanager
def owner(app: App) -> Iterator[App]:
    """The app as seen by a role that owns the tables, but may not look at others' sessions."""
    name = f"memsync_owner_{uuid4().hex[:12]}"
    facts = psycopg.conninfo.conninfo_to_dict(app.url)
    port = f"&port={facts['port']}" if "port" in facts else ""
    role = sql.Identifier(name)
    with app.connected() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(role))
        connection.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(role))
        connection.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                sql.Identifier(str(facts["dbname"])), role
            )
        )
        for (table,) in app.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            connection.execute(
                sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(table), role)
            )
        try:
            url = f"postgresql://{name}:secret@/{facts['dbname']}?host={facts['host']}{port}"
            yield type(app)(url, app.world)
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def grounds(app: App) -> str:
    """Why the gates were open, according to memsync.runs."""
    rows = app.query("SELECT note FROM memsync.runs WHERE gates_passed ORDER BY id")
    return str(rows[-1][0])


# ------------------------------------------------------------------ quiet


def test_quiet_app_is_contracted(ready: App) -> None:
    """When nobody used user_id for an hour, the gate is open, and memsync.runs says why."""
    assert Stage.CONTRACTED == ready.run(options=HALF_AN_HOUR)
    assert "nobody used user_id for 30 min; backup confirmed: test" == grounds(ready)


@pytest.mark.parametrize("names", [("user_id",), ("user_id", "persona_id")])
def test_a_client_that_names_user_id_closes_the_gate(ready: App, names: tuple[str, ...]) -> None:
    """A client that names user_id closes the gate: contract would break its next INSERT."""
    write(ready, *names)

    closed = refused(ready, HALF_AN_HOUR)

    assert "a client wrote a user_id at " in closed.message
    assert "--quiet-minutes 0" in closed.message
    assert 1700 < float(str(closed.fields["wait_s"])) <= 1800
    assert Stage.CONTRACTED == ready.run(options={"quiet_minutes": 0})


def test_the_gate_opens_when_the_write_is_old_enough(ready: App) -> None:
    """A write that is older than the quiet minutes does not close the gate."""
    write(ready, "user_id")
    long_ago(ready, 29 * 60)
    refused(ready, HALF_AN_HOUR)
    long_ago(ready, 61)

    assert Stage.CONTRACTED == ready.run(options=HALF_AN_HOUR)


def test_a_client_that_knows_personas_only_does_not_close_it(ready: App) -> None:
    """A user_id that the sync trigger fills in does not count as written by the client."""
    write(ready, "persona_id")

    assert Stage.CONTRACTED == ready.run(options=HALF_AN_HOUR)


def test_the_time_before_the_watch_counts_as_use(app: App) -> None:
    """A run straight through is refused, because it has watched writes for seconds only."""
    app.run(Phase.BACKFILL)

    told = refused(app, HALF_AN_HOUR).message
    assert "contract may not start, because user_id may have been in use within the last " in told
    assert " min. Writes are watched only since " in told
    assert ". Wait 0:" in told


def test_writers_do_not_wait_for_one_another(ready: App) -> None:
    """A write is recorded without a lock that lasts to the end of its transaction."""
    with ready.connected(autocommit=False) as first, ready.connected() as second:
        write(ready, "user_id", on=first)
        second.execute("SET lock_timeout = '200ms'")
        write(ready, "user_id", on=second)
        first.rollback()
    refused(ready, HALF_AN_HOUR)


def test_a_reader_by_user_id_closes_the_gate(ready: App) -> None:
    """A session that reads by user_id is named with its query; once it ends, the gate is open."""
    with ready.connected(application_name="old-app") as reader:
        reader.execute(READ_BY_USER, (anyone(ready)[0],))
        closed = refused(ready, HALF_AN_HOUR)
        pid = reader.info.backend_pid

    assert [pid] == closed.fields["pids"]
    assert f"pid {pid} (old-app) at " in closed.message
    assert "SELECT content FROM conversation_history WHERE user_id" in closed.message
    assert Stage.CONTRACTED == ready.run(options=HALF_AN_HOUR)


def test_a_reader_by_user_id_through_the_library_closes_the_gate(ready: App) -> None:
    """The library is a client like any other; once it reads by persona, the gate is open."""
    user, personality, persona = anyone(ready)
    with Memory.open(ready.settings()) as memory:
        memory.get_recent_history("1", personality, user_id=user)
        closed = refused(ready, HALF_AN_HOUR)
        open_ones = ready.query(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND query ~ 'user_id = ' AND pid <> pg_backend_pid()"
        )
        assert [pid for (pid,) in open_ones] == closed.fields["pids"]
        memory.get_recent_history("1", personality, persona_id=persona)
        assert Stage.CONTRACTED == ready.run(options=HALF_AN_HOUR)


def test_readers_by_persona_do_not_close_it(ready: App) -> None:
    """Readers by persona, and readers of user_id in other tables, do not close the gate."""
    with ready.connected() as first, ready.connected() as second:
        first.execute("SELECT FROM conversation_history WHERE persona_id = gen_random_uuid()")
        second.execute("SELECT user_id FROM user_personality_settings LIMIT 1")
        assert Stage.CONTRACTED == ready.run(options=HALF_AN_HOUR)


def test_sessions_of_memsync_do_not_close_it(ready: App) -> None:
    """Sessions of memsync name user_id, but do not count, whatever their application_name."""
    url = ready.url_with("application_name=anything")
    with Postgres.open(url) as postgres:
        migrate.verify(postgres)
        migrate.plan(postgres)
        with postgres.session() as session:
            session.rows("messages_without_user")
            assert Stage.CONTRACTED == ready.run(options=HALF_AN_HOUR)


def test_the_apps_role_needs_no_grants_in_our_schema(app: App) -> None:
    """The write of a client that may use only its own tables is recorded as well."""
    with owner(app) as client:
        app.run(Phase.BACKFILL)
        long_ago(app, 3600)
        write(client, "user_id")
        assert "a client wrote a user_id" in refused(app, HALF_AN_HOUR).message


def test_what_cannot_be_seen_is_said(app: App) -> None:
    """A run that may not see others' statements says so instead of calling the app quiet."""
    told: list[Progress] = []
    with owner(app) as seen, app.connected() as reader:
        seen.run(Phase.BACKFILL)
        long_ago(app, 3600)
        reader.execute(READ_BY_USER, (anyone(app)[0],))
        assert Stage.CONTRACTED == seen.run(options=HALF_AN_HOUR, tell=told.append)
        said = [each.what for each in told if each.kind is Kind.NOTE]
        assert 1 == len(said)
        assert "of other roles could not be looked at (GRANT pg_read_all_stats" in said[0]
        assert "could not be looked at" in grounds(app)


# ------------------------------------------------------------------ backup


def test_no_contract_without_a_backup(ready: App) -> None:
    """Without a backup contract is refused; the error names both ways to open the gate."""
    closed = refused(ready, {"quiet_minutes": 0, "backup_confirmed": None})

    assert "memsync made none" in closed.message
    assert "`memsync migrate backup`" in closed.message
    assert "--backup-confirmed" in closed.message


def test_a_confirmed_backup_is_in_the_record_of_runs(ready: App) -> None:
    """The record of runs keeps who confirmed a backup, and the words."""
    assert 0 == ready.command(
        *("run", "--quiet-minutes", "0", "--backup-confirmed", "pgBackRest 20261122-F")
    )
    who, note = ready.query("SELECT who, note FROM memsync.runs WHERE gates_passed")[0]
    assert ready.query("SELECT session_user") == [(who,)]
    assert note.endswith("; backup confirmed: pgBackRest 20261122-F")


RECORDED: LiteralString = """
    INSERT INTO memsync.backup (file, bytes, sha256, tables, history_rows, snapshot, taken_at)
    VALUES ('a.dump', 1, '', '{}', 1, '', clock_timestamp() - %s * interval '1 hour')"""


def test_a_recorded_backup_counts_for_a_day(ready: App) -> None:
    """A recorded backup counts for 24 hours, or for as long as the operator says."""
    options = {"quiet_minutes": 0, "backup_confirmed": None}
    ready.do(RECORDED, 25)
    said = refused(ready, options).message
    assert "the last one, a.dump of " in said
    assert "is older than 24 h" in said

    assert Stage.CONTRACTED == ready.run(options=options | {"backup_max_age_hours": 26})


def test_a_backup_from_before_the_way_back_does_not_count(ready: App) -> None:
    """A backup from before contract was taken back lacks the history written since."""
    options = {"quiet_minutes": 0, "backup_confirmed": None}
    ready.do(RECORDED, 1)
    assert Stage.CONTRACTED == ready.run(options=options)
    with Postgres.open(ready.url) as postgres:
        migrate.rollback(postgres, ready.settings(), to=Phase.BACKFILL)
    assert "is from before contract was taken back" in refused(ready, options).message

    ready.do(RECORDED, 0)
    assert Stage.CONTRACTED == ready.run(options=options)


# ------------------------------------------------------------------ order, and runs cut short


def test_gates_are_asked_in_their_order(ready: App) -> None:
    """The gates are checked in this order: proof, quiet, backup."""
    user, _, _ = anyone(ready)
    row, persona = ready.query(
        "SELECT h.id, h.persona_id FROM conversation_history h WHERE user_id = %s LIMIT 1", user
    )[0]
    wrong = "UPDATE conversation_history SET persona_id = %s WHERE id = %s"
    ready.do(
        "UPDATE conversation_history SET persona_id ="
        " (SELECT id FROM personas WHERE owner_id <> %s LIMIT 1) WHERE id = %s",
        *(user, row),
    )
    write(ready, "user_id")
    assert "the proof failed" in refused(ready, ALL_GATES).message
    ready.do(wrong, persona, row)
    assert "user_id was in use" in refused(ready, ALL_GATES).message
    long_ago(ready, 3600)
    assert "without a backup" in refused(ready, ALL_GATES).message


def cut_short(app: App, when: When) -> None:
    """Run a contract that passes its gates, but does not get the lock to drop user_id's key."""
    with app.connected(autocommit=False) as hostile:
        tell = when(Kind.PROOF, lambda: hostile.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE"))
        with pytest.raises(StoreBusy):
            app.run(options=HALF_AN_HOUR, tell=tell, lock_deadline_s=0.1)
        hostile.rollback()


def test_a_contract_cut_short_is_finished_without_asking_again(ready: App, when: When) -> None:
    """The next run finishes a contract that was cut short, whatever the gates would say."""
    cut_short(ready, when)
    write(ready, "user_id")

    assert Stage.CONTRACTED == ready.run(options=ALL_GATES)
    assert "finishes a contract that was cut short" == grounds(ready)


def test_after_the_way_back_the_gates_are_asked_again(ready: App, when: When) -> None:
    """A contract that was begun and then taken back must pass its gates again."""
    cut_short(ready, when)
    with Postgres.open(ready.url) as postgres:
        migrate.rollback(postgres, ready.settings(), to=Phase.BACKFILL)
    write(ready, "user_id")

    assert "user_id was in use" in refused(ready, ALL_GATES).message


def test_what_other_hands_half_did_is_not_ours_to_finish(ready: App) -> None:
    """A key that somebody dropped looks like half a contract, but no gate was ever passed."""
    ready.do("ALTER TABLE conversation_history DROP CONSTRAINT conversation_history_user_id_fkey")
    write(ready, "user_id")

    assert "user_id was in use" in refused(ready, ALL_GATES).message


@pytest.mark.parametrize(
    "options",
    [
        {"quiet_minutes": -1},
        {"quiet_minutes": float("nan")},
        {"backup_confirmed": " "},
        {"backup_max_age_hours": 0},
        {"max_lag_ms": -5},
        {"max_rate_mb_s": float("inf")},
    ],
    ids=str,
)
def test_choices_that_cannot_be_meant(options: dict[str, Any]) -> None:
    """Options out of range are refused before anything is opened."""
    with pytest.raises(InvalidInput):
        migrate.RunOptions(**options)
