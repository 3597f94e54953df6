"""Laws of coverage: missing memories, duplicates, memories without rows, and the outbox."""

from uuid import UUID

from memsync.model.records import Exchange
from support.lab import ADA, A, C, Lab, as_told
from support.laws.base import OLD_MS, UNSAFE, Planted, key, law, noted, one

OWNER = UUID("cccccccc-0000-4000-8000-000000000001")
OLDER = f"personality-{ADA}"
NEVER = "User (Al): never\nAda: said"


@law("MSC001", "home", "deployed")
def missing(lab: Lab, said: list[Exchange]) -> Planted:
    """A lost point."""
    lab.lose(said[0])
    ids = {"foreign-point-id": len(said) - 1} if lab.deployed else {}
    return Planted(one(said[0].anchor_id, row=said[0].text, point=None), facts=ids)


@law("MSC001", "beside home")
def brought_by_nobody(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that lies in its persona's collection only, while the shared one is in force."""
    lab.lose(said[0])
    lone = lab.deploy(said[0])
    return Planted(
        one(
            lone.id,
            row_id=str(said[0].anchor_id),
            row=said[0].text,
            point=None,
            elsewhere=f"persona-{A}",
            belongs_in=lab.home,
        ),
        facts={"legacy-layout": 1},
    )


@law("MSC001", "beside deployed")
def left_in_an_older_collection(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that lies in the older collection of its personality only."""
    lab.lose(said[0])
    lone = lab.deploy(said[0], collection=OLDER, personaId=None, userId=str(OWNER))
    return Planted(
        one(
            lone.id,
            row_id=str(said[0].anchor_id),
            row=said[0].text,
            point=None,
            elsewhere=OLDER,
            belongs_in=f"persona-{A}",
        ),
        facts={"legacy-layout": 1, "foreign-point-id": len(said) - 1},
    )


@law("MSC001", "beside deployed")
def written_into_the_shared_collection(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that somebody wrote into the shared collection, which nobody reads."""
    lab.lose(said[0])
    row = said[0]
    lone = lab.put(row.anchor_id, lab.ltm.codec.encode(row, "test/8"), lab.home)
    return Planted(
        one(lone.id, row_id=str(row.anchor_id), row=row.text, point=None, elsewhere=lab.home),
        facts={"legacy-layout": 1, "foreign-point-id": len(said) - 1},
    )


@law("MSC002", "home", "deployed")
def orphan(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that is not in the ledger, whose rows were deleted, amid a thread."""
    lab.sql("DELETE FROM memsync.memories WHERE anchor_id = %(id)s", id=said[1].anchor_id)
    lab.unsay(said[1])
    text = as_told(said[1]) if lab.deployed else said[1].text
    return Planted(
        one(key(lab, said[1]), row=None, point=text),
        facts={"foreign-point-id": len(said) - 1} if lab.deployed else {},
        next_command=UNSAFE,
    )


@law("MSC002", "home", "deployed")
def never_said(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of something never said, amid a thread."""
    collection = lab.place(said[0]).collection
    at = said[0].created_at_ms + 7
    point = lab.deploy(said[0], collection=collection, createdAt=at, content=NEVER)
    if not lab.deployed:
        codec = lab.ltm.codec
        lab.put(point.id, codec.archived(point, persona_id=A, embedder="test/8"))
    return Planted(one(point.id, row=None, point=NEVER), next_command=UNSAFE)


@law("MSC002", "beside home", "beside deployed")
def never_said_beside(lab: Lab, said: list[Exchange]) -> Planted:
    """The same in an older collection, which names the user."""
    at = said[0].created_at_ms + 7
    point = lab.deploy(
        said[0],
        collection=OLDER,
        createdAt=at,
        content=NEVER,
        personaId=None if lab.deployed else str(A),
        userId=str(OWNER),
    )
    return Planted(
        one(point.id, row=None, point=NEVER), facts={"legacy-layout": 1}, next_command=UNSAFE
    )


@law("MSC004", "home")
def duplicate(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy under another id."""
    copy = lab.put(lab.new_id(), lab.point(said[0].anchor_id).payload)
    return Planted(
        one(copy.id, kept=str(said[0].anchor_id), point=str(copy.id)), next_command=UNSAFE
    )


@law("MSC004", "home")
def duplicate_under_an_integer(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy under an integer."""
    lab.put(2**64 - 1, lab.point(said[0].anchor_id).payload)
    return Planted(
        one(2**64 - 1, kept=str(said[0].anchor_id), point=2**64 - 1), next_command=UNSAFE
    )


@law("MSC004", "home")
def duplicates_without_the_right_id(lab: Lab, said: list[Exchange]) -> Planted:
    """Two memories under other ids: the first by id stays, and gets the right one."""
    payload = lab.point(said[0].anchor_id).payload
    lab.lose(said[0])
    first, second = sorted(str(lab.put(lab.new_id(), payload).id) for _ in range(2))
    return Planted(
        one(second, kept=first, point=second), {"foreign-point-id": 1}, next_command=UNSAFE
    )


@law("MSC004", "deployed")
def written_twice(lab: Lab, said: list[Exchange]) -> Planted:
    """Two memories of one exchange: the first by id stays."""
    first, second = sorted([key(lab, said[0]), str(lab.deploy(said[0]).id)])
    return Planted(one(second, kept=first, point=second), next_command=UNSAFE)


@law("MSC004", "deployed")
def written_by_the_app_and_by_memsync(lab: Lab, said: list[Exchange]) -> Planted:
    """Where one of two memories has the anchor's id, which memsync gives, the app's own stays."""
    kept = key(lab, said[0])
    ours = lab.deploy(said[0], point_id=said[0].anchor_id).id
    return Planted(one(ours, kept=kept, point=str(ours)), next_command=UNSAFE)


@law("MSC004", "deployed")
def the_one_that_the_app_reads_stays(lab: Lab, said: list[Exchange]) -> Planted:
    """Of a memory that the app cannot read and one that it can, the second stays."""
    text = as_told(said[0])
    lab.respell(said[0], content=None, text=text)
    kept = lab.deploy(said[0], point_id=UUID(int=2**128 - 1)).id
    return Planted(
        one(key(lab, said[0]), kept=str(kept), point=key(lab, said[0])), next_command=UNSAFE
    )


@law("MSC005", "home")
def foreign_id(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under another id."""
    anchor = said[0].anchor_id
    moved = lab.put(lab.new_id(), lab.point(anchor).payload)
    lab.lose(said[0])
    return Planted(one(moved.id, row=str(anchor), point=str(moved.id)))


@law("MSC005", "deployed")
def random_ids(lab: Lab, said: list[Exchange]) -> Planted:
    """The ids of the app's memories are a fact; one that has its anchor's is none."""
    lab.lose(said[0])
    lab.deploy(said[0], point_id=said[0].anchor_id)
    first = min(said[1:4], key=lambda each: key(lab, each))
    of_first = f"persona-{A}/{key(lab, first)}"
    return Planted(
        one(of_first, points=len(said) - 1, collections=2),
        facts={"foreign-point-id": len(said) - 1},
        next_command="memsync rules MSC005",
    )


@law("MSC010", "home", "deployed")
def vanished(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of the ledger whose rows were deleted, amid a thread."""
    noted(lab, said)
    lab.unsay(said[1])
    text = as_told(said[1]) if lab.deployed else said[1].text
    return Planted(
        one(key(lab, said[1]), row=None, point=text),
        facts={"foreign-point-id": len(said) - 1} if lab.deployed else {},
        next_command="memsync rules MSC010",
    )


@law("MSC011", "home", "deployed")
def lost(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of the ledger, the oldest of its thread, without rows and without its point."""
    noted(lab, said)
    lab.unsay(said[0])
    lab.lose(said[0])
    return Planted(
        one(key(lab, said[0]), point=None),
        facts={"foreign-point-id": len(said) - 1} if lab.deployed else {},
        next_command="memsync rules MSC011",
    )


@law("MSC006", "outbox")
def unacknowledged(lab: Lab, said: list[Exchange]) -> Planted:
    """An entry that nobody drains."""
    [(entry,)] = lab.sql(
        "INSERT INTO memsync.outbox (point_id, enqueued_at) VALUES (%(id)s, now() - interval '2h')"
        " RETURNING id",
        id=said[0].anchor_id,
    )
    return Planted(
        one(entry, memory=str(said[0].anchor_id), attempts=0, last_error=None),
        next_command="memsync sync run",
    )


@law("MSC007", "outbox")
def dead(lab: Lab, said: list[Exchange]) -> Planted:
    """An entry that failed too often."""
    [(entry,)] = lab.sql(
        "INSERT INTO memsync.outbox (point_id, dead, attempts, last_error)"
        " VALUES (%(id)s, true, 10, 'why') RETURNING id",
        id=said[0].anchor_id,
    )
    return Planted(
        one(entry, memory=str(said[0].anchor_id), attempts=10, last_error="why"),
        next_command="memsync sync retry",
    )


@law("MSC008", "home", "deployed")
def restored_from_a_backup(lab: Lab, said: list[Exchange]) -> Planted:
    """The newest row is gone, and its memory stands."""
    return _newer(lab, said, said[-1:])


@law("MSC008", "home", "deployed")
def a_lost_stretch(lab: Lab, said: list[Exchange]) -> Planted:
    """All rows of a stretch amid the history are gone."""
    return _newer(lab, said, said[1:3])


def _newer(lab: Lab, said: list[Exchange], lost: list[Exchange]) -> Planted:
    # A backup has the ledger of its time.
    lab.sql("TRUNCATE memsync.memories")
    lab.unsay(*lost)
    return Planted(
        {key(lab, each): {"row": None, "point": each.created_at_ms} for each in lost},
        facts={"foreign-point-id": len(said) - len(lost)} if lab.deployed else {},
        next_command="memsync rules MSC008",
    )


@law("MSC008", "beside home", "beside deployed")
def newer_beside(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in an older collection is newer than every row."""
    at = said[-1].created_at_ms + 60_000
    point = lab.deploy(said[-1], collection=OLDER, createdAt=at, content=NEVER, personaId=str(C))
    return Planted(
        one(point.id, row=None, point=at),
        facts={"legacy-layout": 1},
        next_command="memsync rules MSC008",
    )


@law("MSC009", "beside home")
def copies_of_the_old_layout(lab: Lab, said: list[Exchange]) -> Planted:
    """The app's collections, after their memories came into the shared one."""
    for each in said:
        lab.deploy(each)
    first = min(str(point_id) for point_id, *_ in lab.points()[f"persona-{A}"])
    return Planted(
        one(f"persona-{A}/{first}", points=len(said), collections=2),
        facts={"legacy-copy": len(said), "legacy-layout": 2},
        next_command="memsync rules MSC009",
    )


@law("MSC009", "beside deployed")
def a_copy_in_an_older_collection(lab: Lab, said: list[Exchange]) -> Planted:
    """What the app left behind when it went from personalities to personas."""
    copy = lab.deploy(said[0], collection=OLDER, personaId=None, userId=str(OWNER))
    return _copy(f"{OLDER}/{copy.id}")


@law("MSC009", "beside home", "beside deployed")
def a_copy_that_was_set_aside(lab: Lab, said: list[Exchange]) -> Planted:
    """A collection that the app renamed."""
    copy = lab.deploy(said[0], collection=f"persona-legacy-{A}")
    return _copy(f"persona-legacy-{A}/{copy.id}")


@law("MSC009", "beside home", "beside deployed")
def a_copy_that_names_nobody(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy without a persona and a user is known by its text and its time."""
    copy = lab.deploy(said[0], collection="persona-legacy-1", personaId=None)
    return _copy(f"persona-legacy-1/{copy.id}")


@law("MSC009", "beside home", "beside deployed")
def a_copy_of_a_persona_who_is_gone(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy in a legacy collection may name a persona who does not exist."""
    gone = "aaaaaaaa-0000-4000-8000-0000000000ff"
    copy = lab.deploy(said[0], collection=f"persona-legacy-{gone}", personaId=gone)
    return _copy(f"persona-legacy-{gone}/{copy.id}")


@law("MSC009", "beside deployed")
def a_copy_of_an_archived_memory(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory without rows lies where it belongs, and its copy in an older collection."""
    lab.deploy(said[0], createdAt=OLD_MS, content=NEVER)
    copy = lab.deploy(said[0], collection=OLDER, createdAt=OLD_MS, content=NEVER)
    return _copy(f"{OLDER}/{copy.id}")


def _copy(where: str) -> Planted:
    return Planted(
        one(where, points=1, collections=1),
        facts={"legacy-copy": 1, "legacy-layout": 1},
        next_command="memsync rules MSC009",
    )
