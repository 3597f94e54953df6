"""Laws of coverage: missing memories, duplicates, memories without rows, and the outbox."""

from memsync.model.records import Exchange
from support.lab import Lab
from support.laws.base import Planted, law, one


@law("MSC001", "home")
def missing(lab: Lab, said: list[Exchange]) -> Planted:
    """A lost point."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    return Planted(one(said[0].anchor_id, row=said[0].text, point=None))


@law("MSC001", "deployed")
def missing_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A lost point, while the other memories stand in deployed collections."""
    _, *others = said
    for each in said:
        lab.vectors.delete(lab.home, [each.anchor_id])
    for each in others:
        lab.deploy(each)
    return Planted(
        one(said[0].anchor_id, row=said[0].text, point=None),
        {"foreign-point-id": len(others), "legacy-layout": 2},
    )


@law("MSC002", "home")
def orphan(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory whose rows were deleted."""
    content = said[0].text
    lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=said[0].anchor_id)
    return Planted(
        one(said[0].anchor_id, row=None, point=content),
        next_command="memsync reconcile plan --unsafe",
    )


@law("MSC002", "deployed")
def orphan_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory of something never said."""
    point = lab.deploy(said[0], createdAt=said[0].created_at_ms + 7, content="User (Al): a\nAda: b")
    return Planted(
        one(point.id, row=None, point="User (Al): a\nAda: b"),
        {"legacy-layout": 1},
        next_command="memsync reconcile plan --unsafe",
    )


@law("MSC004", "home")
def duplicate(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy under another id."""
    copy = lab.put(lab.new_id(), lab.point(said[0].anchor_id).payload)
    return Planted(one(copy.id, kept=str(said[0].anchor_id), point=str(copy.id)))


@law("MSC004", "home")
def duplicate_under_an_integer(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy under an integer."""
    lab.put(2**64 - 1, lab.point(said[0].anchor_id).payload)
    return Planted(one(2**64 - 1, kept=str(said[0].anchor_id), point=2**64 - 1))


@law("MSC004", "deployed")
def duplicate_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory of an exchange whose memory stands at home."""
    point = lab.deploy(said[0])
    return Planted(
        one(point.id, kept=str(said[0].anchor_id), point=str(point.id)), {"legacy-layout": 1}
    )


@law("MSC004", "deployed")
def duplicates_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """Two deployed memories of an exchange that has none at home: the first by id is kept."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    first, second = sorted(str(lab.deploy(said[0]).id) for _ in range(2))
    return Planted(
        one(second, kept=first, point=second), {"foreign-point-id": 1, "legacy-layout": 1}
    )


@law("MSC005", "home")
def foreign_id(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under another id."""
    anchor = said[0].anchor_id
    moved = lab.put(lab.new_id(), lab.point(anchor).payload)
    lab.vectors.delete(lab.home, [anchor])
    return Planted(one(moved.id, row=str(anchor), point=str(moved.id)))


@law("MSC005", "deployed")
def foreign_id_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that stands in a deployed collection only."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0])
    return Planted(
        one(point.id, row=str(said[0].anchor_id), point=str(point.id)), {"legacy-layout": 1}
    )


@law("MSC006", "outbox")
def unacknowledged(lab: Lab, said: list[Exchange]) -> Planted:
    """An entry that nobody drains."""
    [(key,)] = lab.sql(
        "INSERT INTO memsync.outbox (point_id, enqueued_at) VALUES (%(id)s, now() - interval '2h')"
        " RETURNING id",
        id=said[0].anchor_id,
    )
    return Planted(
        one(key, memory=str(said[0].anchor_id), attempts=0, last_error=None),
        next_command="memsync sync run",
    )


@law("MSC007", "outbox")
def dead(lab: Lab, said: list[Exchange]) -> Planted:
    """An entry that failed too often."""
    [(key,)] = lab.sql(
        "INSERT INTO memsync.outbox (point_id, dead, attempts, last_error)"
        " VALUES (%(id)s, true, 10, 'why') RETURNING id",
        id=said[0].anchor_id,
    )
    return Planted(
        one(key, memory=str(said[0].anchor_id), attempts=10, last_error="why"),
        next_command="memsync sync retry",
    )
