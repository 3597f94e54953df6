"""Tests that a call hands out what is the asked persona's alone, whatever stores and callers give.

A store may return a point of another persona, a point that names several, or a row of another
owner; a caller may give an id of a class of its own.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from functools import partial
from typing import Any, Self
from uuid import UUID

import pytest

from memsync.errors import InvalidInput, MemsyncError
from memsync.memory import Memory, NewExchange
from memsync.model import ids
from memsync.model.records import Hit, Vector, storable_text
from memsync.stores.ltm import recalling
from memsync.stores.postgres import Session
from memsync.stores.vectors import Where
from support.failing import Failing
from support.lab import ADA, CHANNEL, LONG_AGO, A, C, Lab


@dataclass
class Leaking(Failing):
    """A store that ignores the filter of every query."""

    def query(self, collection: str, vector: Vector, *, where: Where, **others: Any) -> list[Hit]:
        assert str(A) in where.values()
        return self.store.query(collection, vector, where={}, **others)


def recalled(lab: Lab, persona: UUID = A, limit: int = 10) -> list[object]:
    """The ids of the persona's memories."""
    return [each.id for each in lab.memory.recall("x", persona_id=persona, limit=limit)]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The records of the logger `memsync`."""
    with caplog.at_level(logging.WARNING, logger="memsync"):
        yield caplog


SEVERAL: dict[str, dict[str, object]] = {
    "a list": {"persona_id": [str(A), str(C)]},
    "a list of one": {"persona_id": [str(A)]},
    "two spellings": {"persona_id": str(A), "personaId": str(C)},
}


@pytest.mark.parametrize("changes", SEVERAL.values(), ids=list(SEVERAL))
def test_a_point_that_names_several_personas_costs_itself(
    any_lab: Lab, changes: dict[str, object], warned: pytest.LogCaptureFixture
) -> None:
    """Recall leaves it out for everybody, warns of it by id without its text, and answers."""
    first, second, third = any_lab.say(3)
    [other] = any_lab.say(persona=C)
    any_lab.sync()
    any_lab.respell(second.anchor_id, **changes)
    assert {first.anchor_id, third.anchor_id} == set(recalled(any_lab))
    assert [other.anchor_id] == recalled(any_lab, C)
    assert str(second.anchor_id) in warned.text
    assert second.user_text not in warned.text
    assert {"missing-persona": 1} == {
        name: count for name, count in any_lab.check().counts.items() if name == "missing-persona"
    }
    any_lab.apply(any_lab.plan())
    assert any_lab.check().ok
    assert 3 == len(recalled(any_lab))


@pytest.mark.parametrize("collection", [f"persona-{A}", f"personality-{ADA}"])
def test_an_archived_point_that_names_several_personas_is_never_moved(
    lab: Lab, collection: str
) -> None:
    """A plan leaves an archived memory whose payload names two personas where it is."""
    lab.settled()
    [old] = lab.say()
    old_ms, text = 1_600_000_000_000, "User (x): a"
    point = lab.deploy(
        old, collection=collection, createdAt=old_ms, persona_id=str(C), content=text
    )
    plan = lab.plan()
    assert point.id not in {each.place.point_id for each in plan.actions}
    assert 1 == plan.left["misplaced-point"]


def test_a_recall_is_full_although_others_points_are_nearer(
    any_lab: Lab, warned: pytest.LogCaptureFixture
) -> None:
    """A recall gives `limit` memories of its persona when the nearest points are not its own."""
    said = any_lab.say(40)
    any_lab.sync()
    nearest = recalled(any_lab, limit=40)
    for anchor in nearest[:25]:
        assert isinstance(anchor, UUID)
        any_lab.respell(anchor, persona_id=[str(A), str(C)])
    assert len(said) == len(nearest)
    assert nearest[25:30] == recalled(any_lab, limit=5)
    assert nearest[25:] == recalled(any_lab, limit=100)
    assert "25 points" in warned.text


def test_a_recall_among_too_many_points_of_others_ends(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recall asks for so many points and no more, and gives the memories that it found."""
    monkeypatch.setattr(recalling, "_ASKED_MAX", 8)
    lab.say(20)
    lab.sync()
    nearest = recalled(lab, limit=20)
    for anchor in nearest[:19]:
        assert isinstance(anchor, UUID)
        lab.respell(anchor, persona_id=[str(A), str(C)])
    assert [] == recalled(lab, limit=2)


def test_a_recall_asks_for_no_more_than_a_server_gives(lab: Lab) -> None:
    """Where a server bounds a query, a point of others costs itself; more than that is an error."""
    lab.say(6)
    lab.sync()
    nearest = recalled(lab, limit=6)
    assert isinstance(nearest[0], UUID)
    lab.respell(nearest[0], persona_id=[str(A), str(C)])
    store = Failing(lab.vectors)

    def query(*given: Any, limit: int, **named: Any) -> list[Hit]:
        if limit > 4:
            raise InvalidInput("Limit exceeded")
        return lab.vectors.query(*given, limit=limit, **named)

    store.query = query  # type: ignore[method-assign]
    memory = Memory(lab.postgres, lab.settings, lab.with_store(store))
    assert nearest[1:3] == [each.id for each in memory.recall("x", persona_id=A, limit=3)]
    with pytest.raises(InvalidInput, match="Limit exceeded"):
        memory.recall("x", persona_id=A, limit=5)


def test_a_point_of_another_persona_is_left_out(
    any_lab: Lab, warned: pytest.LogCaptureFixture
) -> None:
    """When the store also returns points of another persona, recall gives its own ones only."""
    [mine] = any_lab.say()
    [yours] = any_lab.say(persona=C)
    any_lab.sync()
    leaking = any_lab.with_store(Leaking(any_lab.vectors))
    found = Memory(any_lab.postgres, any_lab.settings, leaking).recall("x", persona_id=A)
    assert [mine.anchor_id] == [each.id for each in found]
    assert str(yours.anchor_id) in warned.text


# ---------------------------------------------------------------------- rows


def test_a_row_of_another_persona_is_not_handed_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read fails when the database returns a message of another persona than was asked for."""
    lab.say()
    lab.say(persona=C)
    real = Session.rows

    def rows(session: Session, name: str, /, **params: Any) -> list[Any]:
        return real(session, name, **params | ({"persona_id": C} if "persona_id" in params else {}))

    monkeypatch.setattr(Session, "rows", rows)
    with pytest.raises(MemsyncError, match=f"persona {C}"):
        lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A)


# ---------------------------------------------------------------------- a caller's classes


class Chameleon(UUID):
    """An id that says it equals every other, and spells itself as another."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return str(C)


class Text(str):
    """A text that says it equals every other, and spells itself as another."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return str(C)

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"other"


class Moment(datetime):
    """A time that stays as it is in every zone."""

    def astimezone(self, *_: Any) -> Self:
        return self


@pytest.mark.parametrize("of", [ids.user_id, ids.persona_id, ids.personality_id])
@pytest.mark.parametrize("given", [Chameleon(int=A.int), Text(A), Text(str(A).upper())])
def test_an_id_of_a_class_of_its_own_becomes_a_plain_one(of: Any, given: object) -> None:
    """An id of a subclass becomes a plain UUID of the same value."""
    found = of(given)
    assert (UUID, A.int) == (type(found), found.int)


@pytest.mark.parametrize("of", [ids.channel_id, lambda text: storable_text(text, "text")])
def test_a_text_of_a_class_of_its_own_becomes_a_plain_one(of: Any) -> None:
    """A text of a subclass becomes a plain str of the same characters."""
    found = of(Text("mine"))
    assert (str, "mine") == (type(found), str.__str__(found))


def test_no_class_of_the_callers_reaches_another_thread(lab: Lab) -> None:
    """Calls with ids of a caller's own classes write and read the thread of their value only."""

    class Channel(StrEnum):
        HOME = CHANNEL

    who = Chameleon(int=A.int)
    lab.memory.remember(NewExchange(Channel.HOME, ADA, who, Text("mine"), Text("yours")))
    lab.memory.remember(NewExchange(CHANNEL, ADA, C, "of c", "of c"))
    lab.sync()
    history = lab.memory.get_recent_history(Channel.HOME, ADA, persona_id=who)
    assert [("mine", A), ("yours", A)] == [(each.content, each.persona_id) for each in history]
    [found] = lab.memory.recall("x", persona_id=who)
    assert A == found.persona_id
    assert UUID is type(history[0].persona_id)


def test_a_time_of_a_class_of_its_own_becomes_a_plain_one(lab: Lab) -> None:
    """A time of a subclass is stored as the moment that it holds."""
    at = Moment(2025, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    lab.memory.remember(NewExchange(CHANNEL, ADA, A, "x", "y", at, at))
    assert LONG_AGO == lab.memory.get_recent_history(CHANNEL, ADA, persona_id=A)[0].created_at


@pytest.mark.parametrize("said_at", ["2025-05-01", 1_746_100_800, LONG_AGO.date()])
def test_what_is_no_time_is_refused(lab: Lab, said_at: Any) -> None:
    """A time that is no datetime raises InvalidInput."""
    with pytest.raises(InvalidInput, match="said_at"):
        lab.memory.remember(NewExchange(CHANNEL, ADA, A, "x", "y", said_at, LONG_AGO))


@pytest.mark.parametrize("threshold", ["0.5", True, float("nan"), float("inf"), [0.5]])
def test_a_threshold_that_is_no_number_is_refused(any_lab: Lab, threshold: Any) -> None:
    """Recall refuses it by its own error, whichever store would have been asked."""
    any_lab.settled(1)
    with pytest.raises(InvalidInput, match="score_threshold must be a finite number or None"):
        any_lab.memory.recall("x", persona_id=A, score_threshold=threshold)


def test_a_point_without_text_costs_itself(any_lab: Lab, warned: pytest.LogCaptureFixture) -> None:
    """Recall leaves it out, warns of its id, and gives the next memory in its place."""
    said = any_lab.say(3)
    any_lab.sync()
    [nearest, *others] = recalled(any_lab)
    assert isinstance(nearest, UUID)
    any_lab.respell(nearest, assistant_text=None)
    assert {each.anchor_id for each in said} - {nearest} == set(others)
    assert set(others) == set(recalled(any_lab))
    assert f"left out 1 point without a text: {nearest}" in warned.text
    assert not any_lab.check().ok


def test_an_id_in_capitals_is_found_in_the_shared_layout(open_lab: "partial[Lab]") -> None:
    """The indexes there are of ids, so no audit calls such a memory without a row a fault."""
    lab = open_lab("edge")
    [said] = lab.say(1)
    lab.sync()
    in_capitals = {"persona_id": str(A).upper(), "personality_id": str(ADA).upper()}
    lab.respell(said.anchor_id, **in_capitals)
    found = lab.memory.recall("x", persona_id=A, personality_id=ADA, limit=10)
    assert [said.anchor_id] == [each.id for each in found]
