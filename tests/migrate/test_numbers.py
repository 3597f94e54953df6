"""The figures of status, plan and verify are true, also where another program did the work."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from memsync.cli.progress import left_of
from memsync.migrate import Step
from memsync.model.progress import Kind, Progress, seconds_left
from memsync.model.wording import about
from memsync.stores.history import catalog
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from support.scripts import migrated
from support.starts import (
    ADD_COLUMN,
    CREATE_MISSING,
    DROP_USER,
    FILL_BY_DEFAULT_ONLY,
    FILL_RIGHTLY,
    HALF,
    script,
)

if TYPE_CHECKING:
    from support.app import App


def steps(app: App) -> dict[tuple[Phase, int], Step]:
    """Each step of status, by its phase and its number in it."""
    found: dict[tuple[Phase, int], Step] = {}
    for step in app.status().steps:
        found[step.phase, sum(phase is step.phase for phase, _ in found)] = step
    return found


def counted(app: App) -> int:
    """How many messages there are."""
    return int(app.query("SELECT count(*) FROM conversation_history")[0][0])


def test_what_the_app_finished_itself_is_filled(app: App) -> None:
    """Where memsync never ran, every message counts as filled, and its own steps as open."""
    script(app, CREATE_MISSING, ADD_COLUMN, FILL_RIGHTLY, ";", DROP_USER)
    now, found = app.status(), steps(app)

    assert counted(app) == now.rows_total == now.rows_done == app.verify().rows_total
    assert (False, False) == (found[Phase.ISOLATE, 0].done, found[Phase.ISOLATE, 0].left_out)
    assert found[Phase.ISOLATE, 1].left_out
    assert found[Phase.CONTRACT, 1].done
    assert not found[Phase.CONTRACT, 0].done
    assert not found[Phase.BACKFILL, 1].done
    assert () == now.gates


def test_what_somebody_filled_in_part_is_not_counted(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column that another program has half filled has no count, and verify is named instead."""
    script(app, ADD_COLUMN, FILL_BY_DEFAULT_ONLY, HALF.replace(" WHERE", " AND"))
    assert None is app.status().rows_done
    assert 0 == app.command("status")
    assert "filled  a part of " in capsys.readouterr().out


def test_before_and_after_the_script_alone(app: App) -> None:
    """After psql's script everything is filled; before it nothing is, of the true total."""
    total = counted(app)
    before = app.status()
    assert (total, 0, True) == (before.rows_total, before.rows_done, before.rows_exact)
    assert (total, total) == (app.verify().rows_total, app.verify().null_persona_ids)
    migrated(app)
    after = app.status()
    assert (total, total) == (after.rows_total, after.rows_done)
    assert Stage.CONTRACTED == after.stage
    assert "memsync migrate finalize" == after.next


def test_thousands_are_set_apart_in_every_check(app: App) -> None:
    """The texts of plan, verify, gates and refusals say 1,155 messages, as the tables beside do."""
    bare = re.compile(r"(?<![\w.-])\d{4,} (?=[a-z])")
    assert 1000 <= counted(app)
    said = [each.found for each in (*app.plan().checks, *app.verify().checks)]
    app.run(Phase.BACKFILL)
    said += [each.found for each in (*app.plan().checks, *app.verify().checks)]
    said += [each.found for each in app.plan().gates]
    app.do(
        "SET session_replication_role = replica;UPDATE conversation_history SET persona_id = NULL"
    )
    proof = app.verify()
    said += [*(each.found for each in proof.checks), *proof.problems]

    assert [] == [each for each in said if bare.search(each)]
    assert f"{counted(app):,} messages have no persona" in proof.problems


def test_a_large_table_is_estimated_and_said_to_be(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of a large table come from the planner, by the blocks of now, and are called `about`."""
    monkeypatch.setattr(catalog, "_COUNTED_BYTES", 0)
    app.do("VACUUM ANALYZE conversation_history")
    app.do(
        "UPDATE pg_class SET reltuples = 5e7, relpages = greatest(relpages, 2) / 2"
        " WHERE oid = 'conversation_history'::regclass"
    )
    blocks, pages = app.query(
        "SELECT pg_relation_size(oid) / 8192, relpages FROM pg_class"
        " WHERE oid = 'conversation_history'::regclass"
    )[0]
    now = app.status()
    assert not now.rows_exact
    assert abs(now.rows_total - 5e7 * blocks / pages) < 10
    assert 0 == app.command("status")
    assert f"filled  0 of about {now.rows_total:,} messages" in capsys.readouterr().out


def test_an_app_without_messages(app: App) -> None:
    """Without a message nothing is left to fill, and no figure is made up."""
    app.do("DELETE FROM conversation_history")
    app.run(Phase.BACKFILL)
    now = app.status()
    assert (0, 0, None, None) == (now.rows_total, now.rows_done, now.rows_per_s, now.eta_s)
    assert app.verify().ok


def test_no_rate_says_that_nothing_is_known() -> None:
    """The estimate is the rest at the rate so far; without a rate it says that it is not known."""
    assert 30.0 == seconds_left(250, 1000, 10.0)
    assert None is seconds_left(0, 1000, 10.0)
    assert None is seconds_left(250, 1000, 0.0)
    assert 0.0 == seconds_left(1001, 1000, 10.0)
    assert ("not known yet", "about 30 s") == (about(None), about(30.0))
    assert ("about 12 min", "about 3 h 20 min") == (about(700.0), about(12000.0))
    assert "time left: about 30 s" == left_of(Progress(Kind.COPY, "copy", 250, 1000, 10.0))
    assert "time left: not known yet" == left_of(Progress(Kind.COPY, "copy", 0, 1000, 10.0))
    assert "" == left_of(Progress(Kind.STEP, "read evidence", 1, 2))


@pytest.mark.parametrize("method", ["in-place", "copy"])
@pytest.mark.usefixtures("small_batches")
def test_status_and_the_bar_say_the_same(app: App, method: str) -> None:
    """After each batch the bar's estimate and that of status rest on the same figures."""
    kind = {"in-place": Kind.FILL_PERSONAS, "copy": Kind.COPY}[method]
    seen: list[tuple[str, str]] = []

    def tell(step: Progress) -> None:
        if step.kind is kind and step.total and step.done < step.total and len(seen) < 5:
            now = app.status()
            assert (step.done, step.total) == (now.rows_done, now.rows_total)
            seen.append((left_of(step), f"time left: {about(now.eta_s)}"))

    app.run(Phase.BACKFILL, tell=tell, options={"method": method}, batch_target_ms=1)
    assert seen
    assert all(bar == status for bar, status in seen)


@pytest.mark.usefixtures("small_batches")
def test_waits_count_and_pauses_do_not(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a fill has its waits for a limit, so that the rate is the one that is met."""
    monkeypatch.setattr("memsync.migrate.pacing.pace.LOOK_EVERY_S", 0.02)
    options = {"max_rate_mb_s": 0.1, "method": "in-place"}
    app.run(Phase.BACKFILL, options=options, batch_target_ms=1)
    waited, worked = app.query(
        "SELECT r.waited_s, extract(epoch FROM b.busy)::float"
        " FROM memsync.runs r, memsync.backfill b"
        " WHERE r.phase = 'backfill' AND b.fill = 'personas'"
    )[0]
    assert waited > 0
    assert worked > waited * 0.8


def test_figures_of_a_report_are_of_one_moment(app: App) -> None:
    """Clients write while verify counts; rows and decisions of one report agree all the same."""
    app.run(Phase.BACKFILL)
    stop = threading.Event()

    def write() -> None:
        with app.connected() as client:
            while not stop.is_set():
                client.execute(
                    "INSERT INTO conversation_history"
                    " (id, channel_id, personality_id, user_id, role, content)"
                    " SELECT gen_random_uuid(), '1', personality_id, user_id, 'user', 'hello'"
                    " FROM conversation_history LIMIT 20"
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            proof = app.verify()
            said = next(each.found for each in proof.checks if each.name == "every row recomputed")
            assert (True, f"all {proof.rows_total:,} ") == (proof.ok, said[: said.index("that")])
    finally:
        stop.set()
        writer.join()


def test_no_column_goes_while_a_report_is_read(app: App) -> None:
    """DDL on the history waits for the end of a report, so no report meets half of a change."""
    with Postgres.open(app.url) as postgres, postgres.session() as session:
        with catalog.reading(session), app.connected() as other:
            other.execute("SET lock_timeout = '100ms'")
            with pytest.raises(Exception, match="lock timeout"):
                other.execute("ALTER TABLE conversation_history DROP COLUMN user_id CASCADE")
        assert 0 < catalog.history_rows(session)


def test_the_json_of_status_says_what_its_text_says(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gates, next and figures stand in both."""
    app.run(Phase.BACKFILL)
    assert 0 == app.command("status")
    text = capsys.readouterr().out
    assert 0 == app.command("status", "--json")
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert f"next: {said['next']}\n" in text
    for gate in said["gates"]:
        assert gate["name"] in text
        assert gate["found"].partition(" UTC")[0] in text
    assert f"filled  {said['rows_done']:,} of {said['rows_total']:,} messages" in text
