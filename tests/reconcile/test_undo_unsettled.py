"""Tests of taking back a run that ended before it knew which of its writes were done."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from memsync.errors import PartlyDone, StoreUnreachable
from memsync.reconcile.apply import Applied
from memsync.reconcile.plans import ActionKind
from memsync.reconcile.seen_vectors import Verify
from memsync.reconcile.undoable import kept
from memsync.stores.ltm import LongTermMemory
from support.failing import Crash, Failing
from support.lab import DIMS, Lab
from support.ledger import adopt
from support.repairs import alike, ends_at, restore, settled, spoiled


@pytest.fixture(params=["shared", "per-persona"])
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each layout."""
    return open_lab(layout=request.param)


class Slow(Failing):
    """A server that takes writes of points, and does them when it is waited for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.taken: list[Callable[[], object]] = []
        for name in ("upsert", "overwrite_payloads", "delete"):
            setattr(self, name, partial(self.take, getattr(self.store, name)))

    def take(self, write: Callable[..., object], *given: Any, **named: Any) -> None:
        """Do it at once where it has caught up."""
        if "catch_up" in self.calls:
            write(*given, **named)
        else:
            self.taken.append(partial(write, *given, **named))
            raise StoreUnreachable("timed out")

    def catch_up(self, collection: str) -> None:
        super().catch_up(collection)
        while self.taken:
            self.taken.pop(0)()


def away(name: str) -> None:
    """Answer no call that waits for the store."""
    if name == "catch_up":
        raise StoreUnreachable("timed out")


def test_a_write_that_is_still_to_come_is_waited_for(lab: Lab) -> None:
    """The run ended without an answer, and what it sent is done later. None is settled before."""
    plan = spoiled(lab).plan()
    before = lab.points()
    for kind in ActionKind:
        restore(lab, before)
        if first := [each.kind for each in plan.actions].index(kind):
            lab.apply(plan, limit=first)
        slow = Slow(lab.vectors)
        with pytest.raises(StoreUnreachable):
            lab.apply(plan, slow)
        assert slow.taken
        with pytest.raises(StoreUnreachable):
            lab.undo(plan, Failing(lab.vectors, meanwhile=away))
        assert [] == lab.sql("SELECT 1 FROM memsync.journal WHERE undone_at IS NOT NULL")
        lab.undo(plan, slow)
        assert [] == slow.taken
        assert alike(before, lab.points(), exactly=False), kind


class Killed(Failing):
    """The process dies before a point is written or removed."""

    def upsert(self, *_: Any, **__: Any) -> None:
        raise Crash

    delete = upsert


@pytest.mark.parametrize("who", ["plan", "relay"])
def test_what_others_wrote_after_a_run_that_wrote_nothing_stays(lab: Lab, who: str) -> None:
    """The run was killed before its write. Another one writes the same, to the letter."""
    [said, *_] = settled(lab)
    lab.lose(said)
    place, plan = lab.place(said), lab.plan()
    with pytest.raises(Crash):
        lab.apply(plan, Killed(lab.vectors))
    if who == "plan":
        lab.apply(lab.plan())
    else:
        own = lab.settings.model_copy(update={"writer": "memsync"})
        lab.ltm = LongTermMemory(lab.vectors, own, lab.ltm.embedder, lab.ltm.layout)
        lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(i)s)", i=said.anchor_id)
        lab.sync()
    written = lab.point(place.point_id, place.collection)
    with pytest.raises(
        PartlyDone, match="the relay, another run or an adoption has noted it since"
    ):
        lab.undo(plan)
    assert Applied(0, 1, by_others=1) == lab.apply(plan)
    assert 0 == lab.undo(plan).done
    assert written == lab.point(place.point_id, place.collection)


def test_a_vector_that_somebody_noted_since_is_not_called_undone(open_lab: partial[Lab]) -> None:
    """The payload is the same before and after, so it tells nothing."""
    lab = open_lab()
    [said, *_] = settled(lab)
    place = lab.place(said)
    old = replace(lab.point(place.point_id, place.collection), vector=(0.0,) * DIMS)
    lab.vectors.upsert(place.collection, [old])
    lab.verify = Verify()
    plan = lab.plan()
    with pytest.raises(Crash), ends_at(3, after=False):
        lab.apply(plan)
    adopt(lab)
    for _ in range(2):
        with pytest.raises(PartlyDone, match="noted it since"):
            lab.undo(plan)


def test_an_undo_that_ends_early_is_not_somebody_else(lab: Lab) -> None:
    """The run was killed after its write, and its undo before it removed the point again."""
    [said, *_] = settled(lab)
    adopt(lab)
    lab.lose(said)
    before, plan = lab.memories(), lab.plan()
    with pytest.raises(Crash), ends_at(3, after=False):
        lab.apply(plan)
    assert before != lab.memories()
    with lab.postgres.session() as session:
        [[begun], _] = kept(session, lab.ltm)
    assert ("whole", 0, 1, 0) == (begun.undo, begun.run.done, begun.run.unsettled, begun.run.left)

    with pytest.raises(Crash):
        lab.undo(plan, Killed(lab.vectors))
    assert 1 == lab.undo(plan).done
    assert before == lab.memories()
    with lab.postgres.session() as session:
        [[undone], _] = kept(session, lab.ltm)
    assert ("no", "it is undone") == (undone.undo, undone.why_not)
