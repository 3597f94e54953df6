"""Adopting a part anew: what one persona has, or single points, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from memsync import reconcile
from memsync.cli.findings import print_audit
from memsync.cli.views import View
from memsync.errors import GateClosed, IncompleteAudit, InvalidInput
from memsync.model.records import Place
from memsync.reconcile import Part
from memsync.stores.ltm.layouts import Layout
from support.lab import NOBODY, A, C, Lab
from support.ledger import ENTRIES, adopt, aged, other_words
from support.releasing import released

if TYPE_CHECKING:
    from memsync.model.records import Exchange

FAULTS = {"archived-missing": 2, "archived-tampered": 2}


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return open_lab(layout=request.param.value)


def adopt_part(lab: Lab, *, anew: bool = True, **part: Any) -> reconcile.Adopted:
    chosen = Part(**{name: frozenset(some) for name, some in part.items()})
    with released(lab.url):
        return reconcile.adopt(lab.postgres, lab.ltm, lab.settings, anew=anew, part=chosen)


def spoiled(lab: Lab) -> dict[UUID, tuple[Exchange, Exchange]]:
    """Of each persona an archived memory that was changed, and one that was deleted."""
    said = lab.settled()
    adopt(lab)
    aged(lab, timedelta(hours=1))
    found = {}
    for persona in (A, C):
        own = [each for each in said if each.persona_id == persona]
        lab.respell(own[0], **other_words(lab))
        lab.lose(own[1])
        found[persona] = (own[0], own[1])
    # A history that is empty is another matter.
    lab.say()
    if lab.ltm.layout is Layout.SHARED:
        lab.sync()
    else:
        lab.deployed |= {each.anchor_id: lab.deploy(each).id for each in lab.said[-1:]}
        lab.sql("DELETE FROM memsync.outbox")
    assert FAULTS == lab.check().counts
    return found


def entries_of(lab: Lab, persona: UUID) -> list[Any]:
    ids = lab.sql("SELECT point_id FROM memsync.memories WHERE persona_id = %(p)s", p=persona)
    return [row for row in lab.sql(ENTRIES) if (row[1],) in ids]


def test_one_persona_is_taken_as_it_stands(lab: Lab) -> None:
    """What was found of others stays found, and nothing is written of them."""
    spoiled(lab)
    before, points = entries_of(lab, C), lab.points()
    done = adopt_part(lab, personas=[A])
    assert (1, 1, 0) == (done.changed, done.dropped, done.left_out)
    assert (4, 3) == (done.memories, done.archived)
    assert {"archived-missing": 1, "archived-tampered": 1} == lab.check().counts
    assert {C} == {each.persona_id for each in lab.check().faults}
    assert (before, points) == (entries_of(lab, C), lab.points())
    adopt_part(lab, personas=[C])
    assert lab.check().ok


def test_single_points_are_taken_as_they_stand(lab: Lab) -> None:
    """One that was changed, one that is gone; the next to them stays found."""
    changed, gone = spoiled(lab)[A]
    for place, why in ((lab.place(changed), "give --anew"), (lab.place(gone), "--anew takes it")):
        assert why in adopt_part(lab, points=[place], anew=False).points[str(place)]
    done = adopt_part(lab, points=[lab.place(changed)])
    assert (1, 1, 1, 0) == (done.memories, done.archived, done.changed, done.dropped)
    said = "written down as it stands, which is not what was written down before"
    assert {str(lab.place(changed)): said} == done.points
    assert {"archived-missing": 2, "archived-tampered": 1} == lab.check().counts
    done = adopt_part(lab, points=[lab.place(gone)])
    assert (0, 0, 0, 1) == (done.memories, done.archived, done.changed, done.dropped)
    assert {str(lab.place(gone)): "taken out of the ledger: it stands nowhere any more"} == (
        done.points
    )
    assert {"archived-missing": 1, "archived-tampered": 1} == lab.check().counts


def test_each_finding_names_the_command_for_it_alone(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Carrying out what each of them names leaves a clean gate."""
    spoiled(lab)
    print_audit(lab.check(), View(limit=0))
    said = capsys.readouterr().out
    assert sum(FAULTS.values()) == said.count("where it was meant: memsync reconcile adopt --anew")
    for fault in lab.check().faults:
        assert fault.accept_command is not None
        command, _, point = fault.accept_command.rpartition(" ")
        assert "memsync reconcile adopt --anew --point" == command
        place = Place.read(point)
        assert place is not None
        adopt_part(lab, points=[place])
    assert lab.check().ok


def test_a_part_whose_rows_vanished_is_let_go(lab: Lab) -> None:
    """Then its memory is an orphan, and the other one is still told."""
    said = lab.settled()
    adopt(lab)
    lab.unsay(said[1], said[5])
    assert {"row-vanished": 2} == lab.check().counts
    place = lab.place(said[1])
    told = adopt_part(lab, points=[place], anew=False).points[str(place)]
    assert "left out, because of row-vanished; where that was meant, give --anew" == told
    done = adopt_part(lab, personas=[A], points=[place])
    assert 1 == done.dropped
    assert done.points[str(place)].startswith("taken out of the ledger: its rows are gone, ")
    assert {"row-vanished": 1, "orphan-point": 1} == lab.check().counts


def test_a_part_leaves_everything_else_in_the_ledger(lab: Lab) -> None:
    """A memory with another fault too: it is not trusted, and its entry stays."""
    changed, _ = spoiled(lab)[A]
    before = lab.sql(ENTRIES)
    at = changed.created_at_ms // 1000
    key = "createdAt" if lab.ltm.layout is Layout.PER_PERSONA else "created_at"
    lab.respell(changed, **{key: at})
    done = adopt_part(lab, points=[lab.place(changed)])
    assert (0, 1, 0) == (done.memories, done.left_out, done.dropped)
    [told] = done.points.values()
    assert told.startswith("left out, because of wrong-time-unit")
    assert before == lab.sql(ENTRIES)


def test_an_unknown_part_is_refused(lab: Lab) -> None:
    """A slip of the keyboard would read as done. Nothing is written."""
    place = lab.place(spoiled(lab)[A][0])
    before = lab.sql(ENTRIES)
    with pytest.raises(InvalidInput, match=f"no persona {NOBODY}"):
        adopt_part(lab, personas=[A, NOBODY])
    unknown = Place(place.collection, uuid4())
    with pytest.raises(InvalidInput, match=str(unknown)):
        adopt_part(lab, points=[place, unknown])
    with pytest.raises(InvalidInput, match="keeps no memories there"):
        adopt_part(lab, points=[Place("memsync-meta", place.point_id)])
    assert before == lab.sql(ENTRIES)


def test_a_part_is_no_answer_to_two_times(lab: Lab) -> None:
    """Whether the stores are of one time concerns everything."""
    spoiled(lab)
    if not lab.sql("SELECT settled FROM memsync.mark WHERE is_set"):
        adopt(lab)
    lab.sql("UPDATE memsync.mark SET settled = settled - 1")
    with pytest.raises(GateClosed, match="two times"):
        adopt_part(lab, personas=[A])
    assert 1 == lab.check().counts["store-rewound"]


def test_a_part_of_an_empty_history(lab: Lab) -> None:
    """Between the schema and the data of a restore every memory looks archived."""
    lab.settled()
    adopt(lab)
    lab.sql("DELETE FROM conversation_history")
    with pytest.raises(IncompleteAudit, match="is empty"):
        adopt_part(lab, personas=[A])


def test_a_persona_who_is_gone_is_let_go(open_lab: partial[Lab]) -> None:
    """The app deletes a persona with everything that it had; the ledger alone knows of it."""
    lab = open_lab()
    said = lab.settled()
    adopt(lab)
    lab.sql("DELETE FROM conversation_history WHERE persona_id = %(c)s", c=C)
    for each in said[4:]:
        lab.lose(each)
    lab.sql(
        "UPDATE memsync.memories SET persona_id = %(n)s WHERE persona_id = %(c)s", n=NOBODY, c=C
    )
    assert {"archived-missing": 4} == lab.check().counts
    assert 4 == adopt_part(lab, personas=[NOBODY]).dropped
    assert lab.check().ok


def test_a_memory_that_was_given_to_another_persona_is_no_part_of_the_holders(
    open_lab: partial[Lab],
) -> None:
    """Accepting what a persona's own memories became makes nobody else's words its own."""
    lab = open_lab()
    said = lab.settled(6)
    of_a, of_c = (next(e for e in said if e.persona_id == each) for each in (A, C))
    aged(lab, timedelta(minutes=6, seconds=30))
    standing = {each.anchor_id for each in lab.exchanges()}
    assert standing
    assert standing.isdisjoint({of_a.anchor_id, of_c.anchor_id})
    lab.respell(of_c, persona_id=str(A))
    before = lab.audit(deep=True).counts
    adopt_part(lab, personas=[A])
    assert {"archived-tampered": 1} == before == lab.audit(deep=True).counts
