"""A migrator that kills itself: `python doomed.py [--back] URL STATEMENT MOMENT`.

It runs the whole migration, or takes it back, and sends itself SIGKILL at its STATEMENT-th
statement: `before` it is sent, `during` it, from a thread, as soon as the server has it, or `after`
its result came. Without STATEMENT it lives, and prints how many statements there were.
"""

import os
import signal
import sys
import threading
from typing import Any

import psycopg

from memsync.migrate import RunOptions, rollback, run
from memsync.settings import Settings
from memsync.stores.postgres import Postgres

count = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_during(pid: int, url: str) -> None:
    """Die when the server says that it is at work for `pid`."""
    with psycopg.connect(url, autocommit=True) as watcher:
        query = "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        while not watcher.execute(query, (pid,)).rowcount:
            pass
    die()


def main(url: str, victim: int | None, moment: str, *, back: bool) -> None:
    execute = psycopg.Cursor.execute

    def counted(cursor: psycopg.Cursor[Any], *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
        global count  # noqa: PLW0603  this program counts one thing
        if threading.current_thread() is not threading.main_thread():
            return execute(cursor, *args, **kwargs)
        count += 1
        if count == victim and moment == "before":
            die()
        if count == victim and moment == "during":
            pid = cursor.connection.info.backend_pid
            threading.Thread(target=die_during, args=(pid, url), daemon=True).start()
        result = execute(cursor, *args, **kwargs)
        if count == victim:
            die()
        return result

    psycopg.Cursor.execute = counted  # type: ignore[assignment]
    with Postgres.open(url) as postgres:
        settings = Settings.load(environ={}, postgres_url=url, batch_target_ms=1)
        if back:
            rollback(postgres, settings, to=None)
        else:
            run(postgres, settings, RunOptions(unresolved="create"))
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    given = [each for each in sys.argv[1:] if each != "--back"]
    victim, moment = (int(given[1]), given[2]) if len(given) > 1 else (None, "")
    main(given[0], victim, moment, back="--back" in sys.argv)
