"""Payloads of the app's that have its one text, and two texts besides: the app reads the one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from memsync.model.ids import PersonaId
from memsync.reconcile.findings import Grade, Repair
from support.lab import A, C
from support.laws.base import noted
from support.relayout import home

if TYPE_CHECKING:
    from functools import partial

    from memsync.model.records import Exchange, Point
    from memsync.reconcile.findings import Finding
    from support.lab import Lab


@pytest.fixture
def deployed(open_lab: partial[Lab]) -> Lab:
    """A lab in the app's layout, with four exchanges of A and C each, and their memories."""
    lab = open_lab("memory", layout="per-persona", writer="memsync")
    lab.settled()
    return lab


def names_of(lab: Lab) -> list[str]:
    """The names of the faults."""
    return sorted(each.name for each in lab.check().faults)


def only(lab: Lab, name: str) -> Finding:
    """The one fault that there is, of this name."""
    (found,) = lab.check().faults
    assert name == found.name, found
    return found


LEDGER = "SELECT point_id, encode(stored, 'hex'), state FROM memsync.memories"

TWO_TEXTS = pytest.mark.parametrize(
    "names",
    [("user_text", "assistant_text"), ("userText", "assistantText")],
    ids=["snake", "camel"],
)


@TWO_TEXTS
def test_what_the_app_reads_is_the_memory(deployed: Lab, names: tuple[str, str]) -> None:
    """`content` is right and the two texts are not: the point is told, and nothing touches it."""
    said = deployed.said[1]
    old = memory_of(deployed, said)
    spoilt: dict[str, Any] = dict(zip(names, ("other", "words"), strict=True))
    deployed.put(old.id, {**old.payload, **spoilt}, home(A))
    found = only(deployed, "wrong-payload-key")
    assert (Grade.REPORT_ONLY, Repair.NONE, str(old.id)) == (found.grade, found.repair, found.key)
    assert () == deployed.plan().actions
    deployed.unsay(*deployed.exchanges())
    deployed.say()
    found = only(deployed, "wrong-payload-key")
    assert (Grade.REPORT_ONLY, Repair.NONE) == (found.grade, found.repair)
    [recalled] = deployed.ltm.recall(str(old.payload["content"]), persona_id=PersonaId(A), limit=1)
    assert old.payload["content"] == recalled.text


@TWO_TEXTS
def test_a_content_that_was_not_said_is_stale(deployed: Lab, names: tuple[str, str]) -> None:
    """The two texts are the row's, but the app reads the other one."""
    said = deployed.said[1]
    old = memory_of(deployed, said)
    texts = dict(zip(names, (said.user_text, said.assistant_text), strict=True))
    payload = {**old.payload, "content": "User (Al): never\nAda: said"}
    deployed.put(old.id, {**payload, **texts}, home(A))
    assert {"stale-content", "wrong-payload-key"} == {*names_of(deployed)}
    deployed.apply(deployed.plan())
    assert [] == names_of(deployed)


@TWO_TEXTS
def test_a_point_that_contradicts_itself_is_not_moved(
    deployed: Lab, names: tuple[str, str]
) -> None:
    """A further memory, one of another persona, and one of nobody's: told, and left."""
    said = deployed.said[1]
    spoilt: dict[str, Any] = dict(zip(names, ("other", "words"), strict=True))
    deployed.deploy(said, **spoilt)
    deployed.deploy(said, collection=home(C), personaId=str(C), **spoilt)
    at = deployed.said[1].created_at_ms + 20_000
    deployed.deploy(said, content="User (Al): never\nAda: said", createdAt=at, **spoilt)
    assert ["duplicate-point", "orphan-point", "persona-mismatch"] == names_of(deployed)
    assert () == deployed.plan(unsafe=True).actions


@TWO_TEXTS
def test_two_texts_that_agree_are_a_fact(deployed: Lab, names: tuple[str, str]) -> None:
    """They go with the copy in the shared layout, whose vector is that of `content`."""
    said = deployed.said[1]
    old = memory_of(deployed, said)
    texts = dict(zip(names, (said.user_text, said.assistant_text), strict=True))
    camel = {"userText": said.user_text, "assistantText": said.assistant_text}
    deployed.put(old.id, {**old.payload, **texts}, home(A))
    if texts == camel:
        assert [] == names_of(deployed)
    codec = deployed.ltm.codec
    point = deployed.point(old.id, home(A))
    for payload in (
        codec.brought(point.payload, said, "test/8"),
        codec.archived(point, persona_id=said.persona_id),
    ):
        memory = codec.decode(payload).memory
        assert (old.payload["content"], None) == (memory.content, memory.user_text)
        assert not {*names, *camel} & payload.keys()


@TWO_TEXTS
@pytest.mark.parametrize("archived", [False, True])
def test_two_texts_become_the_one_that_the_app_reads(
    deployed: Lab, names: tuple[str, str], *, archived: bool
) -> None:
    """The point says what it said, keeps keys of others, and an undo leads back; so says the
    ledger, which has the memory of rows that are gone.
    """
    said = deployed.said[0]
    texts: dict[str, Any] = dict(zip(names, (said.user_text, said.assistant_text), strict=True))
    deployed.respell(said, content=None, **texts)
    noted(deployed, [said])
    if archived:
        deployed.unsay(said)
    before, ledger = deployed.points(), deployed.sql(LEDGER)
    assert (Grade.SAFE, Repair.PATCH) == (
        (found := only(deployed, "wrong-payload-key")).grade,
        found.repair,
    )
    plan = deployed.plan()
    deployed.apply(plan)
    assert ([], ledger) == (names_of(deployed), deployed.sql(LEDGER))
    payload = memory_of(deployed, said).payload
    assert (said.text, ["1"]) == (payload["content"], payload["senders"])
    assert not {*names} & payload.keys()
    deployed.undo(plan)
    assert (before, ledger) == (deployed.points(), deployed.sql(LEDGER))


def memory_of(lab: Lab, said: Exchange) -> Point:
    place = lab.place(said)
    return lab.point(place.point_id, place.collection)
