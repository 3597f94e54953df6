"""Sessions that share the fill of one run: its own, and helpers beside it.

Decides who takes which job, that nothing more is taken once one has failed, and that all have ended
when it returns. Only the run's own session holds the migration's lock. So a helper's job must do no
harm when that session is lost meanwhile and another run begins: a batch fills what is empty with
what is decided, and who builds an index of a copy is waited for.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from memsync.stores.ddl import OnlineDdl
from memsync.stores.postgres import Postgres

Result = TypeVar("Result")


class Crew:
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

        `between` is called before each job of the run's own session; while it waits, nobody takes
        another one.

        Raises: what `between` or the first job raised that failed, when all that had begun have
        ended.
        """
        numbers = iter(range(len(jobs)))
        turn = threading.Lock()
        results: dict[int, Result] = {}
        failed: list[BaseException] = []

        def work(ddl: OnlineDdl) -> None:
            while not failed:
                try:
                    with turn:
                        if ddl is self.own:
                            between()
                        number = None if failed else next(numbers, None)
                    if number is None:
                        return
                    results[number] = jobs[number](ddl)
                except BaseException as error:  # noqa: BLE001  a thread's own would be lost
                    failed.append(error)

        with ThreadPoolExecutor(max(1, len(self._helpers))) as pool:
            helping = [pool.submit(work, helper) for helper in self._helpers]
            work(self.own)
            try:
                wait(helping)
            except BaseException as error:  # noqa: BLE001  Ctrl-C: their batches end first
                failed.append(error)
                wait(helping)
        if failed:
            raise failed[0]
        return [results[number] for number in range(len(jobs))]


@contextlib.contextmanager
def crew_of(postgres: Postgres, own: OnlineDdl, size: int) -> Iterator[Crew]:
    """A crew of this size, its helpers' sessions opened here and closed at the end.

    Raises: StoreUnreachable.
    """
    with contextlib.ExitStack() as opened:
        helpers = []
        for _ in range(size - 1):
            session = postgres.dedicated()
            opened.callback(session.connection.close)
            session.run("no_timeouts")
            session.run("heavy_work")
            helpers.append(own.beside(session))
        yield Crew(own, helpers)
