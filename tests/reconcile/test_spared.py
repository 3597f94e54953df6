"""A plan spares a point of which a finding is acknowledged: a person decided to leave it."""

from __future__ import annotations

from functools import partial

import pytest

from memsync import reconcile
from memsync.cli.plans import print_plan
from memsync.reconcile.acknowledged import Acknowledgements
from memsync.reconcile.plans import Plan
from memsync.reconcile.seen_vectors import Verify
from memsync.stores.ltm.layouts import Layout
from support.lab import Lab, as_told
from support.laws.base import spelled
from support.laws.coverage import duplicate
from support.raw_vectors import ZERO, with_vector


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return open_lab(layout=request.param.value)


def acknowledge(lab: Lab, name: str) -> None:
    with lab.check() as gate, lab.postgres.session() as session:
        reconcile.acknowledge(
            session, gate, "known", gate.findings.chosen(lambda k: k.name == name)
        )


def two_of_one(lab: Lab) -> str:
    """Two findings of one point, one of them acknowledged. Returns the name of the other."""
    said = lab.settled()
    key = "createdAt" if lab.ltm.layout is Layout.PER_PERSONA else "created_at"
    told = {"content": None, "text": as_told(said[0])}
    lab.respell(said[0], **{key: said[0].created_at_ms / 1000, **told})
    names = sorted(lab.check().counts)
    assert 2 <= len(names), names
    acknowledge(lab, names[0])
    return names[1]


def test_a_point_with_an_acknowledged_finding_is_spared(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its other finding is told and not mended; without the acknowledgement both are."""
    other = two_of_one(lab)
    before = lab.points()
    gate = lab.check()
    assert other in gate.counts
    plan = lab.plan(gate)
    assert ((), gate.counts) == (plan.actions, plan.spared)
    assert {} == plan.left
    print_plan(plan)
    said = capsys.readouterr().out
    assert f"another finding of the same point is acknowledged: 1 {other}. " in said
    assert "memsync reconcile baseline list" in said
    lab.apply(plan)
    assert before == lab.points()
    assert lab.check().counts == gate.counts
    with lab.postgres.session() as session:
        table = Acknowledgements(session)
        table.drop(list(table.all()))
    plan = lab.plan()
    assert {} == plan.spared
    lab.apply(plan)
    assert lab.check().ok


def test_a_persona_s_plan_spares_it_too(lab: Lab) -> None:
    """However little is planned, everything that is acknowledged counts."""
    two_of_one(lab)
    plan = lab.plan(persona=lab.said[0].persona_id)
    assert () == plan.actions
    assert plan.spared


def test_a_finding_that_was_not_looked_for_spares_too(lab: Lab) -> None:
    """Vectors are looked at only where that is asked for, and the point stays what it is."""
    said = lab.settled()
    place = lab.place(said[0])
    lab.respell(said[0], **spelled(lab, said[0], created_at=said[0].created_at_ms / 1000))
    lab.verify = Verify()
    with_vector(lab, said[0], ZERO)
    acknowledge(lab, "vector-zero")
    lab.verify = None
    before = lab.point(place.point_id, place.collection)
    for persona in (None, said[0].persona_id):
        plan = lab.plan(persona=persona)
        assert ((), {"wrong-time-unit": 1}) == (plan.actions, plan.spared)
    lab.respell(said[1], **spelled(lab, said[1], created_at=said[1].created_at_ms / 1000))
    plan = lab.plan()
    assert {"wrong-time-unit": 1} == plan.spared
    assert [lab.place(said[1])] == [each.place for each in plan.actions]
    assert before == lab.point(place.point_id, place.collection)


def test_other_points_are_mended_as_ever(open_lab: partial[Lab]) -> None:
    """A duplicate goes, though a finding of the memory that stays is acknowledged."""
    lab = open_lab()
    said = lab.settled()
    lab.respell(said[0], created_at=said[0].created_at_ms / 1000)
    acknowledge(lab, "wrong-time-unit")
    duplicate(lab, said)
    assert {"duplicate-point": 1} == lab.check().counts
    plan = lab.plan()
    assert {} == plan.spared
    lab.apply(plan)
    assert ({}, 1) == (lab.check().counts, len(lab.check().acknowledged))


def test_a_saved_plan_of_before_spares_nothing(lab: Lab) -> None:
    """A file without that number is read all the same."""
    lab.lose(lab.settled()[0])
    text = lab.plan().to_json()
    assert '"spared"' not in text
    assert {} == Plan.from_json(text, "plan.json").spared
