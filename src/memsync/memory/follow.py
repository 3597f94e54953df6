"""A relay that goes on: it drains the outbox, waits, and drains again until it is told to end.

It runs in a thread, beside an app whose Memory holds an embedded store, or as the service `memsync
sync run --follow`. It decides when the outbox is looked at, how long it pauses after a failure, and
what is told: a line for each change of its state. `relay` decides what happens to an entry.
"""

import atexit
import logging
import math
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Protocol

from memsync import forks, reconcile
from memsync.errors import MemsyncError, SchemaMismatch, SettingsError, StoreBusy
from memsync.memory.patience import PAUSE_S_MAX, Patience
from memsync.memory.relay import Drained, Ended, drain_once, told_held
from memsync.memory.stores import Stores
from memsync.model.wording import count
from memsync.stores.history import outbox
from memsync.stores.history.outbox import OutboxStatus
from memsync.stores.postgres import Session

POLL_S = 5.0
"""How often a Memory looks for entries that other processes have queued."""
END_S = 10.0
"""How long a process that ends, or a Memory that closes, waits for the batch that is under way."""
_BUSY_PAUSE_S = 0.05

_LOG = logging.getLogger(__name__)
_running: "weakref.WeakSet[Follower]" = weakref.WeakSet()


class TellState(Protocol):
    """Takes a new state of the relay: that it writes (`well`), or what it waits for."""

    def __call__(self, state: str, *, well: bool) -> None:
        """Tell the state to somebody. It must not raise."""
        ...


def _log(state: str, *, well: bool) -> None:
    _LOG.log(logging.INFO if well else logging.WARNING, "%s", state)


class Follower:
    """A relay in a thread of its own. It is safe to start, wake and end it from any thread.

    `open_stores` is called until it returns once; what it raises is a state like any outage. A
    `strict` relay loads the embedder at once. Before its first success it ends at a setting that
    cannot be used (SettingsError) and at a database that has no outbox or is not the app's
    (SchemaMismatch); that is its `failure`. Later it waits for either to be mended, as a password
    that is being changed, or a migration that is taken back.

    `trouble` is what it waits for. It answers the request to look that `ask` numbers, when
    `answered` is that number.
    """

    def __init__(
        self,
        open_stores: Callable[[], Stores],
        *,
        every_s: float,
        strict: bool = False,
        tell: TellState = _log,
        settled: Callable[[Drained], None] = lambda _: None,
    ) -> None:
        self.failure: MemsyncError | None = None
        self._open_stores = open_stores
        self._stores: Stores | None = None
        self._every_s = every_s
        self._is_strict = strict
        self._tell = tell
        self._settled = settled
        self._is_ending = False
        self.begin_anew()
        forks.watch(self)

    def begin_anew(self) -> None:
        """Have no thread yet in a forked process: the next `wake` starts one."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        # `_awake` ends the wait for new entries, `_urgent` also the pause after a failure: while a
        # store is down, each exchange that is remembered must not try it again.
        self._awake, self._urgent = threading.Event(), threading.Event()
        self._patience = Patience(math.inf)
        self._last: Ended | None = None
        self._busy_s = _BUSY_PAUSE_S
        self.trouble: MemsyncError | None = None
        self._asked = self.answered = 0
        self._is_holding = self._knows_its_rights = False
        self._state: object = None

    def wake(self) -> None:
        """Look at the outbox now, unless it pauses; start the thread if none is alive."""
        with self._starting:
            is_alive = self._thread is not None and self._thread.is_alive()
            if not is_alive and not self._is_ending:
                # A daemon, because an embedder that hangs must not hold up the end of the process.
                self._thread = threading.Thread(target=self._run, name="memsync-relay", daemon=True)
                _running.add(self)
                # The last to be registered is the first to run: an embedded server that was
                # started before must not stop before.
                atexit.unregister(_end_all)
                atexit.register(_end_all)
                self._thread.start()
        self._awake.set()

    def ask(self) -> int:
        """Look at the outbox now, even in a pause. Returns the number of this request."""
        with self._starting:
            self._asked += 1
            asked = self._asked
        self.wake()
        self._urgent.set()
        return asked

    def end(self) -> None:
        """Begin no other batch. Returns at once."""
        self._is_ending = True
        self._awake.set()
        self._urgent.set()

    @property
    def is_ending(self) -> bool:
        """Whether it was asked to end, or has a `failure`. A relay ends for nothing else."""
        return self._is_ending

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the batch that is under way. False if it takes longer."""
        with self._starting:
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._ends():
            self._awake.clear()
            asked = self._asked
            pause_s = self._look(anew=asked != self.answered)
            self.answered = asked
            if self._ends():
                return
            pauses = self.trouble is not None and not self._is_holding
            waiting = self._urgent if pauses else self._awake
            waiting.wait(min(pause_s, threading.TIMEOUT_MAX))
            self._urgent.clear()

    def _look(self, *, anew: bool) -> float:
        """Drain what is due, and with `anew` what is held. Returns how long to wait, in seconds."""
        try:
            stores = self._stores = self._stores or self._open_stores()
            if self._is_strict and stores.ltm().why_app_writes is None:
                _ = stores.ltm().embedder
            with stores.commands.session() as session:
                if anew:
                    outbox.release(session)
                self._say_once_what_it_may_not(session)
                is_due = outbox.is_due(session)
            if not is_due:
                return self._idle()
            ended = self._last = drain_once(
                stores.commands,
                stores.ltm(),
                settled=self._settled,
                stops=self._ends,
                anew=anew,
                last=self._last,
            )
        except StoreBusy as busy:
            return self._busy(busy)
        except MemsyncError as error:
            return self._failed(error)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  an app must not lose its relay
            return self._failed(_unknown(error))
        return self._drained(ended)

    def _say_once_what_it_may_not(self, session: Session) -> None:
        if not self._knows_its_rights:
            self._knows_its_rights = True
            if why := reconcile.why_not_kept(session):
                self._tell(why, well=False)

    def _ends(self) -> bool:
        return self._is_ending

    def _idle(self) -> float:
        """Nothing is due, so whatever was waited for is there again, unless entries are held."""
        if not self._is_holding:
            self._recovered()
        return self._every_s

    def _drained(self, ended: Ended) -> float:
        if ended.outage:
            if ended.drained.entries:
                self._patience.succeeded()
            return self._failed(ended.outage)
        if ended.status.held:
            return self._holds(ended.status)
        self._recovered()
        if ended.status.dead:
            dead = ended.status.dead
            self._say(("dead", dead), told_dead(dead, ended.status.dead_error))
        elif ended.refusal:
            self._say(
                "refused", f"a memory cannot be made, and is tried again later: {ended.refusal}"
            )
        else:
            self._state = None
        return self._every_s

    def _holds(self, status: OutboxStatus) -> float:
        """Some entries, or all, wait for something to be mended. The others are written."""
        self._is_strict, self._is_holding = False, True
        self._patience.succeeded()
        why = str(status.held_error)
        self.trouble = MemsyncError(told_held(status.held, why))
        self._say(("held", why), f"memories wait: {why}")
        return self._every_s if status.held < status.pending else max(self._every_s, POLL_S)

    def _recovered(self) -> None:
        self._is_strict = False
        self._patience.succeeded()
        self._busy_s = _BUSY_PAUSE_S
        self._is_holding = False
        if self.trouble:
            self.trouble = None
            self._say(None, "memories are written again")

    def _busy(self, busy: StoreBusy) -> float:
        """Another process is at it. That is told only where it lasts, since relays take turns."""
        pause_s, self._busy_s = self._busy_s, min(2 * self._busy_s, PAUSE_S_MAX)
        if pause_s > POLL_S:
            self.trouble, self._is_holding = busy, False
            self._say("busy", f"memories wait: {busy.message}")
        return pause_s

    def _failed(self, error: MemsyncError) -> float:
        if self._is_ending:
            return 0
        if self._is_strict and isinstance(error, SettingsError | SchemaMismatch):
            self.failure, self._is_ending = error, True
            return 0
        self.trouble, self._is_holding = error, False
        self._say(type(error), f"memories wait, and are tried again: {error.message}")
        pause_s = self._patience.next_pause_s(error)
        return PAUSE_S_MAX if pause_s is None else pause_s

    def _say(self, state: object, text: str) -> None:
        """Tell a state that was not told last."""
        if state != self._state:
            self._state = state
            self._tell(text, well=state is None)


def told_dead(number: int, error: str | None) -> str:
    """How many entries are dead, of what, and what to do."""
    return (
        f"{count(number, 'outbox entry is', 'outbox entries are')} dead; the commonest error: "
        f"{error}. Mend its cause, then `memsync sync retry`"
    )


def _unknown(error: BaseException) -> MemsyncError:
    """The trouble for an error that memsync does not know. Its text may hold people's words."""
    kind = type(error).__name__
    places = "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("an error of the relay that memsync does not know: %s, raised at\n%s", kind, places)
    return MemsyncError(f"the relay met an error that memsync does not know: {kind}; see the log")


def _end_all() -> None:
    """Let every relay of a process that ends finish its batch: a Memory may never be closed."""
    running = list(_running)
    for each in running:
        each.end()
    until = time.monotonic() + END_S
    for each in running:
        each.join(max(0.0, until - time.monotonic()))
