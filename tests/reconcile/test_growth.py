"""What an audit or a repair asks of the stores grows with what there is, and not faster.

Calls and rows are counted, and no time is measured.
"""

from collections import Counter
from functools import partial
from importlib import import_module
from uuid import UUID

import pytest

from memsync.model.records import Place
from memsync.reconcile.findings import Grade, Repair
from support.counting import Counting, asked
from support.lab import A, B, C, Lab
from support.repairs import OLD_MS, Faults

Open = partial[Lab]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply takes two actions at once."""
    monkeypatch.setattr(import_module("memsync.reconcile.apply"), "_BATCH", 2)


@pytest.mark.usefixtures("small_batches")
def test_missing_memories_of_one_persona(open_lab: Open) -> None:
    """A batch reads of the persona's collection and history what lies near it."""
    lab = open_lab(layout="per-persona")
    said = lab.say(40)
    faults = Faults(lab)
    home = lab.ltm.home_of(A)
    for number, each in enumerate(said):
        if number % 2:
            faults.add(Repair.MAKE, row=each, target=Place(home, each.anchor_id))
        else:
            lab.deploy(each)
    plan, store = faults.plan(), Counting(lab.vectors)
    with asked() as statements:
        assert 20 == lab.apply(plan, store).done
    assert store.returned <= 3 * 40
    assert statements.exchanges() <= 3 * 2 * 40


@pytest.mark.usefixtures("small_batches")
def test_orphans_of_one_persona(lab: Lab) -> None:
    """For what is removed the exchanges are read that it may be a memory of."""
    lab.say(40)
    faults = Faults(lab)
    for number in range(20):
        point = lab.deploy(
            lab.said[number], collection=lab.home, content=f"{number}", createdAt=OLD_MS + number
        )
        place = Place(lab.home, point.id)
        faults.add(Repair.REMOVE, "orphan-point", place=place, grade=Grade.UNSAFE)
    plan = faults.plan()
    with asked() as statements:
        assert 20 == lab.apply(plan).done
    assert statements.exchanges() <= 3 * 40


def planted(lab: Lab, number: int) -> None:
    """So many points of each kind that an audit asks the stores about once more."""
    old = f"persona-{A}"
    for at, said in enumerate(lab.say(number)):
        words = f"User (Al): {at}\nAda: alone {at}"
        # Archived, and elsewhere, where another point may have its id.
        lab.deploy(said, collection=old, content=words, createdAt=OLD_MS + at)
        # After the oldest exchange, so that its reply may stand alone.
        lab.deploy(said, collection=old, content=words, createdAt=said.created_at_ms + 30_000)
        # A further memory of an exchange whose own one stands.
        lab.deploy(said, collection=lab.home)
        # Two of one id that say something else: the ledger knows which one memsync made.
        for collection in (lab.home, old):
            point_id = UUID(int=2**100 + at)
            words = f"User (Al): {at}\nAda: {collection}"
            lab.deploy(said, collection=collection, point_id=point_id, content=words, createdAt=at)
    lab.sync()


def test_an_audit_asks_for_many_points_at_once(lab: Lab) -> None:
    """Three times the points are as many calls."""
    numbers = []
    for number in (4, 8):
        planted(lab, number)
        store = Counting(lab.vectors)
        with asked() as statements, lab.audit(store) as found:
            assert found.complete
        numbers.append((Counter(store.calls), statements.calls))
    assert numbers[0] == numbers[1]


def test_memories_are_written_over_many_at_once(lab: Lab) -> None:
    """Each with the condition that it is as it was seen, in one call for a batch."""
    calls = []
    for number in (2, 4):
        said = lab.say(number)
        lab.sync()
        faults = Faults(lab)
        for each in said:
            lab.respell(each, user_text="other words")
            faults.add(Repair.MAKE, row=each, place=lab.place(each), target=lab.place(each))
        store = Counting(lab.vectors)
        assert number == lab.apply(faults.plan(), store).done
        calls.append(store.calls.count("upsert"))
    assert calls[0] == calls[1]


def test_whose_missing_memories_are_is_asked_at_once(lab: Lab) -> None:
    """It is about many personas, of which no point tells."""
    lab.sync()
    for persona in (A, B, C):
        lab.say(persona=persona)
    with asked() as statements, lab.audit(deep=True) as found:
        assert found.complete
    assert 1 == statements.calls["default_personas_of"]
