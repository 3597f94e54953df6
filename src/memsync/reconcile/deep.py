"""The deep audit of a shared collection: every memory is read, in parts, by one process or several.

It trusts no digest. All digests of the history are computed by Postgres in one pass, and cut into
parts; each part is compared with its points by whoever is free. The ids that are left are read once
more and judged, by the one process that reports. So the report is the same, whoever looked. A
worker that is killed costs the parts that it had in hand; an audit that is killed goes on from its
state file.
"""

import bisect
import contextlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from concurrent.futures.process import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, groupby
from multiprocessing import get_context
from pathlib import Path
from uuid import UUID

from memsync.errors import MemsyncError, SchemaMismatch, SettingsError, StoreUnreachable
from memsync.model.extras import to_install
from memsync.model.ids import PointId
from memsync.model.sequences import rows_of
from memsync.model.wording import count
from memsync.reconcile.audit_state import AuditState, Standing
from memsync.reconcile.locating import Located
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import Spool, Tape
from memsync.settings import EMBEDDED, Settings
from memsync.stores.history.catalog import instance_id
from memsync.stores.history.exchanges import anchors_of_nobody, exchange_digests
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.parts import (
    POINT_BYTES,
    ROW_BYTES,
    Elsewhere,
    KnownBy,
    Part,
    Seen,
    anchor_of,
    packed,
    unpacked,
)

_PART_ROWS = 20_000
"""So many exchanges a part has, and about so many points at most, as far as ids are random."""
_IN_HAND = 2
"""Parts for each worker at a time: one that it reads, and one that waits for it."""
_PATIENCE_S = 10.0
"""After so long without news it is asked whether anybody reads."""
_LOST_MAX = 3
"""So often without any progress workers may be lost; then it is not they who are to blame."""


@dataclass(frozen=True, slots=True)
class How:
    """How a deep audit reads: by how many processes, or by a scheduler at this address; at most so
    many points a second; and the file in which it keeps how far it came.
    """

    workers: int = 1
    scheduler: str | None = None
    points_per_s: float | None = None
    state: Path | None = None

    @property
    def by_others(self) -> bool:
        """Whether other processes are to read."""
        return self.workers > 1 or self.scheduler is not None

    @property
    def in_parts(self) -> bool:
        """Whether it asks for anything that only a reading in parts can do."""
        return self.by_others or self.state is not None


ALONE = How()


@dataclass(frozen=True, slots=True)
class Ids(Iterable[PointId]):
    """The ids of points, on disk, in order."""

    tape: Tape

    def __iter__(self) -> Iterator[PointId]:
        return map(unpacked, self.tape)


class Deep:
    """One deep audit.

    `left_out` says what it took from an earlier run, after `locate`; then it has not seen all.
    `why_alone` says why no other process helps, or no state is kept, though the operator asked for
    that.
    """

    def __init__(self, settings: Settings, how: How) -> None:
        self._settings, self._how = settings, how
        self._state: AuditState | None = None
        self._stack = contextlib.ExitStack()
        self.left_out: tuple[str, ...] = ()
        self.why_alone: str | None = None
        if how.by_others and _is_embedded(settings):
            self.why_alone = (
                "this process reads alone: an embedded vector store belongs to one process"
            )

    def serves(self, layout: Layout, *, are_vectors_seen: bool) -> bool:
        """Whether this audit can read in parts. Notes why where it cannot."""
        if layout is not Layout.SHARED:
            self.do_without("only a shared collection is read in parts")
            return False
        if are_vectors_seen:
            # Then each memory must be a case.
            self.do_without("vectors are looked at")
            return False
        return True

    def do_without(self, why: str) -> None:
        """Note that everything is read in the usual way after all, and why."""
        if self._how.in_parts:
            self.why_alone = f"this process reads alone and keeps no state, because {why}"

    def close(self, *, is_complete: bool) -> None:
        """Free the disk. The state goes with a complete audit, so that each part is read anew."""
        self._stack.close()
        if self._state is not None:
            self._state.close(remove=is_complete)

    def locate(self, sources: Sources) -> Located:
        """Read every memory. Returns those that must be judged.

        A part that cannot be read makes the audit incomplete. Raises: InvalidInput for a state file
        of other stores.
        """
        session = sources.session
        digests = Tape(ROW_BYTES, exchange_digests(session))
        tape = self._stack.enter_context(contextlib.closing(digests))
        bounds = _bounds(tape, _number_of_points(sources))
        if self._how.in_parts:
            bounds = self._prepared(sources, bounds)
        seen: Spool[Seen] = self._stack.enter_context(contextlib.closing(Spool()))
        points = 0
        for each in self._look(sources, tape, bounds):
            seen.add(each.number.to_bytes(8, "big"), each)
            points += each.points
        ids = (id_ for each in seen for id_ in rows_of(each.ids, POINT_BYTES))
        # A memory can be exactly right, and be nobody's.
        nobodys = map(packed, anchors_of_nobody(session))
        both = (each for each, _ in groupby(heapq.merge(ids, nobodys)))
        located = self._stack.enter_context(contextlib.closing(Tape(POINT_BYTES, both)))
        return Located(Ids(located), len(tape), points, 0, are_all_read=True)

    def _prepared(self, sources: Sources, bounds: list[UUID]) -> list[UUID]:
        """Open the state file, and learn by what others know the store. Returns the bounds."""
        here, ltm, home = instance_id(sources.session), sources.ltm, sources.ltm.collection
        settled, store = ltm.mark.in_store(here)
        self._known_by = KnownBy(here, store, settled or 0)
        if self._how.scheduler and store is None and self.why_alone is None:
            # On another machine the URL may be that of another store.
            self.why_alone = (
                "this process reads alone: the vector store shows no mark by which the workers of "
                "a scheduler would know it; a relay or a repair that writes gives it one"
            )
        if self._how.state is None:
            return bounds
        # A store that was made anew under the same name has no mark, or another one.
        subject = (str(here), ltm.label, home, store or "no mark")
        standing = Standing(settled or 0, ltm.aliases().get(home))
        self._state = AuditState(self._how.state, subject, bounds, standing)
        return self._state.bounds

    def _look(self, sources: Sources, tape: Tape, bounds: list[UUID]) -> Iterator[Seen]:
        """What was seen in each part, by an earlier run and by this one."""
        state, home = self._state, sources.ltm.collection
        earlier = state.seen if state else {}
        if state and earlier:
            of_them = count(len(bounds) + 1, "part")
            self.left_out = (
                f"what changed since in {len(earlier):,} of {of_them} that a run begun at "
                f"{state.begun_at} has read",
            )
        yield from earlier.values()
        # A process that has nothing to read would begin all the same.
        workers = max(1, min(self._how.workers, len(bounds) + 1 - len(earlier)))
        self._how = replace(self._how, workers=workers)
        parts = (each for each in _parts(tape, bounds) if each.number not in earlier)
        sources.unread[home] = "it was not read to its end"
        try:
            for each in self._looked(sources, parts):
                if state:
                    state.add(each)
                yield each
        except (StoreUnreachable, SchemaMismatch) as error:
            sources.unread[home] = error.message
            return
        del sources.unread[home]

    def _looked(self, sources: Sources, parts: Iterator[Part]) -> Iterator[Seen]:
        if self._how.by_others and self.why_alone is None:
            yield from self._by_others(sources, parts)
            return
        read = sources.counts.points

        def took(points: int) -> None:
            nonlocal read
            read += points
            sources.told(read)
            sources.pace.took(points)

        for each in parts:
            yield sources.ltm.fingerprints.look_at(each, took)

    # ------------------------------------------------------------------ by other processes

    def _by_others(self, sources: Sources, parts: Iterator[Part]) -> Iterator[Seen]:
        """As `_looked`, by the workers. Their parts are given out again when they are lost."""
        executor, lost, read = self._executor(), 0, sources.counts.points
        futures: dict[Future[Seen], Part] = {}
        try:
            workers = executor.count()
            per_s = self._how.points_per_s and self._how.points_per_s / workers
            settings = self._settings.model_copy(update={"postgres_url": None})
            task = Elsewhere(settings, per_s, self._known_by)
            while True:
                while len(futures) < _IN_HAND * workers and (part := next(parts, None)):
                    futures[executor.submit(task, part)] = part
                if not futures:
                    return
                again: list[Part] = []
                done, _ = wait(futures, _PATIENCE_S, FIRST_COMPLETED)
                if not done:
                    executor.count()
                for each in done:
                    part = futures.pop(each)
                    try:
                        seen = each.result()
                    except MemsyncError:
                        raise
                    except Exception as error:  # noqa: BLE001  each way of losing a worker has its own
                        again.append(part)
                        reason = error
                        continue
                    lost, read = 0, read + seen.points
                    sources.told(read)
                    yield seen
                if again:
                    lost += 1
                    if lost > _LOST_MAX:
                        raise StoreUnreachable(
                            f"the workers were lost {lost} times without reading a part: {reason}. "
                            "See why they end; with --workers 1 this process reads alone"
                        )
                    parts = chain([*again, *futures.values()], parts)
                    futures.clear()
                    executor.close()
                    executor = self._executor()
        finally:
            executor.close()

    def _executor(self) -> "_Executor":
        if self._how.scheduler:
            return _scheduled(self._how.scheduler)
        # A forked process would share the sockets and locks of this one.
        pool = ProcessPoolExecutor(self._how.workers, mp_context=get_context("spawn"))
        return _Executor(
            pool,
            lambda: self._how.workers,
            lambda: pool.shutdown(wait=False, cancel_futures=True),
        )


@dataclass(frozen=True, slots=True)
class _Executor:
    """Who reads parts. `count` tells how many there are.

    Raises: StoreUnreachable where nobody is left.
    """

    executor: Executor
    count: Callable[[], int]
    close: Callable[[], object]

    def submit(self, task: Elsewhere, part: Part) -> "Future[Seen]":
        """Give a part to a worker."""
        try:
            return self.executor.submit(task, part)
        except BrokenExecutor as error:
            # It broke after the last result was looked at; the future says so like the others.
            broken: Future[Seen] = Future()
            broken.set_exception(error)
            return broken


def _is_embedded(settings: Settings) -> bool:
    """Whether the vector store can be opened by one process alone."""
    url = settings.qdrant_url or ":memory:"
    return url.partition(":")[0] in EMBEDDED or url == ":memory:"


def _scheduled(address: str) -> _Executor:
    """The workers of a Dask scheduler.

    Raises: SettingsError without the package; StoreUnreachable where the scheduler does not answer.
    """
    try:
        from distributed import Client  # noqa: PLC0415  optional, and slow to load
    except ModuleNotFoundError:
        raise SettingsError(
            "--scheduler needs a package that is not installed. Type this in the environment of "
            f"memsync, or give --workers:\n  {to_install('distributed')}",
            field="scheduler",
        ) from None

    def silent(error: Exception) -> StoreUnreachable:
        return StoreUnreachable(
            f"the scheduler at {address} does not answer: {error}; see whether it runs there"
        )

    try:
        client = Client(address, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise silent(error) from None

    def workers() -> int:
        try:
            found = int(sum(client.nthreads().values()))
        except (OSError, TimeoutError, ValueError) as error:
            raise silent(error) from None
        if not found:
            raise StoreUnreachable(f"the scheduler at {address} has no workers; start some")
        return found

    return _Executor(client.get_executor(pure=False), workers, client.close)


def _number_of_points(sources: Sources) -> int:
    """How many points there are; 0 where the store does not say, which a part tells then."""
    try:
        return sources.ltm.fingerprints.count()
    except (StoreUnreachable, SchemaMismatch):
        return 0


def _bounds(tape: Tape, points: int) -> list[UUID]:
    """Where each part but the first begins.

    A thread that was pruned has many more memories than exchanges, so where there are, the ids are
    cut evenly, too.
    """
    of_rows = {anchor_of(tape[at]) for at in range(_PART_ROWS, len(tape), _PART_ROWS)}
    evenly = points // _PART_ROWS if points > 2 * len(tape) else 0
    return sorted(of_rows | {UUID(int=(at << 128) // evenly) for at in range(1, evenly)})


def _parts(tape: Tape, bounds: list[UUID]) -> Iterator[Part]:
    """The parts between these anchors, with the exchanges of each."""
    at = [bisect.bisect_left(tape, each, key=anchor_of) for each in bounds]
    for number, (first, end) in enumerate(zip([None, *bounds], [*bounds, None], strict=True)):
        begin = 0 if first is None else at[number - 1]
        behind = len(tape) if end is None else at[number]
        yield Part(number, first, end, tape.slice(begin, behind))
