"""The audit of the app's own layout: what the app reads is no fault, and each fault is found.

Every test deploys memories as the app wrote them, in a collection for each persona.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from memsync.reconcile.findings import Grade, Repair
from memsync.stores.ltm.layouts import Layout
from support.lab import ADA, BASIL, NOBODY, A, B, C
from support.laws.base import OLD_MS

if TYPE_CHECKING:
    from functools import partial

    from memsync.model.records import Exchange
    from memsync.reconcile.findings import Finding
    from support.lab import Lab

OWNER = UUID("cccccccc-0000-4000-8000-000000000001")
SECOND_USER = UUID("cccccccc-0000-4000-8000-000000000002")


@pytest.fixture
def deployed(open_lab: partial[Lab]) -> Lab:
    """A lab in the app's layout, with four exchanges of A and C each, and their memories."""
    lab = open_lab("memory", layout="per-persona", writer="memsync")
    assert lab.ltm.layout is Layout.PER_PERSONA
    for each in [*lab.say(4), *lab.say(4, persona=C)]:
        lab.deploy(each)
    lab.sql("DELETE FROM memsync.outbox")
    return lab


def faults(lab: Lab) -> list[tuple[str, str]]:
    """Name and key of each fault."""
    audit = lab.check()
    assert audit.complete, audit.not_checked
    return [(each.name, each.key) for each in audit.faults]


def facts(lab: Lab) -> dict[str, object]:
    """How many points each fact is about."""
    return {
        each.name: each.evidence.get("points")
        for each in lab.check().findings
        if each.severity == "info"
    }


def only(lab: Lab, name: str) -> Finding:
    """The one fault that there is, of this name."""
    (found,) = lab.check().faults
    assert name == found.name, found
    return found


def test_a_healthy_app_is_clean(deployed: Lab) -> None:
    """Random ids are a fact of this layout."""
    assert [] == faults(deployed)
    assert {"foreign-point-id": 8} == facts(deployed)
    assert deployed.check().ok


def test_a_skewed_clock_is_a_fact(deployed: Lab) -> None:
    """The app's own clock was up to seconds beside the row's."""
    first = deployed.said[0]
    [old] = of(deployed, first)
    moved = {**deployed.point(old, home(A)).payload, "createdAt": first.created_at_ms - 2500}
    deployed.put(old, moved, home(A))

    assert [] == faults(deployed)
    assert 1 == facts(deployed)["time-skew"]


def test_a_time_beyond_the_tolerance_is_no_match(deployed: Lab) -> None:
    """Its exchange is missing; the memory is older than nothing, so it is an orphan."""
    first, second, *_ = deployed.said
    [old] = of(deployed, second)
    moved = {**deployed.point(old, home(A)).payload, "createdAt": second.created_at_ms + 10_001}
    deployed.put(old, moved, home(A))

    assert [("missing-point", str(second.anchor_id)), ("orphan-point", str(old))] == faults(
        deployed
    )
    assert first.created_at_ms < second.created_at_ms


def test_enriched_text_is_a_fact(deployed: Lab) -> None:
    """Additions behind the message, behind the reply, and behind both."""
    for each, extra in zip(
        deployed.said, ("{} [image: a cat]", "{}", "{}\n\nseen: a dog"), strict=False
    ):
        [old] = of(deployed, each)
        payload = dict(deployed.point(old, home(A)).payload)
        payload["content"] = (
            f"User (Al): {extra.format(each.user_text)}\nAda: {each.assistant_text}"
        )
        payload["content"] = f"{payload['content']}{' [file]' if extra == '{}' else ''}"
        deployed.put(old, payload, home(A))

    assert [] == faults(deployed)
    assert 3 == facts(deployed)["enriched-content"]


def test_personas_memory_in_another_collection_is_a_mismatch(deployed: Lab) -> None:
    """A's words, which B's recall finds. Nothing is called missing or archived beside it."""
    first = deployed.said[0]
    [old] = of(deployed, first)
    deployed.deploy(first, collection=home(B), personaId=str(B))
    deployed.vectors.delete(home(A), [old])

    found = only(deployed, "persona-mismatch")
    assert (Repair.MOVE, Grade.UNSAFE) == (found.repair, found.grade)
    whose = {name: found.evidence[name] for name in ("row", "point")}
    assert {"row": str(A), "point": str(B)} == whose
    assert f"{home(A)}/{found.key}" == str(found.witness.target)


def test_a_foreign_copy_beside_the_right_one_is_removed(deployed: Lab) -> None:
    """Another user's persona has a copy of what A said."""
    first = deployed.said[0]
    deployed.deploy(first, collection=home(C), personaId=str(C))

    found = only(deployed, "persona-mismatch")
    assert (Repair.REMOVE, Grade.UNSAFE) == (found.repair, found.grade)


@pytest.mark.parametrize(
    ("changes", "name", "repair"),
    [
        ({"content": None, "text": "as content"}, "wrong-payload-key", Repair.PATCH),
        ({"createdAt": "in seconds"}, "wrong-time-unit", Repair.PATCH),
        ({"personaId": str(B)}, "payload-drift", Repair.PATCH),
        ({"channelId": "another"}, "payload-drift", Repair.PATCH),
        ({"personaId": [str(A), str(B)]}, "payload-drift", Repair.PATCH),
        ({"content": "User (Al): never said\nAda: never"}, "stale-content", Repair.MAKE),
    ],
)
def test_what_the_app_cannot_read_is_mended_in_place(
    deployed: Lab, changes: dict[str, object], name: str, repair: Repair
) -> None:
    """The point keeps its id and its collection."""
    first = deployed.said[0]
    [old] = of(deployed, first)
    payload = dict(deployed.point(old, home(A)).payload)
    if "text" in changes:
        changes = {**changes, "text": payload["content"]}
    if "createdAt" in changes:
        changes = {"createdAt": first.created_at_ms // 1000}
    changed = {key: value for key, value in (payload | changes).items() if value is not None}
    deployed.put(old, changed, home(A))

    found = only(deployed, name)
    assert (repair, Grade.SAFE, str(old)) == (found.repair, found.grade, found.key)
    assert found.witness.place == found.witness.target


def test_absent_keys_are_no_fault(deployed: Lab) -> None:
    """The app leaves out what it does not know."""
    first = deployed.said[0]
    [old] = of(deployed, first)
    payload = dict(deployed.point(old, home(A)).payload)
    for key in ("personaId", "channelId", "senders"):
        payload.pop(key)
    deployed.put(old, payload, home(A))

    assert [] == faults(deployed)


def test_a_second_memory_of_one_exchange(deployed: Lab) -> None:
    """One of the two stays."""
    first = deployed.said[0]
    deployed.deploy(first)

    found = only(deployed, "duplicate-point")
    assert (Repair.REMOVE, Grade.UNSAFE) == (found.repair, found.grade)
    assert found.witness.target is not None
    assert found.witness.target.collection == home(A)
    assert {found.key, str(found.witness.target.point_id)} == set(map(str, of(deployed, first)))


def test_archived_memories_are_no_fault(deployed: Lab) -> None:
    """Older than the thread, of an emptied thread, or with the reply standing alone."""
    first, second, *_ = deployed.said
    deployed.deploy(first, createdAt=OLD_MS, content="User (Al): before\nAda: all")
    deployed.deploy(
        first,
        createdAt=first.created_at_ms + 7,
        channelId="emptied",
        content="User (Al): reset\nAda: ok",
    )
    deployed.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=second.said_id)

    assert [] == faults(deployed)
    assert 3 == deployed.check().archived


def test_retention_that_cuts_between_message_and_reply(deployed: Lab) -> None:
    """The reply stands without its message; its memory names it, as the app's backfill did."""
    first = deployed.said[0]
    [old] = of(deployed, first)
    deployed.deploy(first, point_id=first.anchor_id)
    deployed.vectors.delete(home(A), [old])
    deployed.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=first.said_id)

    assert [] == faults(deployed)


def test_an_orphan(deployed: Lab) -> None:
    """Rows that vanish from the middle of a thread leave one."""
    second = deployed.said[1]
    deployed.sql(
        "DELETE FROM conversation_history WHERE id = ANY(%(ids)s)",
        ids=[second.anchor_id, second.said_id],
    )

    found = only(deployed, "orphan-point")
    assert (Repair.REMOVE, Grade.UNSAFE) == (found.repair, found.grade)


def test_a_database_restored_from_a_backup(deployed: Lab) -> None:
    """Memories newer than the newest row are never called orphans."""
    last = deployed.said[-2:]
    deployed.sql(
        "DELETE FROM conversation_history WHERE id = ANY(%(ids)s)",
        ids=[id_ for each in last for id_ in (each.anchor_id, each.said_id)],
    )

    found = deployed.check().faults
    assert {"newer-than-history"} == {each.name for each in found}
    assert {Grade.REPORT_ONLY} == {each.grade for each in found}
    assert 2 == len(found)


def test_collections_that_the_app_no_longer_reads(deployed: Lab) -> None:
    """A personality's, a user's and one set aside: each point is a copy, a memory that lies
    elsewhere, an archived one, or nobody's.
    """
    first, second, third, _ = deployed.said[:4]
    [old] = of(deployed, first)
    personality = f"personality-{ADA}"
    whole = dict(deployed.point(old, home(A)).payload)
    whole.pop("personaId")
    deployed.put(old, {**whole, "userId": str(OWNER)}, personality)
    deployed.vectors.delete(home(A), of(deployed, second))
    lone = deployed.deploy(second, collection=personality, userId=str(OWNER))
    deployed.sql(
        "INSERT INTO user_default_personas (user_id, persona_id, updated_at)"
        " VALUES (%(u)s, %(p)s, now()) ON CONFLICT DO NOTHING",
        u=SECOND_USER,
        p=C,
    )
    archived = deployed.deploy(
        third,
        collection=f"persona-{SECOND_USER}",
        personaId=str(SECOND_USER),
        createdAt=OLD_MS,
        content="User (Bo): long ago\nAda: yes",
    )
    nobodys = deployed.deploy(
        third,
        collection="persona-legacy-1",
        personaId=None,
        createdAt=OLD_MS,
        content="User (x): who\nAda: knows",
    )

    found = {each.name: each for each in deployed.check().faults}
    assert {"missing-point", "misplaced-point", "nobodys-point"} == set(found)
    copied = found["missing-point"]
    assert (Repair.COPY, str(lone.id)) == (copied.repair, copied.key)
    assert f"{home(A)}/{lone.id}" == str(copied.witness.target)
    assert (Repair.COPY, str(archived.id)) == (
        found["misplaced-point"].repair,
        found["misplaced-point"].key,
    )
    assert f"{home(C)}/{archived.id}" == str(found["misplaced-point"].witness.target)
    assert str(nobodys.id) == found["nobodys-point"].key
    assert 1 == facts(deployed)["legacy-copy"]


def test_a_repair_leaves_old_collections_as_they_are(open_lab: partial[Lab]) -> None:
    """In the shared layout a lost memory is made anew, and its copy in an old collection stays."""
    lab = open_lab("memory")
    [said] = lab.settled(1)[:1]
    lab.vectors.delete(lab.home, [said.anchor_id])
    old = lab.deploy(said)

    plan = lab.plan()
    assert ["put"] == [each.kind.value for each in plan.actions]
    lab.apply(plan)
    assert [] == faults(lab)
    assert old == lab.point(old.id, home(A))


def test_a_persona_that_does_not_exist(deployed: Lab) -> None:
    """Neither a persona's id nor a user's."""
    deployed.deploy(
        deployed.said[0],
        collection=home(NOBODY),
        personaId=str(NOBODY),
        content="User (N): x\nAda: y",
    )
    assert "unknown-persona" == only(deployed, "unknown-persona").name


def test_a_personality_without_memory_misses_none(deployed: Lab) -> None:
    """Its exchanges have none by design."""
    deployed.say(2, personality=BASIL)
    deployed.sql("DELETE FROM memsync.outbox")
    deployed.sql("UPDATE personalities SET memory_enabled = false WHERE id = %(id)s", id=BASIL)
    try:
        assert [] == faults(deployed)
    finally:
        deployed.sql("UPDATE personalities SET memory_enabled = true")


def test_what_one_persona_said_often(deployed: Lab) -> None:
    """The same words in one second, ten times, by a skewed clock: each memory has its exchange."""
    first = deployed.said[0]
    for number in range(10):
        deployed.sql(
            "INSERT INTO conversation_history"
            " (id, channel_id, personality_id, persona_id, role, content, created_at)"
            " SELECT gen_random_uuid(), %(channel)s, %(ada)s, %(a)s, r.role, 'hi',"
            " timestamp '2025-06-01' + (%(n)s * 100 + r.n) * interval '1 millisecond'"
            " FROM (VALUES ('user', 0), ('assistant', 1)) r(role, n)",
            channel=first.channel_id,
            ada=ADA,
            a=A,
            n=number,
        )
    for each in deployed.exchanges():
        if each.user_text == "hi":
            deployed.deploy(each, createdAt=each.created_at_ms + 1700)

    assert [] == faults(deployed)
    assert 10 == facts(deployed)["time-skew"]


def home(persona: UUID) -> str:
    """The persona's collection."""
    return f"persona-{persona}"


def of(lab: Lab, exchange: Exchange) -> list[UUID]:
    """The ids of the exchange's memories in its persona's collection."""
    points = lab.points().get(home(exchange.persona_id), [])
    return [
        id_
        for id_, payload, _ in points
        if isinstance(id_, UUID) and payload["createdAt"] == exchange.created_at_ms  # type: ignore[index]
    ]
