"""The way back to the app's own layout, with and without its old collections, and retirement."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING

import pytest

from memsync import reconcile
from memsync.errors import GateClosed, PartlyDone
from memsync.reconcile import relayout
from memsync.reconcile.acknowledged import Acknowledgements
from memsync.reconcile.baseline import drop_by_id
from memsync.reconcile.fence import repairing
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.record import recorded
from memsync.stores.vectors.protocol import IndexKind
from support.failing import Crash, Failing
from support.lab import ADA, DIMS, A, B, C, Lab, embed
from support.ledger import adopt
from support.raw_vectors import INFINITE, NONE, write_raw
from support.relayout import (
    CLASH,
    EMBEDDER,
    back,
    crashes,
    deploy,
    follow,
    found_as_app,
    home,
    of_app,
    retire,
    say,
    to_shared,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memsync.model.records import Exchange


# ---------------------------------------------------------------------- and back


def test_there_and_back_is_where_it_was(deployed: Lab) -> None:
    """Nothing was written in between, so nothing is written on the way back."""
    before = of_app(deployed)
    to_shared(deployed)
    changed = back(deployed)

    assert (0, 0, 0) == (changed.copied, changed.replaced, changed.left)
    assert before == of_app(deployed)
    assert changed.audit
    assert changed.audit.ok
    assert Layout.PER_PERSONA is deployed.ltm.layout
    assert 10 == deployed.vectors.count(deployed.home)


OTHERS: Mapping[str, Mapping[str, object]] = {
    "score": {"type": "float"},
    "content": {"type": "text", "tokenizer": "word", "lowercase": True},
    "at": {"type": "datetime", "is_principal": True},
    "liked": {"type": "bool"},
    "place": {"type": "geo"},
    "guild": {"type": "keyword", "is_tenant": True},
    "createdAt": {"type": "integer", "lookup": False, "range": True},
}


def others(lab: Lab) -> Mapping[str, Mapping[str, object]]:
    """Payload indexes that memsync never makes, where the lab has a server."""
    return OTHERS if "http" in lab.vectors.label else {}


def test_retired_and_restored(deployed: Lab) -> None:
    """Ids, payloads, vectors, sizes and indexes are what they were; an empty collection too."""
    deployed.vectors.create(home(B), DIMS, {"personaId": IndexKind.KEYWORD, **others(deployed)})
    before = of_app(deployed)
    forms = {name: deployed.vectors.describe(name) for name in before}
    to_shared(deployed)

    retired = retire(deployed)

    assert (4, 11) == (retired.collections, retired.points)
    assert {} == of_app(deployed)
    assert deployed.check().ok
    assert {"enriched-content"} == {each.name for each in deployed.check().findings}
    changed = back(deployed)
    assert (4, 11, (), 0) == dataclasses.astuple(changed.restored)
    assert 0 == changed.copied
    assert before == of_app(deployed)
    assert forms == {name: deployed.vectors.describe(name) for name in before}
    assert (info := forms[home(B)])
    assert others(deployed) == info.other_indexes
    assert changed.audit
    assert changed.audit.ok


def test_what_was_written_since_comes_back(deployed: Lab) -> None:
    """New exchanges, an edited one, and one of a persona without a collection."""
    to_shared(deployed)
    retire(deployed)
    new = [*deployed.say(2), *deployed.say(1, persona=B)]
    third = deployed.said[2]
    deployed.sql(
        "UPDATE conversation_history SET content = 'edited' WHERE id = %(id)s", id=third.said_id
    )
    with deployed.postgres.session() as session:
        deployed.ltm.project(session, [third.anchor_id], lambda _: {})
    deployed.sync()
    assert deployed.audit().ok

    changed = back(deployed)

    assert (4, 1) == (changed.copied, changed.replaced)
    assert changed.audit
    assert changed.audit.ok
    for each in new:
        point = deployed.point(each.anchor_id, home(each.persona_id))
        content = f"User (persona {'b' if each.persona_id == B else 'a'}): {each.user_text}\nAda: "
        assert f"{content}{each.assistant_text}" == point.payload["content"]
        assert [str(each.said_id), str(each.anchor_id)] == point.payload["messageIds"]
        assert pytest.approx(embed([str(point.payload["content"])])[0], abs=1e-6) == point.vector
    texts = [str(dict(p)["content"]) for _, p, _ in deployed.points()[home(A)]]  # type: ignore[call-overload]
    assert 1 == sum("edited" in text for text in texts)


def test_an_archived_memory_that_memsync_made_comes_back(quick: Lab) -> None:
    """Its rows are gone; its two texts become the app's one, with the names of now."""
    to_shared(quick)
    (new,) = quick.say(1, persona=B)
    quick.sync()
    quick.sql(
        "DELETE FROM conversation_history WHERE id = ANY(%(ids)s)",
        ids=[new.anchor_id, new.said_id],
    )
    assert quick.audit().ok

    changed = back(quick)

    assert 1 == changed.copied
    payload = quick.point(new.anchor_id, home(B)).payload
    assert f"User (persona b): {new.user_text}\nAda: {new.assistant_text}" == payload["content"]
    assert "messageIds" not in payload
    assert changed.audit
    assert changed.audit.ok


def test_what_the_quarantine_no_longer_has_comes_from_the_copies(quick: Lab) -> None:
    """It has expired. Vectors, texts and ids are the same, so none without rows counts as lost."""
    adopt(quick)
    before = {p: found_as_app(quick, p, "question 1") for p in (A, C)}
    ids = {name: [each[0] for each in quick.points()[name]] for name in map(home, (A, C))}
    to_shared(quick)
    retire(quick)
    forget(quick, quick.said[0])
    quick.sql("DELETE FROM memsync.quarantine")

    changed = back(quick)

    assert 3 == len(changed.restored.incomplete)
    assert 10 == changed.copied
    assert before == {p: found_as_app(quick, p, "question 1") for p in (A, C)}
    assert ids == {name: [each[0] for each in quick.points()[name]] for name in ids}
    assert changed.audit
    assert {} == changed.audit.counts


@pytest.mark.parametrize(
    ("vector", "added"),
    [(NONE, {}), (INFINITE, {}), (None, {"other": "\ud800"}), (None, {"other": 2**64})],
    ids=["no vector", "not finite", "half a pair", "65 bits"],
)
def test_a_point_that_no_store_takes_back(
    quick: Lab, vector: list[float] | None, added: dict[str, object]
) -> None:
    """Its memory comes from the shared collection, and stops no other one."""
    to_shared(quick)
    old = quick.point(7, home(C))
    spoilt = dataclasses.replace(old, payload={**old.payload, **added})
    write_raw(quick.vectors, home(C), spoilt, list(old.vector or ()) if vector is None else vector)
    retire(quick)

    changed = back(quick)

    assert (3, 10, (home(C),), 0) == dataclasses.astuple(changed.restored)
    assert (1, True) == (changed.copied, changed.audit and changed.audit.ok)
    assert quick.point(7, home(C)).vector == quick.point(7).vector


def test_back_killed_at_any_write(open_lab: partial[Lab]) -> None:
    """The next run ends as one that was never killed."""
    lab = deploy(open_lab("memory", layout="per-persona", embedder=EMBEDDER))
    to_shared(lab)
    retire(lab)
    lab.say(2)
    lab.sync()
    whole = Failing(lab.vectors)
    back(lab, whole)
    expected = lab.memories()
    for at, after in crashes(whole.calls):
        for name in of_app(lab):
            lab.vectors.drop(name)
        lab.sql("UPDATE memsync.layout SET layout = 'shared'")
        lab.sql("UPDATE memsync.retired SET restored_at = NULL")
        follow(lab)
        with pytest.raises(Crash):
            back(lab, Failing(lab.vectors, at, after, Crash))
        follow(lab)
        back(lab)
        assert expected == lab.memories()
        assert lab.audit().ok


@pytest.mark.parametrize("meanwhile", [False, True])
def test_entries_that_nobody_would_carry_out_are_waited_for(
    open_lab: partial[Lab], *, meanwhile: bool
) -> None:
    """In the layout to come the app writes. Its own relay would hold them for good."""
    lab = deploy(open_lab(layout="per-persona", embedder=EMBEDDER, writer="app"))
    to_shared(lab)
    retire(lab)
    before, store = lab.memories(), Failing(lab.vectors)
    store.meanwhile = lambda name: name == "create" and not lab.said[7:] and lab.say(2)
    if not meanwhile:
        lab.say(2)
    with pytest.raises(
        GateClosed, match=r"2 memories wait in the outbox.*memsync sync run"
    ) as told:
        back(lab, store)
    assert meanwhile is ("what was copied stays" in str(told.value))
    assert meanwhile is ("scroll" in store.calls)
    follow(lab)
    assert Layout.SHARED is lab.ltm.layout
    assert meanwhile is (before != lab.memories())
    lab.sync()
    changed = back(lab)
    assert changed.audit
    assert (True, 0) == (changed.audit.ok, changed.audit.settling)


def test_rows_that_go_afterwards(quick: Lab) -> None:
    """The app's clock was beside the row's, so only the copy itself says of which point it is one:
    in the shared layout, until retirement, and after the way back.
    """
    first, second, *_ = quick.said
    to_shared(quick)
    forget(quick, first)
    assert quick.audit().ok
    back(quick)
    forget(quick, second)
    assert quick.audit().ok
    before = of_app(quick)
    to_shared(quick)
    retire(quick)
    back(quick)
    assert before == of_app(quick)


def test_what_the_app_deletes_afterwards_stays_deleted(quick: Lab) -> None:
    """The shared collection, which stays after a way back, has copies. No safe plan brings them."""
    to_shared(quick)
    back(quick)
    quick.unsay(*(each for each in quick.said if each.persona_id == A))
    quick.vectors.delete(home(A), [point_id for point_id, *_ in quick.points()[home(A)]])

    assert {"misplaced-point": 5} == quick.audit().counts
    assert () == quick.plan(unsafe=False).actions
    assert 5 == len(quick.plan().actions)
    quick.vectors.drop(quick.home)
    assert quick.check().ok


def forget(lab: Lab, exchange: Exchange) -> None:
    """The app removes the rows of an exchange, the oldest of its thread."""
    ids = [exchange.anchor_id, exchange.said_id]
    lab.sql("DELETE FROM conversation_history WHERE id = ANY(%(ids)s)", ids=ids)


# ---------------------------------------------------------------------- what was removed since


def test_what_a_plan_removed_since_does_not_come_back(quick: Lab) -> None:
    """Neither the point that the memory was copied from, nor an older copy of that one.

    A memory whose further point a plan removed is where it was.
    """
    second, third = quick.said[1:3]
    before = of_app(quick)
    [origin] = [p for p in quick.points()[home(A)] if "[a cat]" in str(p)]
    quick.put(999, dict(origin[1]), f"personality-{ADA}")  # type: ignore[call-overload]
    to_shared(quick)
    retire(quick)
    quick.unsay(second)
    quick.put(quick.new_id(), quick.point(third.anchor_id).payload)
    plan = quick.plan()
    assert {"orphan-point", "duplicate-point"} == {each.reason for each in plan.actions}
    quick.apply(plan)

    changed = back(quick)

    assert (3, 10, (), 2) == dataclasses.astuple(changed.restored)
    assert (0, 0) == (changed.copied, changed.left)
    assert changed.audit
    assert {} == changed.audit.counts
    kept = [each for each in before[home(A)] if each[0] != origin[0]]  # type: ignore[index]
    assert {**before, home(A): kept} == of_app(quick)


def test_a_further_point_that_was_removed_keeps_nothing_away(quick: Lab) -> None:
    """The memory stands, and its rows went: the app's own point comes back."""
    before = of_app(quick)
    to_shared(quick)
    retire(quick)
    second = quick.said[1]
    quick.put(quick.new_id(), quick.point(second.anchor_id).payload)
    plan = quick.plan()
    assert {"duplicate-point"} == {each.reason for each in plan.actions}
    quick.apply(plan)
    quick.unsay(second)

    changed = back(quick)

    assert (3, 11, (), 0) == dataclasses.astuple(changed.restored)
    assert (0, 0) == (changed.copied, changed.left)
    assert before == of_app(quick)


def test_what_was_undone_comes_back(quick: Lab) -> None:
    """The removal was taken back, or came before the collections were retired."""
    before = of_app(quick)
    to_shared(quick)
    retire(quick)
    quick.unsay(quick.said[1])
    plan = quick.plan()
    quick.apply(plan)
    quick.undo(plan)

    assert (3, 11, (), 0) == dataclasses.astuple(back(quick).restored)
    assert before == of_app(quick)


# ---------------------------------------------------------------------- retirement


def test_a_point_without_its_copy(quick: Lab) -> None:
    """An old version has written since; nothing is removed, and the collection is named."""
    to_shared(quick)
    (late,) = say(quick, 1, B)
    quick.deploy(late)
    before = quick.points()

    with pytest.raises(GateClosed, match=f"1 point of 1 collection has no copy.*{home(B)}"):
        retire(quick)
    assert before == quick.points()
    assert [] == quick.quarantined()


def test_an_acknowledged_orphan_has_a_way_out(quick: Lab) -> None:
    """No plan repairs it, so the refusal names the acknowledgement; what is told then works.

    The run that removed it cannot be undone while its collection is retired, and says so.
    """
    to_shared(quick)
    lone = quick.deploy(quick.said[1], content="User (Al): never\nAda: said")
    with quick.postgres.session() as session:
        assert {"orphan-point": 1} == reconcile.acknowledge(session, quick.audit(), "x").findings
        [known] = Acknowledgements(session).all()
    assert () == quick.plan().actions
    with pytest.raises(GateClosed, match=f"`memsync reconcile baseline drop {known.id}` ends it"):
        retire(quick)
    with quick.postgres.session() as session:
        drop_by_id(session, [known.id])
    plan = quick.plan()
    quick.apply(plan)
    retire(quick)

    with quick.postgres.session() as session:
        for ltm in (quick.ltm, None):
            [[kept], _] = reconcile.kept(session, ltm)
            assert "no" == kept.undo
            assert "1 point is of collections that were retired: " in str(kept.why_not)
    with pytest.raises(PartlyDone, match="its collection was retired; `memsync reconcile layout"):
        quick.undo(plan)
    back(quick)
    to_shared(quick)
    assert 1 == quick.undo(plan).done
    assert lone == quick.point(lone.id, home(A))


@pytest.mark.parametrize(
    ("found", "later_ms"), [("orphan-point", 20_000), ("misplaced-point", -86_400_000)]
)
def test_a_point_that_contradicts_itself(quick: Lab, found: str, later_ms: int) -> None:
    """No plan repairs it, and nobody can tell where its copy would belong. It goes when asked."""
    to_shared(quick)
    point = quick.deploy(
        quick.said[1],
        personaId=str(C),
        content="User (Al): x\nAda: y",
        createdAt=quick.said[1].created_at_ms + later_ms,
    )
    assert ({found: 1}, ()) == (quick.audit().counts, quick.plan().actions)
    with pytest.raises(GateClosed, match=r"1 point contradicts itself.*--retire --unsafe"):
        retire(quick)
    retired = retire(quick, unsafe=True)
    assert (3, 12, 1) == (retired.collections, retired.points, retired.without_copy)
    assert {} == quick.audit().counts
    back(quick)
    assert point == quick.point(point.id, home(A))


def test_a_copy_that_was_removed(quick: Lab) -> None:
    """The only memory of an archived exchange is the old one."""
    to_shared(quick)
    quick.vectors.delete(quick.home, [7])
    with pytest.raises(GateClosed, match=home(C)):
        retire(quick)


def test_a_point_of_which_no_copy_can_be_kept(quick: Lab) -> None:
    """Its collection stays, and stops no other one."""
    to_shared(quick)
    old = quick.point(7, home(C))
    spoilt = dataclasses.replace(old, payload={**old.payload, "score": math.nan})
    write_raw(quick.vectors, home(C), spoilt, list(old.vector or ()))
    with pytest.raises(PartlyDone, match=f"2 collections.*{home(C)}/7: .*NaN or infinity") as told:
        retire(quick)
    assert 6 == told.value.fields["points"]
    assert [home(C)] == list(of_app(quick))
    assert {home(C)} == told.value.fields["left"].keys()  # type: ignore[attr-defined]  # a mapping
    assert quick.check().ok
    quick.vectors.upsert(home(C), [old])
    assert 5 == retire(quick).points


def test_not_in_the_apps_own_layout(quick: Lab) -> None:
    """It reads these collections."""
    with pytest.raises(GateClosed, match="layout set shared"):
        retire(quick)


def test_a_collection_that_cannot_be_made_anew(quick: Lab) -> None:
    """Its vectors are compared otherwise."""
    to_shared(quick)
    failing = Failing(quick.vectors)
    other = dataclasses.replace(quick.vectors.describe(home(A)), distance="Dot")  # type: ignore[type-var]
    failing.describe = lambda name: other if name == home(A) else quick.vectors.describe(name)  # type: ignore[method-assign,assignment]
    with pytest.raises(GateClosed, match="by Dot"):
        retire(quick, failing)
    assert [] == quick.quarantined()


def another(lab: Lab) -> None:
    """An old version writes a memory of its own."""
    lab.deploy(lab.said[0])


def other_words(lab: Lab) -> None:
    """An old version writes another memory over one of its own, so their number stays."""
    lab.put(CLASH, {**lab.point(CLASH, home(A)).payload, "content": "User (Al): new"}, home(A))


@pytest.mark.parametrize("write", [another, other_words])
@pytest.mark.parametrize("moved", [0, 5], ids=["before it is moved", "before it is dropped"])
def test_something_written_while_it_is_moved(
    quick: Lab, write: Callable[[Lab], None], moved: int
) -> None:
    """The collection stays, with what came. It is half done, until the next one ends it."""
    to_shared(quick)
    written: list[dict[str, list[object]]] = []

    def meanwhile(name: str) -> None:
        if name == "scroll" and moving(quick) == moved and not written:
            write(quick)
            written.append(of_app(quick))

    with pytest.raises(GateClosed, match="holds other points than when it was compared"):
        retire(quick, Failing(quick.vectors, meanwhile=meanwhile))
    assert written == [of_app(quick)]
    assert "unfinished-layout-change" in quick.check().counts
    with repairing(quick.postgres, quick.ltm):
        assert "unfinished-layout-change" not in quick.check().counts, "somebody is at work"


def test_what_was_removed_after_a_retirement_was_cut_short_stays_removed(quick: Lab) -> None:
    """Its point was moved once, and the next run moves what stands then. The memory has a copy."""
    to_shared(quick)
    [liked] = [i for i, p, _ in quick.points()[home(A)] if dict(p).get("liked")]  # type: ignore[call-overload]
    late = partial(quick.deploy, quick.said[0], point_id=999)

    with pytest.raises(GateClosed, match="the first is 999"):
        retire(quick, Failing(quick.vectors, meanwhile=lambda _: moving(quick) == 5 and late()))
    quick.vectors.delete(home(A), [999, liked])
    retire(quick)
    changed = back(quick)
    assert (10, 1) == (changed.restored.points, changed.copied)
    assert 5 == quick.vectors.count(home(A))


def moving(lab: Lab) -> int | None:
    """How many points of A's are in the quarantine; None before they are moved."""
    if not lab.sql("SELECT 1 FROM memsync.retired WHERE collection = %(c)s", c=home(A)):
        return None
    return sum(name == home(A) for name, _ in lab.quarantined())


@pytest.mark.parametrize("store", ["memory", pytest.param("edge", marks=pytest.mark.slow)])
def test_retirement_killed_at_any_write(open_lab: partial[Lab], store: str) -> None:
    """The next run finishes it under the same id, and the way back finds everything."""
    lab = deploy(open_lab(store, layout="per-persona", embedder=EMBEDDER))
    before = of_app(lab)
    to_shared(lab)
    whole = Failing(lab.vectors)
    retire(lab, whole)
    back(lab)
    for at, after in crashes(whole.calls):
        to_shared(lab)
        with pytest.raises(Crash):
            retire(lab, Failing(lab.vectors, at, after, Crash))
        retire(lab)
        assert {} == of_app(lab)
        assert lab.audit().ok
        assert 1 == len(
            lab.sql("SELECT DISTINCT run_id FROM memsync.retired WHERE restored_at IS NULL")
        )
        back(lab)
        assert before == of_app(lab)


# ---------------------------------------------------------------------- looking


def test_what_it_looks_like(quick: Lab) -> None:
    """Kinds, what waits, and what lies in the quarantine; nothing is written."""
    with quick.postgres.session() as session:
        seen = relayout.look(session, quick.ltm, quick.settings)
        assert not seen.is_recorded
        assert recorded(session) is None
    assert {"persona-*": (2, 10), "personality-*": (1, 1)} == dict(seen.kinds)
    assert {f"personality-{ADA}": 1} == dict(seen.waiting)

    to_shared(quick)
    with quick.postgres.session() as session:
        seen = relayout.look(session, quick.ltm, quick.settings)
    assert (Layout.SHARED, True) == (seen.layout, seen.is_recorded)
    assert {home(A): 5, home(C): 5, f"personality-{ADA}": 1} == dict(seen.waiting)

    retired = retire(quick)
    with quick.postgres.session() as session:
        seen = relayout.look(session, quick.ltm, quick.settings)
    assert {} == dict(seen.waiting)
    assert {retired.run_id: relayout.Away(3, 11, 11)} == dict(seen.retired)
    quick.sql("DELETE FROM memsync.quarantine WHERE collection = %(c)s", c=home(A))
    with quick.postgres.session() as session:
        seen = relayout.look(session, quick.ltm, quick.settings)
    assert {retired.run_id: relayout.Away(3, 11, 6)} == dict(seen.retired)
