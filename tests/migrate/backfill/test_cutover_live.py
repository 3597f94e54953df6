"""The backfill by copy on a live table: clients, transactions in the way, rewrites, crashes."""

from __future__ import annotations

import random
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg import sql

from memsync.errors import GateClosed, PartlyDone, StoreBusy
from memsync.migrate.backfill import cutover, shadow_table
from memsync.model.progress import Kind
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres.statements import statement
from support.cutover import COPY, IN_PLACE, hanging
from support.kills import MOMENTS, assert_as_if_undisturbed, migrator
from support.live import Client, expected_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from memsync.model.progress import Progress
    from support.app import App, NewApp

    Eventually = Callable[[Callable[[], bool], str], None]

LOCK_TIMEOUT_MS = 100
LEFT: LiteralString = """
    SELECT nspname FROM pg_namespace WHERE nspname IN ('memsync_shadow', 'memsync_retired')
    UNION ALL SELECT tgname FROM pg_trigger WHERE tgname = 'memsync_log_change'"""


def at_step(
    step: Kind, action: Callable[[], object], *, nth: int = 1
) -> Callable[[Progress], None]:
    """A `tell` that acts at the nth progress of this kind."""
    seen = 0

    def tell(progress: Progress) -> None:
        nonlocal seen
        if progress.kind is step:
            seen += 1
            if seen == nth:
                action()

    return tell


# ------------------------------------------------------------------ clients


def test_both_versions_of_the_app_write_while_it_is_copied(large_app: App, seed: int) -> None:
    """Every insert, update and delete of both versions is in the copy once, and up to date."""
    app = large_app
    clients = [Client(app, f"{seed}/{n}", by_persona=n % 2 == 1) for n in range(4)]

    def tell(step: Progress) -> None:
        if step.kind is Kind.METHOD:
            for client in clients:
                client.start()

    before = {row[0] for row in app.query(ROWS)}
    try:
        assert Stage.BACKFILLED == app.run(
            Phase.BACKFILL, tell=tell, options=COPY, batch_target_ms=1
        )
    finally:
        for client in clients:
            client.stop()

    assert [] == [error for client in clients for error in client.errors]
    expected = app.expected()
    for client in clients:
        assert client.written
        assert client.deleted
        expected |= expected_of(app, client)
    assert expected == app.personas()
    assert before <= app.personas().keys()
    assert not {row for client in clients for row in client.deleted} & app.personas().keys()
    assert app.verify().ok
    assert [] == app.query(LEFT)
    assert 1.0 > max(client.longest_s for client in clients)


def test_what_is_done_to_the_old_rows_while_they_are_copied_is_done_to_the_copy(
    large_app: App, seed: int
) -> None:
    """Old rows that are updated, deleted or given other ids meanwhile end as clients left them.

    A twin table, which a trigger writes in the same transactions, holds what must be there.
    """
    app = large_app
    with app.connected() as connection:
        connection.execute(TWIN)
    stop, errors = threading.Event(), list[str]()
    workers = [
        threading.Thread(target=_disturb, args=(app, f"{seed}/{n}", stop, errors)) for n in range(3)
    ]

    def tell(step: Progress) -> None:
        if step.kind is Kind.METHOD:
            for worker in workers:
                worker.start()

    try:
        app.run(Phase.BACKFILL, tell=tell, options=COPY, batch_target_ms=1)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert [] == errors
    rows = "SELECT id, channel_id, user_id, content FROM "
    assert set(app.query(rows + "twin")) == set(app.query(rows + "conversation_history"))
    assert [(0,)] == app.query(
        "SELECT count(*) FROM pending_memories m LEFT JOIN conversation_history h"
        " ON h.id = m.conversation_history_id WHERE h.id IS NULL"
    )
    # The indexes hold the same rows as the table.
    with app.connected() as connection:
        connection.execute("SET enable_seqscan = off")
        by_index = connection.execute(
            "SELECT count(*), count(DISTINCT id) FROM conversation_history WHERE user_id IS NOT"
            " NULL"
        ).fetchone()
    assert (len(app.personas()),) * 2 == by_index


TWIN: LiteralString = """
    CREATE TABLE twin AS TABLE conversation_history;
    CREATE UNIQUE INDEX ON twin (id);
    CREATE FUNCTION keep_twin() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            DELETE FROM twin WHERE id = OLD.id;
            IF NOT FOUND THEN RAISE 'twice: %', OLD.id; END IF;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO twin (id, channel_id, user_id, content)
            VALUES (NEW.id, NEW.channel_id, NEW.user_id, NEW.content);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER keep_twin AFTER INSERT OR UPDATE OR DELETE ON conversation_history
        FOR EACH ROW EXECUTE FUNCTION keep_twin();
"""
DISTURBANCES: tuple[LiteralString, ...] = (
    "UPDATE conversation_history SET content = content || '!' WHERE id = %(row)s",
    "UPDATE conversation_history SET content = 'all' WHERE channel_id = %(channel)s"
    " AND random() < 0.1",
    "UPDATE conversation_history SET id = gen_random_uuid() WHERE id = %(row)s AND NOT EXISTS"
    " (SELECT FROM pending_memories WHERE conversation_history_id = %(row)s)",
    "DELETE FROM conversation_history WHERE id = %(row)s",
    "INSERT INTO pending_memories (id, conversation_history_id, persona_id, personality_id, text,"
    " metadata) SELECT gen_random_uuid(), id, user_id, personality_id, '', '{}'"
    " FROM conversation_history WHERE id = %(row)s FOR KEY SHARE ON CONFLICT DO NOTHING",
    "DELETE FROM users WHERE id = %(user)s AND random() < 0.1",
)


def _disturb(app: App, seed: str, stop: threading.Event, errors: list[str]) -> None:
    chance = random.Random(seed)
    rows = app.query("SELECT id, channel_id, user_id FROM conversation_history ORDER BY id")
    with app.connected() as connection:
        while not stop.wait(0.002):
            row, channel, user = chance.choice(rows)
            given = {"row": row, "channel": channel, "user": user}
            try:
                connection.execute(chance.choice(DISTURBANCES), given)
            except Exception as error:  # noqa: BLE001  whatever a client meets is what is asked
                errors.append(repr(error))


def test_a_persona_deleted_while_it_is_copied_takes_no_message_along(app: App) -> None:
    """Before the foreign key stands, a deleted persona's messages get what the settings say."""
    user, persona = app.query(
        "SELECT id, global_persona_id FROM users u WHERE global_persona_id IS NOT NULL"
        " AND EXISTS (SELECT FROM conversation_history WHERE user_id = u.id) LIMIT 1"
    )[0]

    def delete() -> None:
        app.do("UPDATE user_personality_settings SET persona_id = NULL WHERE user_id = %s", user)
        app.do("DELETE FROM personas WHERE id = %s", persona)

    before = len(app.query(ROWS))
    app.run(Phase.BACKFILL, tell=at_step(Kind.BUILD, delete), options=COPY)
    assert before == len(app.query(ROWS))
    assert [] == app.query("SELECT FROM conversation_history WHERE persona_id IS NULL")
    assert [] == app.query("SELECT FROM conversation_history WHERE persona_id = %s", persona)


ROWS: LiteralString = "SELECT id FROM conversation_history"


@pytest.mark.parametrize("meanwhile", [None, "SELECT FROM users", "CREATE TEMP TABLE t ()"])
def test_the_copy_is_vacuumed_as_it_grows(
    large_app: App, monkeypatch: pytest.MonkeyPatch, meanwhile: LiteralString | None
) -> None:
    """The copy is vacuumed as it grows, but less often while a snapshot may not see its rows."""
    monkeypatch.setattr(cutover, "_BLOCKS_START", 16)
    monkeypatch.setattr(cutover, "_BLOCKS_MAX", 16)
    large_app.run(Phase.EXPAND)
    name = large_app.query("SELECT current_database()")[0][0]
    with large_app.connected() as connection:
        # As in production: VACUUM cannot mark rows whose commit is not on the disk yet.
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(sql.Identifier(name))
        )
    vacuumed: list[int] = []
    with large_app.connected(autocommit=False) as other:
        if meanwhile:
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute(meanwhile)

        def tell(step: Progress) -> None:
            if step.kind is Kind.COPY:
                query = "SELECT pg_stat_get_vacuum_count(to_regclass(%s))"
                vacuumed.append(large_app.query(query, COPY_TABLE)[0][0])
            if step.kind is Kind.BUILD:
                other.rollback()

        large_app.run(Phase.BACKFILL, tell=tell, options=COPY, batch_target_ms=1)
    slices = len(vacuumed)
    assert slices > 6
    if meanwhile:
        assert slices.bit_length() >= vacuumed[-1]
    else:
        # Not quite each time: the snapshot of a query may hide the newest rows from a vacuum.
        assert vacuumed[-1] > slices * 0.6
    assert large_app.expected() == large_app.personas()


COPY_TABLE = "memsync_shadow.conversation_history"


# ------------------------------------------------------------------ transactions in the way


def test_an_open_transaction_delays_the_cutover_and_nobody_else(
    app: App, eventually: Eventually
) -> None:
    """The cut-over waits for a session that read and stays open, and names it; clients go on."""
    told: list[Progress] = []
    client = Client(app, "reader", by_persona=False)
    with app.connected(autocommit=False) as hostile, ThreadPoolExecutor(1) as pool:

        def open_transaction() -> None:
            hostile.execute("SELECT FROM conversation_history LIMIT 1")

        def tell(step: Progress) -> None:
            told.append(step)
            if step.kind is Kind.CUTOVER:
                open_transaction()

        running = pool.submit(app.run, tell=tell, options=COPY, lock_timeout_ms=LOCK_TIMEOUT_MS)
        pid = f"pid {hostile.info.backend_pid} (idle in transaction"
        client_started = False
        try:
            eventually(lambda: any(pid in each.what for each in told), "it is named")
            client.start()
            client_started = True
            eventually(lambda: len(client.written) > 50, "clients go on")
            assert not running.done()
        finally:
            if client_started:
                client.stop()
            hostile.rollback()
        assert Stage.CONTRACTED == running.result()
    assert [] == client.errors
    assert client.longest_s < LOCK_TIMEOUT_MS / 1000 + 0.4
    assert expected_of(app, client).items() <= app.personas().items()


def test_a_snapshot_from_before_the_copy_still_sees_every_row(
    app: App, eventually: Eventually
) -> None:
    """The cut-over waits for an older snapshot, because to it the copy would be empty."""
    told: list[Progress] = []
    app.run(Phase.EXPAND)
    with app.connected(autocommit=False) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT FROM users LIMIT 1")
        running = pool.submit(
            app.run,
            Phase.BACKFILL,
            tell=told.append,
            options=COPY,
        )
        pid = f"pid {reader.info.backend_pid} (idle in transaction"
        eventually(lambda: any(pid in each.what for each in told), "it is named")
        (seen,) = reader.execute("SELECT count(*) FROM conversation_history").fetchone() or (0,)
        reader.rollback()
        assert Stage.BACKFILLED == running.result()
    assert app.world.manifest.messages == seen


@pytest.mark.parametrize(
    "rewrite", ["TRUNCATE conversation_history CASCADE", "VACUUM FULL conversation_history"]
)
@pytest.mark.parametrize("step", [Kind.BUILD, Kind.CUTOVER])
def test_a_history_rewritten_meanwhile_is_copied_again(
    new_app: NewApp, rewrite: LiteralString, step: Kind
) -> None:
    """After a TRUNCATE or VACUUM FULL in the middle, the copy starts over and ends right."""
    copied, filled = new_app(), new_app()
    told: list[Progress] = []
    act = at_step(step, lambda: copied.do(rewrite))

    def tell(progress: Progress) -> None:
        told.append(progress)
        act(progress)

    copied.run(Phase.BACKFILL, tell=tell, options=COPY)
    filled.do(rewrite)
    filled.run(Phase.BACKFILL, options=IN_PLACE)
    assert [each for each in told if each.kind is Kind.COPY_AGAIN]
    assert filled.contents() == copied.contents()
    assert hanging(filled) == hanging(copied)


def test_a_history_rewritten_again_and_again_ends_the_run(
    app: App, settled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is started too often ends the run with exit status 3; the next run finishes."""
    monkeypatch.setattr(cutover, "_STARTS_MAX", 1)
    rewrite = at_step(Kind.BUILD, lambda: app.do("VACUUM FULL conversation_history"))
    with pytest.raises(PartlyDone, match="was started 1 times") as ended:
        app.run(tell=rewrite, options=COPY)

    assert 3 == ended.value.exit_status
    assert [] == app.query(LEFT)
    assert Stage.EXPANDED == app.status().stage
    assert Stage.CONTRACTED == app.run(options=COPY)
    assert_as_if_undisturbed(app, settled)


def test_rows_written_faster_than_they_are_copied_end_the_run(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that cannot catch up by the deadline ends the run; the next finishes, without loss."""

    def write_all() -> None:
        app.do("UPDATE conversation_history SET content = content || '!'")

    replay = shadow_table.Rows.replay

    def outrun(rows: shadow_table.Rows, limit: int) -> int:
        write_all()
        return replay(rows, limit)

    with monkeypatch.context() as patched:
        patched.setattr(shadow_table.Rows, "replay", outrun)
        with pytest.raises(
            PartlyDone, match=r"not be replayed within 0 s: .*--method in-place"
        ) as ended:
            app.run(tell=at_step(Kind.BUILD, write_all), options=COPY, lock_deadline_s=0.2)

    assert 3 == ended.value.exit_status
    written = set(app.query("SELECT id, content FROM conversation_history"))
    assert Stage.CONTRACTED == app.run(options=COPY)
    assert written == set(app.query("SELECT id, content FROM conversation_history"))
    assert app.expected() == app.personas()
    assert [] == app.query(LEFT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE conversation_history ADD COLUMN mood text DEFAULT 'calm'",
        "CREATE INDEX moods ON conversation_history (role)",
        "ALTER TABLE conversation_history ADD CHECK (role <> 'nobody')",
        "GRANT SELECT ON conversation_history TO PUBLIC",
        "COMMENT ON TABLE conversation_history IS 'changed'",
        "ALTER TABLE conversation_history DISABLE TRIGGER memsync_log_change",
    ],
)
def test_a_history_altered_meanwhile_is_copied_again(
    new_app: NewApp, change: LiteralString
) -> None:
    """A change of the table while it is copied is there in the end."""
    copied, filled = new_app(), new_app()
    # Both stop at expand first, because a run that goes on to fill builds no index on user_id.
    for app in (copied, filled):
        app.run(Phase.EXPAND)
    copied.run(Phase.BACKFILL, tell=at_step(Kind.BUILD, lambda: copied.do(change)), options=COPY)
    if "memsync" not in change:
        filled.do(change)
    filled.run(Phase.BACKFILL, options=IN_PLACE)
    assert hanging(filled) == hanging(copied)
    assert filled.contents() == copied.contents()


@pytest.mark.parametrize("step", [Kind.BUILD, Kind.CUTOVER])
def test_a_view_that_is_made_meanwhile_forbids_the_cutover(app: App, step: Kind) -> None:
    """The view is named and the history stays: after a cut-over it would read the retired table."""
    view: LiteralString = "CREATE VIEW talk AS SELECT id, content FROM conversation_history"
    with pytest.raises(GateClosed, match="view talk"):
        app.run(Phase.BACKFILL, tell=at_step(step, lambda: app.do(view)), options=COPY)
    app.do("DELETE FROM conversation_history WHERE id = (SELECT id FROM talk LIMIT 1)")
    seen = "SELECT count(*) FROM talk"
    assert app.query("SELECT count(*) FROM conversation_history") == app.query(seen)
    assert Stage.BACKFILLED == app.run(Phase.BACKFILL)
    assert app.query("SELECT count(*) FROM conversation_history") == app.query(seen)
    assert not app.query(LEFT)


def test_a_long_change_log_is_not_read_as_a_whole(app: App) -> None:
    """Every query on a long change log goes by its indexes."""
    params = {"limit": 256, "ids": [], "start": "(0,0)", "stop": "(1,0)"}
    asked = [
        statement("take_changes"),
        statement("changes_left"),
        f"SELECT h.id {statement('shadow_rows')} {statement('of_rows_unchanged')}",
    ]
    plans: list[str] = []

    def look() -> None:
        with app.connected() as client:
            client.execute(
                "INSERT INTO memsync_shadow.change_log (id)"
                " SELECT gen_random_uuid() FROM generate_series(1, 100000)"
            )
            client.execute("ANALYZE memsync_shadow.change_log")
            for text in asked:
                rows = client.execute(f"EXPLAIN {text}".encode(), params).fetchall()
                plans.append("\n".join(line for (line,) in rows))

    app.run(Phase.BACKFILL, tell=at_step(Kind.BUILD, look), options=COPY)
    assert len(asked) == len(plans)
    for plan in plans:
        assert re.search(r"Index (Only )?Scan using change_log_\w+ on", plan), plan
        assert "Seq Scan on change_log" not in plan, plan


# ------------------------------------------------------------------ crashes

BY_COPY = ("--options", '{"method": "copy"}')


def expanded(new_app: NewApp) -> App:
    """An app whose backfill comes next, so that most of the points below are in the copy."""
    app = new_app()
    app.run(Phase.EXPAND)
    return app


def statements_of(app: App) -> int:
    status, out = migrator(app, *BY_COPY)
    assert (0, "") == (status, out.strip("0123456789\n"))
    return int(out)


def when_free(action: Callable[[], Stage], eventually: Eventually) -> Stage:
    """Do the action once the killed client's session is gone."""
    result: list[Stage] = []

    def done() -> bool:
        try:
            result.append(action())
        except StoreBusy:
            return False
        return True

    eventually(done, "the killed run's session goes")
    return result[0]


def killed(new_app: NewApp, settled: App, eventually: Eventually, seed: int, kills: int) -> None:
    chance = random.Random(f"{seed}/copy")
    last = statements_of(expanded(new_app))
    before = new_app().catalog()
    for n in range(kills):
        point = chance.randint(1 + last * n // kills, last * (n + 1) // kills)
        moment, after = chance.choice(MOMENTS), chance.choice(("copy", "in-place", "back"))
        app = expanded(new_app)
        status, out = migrator(app, str(point), moment, "--fate", "client", *BY_COPY)
        assert -signal.SIGKILL == status, (point, moment, out)
        if after == "back":
            assert Stage.LEGACY == when_free(app.back, eventually)
            for kind in ("columns", "indexes", "constraints", "triggers"):
                assert before[kind] == app.catalog()[kind], (point, moment)
            assert [] == app.query(LEFT), (point, moment)
        options = {"method": "in-place" if after == "in-place" else "copy"}
        when_free(partial(app.run, options=options), eventually)
        assert [] == app.query(LEFT), (point, moment, after)
        assert_as_if_undisturbed(app, settled)


def test_a_killed_copy_is_finished_or_cleared_away_by_whatever_comes_next(
    new_app: NewApp, settled: App, eventually: Eventually, seed: int
) -> None:
    """After SIGKILL at a seeded statement, a copy, a fill in place or a rollback ends well."""
    killed(new_app, settled, eventually, seed, kills=3)


@pytest.mark.slow
def test_a_killed_copy_is_finished_or_cleared_away_many_times(
    new_app: NewApp, settled: App, eventually: Eventually, seed: int
) -> None:
    """The same holds at more points."""
    killed(new_app, settled, eventually, seed + 1, kills=60)


@pytest.mark.parametrize("step", [Kind.BUILD, Kind.CUTOVER])
def test_rows_of_a_copy_that_was_cleared_away_are_not_counted(app: App, step: Kind) -> None:
    """After a copy that was cut short, a fill in place counts each row once."""
    with pytest.raises(ZeroDivisionError):
        app.run(Phase.BACKFILL, tell=at_step(step, lambda: 1 // 0), options=COPY)
    assert app.status().rows_done
    app.run(Phase.BACKFILL, options=IN_PLACE)
    now = app.status()
    assert now.rows_total == now.rows_done


def test_rows_of_a_copy_that_took_the_place_stay_counted(app: App) -> None:
    """Rows of a copy that took over stay counted, even if only the next run drops the old table."""
    with app.connected(autocommit=False) as reader:

        def hold() -> None:
            reader.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")

        with pytest.raises(StoreBusy):
            app.run(
                Phase.BACKFILL,
                tell=at_step(Kind.CUTOVER, hold),
                options=COPY,
                lock_deadline_s=0.5,
            )
    assert [(True,)] == app.query(
        "SELECT to_regclass('memsync_retired.conversation_history') IS NOT NULL"
    )
    app.run(Phase.BACKFILL, options=IN_PLACE)
    now = app.status()
    assert now.rows_total == now.rows_done


def test_what_others_put_beside_the_copy_is_not_dropped(app: App) -> None:
    """A stranger's function in our schema is named, not dropped; without it a run finishes."""
    with pytest.raises(GateClosed, match=r"function memsync_shadow\.loud"):
        app.run(
            tell=at_step(
                Kind.CUTOVER,
                lambda: app.do(
                    "CREATE FUNCTION memsync_shadow.loud() RETURNS int LANGUAGE sql AS 'SELECT 1'"
                ),
            ),
            options=COPY,
        )
    app.do("DROP FUNCTION memsync_shadow.loud()")
    assert Stage.CONTRACTED == app.run(options=COPY)
    assert [] == app.query(LEFT)
    assert app.expected() == app.personas()


@pytest.mark.parametrize("_round", range(2))
def test_of_four_copies_at_once_one_is_made(new_app: NewApp, settled: App, _round: int) -> None:
    """One of four runs makes the copy; the others get StoreBusy, or find it done."""
    app = new_app()
    start = threading.Barrier(4)

    def run() -> str:
        start.wait()
        try:
            return app.run(options=COPY)
        except StoreBusy:
            return "busy"

    with ThreadPoolExecutor(4) as pool:
        results: list[Any] = [each.result() for each in [pool.submit(run) for _ in range(4)]]
    assert {"busy", "contracted"} >= set(results)
    assert "contracted" in results
    assert settled.catalog() == app.catalog()
    assert app.expected() == app.personas()
