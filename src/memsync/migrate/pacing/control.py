"""Controls a run from another terminal: pause, resume and cancel, and its state for `status`.

A request is the one row of memsync.control. It carries the pid of the session that holds the
migration's lock, so that it never reaches a later run. A run reads requests between its batches and
steps (pacing/pace.py), when it has no transaction open. This module knows no phase.
"""

from dataclasses import dataclass
from typing import Literal

from memsync.errors import Cancelled, NothingRuns, StoreBusy
from memsync.stores.postgres import Postgres, Session, relations
from memsync.stores.postgres.locks import LockHolder, LockKey, holders

Wanted = Literal["run", "pause", "cancel"]
State = Literal["idle", "running", "pausing", "paused", "cancelling"]


@dataclass(frozen=True, slots=True)
class Runner:
    """The run that goes on now. `asked_by` is the role that asked it to pause or cancel, if any."""

    state: State
    pid: int | None = None
    since: str | None = None
    asked_by: str | None = None


def ask(postgres: Postgres, wanted: Wanted) -> Runner:
    """Ask the run that holds the lock to pause, to go on or to end.

    Returns at once; the run does it at its next safe moment.

    Raises: NothingRuns; StoreBusy when the lock's holder does not read requests, or not yet.
    """
    with postgres.session() as session:
        held_by = holders(session, LockKey.MIGRATE)
        if not held_by:
            raise NothingRuns(
                f"no migration is running, so there is none to {_VERBS[wanted]}; nothing was "
                "asked. `memsync migrate status` says where it stands"
            )
        pids = [holder.pid for holder in held_by]
        if not _is_there(session) or not session.rows("ask_run", wanted=wanted, pids=pids):
            raise StoreBusy(
                f"the holder of the migration's lock (pid {pids[0]}) cannot be asked; nothing was "
                "asked. It is a run that has just begun, or still reads evidence before its first "
                "change: try again in a moment, or end it with Ctrl-C. Or it is a backup or a psql "
                "script, which read no requests: end it with Ctrl-C or "
                f"SELECT pg_terminate_backend({pids[0]}), and start it again later; what a script "
                "has done is kept",
                pid=pids[0],
            )
        return _runner(session, held_by)


_VERBS = {"run": "resume", "pause": "pause", "cancel": "cancel"}


def runner(session: Session) -> Runner:
    """The run that goes on now, and whether it was asked to pause or end. Reads only."""
    return _runner(session, holders(session, LockKey.MIGRATE))


def _runner(session: Session, held_by: list[LockHolder]) -> Runner:
    if not held_by:
        return Runner("idle")
    holder = held_by[0]
    asked = session.row("control", pids=[holder.pid]) if _is_there(session) else None
    if asked is None or asked.wanted == "run":
        return Runner("running", holder.pid, holder.since)
    states: dict[str, State] = {
        "pause": "paused" if asked.heard else "pausing",
        "cancel": "cancelling",
    }
    return Runner(states[asked.wanted], holder.pid, holder.since, asked.who)


def _is_there(session: Session) -> bool:
    return bool(relations.existing(session, ["memsync.control"]))


class Control:
    """The run's own side: reads the requests to its session. `again` is the run's command."""

    def __init__(self, session: Session, again: str) -> None:
        self._session = session
        self._again = again
        self._is_open = False

    def open(self) -> None:
        """Take over the row of requests, as soon as memsync's tables are there."""
        if not self._is_open and _is_there(self._session):
            self._session.run("open_control")
            self._is_open = True

    def must_pause(self) -> str | None:
        """The role that asked for a pause, and when; None when the run may go on.

        Raises: Cancelled.
        """
        asked = self._session.row("wanted") if self._is_open else None
        if asked is None or asked.wanted == "run":
            return None
        self._session.run("note_heard", wanted=asked.wanted)
        if asked.wanted == "cancel":
            raise Cancelled(
                f"cancelled by {asked.who} at {asked.asked_at}; everything done so far is kept. "
                f"`{self._again}` goes on, `memsync migrate rollback --to start` takes all back",
                who=asked.who,
            )
        return f"{asked.who} at {asked.asked_at}"
