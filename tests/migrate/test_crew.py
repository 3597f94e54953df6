"""Several sessions that fill at the same time: the same result, whoever of them is lost."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from memsync.errors import Cancelled, InvalidInput, StoreBusy, StoreUnreachable
from memsync.migrate import RunOptions, ask, backfill, pace
from memsync.migrate.crew import Crew, crew_of
from memsync.model.phases import Phase, Stage
from memsync.model.progress import Progress, silent
from memsync.stores.ddl import OnlineDdl
from memsync.stores.postgres import Postgres
from migrate.kills import BY_THREE, Way, all_cut_short, drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from migrate.conftest import App, NewApp

    Eventually = Callable[[Callable[[], bool], str], None]
    NewWay = Callable[[type[Way], str, str], Way]

THREE = {"method": "in-place", "workers": 3}
# So that there are many batches.
SLOWLY: dict[str, Any] = {"batch_target_ms": 1}


@pytest.fixture
def crew(app: App) -> Iterator[Crew]:
    """Three sessions."""
    with Postgres.open(app.url) as postgres:
        own = OnlineDdl(postgres.dedicated(), lock_timeout_ms=50, deadline_s=1, tell=silent)
        with crew_of(postgres, own, 3) as made:
            yield made
        own.session.connection.close()


def pid_of(ddl: OnlineDdl) -> int:
    return ddl.session.connection.info.backend_pid


def progress_of(app: App) -> tuple[Any, ...]:
    return app.query("SELECT rows_done, rows_total, next_block >= end_block FROM memsync.backfill")[
        0
    ]


# ------------------------------------------------------------------ the crew


def test_jobs_are_done_at_the_same_time_each_on_a_session_of_its_own(crew: Crew) -> None:
    """Their results come in the order of the jobs."""
    all_there = threading.Barrier(3, timeout=10)

    def job(number: int, ddl: OnlineDdl) -> tuple[int, int]:
        if number < 3:
            all_there.wait()
        return number, pid_of(ddl)

    done = crew.together([partial(job, number) for number in range(5)])

    assert list(range(5)) == [number for number, _ in done]
    assert 3 == len({pid for _, pid in done[:3]})


@pytest.mark.parametrize("error", [IndexError("gone"), KeyboardInterrupt()], ids=repr)
def test_what_a_job_raises_is_raised_when_all_have_ended(crew: Crew, error: BaseException) -> None:
    """And no more jobs are begun."""
    ended: list[int] = []
    failed = threading.Event()

    def job(number: int, _: OnlineDdl) -> None:
        if number == 1:
            failed.set()
            raise error
        assert failed.wait(10)
        ended.append(number)

    with pytest.raises(type(error)):
        crew.together([partial(job, number) for number in range(50)])
    assert len(ended) < 10


# ------------------------------------------------------------------ the fill


def test_several_fill_as_one_does(large_app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its share, every row has its persona, the checkpoint tells of each row once."""
    rows_by: Counter[int] = Counter()
    fill = backfill._batch

    def seen(*given: Any) -> Any:
        batch = fill(*given)
        rows_by[pid_of(given[-1])] += batch.rows if batch else 0
        return batch

    monkeypatch.setattr(backfill, "_batch", seen)
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.0)
    told: list[str] = []

    def tell(step: Progress) -> None:
        told.append(step.what)

    assert Stage.BACKFILLED == large_app.run(Phase.BACKFILL, options=THREE, tell=tell, **SLOWLY)
    assert large_app.expected() == large_app.personas()
    total = large_app.world.manifest.messages
    assert (3, total) == (len(rows_by), rows_by.total())
    assert min(rows_by.values()) > total / 10
    assert (total, total, True) == progress_of(large_app)
    assert large_app.verify().ok
    assert large_app.query("SELECT FROM memsync.ledger WHERE rows_filled = %s", total)
    # Who waits for the checkpoint is one of the crew, and no client.
    assert [] == [line for line in told if "clients wait" in line]


@pytest.mark.parametrize("of_the_helpers", [True, False], ids=["a helper", "the run's own"])
def test_a_session_that_is_ended_costs_its_batch(large_app: App, *, of_the_helpers: bool) -> None:
    """The run ends with it; the next one does the rest, and nothing twice."""

    def tell(step: Progress) -> None:
        if step.total is not None and step.done > step.total // 3:
            large_app.query(
                "SELECT pg_terminate_backend(a.pid, 5000) FROM pg_stat_activity a"
                " WHERE datname = current_database() AND application_name = 'memsync'"
                " AND %s <> EXISTS (SELECT FROM pg_locks l"
                "                   WHERE l.pid = a.pid AND l.locktype = 'advisory') LIMIT 1",
                of_the_helpers,
            )

    with pytest.raises(StoreUnreachable):
        large_app.run(Phase.BACKFILL, options=THREE, tell=tell, **SLOWLY)
    done, total, over = progress_of(large_app)
    filled = large_app.query(
        "SELECT count(*) FROM conversation_history WHERE persona_id IS NOT NULL"
    )[0][0]
    assert (filled, False) == (done, over)
    assert 0 < done < total

    large_app.run(Phase.BACKFILL, options=THREE)
    assert large_app.expected() == large_app.personas()
    assert (total, total, True) == progress_of(large_app)


def test_a_row_that_is_held_is_waited_for_up_to_the_deadline(app: App) -> None:
    """Though the others of the crew come through with their batches all the while."""
    app.run(Phase.EXPAND)
    with app.connected(autocommit=False) as hostile:
        hostile.execute("SELECT FROM conversation_history ORDER BY ctid LIMIT 1 FOR UPDATE")
        with pytest.raises(StoreBusy) as busy:
            app.run(
                Phase.BACKFILL, options=THREE, lock_timeout_ms=10, lock_deadline_s=0.5, **SLOWLY
            )
        assert [hostile.info.backend_pid] == busy.value.fields["pids"]
        done, total, over = progress_of(app)
        assert 0 < done < total
        assert not over
        hostile.rollback()
    assert Stage.BACKFILLED == app.run(Phase.BACKFILL, options=THREE)
    assert app.expected() == app.personas()


def test_a_crew_hears_that_it_is_to_end(large_app: App) -> None:
    """As one does, between its batches."""

    def tell(step: Progress) -> None:
        if step.total is not None:
            with Postgres.open(large_app.url) as postgres:
                ask(postgres, "cancel")

    with pytest.raises(Cancelled):
        large_app.run(Phase.BACKFILL, options=THREE, tell=tell, **SLOWLY)
    assert Stage.BACKFILLED == large_app.run(Phase.BACKFILL, options=THREE)
    assert large_app.expected() == large_app.personas()


def test_several_runs_with_crews_at_once(new_app: NewApp) -> None:
    """One of them migrates."""
    app = new_app()
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(app.run, options=THREE) for _ in range(3)]
    outcomes = [run.exception() for run in runs]
    assert None in outcomes
    assert all(error is None or isinstance(error, StoreBusy) for error in outcomes)
    assert app.expected() == app.personas()


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fate", ["client", "terminate"])
def test_a_crew_cut_short(
    way_for: NewWay, eventually: Eventually, seed: int, fate: str, kills: int
) -> None:
    """The next run ends the same, and what was committed is not done again."""
    way = way_for(Way, fate, BY_THREE)
    ends = drawn(f"{seed}/crew/{kills}/{fate}", fate, way.acting, kills)
    all_cut_short(way, ends, eventually, seed)


@pytest.mark.parametrize("workers", [0, -1, 17])
def test_a_size_that_cannot_be_meant(
    app: App, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused, by the library and by the command line."""
    with pytest.raises(InvalidInput, match=f"workers is {workers}"):
        RunOptions(workers=workers)
    assert 2 == app.command("run", "--workers", str(workers))
    assert "--workers" in capsys.readouterr().err
