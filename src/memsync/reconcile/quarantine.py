"""The quarantine keeps whole copies of points that a repair, a relay or a retirement takes away.

Each copy has the state of the point and a digest of its own, so that damage is seen. The module
decides which point can be kept whole, and which copy a store takes back. The statements are in
quarantine.sql.
"""

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from memsync.errors import GateClosed, InvalidInput, MemsyncError, MissingRight
from memsync.model.digests import json_digest, point_state
from memsync.model.ids import PointId
from memsync.model.records import Place, Point, Vector
from memsync.model.vectors import not_finite
from memsync.stores.postgres import Session, json_value
from memsync.stores.postgres.session_settings import make_commits_durable


def keep(
    session: Session, plan_id: UUID, collection: str, points: Sequence[Point], reason: str
) -> None:
    """Keep copies of points as they are, in the caller's transaction."""
    if points:
        rows = [quarantined(plan_id, collection, each, reason) for each in points]
        session.run_many("quarantine_point", rows)


def keep_whole(
    session: Session, run_id: UUID, collection: str, points: Iterable[Point], reason: str
) -> None:
    """Commit whole copies of points, under the run's id.

    Raises: GateClosed for one of which none can be kept.
    """
    points = list(points)
    for each in points:
        if why := why_not_kept_whole(each):
            raise GateClosed(f"{Place(collection, each.id)}: {why}, then run this again")
    if points:
        with session.transaction():
            keep(session, run_id, collection, points, reason)


def keep_replaced(
    session: Session, run_id: UUID, points: Mapping[Place, Point]
) -> dict[Place, MemsyncError]:
    """Commit whole copies of points that a relay is about to replace, under an id of its own.

    A role that may only write to the quarantine can do so. Returns those of which no copy is kept,
    and why.
    """
    if points and (why := why_not_kept(session)):
        return dict.fromkeys(points, MissingRight(why))
    unkept: dict[Place, MemsyncError] = {
        place: InvalidInput(f"the memory {place} is not replaced: {why}")
        for place, point in points.items()
        if (why := why_not_kept_whole(point))
    }
    rows = [
        quarantined(run_id, place.collection, point, "relay")
        for place, point in points.items()
        if place not in unkept
    ]
    if rows:
        with session.transaction():
            make_commits_durable(session, local=True)
            session.run_many("keep_point", rows)
    return unkept


def why_not_kept(session: Session) -> str | None:
    """Why a relay of this role can keep no copies, and the grant that it needs; None if it can."""
    if session.row("may_keep_point").may is not False:
        return None
    return (
        f"the role may not write memsync.quarantine at {session.label}, so a memory that somebody "
        "else has changed is not replaced, and its entry waits: GRANT INSERT ON "
        "memsync.quarantine to the role"
    )


def quarantined(run_id: UUID, collection: str, point: Point, reason: str) -> dict[str, object]:
    """The row of the quarantine that holds the point as it is; `quarantine_point` writes it."""
    return {
        "plan_id": run_id,
        "collection": collection,
        "point_id": str(point.id),
        "state": point_state(point),
        "payload": json_value(dict(point.payload)),
        "vector": None if point.vector is None else list(point.vector),
        "digest": _digest(point.payload, point.vector),
        "reason": reason,
    }


def whole(point_id: PointId, row: Any) -> Point | None:
    """The point in a row of the quarantine, if it is what was put there; else None."""
    try:
        payload = json.loads(row.payload)
    except ValueError:
        return None
    # The column has 32 bits, which as text are not the number that Python reads.
    vector: Vector | None = None if row.vector is None else tuple(array("f", row.vector))
    point = Point(point_id, payload, vector)
    fits = point_state(point) == row.state and _digest(payload, vector) == row.digest
    return point if fits else None


def why_not_kept_whole(point: Point) -> str | None:
    """Why the quarantine cannot keep this point as it is; None if it can."""
    try:
        json.dumps(dict(point.payload), allow_nan=False)
    except ValueError:
        return "its payload has NaN or infinity, of which no copy can be kept: mend it by hand"
    return None


def why_not_written(vector: Vector | None) -> str | None:
    """Why no store takes a point with this vector back; None if one does. One may be empty."""
    if vector is None:
        return "the point was kept without vector"
    if not_finite(vector):
        return "the point had a vector with NaN or infinity, which is written to no store"
    return None


def _digest(payload: Mapping[str, object], vector: Vector | None) -> str:
    return json_digest([dict(payload), None if vector is None else list(vector)])
