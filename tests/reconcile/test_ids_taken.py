"""Collections that each count from 1: where a memory belongs, another one has its id."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from memsync.errors import PartlyDone
from memsync.model.records import to_ms
from memsync.reconcile.plans import ActionKind
from support.lab import ADA, BASIL, LONG_AGO, NOBODY, A, B, C, Lab
from support.ledger import adopt
from support.repairs import aside

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from memsync.model.records import Exchange

ID = 7


@pytest.fixture
def counted(open_lab: partial[Lab]) -> Lab:
    """A lab whose collections count. The first exchange of A has no memory."""
    lab = open_lab(layout="per-persona", embedder="support.lab:embed")
    for number, each in enumerate(lab.say(4)[1:], start=ID):
        lab.deploy(each, point_id=number)
    for number, each in enumerate(lab.say(3, persona=C), start=2 * ID):
        lab.deploy(each, point_id=number)
    lab.sql("DELETE FROM memsync.outbox")
    return lab


def with_the_users_other_persona(lab: Lab, lost: Exchange) -> str:
    """In the collection of the user's other persona, whose first it is."""
    lab.deploy(lost, collection=f"persona-{B}", point_id=ID, personaId=str(B))
    return "persona-mismatch"


def with_another_user(lab: Lab, lost: Exchange) -> str:
    """In the collection of another user's persona."""
    lab.deploy(lost, collection=f"persona-{C}", point_id=ID, personaId=str(C))
    return "persona-mismatch"


def of_its_personality(lab: Lab, lost: Exchange) -> str:
    """In the older collection of a personality."""
    lab.deploy(lost, collection=f"personality-{ADA}", point_id=ID)
    return "missing-point"


def of_its_personality_with_other_words(lab: Lab, lost: Exchange) -> str:
    """The same, and it must be made anew: it names the messages, and says something else."""
    lab.deploy(
        lost,
        collection=f"personality-{ADA}",
        point_id=ID,
        content="User (Al): other\nAda: words",
        messageIds=[str(lost.anchor_id)],
    )
    return "missing-point"


def of_nobody(lab: Lab, lost: Exchange) -> str:
    """In the collection of a persona that is gone."""
    lab.deploy(lost, collection=f"persona-{NOBODY}", point_id=ID, personaId=str(NOBODY))
    return "unknown-persona"


MISPLACED = (
    *(with_the_users_other_persona, with_another_user),
    *(of_its_personality, of_its_personality_with_other_words, of_nobody),
)


@pytest.mark.parametrize("misplace", MISPLACED)
def test_it_is_found_and_brought_under_another_id(
    counted: Lab, misplace: Callable[[Lab, Exchange], str]
) -> None:
    """What has the id is not the memory, does not make it young, and stays as it is."""
    lab, lost = counted, counted.said[0]
    assert {"missing-point": 1} == lab.audit().counts
    name = misplace(lab, lost)
    audit = lab.audit()
    assert (1, 0) == (audit.counts[name], audit.settling)
    there = lab.point(ID, f"persona-{A}")
    plan = lab.plan(audit)
    lab.apply(plan)
    assert there == lab.point(ID, f"persona-{A}")
    again = lab.audit()
    assert ({}, 0) == (again.counts, again.settling)
    assert () == lab.plan(again).actions
    lab.undo(plan)
    assert audit.counts == lab.audit().counts


@pytest.mark.parametrize("homes", [(B, C), (C, B)])
def test_two_others_have_it(counted: Lab, homes: tuple[UUID, UUID]) -> None:
    """One of the two is brought, the other goes for its sake."""
    lab, lost = counted, counted.said[0]
    for persona in homes:
        lab.deploy(lost, collection=f"persona-{persona}", personaId=str(persona))
    assert {"persona-mismatch": 2} == lab.audit().counts
    plan = lab.plan()
    kinds = [each.kind for each in plan.actions]
    assert [ActionKind.COPY, ActionKind.REMOVE, ActionKind.REMOVE] == kinds
    lab.apply(plan)
    assert {} == lab.audit().counts
    lab.undo(plan)
    assert {"persona-mismatch": 2} == lab.audit().counts


def test_the_app_has_written_it_meanwhile(counted: Lab) -> None:
    """After the plan was made: it is not brought a second time."""
    lab, lost = counted, counted.said[0]
    lab.deploy(lost, collection=f"persona-{B}", personaId=str(B))
    plan = lab.plan()
    mine = lab.deploy(lost)
    with pytest.raises(PartlyDone) as caught:
        lab.apply(plan)
    assert f"the app has written this memory meanwhile, as {mine.id}" in str(aside(caught))
    assert {"persona-mismatch": 1} == lab.audit().counts
    lab.apply(lab.plan())
    assert {} == lab.audit().counts


def test_two_others_have_it_in_the_shared_collection(open_lab: partial[Lab]) -> None:
    """One of them has the anchor's id, which does not make the other one young."""
    lab = open_lab()
    lost = lab.settled()[0]
    other = lab.put(lab.new_id(), {**lab.point(lost.anchor_id).payload, "persona_id": str(C)})
    lab.respell(lost.anchor_id, persona_id=str(B))
    audit = lab.audit()
    assert ({"persona-mismatch": 2}, 0) == (audit.counts, audit.settling)
    assert {str(lost.anchor_id), str(other.id)} == {each.key for each in audit.faults}
    lab.apply(lab.plan(audit))
    assert {} == lab.audit().counts
    assert str(A) == lab.point(lost.anchor_id).payload["persona_id"]


# ---------------------------------------------------------------------- what stands elsewhere


def test_the_collection_of_nobody_has_a_copy_that_names_somebody(counted: Lab) -> None:
    """The memory stands; its copy is nobody's, and is found as that and removed."""
    lab = counted
    lab.deploy(lab.said[1], collection=f"persona-{NOBODY}")
    audit = lab.audit()
    assert ({"missing-point": 1, "unknown-persona": 1}, 0) == (audit.counts, audit.settling)
    lab.apply(lab.plan(audit))
    assert {} == lab.audit().counts


@pytest.mark.parametrize(
    "changes",
    [
        {"content": "User (Al): before an edit\nAda: so"},
        {"createdAt": to_ms(LONG_AGO) - 86_400_000},
        {"personalityId": str(BASIL), "channelId": "another"},
    ],
    ids=["text", "time", "fields"],
)
@pytest.mark.parametrize("collection", [f"persona-{C}", f"personality-{ADA}"])
def test_what_is_brought_is_as_its_row(
    counted: Lab, collection: str, changes: dict[str, Any]
) -> None:
    """It names its message, and nothing of it is wrong afterwards."""
    lab, lost = counted, counted.said[0]
    lab.deploy(
        lost,
        collection=collection,
        messageIds=[str(lost.anchor_id)],
        personaId=str(C) if collection == f"persona-{C}" else str(A),
        **changes,
    )
    assert 1 == sum(lab.audit().counts.values())
    lab.apply(lab.plan())
    assert {} == lab.audit().counts


def test_the_ledger_has_anothers_memory_under_that_id(counted: Lab) -> None:
    """From when memories were shared: it says nothing of this one, which is an orphan."""
    lab = counted
    adopt(lab)
    lab.sql(
        "UPDATE memsync.memories SET collection = %(shared)s, point_id = '77', state = 'archived',"
        " anchor_id = NULL WHERE persona_id = %(c)s AND point_id = '14'",
        shared=lab.home,
        c=C,
    )
    orphan = lab.said[2]
    lab.deploy(orphan, point_id=77, content="User (Al): unsaid\nAda: unheard")
    assert {"missing-point": 1, "orphan-point": 1} == lab.audit().counts


def test_a_memory_that_cannot_be_made_is_set_aside(
    open_lab: partial[Lab], own_database: str
) -> None:
    """The personality of its row is gone past the foreign key. It is not called done."""
    lab = open_lab(url=own_database, layout="per-persona", embedder="support.lab:embed")
    lab.say(1)
    lab.sql("DELETE FROM memsync.outbox")
    plan = lab.plan()
    with psycopg.connect(lab.url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM personalities WHERE id = %s", [ADA])
    with pytest.raises(PartlyDone) as caught:
        lab.apply(plan)
    assert "personality is gone" in str(aside(caught))
