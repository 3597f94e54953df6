"""A finding concerns two personas: the one whose memory it should be, and the one who has it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from memsync import reconcile
from memsync.stores.ltm.layouts import Layout
from support.lab import NOBODY, A, B, C, Lab
from support.laws.isolation import mismatch
from support.ledger import adopt, aged


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return open_lab(layout=request.param.value)


def held_by_c(lab: Lab) -> None:
    """A memory of A's lies with C."""
    said = lab.settled()
    if lab.ltm.layout is Layout.SHARED:
        mismatch(lab, said)
        return
    lab.lose(said[1])
    lab.deploy(said[1], collection=f"persona-{C}", personaId=str(C))


def test_both_are_shown_the_finding(lab: Lab) -> None:
    """The one who has it sees it, and so does the one who should; nobody else."""
    held_by_c(lab)
    gate = lab.check()
    assert {"persona-mismatch": 1} == gate.counts
    [fault] = gate.faults
    assert fault.held_by is not None
    assert A == fault.persona_id
    for persona in (A, fault.held_by):
        assert [fault] == list(gate.findings.chosen(persona=persona))
        assert {"persona-mismatch": 1} == gate.findings.chosen(persona=persona).counts
    third = ({A, B, C} - {A, fault.held_by}).pop()
    for persona in (third, NOBODY):
        assert {} == gate.findings.chosen(persona=persona).counts
    assert 2 == gate.faults.people("MSI001")


def test_a_plan_for_either_takes_it_away(lab: Lab) -> None:
    """Who has another's memory may have that mended alone."""
    held_by_c(lab)
    [fault] = lab.check().faults
    for persona in (A, fault.held_by):
        plan = lab.plan(persona=persona)
        assert {} == plan.left
        assert plan.actions
    lab.apply(plan)
    assert lab.check().ok


def test_people_are_counted_once(lab: Lab) -> None:
    """A persona that has one finding and is concerned by another is one persona."""
    said = lab.settled()
    for each in (said[1], said[5]):
        lab.lose(each)
    gate = lab.check()
    assert ({"missing-point": 2}, 2) == (gate.counts, gate.faults.people("MSC001"))
    assert all(each.held_by is None for each in gate.faults)


def test_an_archived_memory_that_was_given_away(open_lab: partial[Lab]) -> None:
    """The ledger says whose it was, and the payload who has it now."""
    lab = open_lab()
    said = lab.settled()
    adopt(lab)
    aged(lab, timedelta(minutes=1, seconds=30))
    lab.respell(said[0], persona_id=str(C))
    gate = lab.check()
    assert {"archived-tampered": 1} == gate.counts
    [fault] = gate.faults
    assert (A, C) == (fault.persona_id, fault.held_by)
    assert [fault] == list(gate.findings.chosen(persona=C))


def test_an_acknowledged_one_is_known_to_both(lab: Lab) -> None:
    """What either is told as acknowledged is the same."""
    held_by_c(lab)
    [fault] = lab.check().faults
    with lab.check() as gate, lab.postgres.session() as session:
        reconcile.acknowledge(session, gate, "known")
    known = lab.check().acknowledged
    both: tuple[UUID | None, ...] = (A, fault.held_by)
    assert [1, 1] == [len(known.chosen(persona=each)) for each in both]
