"""The checkpoint of a fill: how far it came, how many rows it filled, how long it worked.

`personas` is the fill of persona_id, `users` that of user_id on rollback. A fill moves its
checkpoint in the transaction of the rows that it counts, so that one cut short can go on. The row
stands in memsync.backfill.
"""

from dataclasses import dataclass
from typing import Literal

from memsync.migrate.options import Unresolved
from memsync.stores.postgres import Session

Fill = Literal["personas", "users"]


@dataclass(frozen=True, slots=True)
class FillState:
    """How far a fill came, in blocks and in messages, and the seconds of work without pauses."""

    next_block: int
    end_block: int
    rows_total: int
    rows_done: int
    busy_s: float

    @property
    def is_finished(self) -> bool:
        """Whether a fill in place came to the end; a copy leaves the blocks alone."""
        return self.next_block >= self.end_block


def fill_state(session: Session, fill: Fill) -> FillState | None:
    """The checkpoint; None before the fill was first started."""
    row = session.row("fill_state", fill=fill)
    return FillState(*row) if row else None


def opened_fill(session: Session, fill: Fill) -> FillState:
    """The checkpoint of a fill that was started.

    Raises: LookupError if it was not.
    """
    state = fill_state(session, fill)
    if state is None:
        raise LookupError(f"the fill of {fill} was not begun")
    return state


def start_fill(
    session: Session, fill: Fill, *, end_block: int, rows_total: int, unresolved: Unresolved
) -> None:
    """Open the checkpoint. A fill that was cut short goes on from where it stopped."""
    session.run(
        "start_fill",
        fill=fill,
        end_block=end_block,
        rows_total=rows_total,
        unresolved=unresolved,
    )


def restart_fill(session: Session, fill: Fill, *, end_block: int) -> None:
    """Send a fill over the whole table once more."""
    session.run("restart_fill", fill=fill, end_block=end_block)


def save_fill(
    session: Session, fill: Fill, *, next_block: int, rows: int = 0, busy_s: float = 0.0
) -> None:
    """Move the checkpoint, never back, and add to its counts; in the transaction of the rows."""
    session.run("save_fill", fill=fill, next_block=next_block, rows=rows, busy_s=busy_s)


def rewind_fill(session: Session, fill: Fill) -> None:
    """Send the checkpoint back to the start, and reset its counts."""
    session.run("rewind_fill", fill=fill)


def fill_is_half_done(session: Session) -> bool:
    """Whether a fill of persona_id in place was cut short."""
    return bool(session.row("fill_is_half_done").found)
