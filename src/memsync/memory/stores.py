"""The stores of one Memory or of one relay: what is open, and what is opened when it is needed.

Postgres is open from the beginning. The vector store is opened by the first call that needs it,
because an embedded one belongs to the process that opens it, and a server may fork before. It
decides how soon a change of the recorded layout is followed. The module knows no call of the
library.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Self

from memsync import forks
from memsync.errors import MemsyncError, StoreUnreachable
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.writer import known_layout
from memsync.stores.postgres import Postgres, open_postgres

LOOK_S = 10.0
"""How old the knowledge of the recorded layout may be."""
_LOOK_AGAIN_S = 60.0
"""How long a store that did not answer is not asked again: each try may take long."""


class Stores:
    """Both stores that the settings name. Threads may share it.

    `postgres` is as the app uses it. `commands` is the same database as memsync's own work uses it:
    under row level security a relay would take a hidden exchange for one that is gone.
    """

    def __init__(
        self, postgres: Postgres, settings: Settings, ltm: LongTermMemory | None = None
    ) -> None:
        """Use what is open already; `close` leaves an `ltm` that was given open."""
        self.postgres = postgres
        self.settings = settings
        self._commands: Postgres | None = None
        self._ltm = ltm
        self._layout: Layout | None = None
        self._look_at = self._ask_at = -1.0
        self._opening = threading.Lock()
        self._looking, self._asking = threading.Lock(), threading.Lock()
        self._closing = contextlib.ExitStack()
        self._is_closed = False
        forks.watch(self)

    @classmethod
    def open(cls, settings: Settings, *, for_app: bool = False) -> Self:
        """Open Postgres now.

        Raises: StoreUnreachable, StoreBusy, SettingsError, MissingRight.
        """
        return cls(open_postgres(settings, for_app=for_app), settings)

    @property
    def commands(self) -> Postgres:
        """The database for memsync's own work."""
        with self._opened():
            if self._commands is None:
                self._commands = self.postgres.for_commands()
                self._closing.callback(self._commands.close)
            return self._commands

    def ltm(self) -> LongTermMemory:
        """Long-term memory, opened by the first thread that needs it.

        A change of the recorded layout is followed within LOOK_S: then it is another object on the
        same open store, and whoever uses the one before may finish.

        Raises: StoreBusy when another process has it; StoreUnreachable; SettingsError;
        SchemaMismatch where the layout is not clear, or the setting contradicts the record.
        """
        recorded = self._looked()
        with self._opened():
            if self._ltm is None:
                self._ltm = self.postgres.call(
                    lambda session: LongTermMemory.open(self.settings, session), repeatable=True
                )
                self._closing.callback(self._ltm.close)
            elif recorded not in {None, self._ltm.layout}:
                self._ltm = self.postgres.call(self._ltm.followed, repeatable=True)
            return self._ltm

    def layout(self) -> Layout | None:
        """The layout in force, within LOOK_S; None while nobody can tell.

        The vector store is asked only where the layout is neither recorded nor named, and it is a
        server: opening an embedded one would take it from another process. No store is waited for
        twice in a minute.
        """
        if known := self._looked():
            return known
        if self._ltm is not None:
            return self._ltm.layout
        is_server = (self.settings.qdrant_url or "").startswith("http")
        if is_server and time.monotonic() >= self._ask_at and self._asking.acquire(blocking=False):
            try:
                return self.ltm().layout
            except MemsyncError:
                self._ask_at = time.monotonic() + _LOOK_AGAIN_S
            finally:
                self._asking.release()
        return None

    def _looked(self) -> Layout | None:
        """The layout that is recorded, or else named, as Postgres said it last."""
        # Only the first thread of all waits for the answer; later the last one serves meanwhile.
        is_first = self._look_at < 0
        if time.monotonic() >= self._look_at and self._looking.acquire(blocking=is_first):
            try:
                if time.monotonic() >= self._look_at:
                    self._look()
            finally:
                self._looking.release()
        return self._layout

    def _look(self) -> None:
        next_s = LOOK_S
        try:
            self._layout = self.postgres.call(
                partial(known_layout, settings=self.settings), repeatable=True
            )
        except MemsyncError:
            # A recall needs no Postgres, and what does will say so itself.
            next_s = _LOOK_AGAIN_S
        self._look_at = time.monotonic() + next_s

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        with self._opening:
            if self._is_closed:
                raise StoreUnreachable("this Memory is closed; open another one")
            yield

    def begin_anew(self) -> None:
        """Make new locks in a forked process; the stores see to their own connections."""
        self._opening = threading.Lock()
        self._looking, self._asking = threading.Lock(), threading.Lock()

    def close(self) -> None:
        """Close Postgres, and the vector store if it was opened here."""
        with self._opening:
            self._is_closed = True
        self._closing.close()
        self.postgres.close()
