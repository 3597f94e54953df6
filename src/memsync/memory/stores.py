"""The stores of one Memory or of one relay: what is open, and what is opened when it is needed.

Postgres is open from the beginning. The vector store is opened by the first call that needs it,
because an embedded one belongs to the process that opens it, and a server may fork before. The
module knows no call of the library.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Self

from memsync import forks
from memsync.errors import StoreUnreachable
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres, open_postgres


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
        self._opening = threading.Lock()
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

        Raises: StoreBusy when another process has it; StoreUnreachable; SettingsError.
        """
        with self._opened():
            if self._ltm is None:
                self._ltm = LongTermMemory.open(self.settings)
                self._closing.callback(self._ltm.close)
            return self._ltm

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        with self._opening:
            if self._is_closed:
                raise StoreUnreachable("this Memory is closed; open another one")
            yield

    def begin_anew(self) -> None:
        """Make a new lock in a forked process; the stores see to their own connections."""
        self._opening = threading.Lock()

    def close(self) -> None:
        """Close Postgres, and the vector store if it was opened here."""
        with self._opening:
            self._is_closed = True
        self._closing.close()
        self.postgres.close()
