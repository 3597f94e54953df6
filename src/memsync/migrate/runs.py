"""Keeps the record of runs, `memsync.runs`: what was begun, by which role, and how it ended.

Each phase that is run or taken back gets an entry. The entries also answer what the catalog alone
cannot tell: whether a backfill was finished, whether contract passed its gates, and which command
goes on with work that was cut short.
"""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from memsync.errors import Cancelled, MemsyncError
from memsync.migrate.options import RunOptions
from memsync.migrate.run import Run
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session, json_value, relations, statement

Verb = Literal["run", "rollback", "finalize"]

_REFUSED = frozenset(("done", "GateClosed", "SchemaMismatch", "MissingRight", "InvalidInput"))
"""Outcomes after which the same command again would end the same: it is not what comes next."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """The entry of the record that was written last: its verb, its options, and how it ended."""

    verb: Verb
    outcome: str | None
    given: Mapping[str, Any]

    @property
    def goes_on(self) -> str | None:
        """The command that goes on with it; None where it ended, or was refused."""
        return None if self.outcome in _REFUSED else command_of(self.verb, self.given)


def command_of(verb: Verb, given: Mapping[str, Any]) -> str:
    """The command of a run, by the options in its record."""
    if verb == "run":
        return RunOptions.of(given).command()
    if verb == "finalize":
        return "memsync migrate finalize --yes"
    return shlex.join(("memsync", "migrate", "rollback", "--to", given.get("to", "start")))


def last_run(session: Session) -> LastRun | None:
    """The last entry of the record; None before the first."""
    if not relations.existing(session, ["memsync.runs"]):
        return None
    row = session.row("last_run")
    return LastRun(row.verb, row.outcome, row.options or {}) if row else None


def decisions(session: Session) -> Mapping[str, Any]:
    """The decisions of the runs forward that still hold. None do once everything was taken back.

    Where the backfill stands, `existing` is not among them: it was for the messages that had a
    persona then, and must not settle those that went wrong later.
    """
    if not relations.existing(session, ["memsync.runs"]):
        return {}
    taken = dict(session.row("last_decisions")._asdict())
    return taken | {"existing": None} if backfill_stands(session) else taken


@contextlib.contextmanager
def recorded(run: Run, verb: Verb, phase: Phase) -> Iterator[None]:
    """Record that the phase was begun, and how it ended.

    Raises: Cancelled when the run was asked to end.
    """
    session = run.session
    entry = session.row(
        "begin_record",
        verb=verb,
        phase=phase,
        version=version("memsync"),
        options=json_value(run.given),
    ).id
    outcome = "interrupted"
    try:
        run.pace.between_steps()
        yield
        outcome = "done"
    except Cancelled:
        outcome = "cancelled"
        raise
    except MemsyncError as error:
        outcome = type(error).__name__
        raise
    finally:
        # A session that died cannot write; its entry stays without an end.
        if not session.connection.closed:
            session.run(
                "end_record",
                id=entry,
                outcome=outcome,
                rows_filled=run.rows_filled,
                lock_waits=run.ddl.waits,
                waited_s=run.pace.waited_s,
            )
        run.rows_filled = run.ddl.waits = 0
        run.pace.waited_s = 0.0


def backfill_stands(session: Session) -> bool:
    """Whether a backfill was finished, and not taken back since."""
    return bool(session.row("backfill_stands").found)


def contract_was_begun(session: Session) -> bool:
    """Whether contract passed its gates, but was neither finished nor taken back since."""
    return bool(session.row("contract_was_begun").begun)


def note_method(session: Session, note: str) -> None:
    """Record which method the backfill that has just begun uses, and why."""
    session.run("note_method", note=note)


def note_gates_passed(session: Session, note: str) -> None:
    """Record that the gates of this contract are open, and why."""
    session.run("note_gates_passed", note=note)


def note_archive_removed(session: Session) -> None:
    """Record the end of the way back, in the transaction that removes the archive."""
    session.run("note_archive_removed")


def noted_user_id_dropped() -> str:
    """The statement that records that memsync drops user_id; it runs in the same transaction."""
    return statement("note_user_id_dropped")
