"""The record of runs, `memsync.runs`: what was begun, by whom, and how it ended.

Decides what is written down about a phase, and what follows from it where the catalog alone cannot
tell: whether a backfill came to its end, whether contract had passed its gates.
"""

import contextlib
from collections.abc import Iterator
from importlib.metadata import version
from typing import Literal

from memsync.errors import Cancelled, MemsyncError
from memsync.migrate.run import Run
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session, statement

Verb = Literal["run", "rollback", "finalize"]


@contextlib.contextmanager
def recorded(run: Run, verb: Verb, phase: Phase) -> Iterator[None]:
    """Record that this was begun, and how it ended.

    Raises: Cancelled, where the run was asked to end.
    """
    session = run.session
    entry = session.row("begin_record", verb=verb, phase=phase, version=version("memsync")).id
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
        # A session that died cannot write; the entry without an end says so.
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
    """Whether a backfill came to its end and was not taken back since."""
    return bool(session.row("backfill_stands").found)


def was_run_last(session: Session, phase: Phase) -> bool:
    """Whether the phase was run to its end, and not taken back since."""
    return bool(session.row("was_run_last", phase=phase).found)


def contract_was_begun(session: Session) -> bool:
    """Whether contract passed its gates and began, and neither ended nor was taken back since."""
    return bool(session.row("contract_was_begun").begun)


def note_method(session: Session, note: str) -> None:
    """Record how the backfill that has just begun fills, and why."""
    session.run("note_method", note=note)


def note_gates_passed(session: Session, note: str) -> None:
    """Record that the gates of this contract are open, and on what grounds."""
    session.run("note_gates_passed", note=note)


def note_archive_removed(session: Session) -> None:
    """Record the end of the way back, in the transaction that removes the archive."""
    session.run("note_archive_removed")


def noted_user_id_dropped() -> str:
    """The statement that records, in the transaction that drops user_id, that memsync did it."""
    return statement("note_user_id_dropped")
