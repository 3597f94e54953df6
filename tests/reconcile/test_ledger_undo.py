"""The ledger of memories after an undo says what it said before the run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from memsync.errors import PartlyDone
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Ledger
from support.failing import Crash
from support.lab import Lab
from support.laws.base import spelled
from support.laws.coverage import duplicate, foreign_id, missing, orphan
from support.laws.data import stale, stale_as_deployed, stale_row, wrong_text_key
from support.laws.isolation import mismatch
from support.ledger import ENTRIES, adopt, aged, agrees, other_words
from support.repairs import ends_at

if TYPE_CHECKING:
    from functools import partial

    from memsync.reconcile.plans import Plan


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return open_lab(layout=request.param.value)


KNOWN = {
    "shared": [missing, stale_row, wrong_text_key, duplicate, foreign_id, mismatch, orphan],
    "per-persona": [missing, stale_as_deployed],
}
UNKNOWN = {"shared": [missing, stale], "per-persona": [missing, stale_as_deployed]}


@pytest.mark.parametrize(
    ("layout", "plant", "knows"),
    [
        *((layout, plant, True) for layout, plants in KNOWN.items() for plant in plants),
        *((layout, plant, False) for layout, plants in UNKNOWN.items() for plant in plants),
    ],
)
def test_a_repair_and_its_undo_keep_the_ledger_in_step(
    open_lab: partial[Lab], layout: str, plant: Any, *, knows: bool
) -> None:
    """After an apply what the ledger has stands as it says; after its undo it is as before."""
    lab = open_lab(layout=layout)
    said = lab.settled()
    adopt(lab)
    plant(lab, said)
    adopt(lab)
    if not knows:
        lab.sql("TRUNCATE memsync.memories")
    before = lab.sql(ENTRIES)
    plan = lab.plan()
    lab.apply(plan)
    assert knows is (len(lab.exchanges()) == agrees(lab))
    assert lab.check().ok
    lab.undo(plan)
    assert before == lab.sql(ENTRIES)


@pytest.mark.parametrize("killed", ["apply", "undo"])
def test_an_undo_hides_no_loss(lab: Lab, killed: str) -> None:
    """A memory is lost, brought back by a run, and the run is undone; then its rows go.

    One of the two is killed after its write, before it settles; the undo is repeated.
    """
    said = lab.settled()
    adopt(lab)
    before = lab.sql(ENTRIES)
    lab.lose(said[0])
    plan = lab.plan()
    if killed == "apply":
        with ends_at(3, after=False), pytest.raises(Crash):
            lab.apply(plan)
    else:
        lab.apply(plan)
        with ends_at(2, after=False), pytest.raises(Crash):
            lab.undo(plan)
    assert (killed == "apply") is made(lab, plan)
    lab.undo(plan)
    lab.undo(plan)
    assert before == lab.sql(ENTRIES)
    aged(lab, timedelta(seconds=30))
    assert {"archived-missing": 1} == lab.check().counts


def made(lab: Lab, plan: Plan) -> bool:
    """Whether the point of the plan's only action stands."""
    [action] = plan.actions
    return bool(lab.vectors.retrieve(action.place.collection, [action.place.point_id]))


def test_what_a_repair_had_removed_before_the_run_is_removed_again(open_lab: partial[Lab]) -> None:
    """The row of a removed memory came back, a run made the memory, and the run is undone."""
    lab = open_lab()
    said = lab.settled()
    lab.lose(said[0])
    lab.sql(
        "UPDATE memsync.memories SET removed = true WHERE anchor_id = %(i)s", i=said[0].anchor_id
    )
    before, plan = lab.sql(ENTRIES), lab.plan()
    lab.apply(plan)
    assert len(said) == agrees(lab)
    lab.undo(plan)
    assert before == lab.sql(ENTRIES)


def test_an_undo_of_what_others_have_lost_since_hides_no_loss(lab: Lab) -> None:
    """A run makes a memory; its rows go, and then somebody removes it."""
    said = lab.settled()
    adopt(lab)
    lab.sql("DELETE FROM memsync.memories WHERE anchor_id = %(id)s", id=said[0].anchor_id)
    lab.lose(said[0])
    plan = lab.plan()
    lab.apply(plan)
    aged(lab, timedelta(seconds=30))
    lab.vectors.delete(plan.actions[0].place.collection, [plan.actions[0].place.point_id])
    assert {"archived-missing": 1} == lab.check().counts
    lab.undo(plan)
    assert {"archived-missing": 1} == lab.check().counts


@pytest.mark.parametrize("since", ["adopted", "archived"])
def test_what_was_noted_since_stays_in_the_ledger(lab: Lab, since: str) -> None:
    """An undo of a payload's repair is no reason to forget a memory that somebody adopted, nor
    that it was archived.
    """
    said = lab.settled()
    lab.sql("TRUNCATE memsync.memories")
    lab.respell(said[0], **spelled(lab, said[0], created_at=said[0].created_at_ms // 1000))
    plan = lab.plan(unsafe=False)
    lab.apply(plan)
    if since == "adopted":
        adopt(lab)
    else:
        aged(lab, timedelta(seconds=30))
        with lab.postgres.session() as session:
            assert 1 == Ledger(session).archive()
    noted = lab.sql(ENTRIES)
    lab.undo(plan)
    assert noted == lab.sql(ENTRIES)


def test_an_undo_of_a_run_of_an_earlier_version(lab: Lab) -> None:
    """The journal does not say what the ledger said: a point that the undo removes has gone."""
    said = lab.settled()
    adopt(lab)
    lab.lose(said[0])
    plan = lab.plan()
    lab.apply(plan)
    lab.sql("UPDATE memsync.journal SET noted_before = NULL")
    lab.undo(plan)
    assert [True] == [row[5] for row in lab.sql(ENTRIES) if row[2] == said[0].anchor_id]


def test_an_undo_removes_no_memory_whose_rows_are_gone(lab: Lab) -> None:
    """What the run had made is the only trace by then. What it removes is in the quarantine."""
    said = lab.settled()
    adopt(lab)
    lab.lose(said[0])
    lab.lose(said[1])
    plan = lab.plan()
    lab.apply(plan)
    aged(lab, timedelta(seconds=30))
    with pytest.raises(PartlyDone, match="only trace"):
        lab.undo(plan)
    assert {"missing-point": 1} == lab.check().counts
    assert 1 == lab.check().archived
    kept = lab.sql("SELECT reason, vector IS NULL FROM memsync.quarantine WHERE reason = 'undone'")
    assert [("undone", False)] == kept


def test_an_undo_does_not_make_wrong_words_the_truth(lab: Lab) -> None:
    """A changed memory is mended, the mending is undone, and then its rows go."""
    said = lab.settled()
    adopt(lab)
    lab.respell(said[0], **other_words(lab))
    plan = lab.plan()
    lab.apply(plan)
    lab.undo(plan)
    aged(lab, timedelta(seconds=30))
    assert {"archived-tampered": 1} == lab.check().counts
