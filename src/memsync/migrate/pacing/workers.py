"""Shares the work of one run among sessions: the run's own, and helpers beside it.

Each session takes the next job when it is free. No job is taken once one has failed, and all have
ended when `together` returns. Only the run's own session holds the migration's lock. So a helper's
job must do no harm if that session is lost and another run begins. A batch fills only empty rows,
with decisions that are frozen; an index build on the shadow table is waited for by the next run.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from memsync.stores.postgres import Postgres
from memsync.stores.postgres.ddl import OnlineDdl
from memsync.stores.postgres.session_settings import prepare_heavy_work

Result = TypeVar("Result")


class Workers:
    """The run's `own` session and its helpers; `size` is how many they are together."""

    def __init__(self, own: OnlineDdl, helpers: Sequence[OnlineDdl] = ()) -> None:
        self.own = own
        self._helpers = tuple(helpers)

    @property
    def size(self) -> int:
        """How many jobs are done at a time."""
        return 1 + len(self._helpers)

    def together(
        self,
        jobs: Sequence[Callable[[OnlineDdl], Result]],
        between: Callable[[], object] = lambda: None,
    ) -> list[Result]:
        """Do the jobs, each on one of the sessions; their results in the order of the jobs.

        `between` is called each time before the run's own session takes one; while it waits, no
        session takes another.

        Raises: the first error of `between` or of a job, once all jobs that had begun have ended.
        Jobs that the helpers are at are cancelled then.
        """
        shift = _Shift(jobs)
        with ThreadPoolExecutor(max(1, len(self._helpers))) as pool:
            helping = [pool.submit(shift.work, helper) for helper in self._helpers]
            shift.work(self.own, between)
            try:
                if not shift.failed:
                    wait(helping)
            except BaseException as error:  # noqa: BLE001  Ctrl-C
                shift.failed.append(error)
            if shift.failed:
                # An index may take long. A cancelled job is rolled back.
                for helper in self._helpers:
                    helper.session.cancel()
                wait(helping)
        if shift.failed:
            raise shift.failed[0]
        return [shift.results[number] for number in range(len(jobs))]


class _Shift(Generic[Result]):
    """The jobs of one call of `together`: which are taken, and their results or errors."""

    def __init__(self, jobs: Sequence[Callable[[OnlineDdl], Result]]) -> None:
        self._jobs = jobs
        self._numbers = iter(range(len(jobs)))
        self._turn = threading.Lock()
        self.results: dict[int, Result] = {}
        self.failed: list[BaseException] = []

    def work(self, ddl: OnlineDdl, between: Callable[[], object] = lambda: None) -> None:
        """Do one job after another, until there is none or one has failed."""
        while not self.failed:
            try:
                if (number := self._next(between)) is None:
                    return
                self.results[number] = self._jobs[number](ddl)
            except BaseException as error:  # noqa: BLE001  a thread's own error would be lost
                self.failed.append(error)

    def _next(self, between: Callable[[], object]) -> int | None:
        with self._turn:
            try:
                between()
            except BaseException as error:  # noqa: BLE001  noted before another takes a job
                self.failed.append(error)
            return None if self.failed else next(self._numbers, None)


@contextlib.contextmanager
def open_workers(postgres: Postgres, own: OnlineDdl, size: int) -> Iterator[Workers]:
    """Workers of this size; the helpers' sessions are opened here, and closed at the end.

    Raises: StoreUnreachable.
    """
    with contextlib.ExitStack() as opened:
        helpers = []
        for _ in range(size - 1):
            session = postgres.dedicated()
            opened.callback(session.connection.close)
            prepare_heavy_work(session)
            helpers.append(own.beside(session))
        yield Workers(own, helpers)
