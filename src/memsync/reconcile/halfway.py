"""Notes which change of the layout is under way, and tells one that was begun and did not end.

The note stands beside the record of the layout. It is made before the first write of a change, and
goes when all is done: after the new layout is recorded, the ledger gets its memories. It decides
that a change is half done where nobody is at work. The statements are in halfway.sql.
"""

from enum import Enum

from memsync.stores.postgres import Session, relations
from memsync.stores.postgres.locks import LockKey, holders


class HalfDone(Enum):
    """A change that was cut short: its name, what it is, and what finishes it."""

    COPYING = (
        "copying",
        "the change to the shared layout",
        "memsync reconcile layout set shared --app-stopped",
    )
    RETIRING = (
        "retiring",
        "the retirement of the old collections",
        "memsync reconcile layout set shared --retire",
    )
    RETURNING = (
        "returning",
        "the way back to the per-persona layout",
        "memsync reconcile layout set per-persona",
    )

    @property
    def what(self) -> str:
        """The change in words."""
        return self.value[1]

    @property
    def command(self) -> str:
        """What finishes it."""
        return self.value[2]

    def __str__(self) -> str:
        return self.value[0]


def half_done(session: Session) -> HalfDone | None:
    """The change that was begun and did not end; None while a repair is at work, too."""
    change = noted(session)
    return None if change and holders(session, LockKey.REPAIR) else change


def noted(session: Session) -> HalfDone | None:
    """The change that was begun and did not end, whoever is at work."""
    if not relations.existing(session, ["memsync.layout"]):
        return None
    rows = session.rows("layout_under_way")
    return next((each for row in rows for each in HalfDone if str(each) == row.under_way), None)


def begin(session: Session, change: HalfDone) -> None:
    """Note that this change begins, in place of another one. Effects: Postgres.

    The layout must be recorded.
    """
    session.run("begin_layout_change", change=str(change))


def end(session: Session, change: HalfDone) -> None:
    """Forget this change, which ended or was given up. Effects: Postgres."""
    session.run("end_layout_change", change=str(change))
