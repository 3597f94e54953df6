"""Tells whether a change of the layout was begun and did not end.

The record of the layout is changed at the end, so it does not say that. This module decides it from
what a change leaves on its way: collections that stand, the notes of a retirement, and the copies
in the quarantine. Where a role may not read the quarantine, those say nothing. The statements are
in halfway.sql.
"""

from collections.abc import Collection
from enum import Enum
from itertools import islice
from uuid import UUID

from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Session, relations

_LOOKED_AT = 200
"""So many points of a collection show whether it came back: the first of them come back first."""
_WAY_BACK = "layout set per-persona"
"""It stands in the reason of the record after a way back, which leaves the shared collection."""


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


def half_done(session: Session, ltm: LongTermMemory, waiting: Collection[str]) -> HalfDone | None:
    """The change that was begun and did not end; None where none was, or nothing shows it.

    `waiting` are the collections that stand and that the layout does not read. Nothing shows a way
    back that was cut short while it copied new memories, where no collection had been retired.
    """
    own = ["memsync.layout", "memsync.retired"]
    if not relations.existing(session, own).issuperset(own):
        return None
    if not (rows := session.rows("last_of_layout")):
        return None
    last = rows[0]
    if ltm.layout is Layout.PER_PERSONA:
        is_copying = ltm.collection in waiting and _WAY_BACK not in last.why
        return HalfDone.COPYING if is_copying else None
    may_see = session.row("may_see_repairs")
    may = waiting and may_see.stand and may_see.may
    if (waiting and last.came_back) or (may and _comes_back(session, ltm, waiting)):
        return HalfDone.RETURNING
    if last.is_retiring:
        return HalfDone.RETIRING
    if may and session.row("replaced_in_old_collections", shared=ltm.collection).was:
        return HalfDone.RETURNING
    return None


def _comes_back(session: Session, ltm: LongTermMemory, waiting: Collection[str]) -> bool:
    """Whether a collection stands again that was removed, with points that it had, or none yet.

    An old version of the app that writes to it gives its points new ids.
    """
    gone: dict[str, UUID] = {
        row.collection: row.run_id
        for row in session.rows("retired_and_gone", collections=list(waiting))
    }
    for name, run_id in gone.items():
        ids = [str(point.id) for point in islice(ltm.scan(name), _LOOKED_AT)]
        if not ids:
            return True
        found = session.row("have_been_retired", run_id=run_id, collection=name, point_ids=ids)
        if found.was:
            return True
    return False
