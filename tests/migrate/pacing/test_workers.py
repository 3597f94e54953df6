"""Workers that fill at the same time: the result of one, even if a worker's session is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from memsync.errors import Cancelled, InvalidInput, StoreBusy, StoreUnreachable
from memsync.migrate import RunOptions, ask
from memsync.migrate.backfill import cutover, fill
from memsync.migrate.pacing import pace
from memsync.migrate.pacing.workers import Workers, open_workers
from memsync.model.progress import Kind, Progress, silent
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.postgres.ddl import OnlineDdl
from support.kills import BY_THREE, Way, all_cut_short, drawn, nobody_works_on, offered_methods

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.app import App, NewApp

    Eventually = Callable[[Callable[[], bool], str], None]
    NewWay = Callable[[type[Way], str, str], Way]

THREE = {"method": "in-place", "workers": 3}
COPY_BY_THREE = {"method": "copy", "workers": 3}
# So that there are many batches.
SLOWLY: dict[str, Any] = {"batch_target_ms": 1}


@pytest.fixture
def workers(app: App) -> Iterator[Workers]:
    """Three workers."""
    with Postgres.open(app.url) as postgres:
        own = OnlineDdl(postgres.dedicated(), lock_timeout_ms=50, deadline_s=1, tell=silent)
        with open_workers(postgres, own, 3) as made:
            yield made
        own.session.connection.close()


def pid_of(ddl: OnlineDdl) -> int:
    return ddl.session.connection.info.backend_pid


def progress_of(app: App) -> tuple[Any, ...]:
    return app.query("SELECT rows_done, rows_total, next_block >= end_block FROM memsync.backfill")[
        0
    ]


def end_a_session(app: App, *, of_the_helpers: bool) -> None:
    """End one session of a run; only the run's own session holds an advisory lock."""
    app.query(
        "SELECT pg_terminate_backend(a.pid, 5000) FROM pg_stat_activity a"
        " WHERE datname = current_database() AND application_name = 'memsync'"
        " AND %s <> EXISTS (SELECT FROM pg_locks l"
        "                   WHERE l.pid = a.pid AND l.locktype = 'advisory') LIMIT 1",
        of_the_helpers,
    )


# ------------------------------------------------------------------ the workers


def test_jobs_are_done_at_the_same_time_each_on_a_session_of_its_own(workers: Workers) -> None:
    """Three jobs run at once, each on its own session; results come in the order of the jobs."""
    all_there = threading.Barrier(3, timeout=10)

    def job(number: int, ddl: OnlineDdl) -> tuple[int, int]:
        if number < 3:
            all_there.wait()
        return number, pid_of(ddl)

    done = workers.together([partial(job, number) for number in range(5)])

    assert list(range(5)) == [number for number, _ in done]
    assert 3 == len({pid for _, pid in done[:3]})


@pytest.mark.parametrize("error", [IndexError("gone"), KeyboardInterrupt()], ids=repr)
def test_what_a_job_raises_is_raised_when_all_have_ended(
    workers: Workers, error: BaseException
) -> None:
    """After a job raised, no other is begun; the error is raised when all have ended."""
    ended: list[int] = []
    failed = threading.Event()

    def job(number: int, _: OnlineDdl) -> None:
        if number == 1:
            failed.set()
            raise error
        assert failed.wait(10)
        ended.append(number)

    with pytest.raises(type(error)):
        workers.together([partial(job, number) for number in range(50)])
    assert len(ended) < 10


def test_while_the_run_is_held_up_nobody_begins_another_job(workers: Workers) -> None:
    """While the run's own session is held up between two jobs, the other workers begin none."""
    begun: list[int] = []
    held_up: list[int] = []
    pauses = iter([False, True])

    def between() -> None:
        if next(pauses, False):
            time.sleep(0.2)
            before = len(begun)
            time.sleep(0.2)
            held_up.append(len(begun) - before)

    def job(number: int, _: OnlineDdl) -> None:
        begun.append(number)
        time.sleep(0.01)

    workers.together([partial(job, number) for number in range(60)], between)
    assert [0] == held_up
    assert list(range(60)) == sorted(begun)


def test_what_the_run_hears_between_two_jobs_ends_them_all(workers: Workers) -> None:
    """An error between two jobs ends all workers, and no further job is begun."""
    begun: list[int] = []
    until_then: list[int] = []

    def between() -> None:
        if begun:
            time.sleep(0.1)
            until_then.extend(begun)
            raise Cancelled("enough")

    def job(number: int, _: OnlineDdl) -> None:
        begun.append(number)
        time.sleep(0.01)

    with pytest.raises(Cancelled):
        workers.together([partial(job, number) for number in range(60)], between)
    assert until_then == begun


def test_every_session_is_prepared_for_much_work(workers: Workers) -> None:
    """Every session has the settings for heavy work; values that were set before are kept."""
    for ddl in [workers.own, *workers._helpers]:
        if ddl is workers.own:
            ddl.session.run_script("SET maintenance_work_mem = '1GB'; SET backend_flush_after = 8")
            ddl.session.run("heavy_work")
        shown = [
            ddl.session.connection.execute(f"SHOW {name}").fetchall()[0][0]
            for name in ("maintenance_work_mem", "backend_flush_after")
        ]
        assert shown == (["1GB", "64kB"] if ddl is workers.own else ["256MB", "256kB"])


# ------------------------------------------------------------------ the fill


def test_several_fill_as_one_does(large_app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker has a share, every row its persona, and the checkpoint counts each row once."""
    rows_by: Counter[int] = Counter()
    batch_of = fill._batch

    def seen(*given: Any) -> Any:
        batch = batch_of(*given)
        rows_by[pid_of(given[-1])] += batch.rows if batch else 0
        return batch

    monkeypatch.setattr(fill, "_batch", seen)
    monkeypatch.setattr(pace, "LOOK_EVERY_S", 0.0)
    told: list[Progress] = []
    assert Stage.BACKFILLED == large_app.run(
        Phase.BACKFILL, options=THREE, tell=told.append, **SLOWLY
    )
    assert large_app.expected() == large_app.personas()
    total = large_app.world.manifest.messages
    assert (3, total) == (len(rows_by), rows_by.total())
    assert min(rows_by.values()) > total / 10
    assert (total, total, True) == progress_of(large_app)
    assert large_app.verify().ok
    assert large_app.query("SELECT FROM memsync.runs WHERE rows_filled = %s", total)
    # A worker that waits for the checkpoint's row is not taken for a client.
    assert [] == [each for each in told if each.kind is Kind.WAITING_FOR_CLIENTS]


@pytest.mark.parametrize("of_the_helpers", [True, False], ids=["a helper", "the run's own"])
def test_a_session_that_is_ended_costs_its_batch(large_app: App, *, of_the_helpers: bool) -> None:
    """A lost session ends the run and loses its batch only; the next run fills the rest."""

    def tell(step: Progress) -> None:
        if step.total is not None and step.done > step.total // 3:
            end_a_session(large_app, of_the_helpers=of_the_helpers)

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
    """A run waits for a locked row up to its deadline, while other workers fill other rows."""
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


def test_workers_hear_a_cancel(large_app: App) -> None:
    """A cancel ends a run with several workers; the next run finishes."""

    def tell(step: Progress) -> None:
        if step.total is not None:
            with Postgres.open(large_app.url) as postgres:
                ask(postgres, "cancel")

    with pytest.raises(Cancelled):
        large_app.run(Phase.BACKFILL, options=THREE, tell=tell, **SLOWLY)
    assert Stage.BACKFILLED == large_app.run(Phase.BACKFILL, options=THREE)
    assert large_app.expected() == large_app.personas()


def test_several_runs_with_workers_at_once(new_app: NewApp) -> None:
    """One of several runs migrates; the others end with StoreBusy, or find nothing to do."""
    app = new_app()
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(app.run, options=THREE) for _ in range(3)]
    outcomes = [run.exception() for run in runs]
    assert None in outcomes
    assert all(error is None or isinstance(error, StoreBusy) for error in outcomes)
    assert app.expected() == app.personas()


@pytest.mark.parametrize("kills", [1, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fate", ["client", "terminate"])
@pytest.mark.parametrize("method", offered_methods())
def test_workers_cut_short(
    way_for: NewWay, eventually: Eventually, seed: int, method: str, fate: str, kills: int
) -> None:
    """A run with workers that is cut short is finished by the next, and no batch is done twice."""
    way = way_for(Way, fate, method + BY_THREE)
    ends = drawn(f"{seed}/workers/{method}/{kills}/{fate}", fate, way.acting, kills)
    all_cut_short(way, ends, eventually, seed)


# ------------------------------------------------------------------ the indexes of a copy


def test_several_build_the_indexes_of_a_copy(
    app: App, settled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workers build the indexes at the same time, and the result is that of one."""
    all_there = threading.Barrier(3, timeout=10)
    built_by: list[int] = []
    build = cutover._build

    def seen(*given: Any) -> None:
        built_by.append(pid_of(given[-1]))
        if len(built_by) <= 3:
            all_there.wait()
        build(*given)

    monkeypatch.setattr(cutover, "_build", seen)
    assert Stage.CONTRACTED == app.run(options=COPY_BY_THREE)
    assert (3, 5) == (len(set(built_by)), len(built_by))
    assert settled.catalog() == app.catalog()
    assert settled.contents() == app.contents()


def test_who_still_builds_for_a_run_that_was_lost_is_waited_for(
    app: App, settled: App, eventually: Eventually
) -> None:
    """The next run names a session that still builds, waits, and builds what is missing."""

    def fail(step: Progress) -> None:
        if step.kind is Kind.INDEX:
            raise StoreUnreachable("lost")

    with pytest.raises(StoreUnreachable):
        app.run(Phase.BACKFILL, options=COPY_BY_THREE, tell=fail)
    told: list[Progress] = []
    with ThreadPoolExecutor(1) as pool, app.connected(autocommit=False) as left:
        left.execute(
            "CREATE INDEX conversation_history_persona_id_idx"
            " ON memsync_shadow.conversation_history (persona_id)"
        )
        running = pool.submit(app.run, options=COPY_BY_THREE, tell=told.append)
        in_the_way = f"memsync_shadow.conversation_history; in the way: pid {left.info.backend_pid}"
        eventually(lambda: any(in_the_way in each.what for each in told), "it is waited for")
        assert not running.done()
        left.commit()
        assert Stage.CONTRACTED == running.result()
    built = [each.what for each in told if each.kind is Kind.INDEX]
    assert built
    assert not any("conversation_history_persona_id_idx" in each for each in built)
    assert settled.catalog() == app.catalog()
    assert settled.contents() == app.contents()


@pytest.mark.parametrize("of_the_helpers", [True, False], ids=["a helper", "the run's own"])
def test_a_session_that_is_ended_while_it_builds_costs_its_index(
    app: App, settled: App, eventually: Eventually, *, of_the_helpers: bool
) -> None:
    """A session lost while it builds ends the run; the next one builds what is missing."""
    ended = threading.Event()

    def tell(step: Progress) -> None:
        if step.kind is Kind.INDEX:
            # So that each has a share of the indexes.
            time.sleep(0.1)
            if not ended.is_set():
                ended.set()
                end_a_session(app, of_the_helpers=of_the_helpers)

    with pytest.raises(StoreUnreachable):
        app.run(Phase.BACKFILL, options=COPY_BY_THREE, tell=tell)
    eventually(lambda: nobody_works_on(app), "the sessions go")
    assert Stage.CONTRACTED == app.run(options=COPY_BY_THREE)
    assert settled.catalog() == app.catalog()
    assert settled.contents() == app.contents()


@pytest.mark.parametrize("workers", [0, -1, 17])
def test_a_size_that_cannot_be_meant(
    app: App, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number of workers out of range is refused by the library and by the command line."""
    with pytest.raises(InvalidInput, match=f"workers is {workers}"):
        RunOptions(workers=workers)
    assert 2 == app.command("run", "--workers", str(workers))
    assert "--workers" in capsys.readouterr().err
