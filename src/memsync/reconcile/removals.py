"""Tells of which points a repair has removed the memory since, so that no way back brings it again.

It decides by what the journal and the quarantine have of that memory, and by what ties copies to
an original (`copies`). A point that has an exchange comes back: Postgres is right about that. A
point that went because another one has its memory is no removal of it. The payloads of what was
removed since wait in memory; mostly there are none.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from memsync.model.ids import point_id_of
from memsync.model.records import Place, Point
from memsync.reconcile.cases import is_made_from
from memsync.reconcile.copies import Originals
from memsync.reconcile.lookups import exchanges_for, founds_of
from memsync.reconcile.sources import Sources
from memsync.stores.ltm.ledger import Ledger


@dataclass(frozen=True, slots=True)
class _Removal:
    run_id: UUID
    at: datetime


class Removals:
    """What runs have removed since a time, and no undo has brought back."""

    def __init__(
        self, sources: Sources, originals: Originals, removed: dict[Place, _Removal]
    ) -> None:
        """Use `since`."""
        self._sources = sources
        self._originals = originals
        self._removed = removed

    @classmethod
    def since(cls, sources: Sources, at: datetime, *, besides: UUID | None = None) -> Self:
        """What runs have removed since then, all but the run `besides`. Reads Postgres alone."""
        rows = sources.session.rows("removed_since", since=at, besides=besides)
        # Of several that are alike, the one that was removed last counts.
        rows.sort(key=lambda row: row.at, reverse=True)
        points = [
            (row.collection, Point(point_id_of(row.point_id), json.loads(row.payload)))
            for row in rows
        ]
        removed = {
            Place(name, point.id): _Removal(row.run_id, row.at)
            for (name, point), row in zip(points, rows, strict=True)
        }
        founds = founds_of(sources, points)
        ledger = Ledger(sources.session)
        return cls(sources, Originals(founds, ledger, sources.tolerance_ms), removed)

    def of(self, points: Iterable[tuple[str, Point]], since: datetime) -> dict[Place, UUID]:
        """Those of these points, each with its collection, whose memory was removed since then, and
        the run that did it. A copy of such a point is known as well from then on.
        """
        if not self._removed:
            return {}
        tied = {}
        for found in founds_of(self._sources, points):
            original = self._originals.known(found)
            removal = self._removed.get(original) if original else None
            if removal and removal.at > since:
                tied[found.place] = found, removal.run_id
                self._originals.of(found)
        rows = exchanges_for(self._sources, [found for found, _ in tied.values()]) if tied else {}
        return {
            place: run_id
            for place, (found, run_id) in tied.items()
            if not (place in rows and is_made_from(found, rows[place]))
        }
