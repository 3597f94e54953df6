"""A note that a repair is about to remove a memory ends with that repair."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from memsync.stores.postgres.locks import LockKey, exclusive
from support.failing import Crash, Failing
from support.lab import A, Lab
from support.ledger import adopt, aged
from support.relayout import home
from support.releasing import released

if TYPE_CHECKING:
    from functools import partial

    from memsync.model.ids import PointId
    from memsync.reconcile.plans import Plan

FIRST = UUID(int=1)


@pytest.fixture
def lab(open_lab: partial[Lab]) -> Lab:
    """The app has written a memory of the ledger once more: the older point is the one to go."""
    lab = open_lab(layout="per-persona")
    lab.settled()
    adopt(lab)
    lab.deploy(lab.said[0], point_id=FIRST)
    assert {"duplicate-point": 1} == lab.check().counts
    return lab


def old(lab: Lab) -> PointId:
    """The point to go."""
    return lab.place(lab.said[0]).point_id


def cut_short(lab: Lab, *, after: bool) -> Plan:
    """Remove the further memory, and be killed before that or after."""
    plan = lab.plan()

    class Killed(Failing):
        def delete(self, *args: object, **more: object) -> None:
            self.at = len(self.calls) + 1
            super().delete(*args, **more)  # type: ignore[arg-type]

    with pytest.raises(Crash):
        lab.apply(plan, Killed(lab.vectors, after=after, error=Crash))
    return plan


@pytest.mark.parametrize("adopted", [False, True])
def test_a_loss_after_a_removal_that_never_came(lab: Lab, *, adopted: bool) -> None:
    """The run was killed before it removed the point, and is never repeated."""
    cut_short(lab, after=False)
    assert old(lab) == lab.point(old(lab), home(A)).id
    aged(lab, timedelta(seconds=30))
    if adopted:
        adopt(lab)
    assert lab.check().ok
    lab.vectors.delete(home(A), [old(lab)])
    assert {"archived-missing": 1} == lab.check().counts


def test_while_the_repair_is_at_work(lab: Lab) -> None:
    """What it removes at this very moment is no loss."""
    cut_short(lab, after=True)
    aged(lab, timedelta(seconds=30))
    with released(lab.url), exclusive(lab.postgres, LockKey.REPAIR, "repair"):
        assert lab.check().ok
    assert {"archived-missing": 1} == lab.check().counts


def test_a_removal_that_was_cut_short_is_finished(lab: Lab) -> None:
    """The run is repeated; the point stays away, and that is no loss, then or later."""
    plan = cut_short(lab, after=True)
    lab.apply(plan)
    assert lab.check().ok
    aged(lab, timedelta(seconds=30))
    assert lab.check().ok
    adopt(lab)
    assert lab.check().ok


def test_what_came_back_may_be_lost_again(lab: Lab) -> None:
    """An undo brings the point back; from then on its loss is told."""
    plan = lab.plan()
    lab.apply(plan)
    lab.undo(plan)
    aged(lab, timedelta(seconds=30))
    lab.vectors.delete(home(A), [old(lab)])
    assert {"archived-missing": 1} == lab.check().counts


def test_what_an_undo_removes_is_no_loss(open_lab: partial[Lab]) -> None:
    """It takes a memory away that had never been there before the run; then its rows go."""
    lab = open_lab()
    lab.settled()
    lab.sql("DELETE FROM memsync.memories WHERE anchor_id = %(id)s", id=lab.said[0].anchor_id)
    lab.lose(lab.said[0])
    plan = lab.plan()
    lab.apply(plan)
    lab.undo(plan)
    assert {"missing-point": 1} == lab.check().counts
    aged(lab, timedelta(seconds=30))
    assert lab.check().ok
