"""A migrator that is cut short: `python doomed.py URL [--back] STATEMENT MOMENT --fate FATE`.

It runs the whole migration, or takes it back. It is cut short at statement number STATEMENT:
`before` the statement is sent, `during` it (once the server shows it as active) or `after` its
result came. The fate says how: the client sends itself SIGKILL (`client`), an administrator ends
its session (`terminate`), or the server is stopped as by a crash (`server`). Without STATEMENT it
runs to its end and prints how many statements it sent, or with `--list` the numbers of those that
do more than read. An error of memsync ends it with that error's exit status.
"""

import argparse
import json
import os
import signal
import sys
import threading
from dataclasses import fields
from typing import Any

import psycopg

from memsync.errors import MemsyncError
from memsync.migrate import RunOptions, rollback, run
from memsync.migrate.backfill import cutover, fill
from memsync.migrate.pacing import pace
from memsync.settings import Settings
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import OWN_STATEMENT, Postgres

execute = psycopg.Cursor.execute

READS = ("SELECT", "WITH", "SHOW")
# A statement that begins like a read does more if it holds one of these. A setting does not count,
# because it ends with its session.
ACTS = ("INSERT INTO", "UPDATE ", "DELETE FROM", "FOR UPDATE", "FOR NO KEY", "ADVISORY_", "SETVAL",
        "MEMSYNC.CREATE_")  # fmt: skip


def acts(query: object) -> bool:
    """Whether the statement does more than read; most statements of a run only read the catalog."""
    text = str(query).removeprefix(OWN_STATEMENT).lstrip().upper()
    return not text.startswith(READS) or any(word in text for word in ACTS)


class Fate:
    """Counts the statements of the main thread and cuts the run short at one of them."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.count = 0
        self.acting: list[int] = []
        self._given = given

    def strike(self, pid: int) -> None:
        """Cut the run short; `pid` is the server process of its session."""
        match self._given.fate:
            case "client":
                os.kill(os.getpid(), signal.SIGKILL)
            case "terminate":
                with psycopg.connect(self._given.url, autocommit=True) as administrator:
                    execute(administrator.cursor(), "SELECT pg_terminate_backend(%s, 5000)", (pid,))
            case "server":
                # The signal that `pg_ctl stop -m immediate` sends.
                os.kill(self._given.postmaster, signal.SIGQUIT)

    def strike_during(self, pid: int, watches: threading.Event, over: threading.Event) -> None:
        """Strike once the server shows `pid` as active, at the latest after its statement."""
        query = "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        with psycopg.connect(self._given.url, autocommit=True) as watcher:
            watches.set()
            while not over.is_set() and not execute(watcher.cursor(), query, (pid,)).rowcount:
                pass
        self.strike(pid)

    def meets(self, cursor: psycopg.Cursor[Any], *args: Any, **kwargs: Any) -> Any:
        """Run one statement, and strike if its number has come.

        Statements that set lock_timeout are not counted, because their number depends on the time
        that passes. Every run has the same number of the others.
        """
        others = threading.current_thread() is not threading.main_thread()
        if others or "lock_timeout" in str(args[0]):
            return execute(cursor, *args, **kwargs)
        self.count += 1
        if acts(args[0]):
            self.acting.append(self.count)
        if self.count != self._given.statement:
            return execute(cursor, *args, **kwargs)
        pid = cursor.connection.info.backend_pid
        if self._given.moment == "during":
            return self._caught(pid, cursor, *args, **kwargs)
        if self._given.moment == "before":
            self.strike(pid)
        result = execute(cursor, *args, **kwargs)
        if self._given.moment == "after":
            self.strike(pid)
        return result

    def _caught(self, pid: int, cursor: psycopg.Cursor[Any], *args: Any, **kwargs: Any) -> Any:
        watches, over = threading.Event(), threading.Event()
        watcher = threading.Thread(target=self.strike_during, args=(pid, watches, over))
        watcher.start()
        watches.wait()
        try:
            return execute(cursor, *args, **kwargs)
        finally:
            over.set()
            watcher.join()


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("statement", type=int, nargs="?")
    parser.add_argument("moment", choices=("before", "during", "after"), nargs="?")
    parser.add_argument("--fate", choices=("client", "terminate", "server"), default="client")
    parser.add_argument("--postmaster", type=int, help="the server's process, for that fate")
    parser.add_argument("--list", action="store_true", help="print which statements act")
    parser.add_argument("--back", action="store_true", help="take the whole migration back")
    parser.add_argument("--options", type=json.loads, default={}, help="of RunOptions, as JSON")
    return parser.parse_args()


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """The run's options: those given, and others that open every gate."""
    wanted: dict[str, Any] = {
        "unresolved": "create",
        "backup_confirmed": "tests",
        "quiet_minutes": 0,
        "evidence": "ignore",
    }
    offered = {each.name for each in fields(RunOptions)}
    options = {name: wanted[name] for name in wanted.keys() & offered} | options
    return options | ({"to": Phase(options["to"])} if "to" in options else {})


def main() -> int:
    """Migrate to the end, or until the fate strikes."""
    given = arguments()
    fate = Fate(given)

    def counted(cursor: psycopg.Cursor[Any], *args: Any, **kwargs: Any) -> Any:
        return fate.meets(cursor, *args, **kwargs)

    psycopg.Cursor.execute = counted  # type: ignore[assignment]
    options = chosen(given.options)
    try:
        with Postgres.open(given.url) as postgres:
            # The size of batches and the looks between them must not depend on the clock, because
            # every run must send the same statements.
            pace.LOOK_EVERY_S = 0.0
            fill._BLOCKS_START = fill._BLOCKS_MAX = 4
            cutover._BLOCKS_START = cutover._BLOCKS_MAX = 4
            settings = Settings.load(environ={}, postgres_url=given.url, batch_target_ms=10_000)
            if given.back:
                rollback(postgres, settings, to=None)
            else:
                run(postgres, settings, RunOptions(**options))
    except MemsyncError as error:
        sys.stdout.write(f"{type(error).__name__}: {error.message}\n")
        return error.exit_status
    sys.stdout.write(f"{fate.acting if given.list else fate.count}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
