"""Writes down in the ledger of memories what a repair or its undo does to points.

A removal is written down before it happens, as an intent of the repair at work, and everything with
the action that is settled. So a memory that is missing, though the ledger has it, was not removed
by a repair, unless one was cut short. The intents keep what the ledger said before; after
an undo it says that again, also of a memory that was missing before. The statements are in
noting.sql.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from memsync.model.ids import PointId, point_id_of
from memsync.model.records import Exchange, Place, Point
from memsync.reconcile.cases import Case, Found, Role
from memsync.reconcile.copying import is_faulty
from memsync.reconcile.journal import Row
from memsync.reconcile.looking import Looked
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import persona_of_collection
from memsync.stores.ltm.ledger import Entry, Ledger, State
from memsync.stores.postgres import Session

Written = tuple[Looked, Point | None]
"""An action and the point that it leaves; None: no point."""


class Noting:
    """What a repair of these memories tells the ledger."""

    def __init__(self, session: Session, ltm: LongTermMemory) -> None:
        self._session = session
        self._ledger = Ledger(session)
        self._ltm = ltm

    def intended(self, run_id: UUID, collection: str, actions: Sequence[Written]) -> None:
        """Keep what the ledger says with the run's intents, and note the points about to go."""
        if self._ledger.stands:
            self._session.run(
                "keep_noted",
                run_id=run_id,
                collection=collection,
                point_ids=[str(looked.point_id) for looked, _ in actions],
                anchor_ids=[looked.row and looked.row.anchor_id for looked, _ in actions],
            )
        self.leaving(collection, [looked.point_id for looked, point in actions if point is None])

    def taken_back(self, collection: str, rows: Iterable[Row]) -> None:
        """Let the ledger say what it said before the run of points that are as they were then.

        Where the row of an earlier version does not know that, the entry says whether they stand.
        """
        kept, others = [], {}
        for row in rows:
            if row.knows_ledger:
                kept.append(row.id)
            elif row.place:
                others[row.place.point_id] = row.before
        self.staying(collection, [each for each, before in others.items() if before])
        self._ledger.left(collection, [each for each, before in others.items() if not before])
        if kept:
            taken = self._session.rows("take_out_noted", ids=kept)
            archived = [row.id for row in taken if row.state == State.ARCHIVED]
            self._session.run("bring_noted", ids=[row.id for row in taken], archived=archived)

    def written_by_others(
        self, run_id: UUID, collection: str, ids: Iterable[PointId]
    ) -> set[PointId]:
        """Those of these points that the run was to write, which another run or the relay has
        written since, or an operator adopted. Whether the run itself came to it nobody knows.
        """
        asked = [str(each) for each in ids]
        if not asked or not self._ledger.stands:
            return set()
        found = self._session.rows(
            "noted_since_intent", run_id=run_id, collection=collection, point_ids=asked
        )
        return {point_id_of(each.point_id) for each in found}

    def leaving(self, collection: str, ids: Sequence[PointId]) -> None:
        """Note that these points are about to go."""
        self._ledger.leave(collection, ids)

    def staying(self, collection: str, ids: Sequence[PointId]) -> None:
        """Take back what was noted of points that were not removed."""
        self._ledger.stay(collection, ids)

    def done(self, collection: str, actions: Iterable[Written]) -> None:
        """Note the points that are gone now, and the memories that stand and have an exchange.

        A repair changes nothing that the ledger says of the others, so what was changed in one of
        them before stays visible.
        """
        done = list(actions)
        self._ledger.left(collection, [each.point_id for each, point in done if point is None])
        self._ledger.note(
            [
                self._entry(looked.action.place, point, looked.row)
                for looked, point in done
                if point is not None and looked.row is not None
            ]
        )

    def _entry(self, place: Place, point: Point, row: Exchange) -> Entry:
        """The entry to record. A repair may mend one of several faults; judge the rest again."""
        found = Found.read(place.collection, point, self._ltm.codec_of(place.collection), home=True)
        whose = found.reading.memory.persona_id
        found = replace(found, persona_id=whose or persona_of_collection(place.collection))
        role = Role.MEMORY if found.persona_id in {None, row.persona_id} else Role.FOREIGN
        case = Case(role, self._ltm.layout, row, found, home=place.collection)
        return Entry.of(place, found.reading.memory, row, is_faulty=is_faulty(case))

    def archived(self, collection: str, ids: Iterable[PointId]) -> set[PointId]:
        """Those of these points that the ledger has as archived, or whose rows have vanished."""
        entries = self._ledger.at(Place(collection, each) for each in ids)
        return {each.place.point_id for each in entries.values() if not each.has_rows}
