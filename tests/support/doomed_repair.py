"""A command of memsync that is cut short: `doomed_repair.py FATE AT MOMENT COMMAND...`.

Counted are the writes to the vector store and the ends of writing transactions in Postgres, of the
main thread. At number AT, `before` or `after` it, the fate strikes: `kill` sends the process
SIGKILL, `disconnect` ends its sessions as an administrator does. At 0 nothing strikes, and the file
that COUNTED_IN names gets the number.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from memsync.cli.app import main
from memsync.stores.vectors.edge import EdgeStore

WRITES = ("create", "drop", "upsert", "overwrite_payloads", "delete")
COUNTED_IN = "COUNTED_IN"
SESSIONS = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


class Fate:
    """Counts, and strikes once."""

    def __init__(self, fate: str, at: int, moment: str) -> None:
        self.count = 0
        self._fate, self._at, self._moment = fate, at, moment

    def meets(self, act: Callable[[], Any]) -> Any:
        """Do one thing that counts."""
        if threading.current_thread() is not threading.main_thread():
            return act()
        self.count += 1
        strikes = self.count == self._at
        if strikes and self._moment == "before":
            self.strike()
        result = act()
        if strikes and self._moment == "after":
            self.strike()
        return result

    def strike(self) -> None:
        """End the process, or its sessions."""
        if self._fate == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        with psycopg.connect(os.environ["MEMSYNC_POSTGRES_URL"], autocommit=True) as administrator:
            administrator.execute(SESSIONS)

    def watch(self) -> None:
        """Count from now on."""
        for name in WRITES:
            self._watch_write(name)
        real = psycopg.Transaction.__exit__

        def leave(
            transaction: psycopg.Transaction,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> bool:
            def act() -> bool:
                return real(transaction, kind, error, traceback)

            reads = transaction.connection.read_only or kind is not None
            return act() if reads else bool(self.meets(act))

        psycopg.Transaction.__exit__ = leave  # type: ignore[method-assign]

    def _watch_write(self, name: str) -> None:
        real = getattr(EdgeStore, name)

        def write(*given: Any, **named: Any) -> Any:
            return self.meets(lambda: real(*given, **named))

        setattr(EdgeStore, name, write)


def run() -> int:
    """Run the command under its fate."""
    fate = Fate(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    fate.watch()
    status = main(sys.argv[4:])
    if path := os.environ.get(COUNTED_IN):
        Path(path).write_text(str(fate.count))
    return status


if __name__ == "__main__":
    sys.exit(run())
