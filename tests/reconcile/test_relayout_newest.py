"""A change of layout brings back what stood last, whichever of the layouts it was written in."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from memsync.errors import GateClosed
from memsync.model.records import Point
from memsync.reconcile.returning import Returning
from memsync.stores.ltm.layouts import Layout
from support.counting import asked
from support.failing import Crash, Failing
from support.lab import A, Lab, as_told
from support.ledger import adopt
from support.relayout import CLASH, back, crashes, follow, home, of_app, retire, say, to_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from memsync.model.records import Exchange
    from memsync.reconcile.cases import Case


def edited(lab: Lab, said: Exchange, text: str) -> Exchange:
    """The message was edited, and its row says so."""
    lab.sql(
        "UPDATE conversation_history SET content = %(text)s WHERE id = %(id)s",
        text=text,
        id=said.said_id,
    )
    return lab.exchange(said.anchor_id)


def by_relay(lab: Lab, said: Exchange) -> None:
    """The relay makes the memory anew."""
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=said.anchor_id)
    lab.sync()


def by_repair(lab: Lab, said: Exchange) -> None:  # noqa: ARG001  as by_relay
    """A repair makes the memory anew."""
    lab.apply(lab.plan(unsafe=False))


REMADE = pytest.mark.parametrize("remade", [by_relay, by_repair])
WHICH = pytest.mark.parametrize("which", [0, 1, 3], ids=["skewed", "enriched", "anchor-id"])
ADOPTED = pytest.mark.parametrize("adopted", [False, True], ids=["unknown", "adopted"])
# Any two values of different kinds meet at least once; the slow suite has all of them together.
PAIRED = {
    (by_relay, 0, False, False),
    (by_relay, 1, True, True),
    (by_relay, 3, False, True),
    (by_repair, 0, True, True),
    (by_repair, 1, False, False),
    (by_repair, 3, True, False),
}
SOME_OF_EACH = pytest.mark.parametrize(
    ("remade", "which", "retired", "adopted"),
    [
        pytest.param(*case, marks=[] if case in PAIRED else [pytest.mark.slow])
        for case in itertools.product(
            [by_relay, by_repair], [0, 1, 3], [False, True], [False, True]
        )
    ],
)


def texts(lab: Lab, collection: str) -> list[str]:
    """What the memories of a collection say, one text each."""
    codec = lab.ltm.codec_of(collection)
    found = (codec.decode(dict(p)).memory for _, p, _ in lab.points()[collection])  # type: ignore[call-overload]
    return sorted(str(each.text) for each in found)


def pruned(lab: Lab, *said: Exchange) -> None:
    """Retention takes the rows, from the old end of the thread."""
    lab.unsay(*said)


@SOME_OF_EACH
def test_what_was_said_last_comes_back(
    quick: Lab,
    remade: Callable[[Lab, Exchange], None],
    which: int,
    *,
    retired: bool,
    adopted: bool,
) -> None:
    """A message was edited in the shared layout, then its rows went: the old words are gone."""
    if adopted:
        adopt(quick)
    count = len(quick.points()[home(A)])
    to_shared(quick)
    said = quick.said[which]
    edited(quick, said, "edited")
    remade(quick, said)
    assert quick.audit().ok
    if retired:
        retire(quick)
    pruned(quick, *quick.said[: which + 1])
    assert quick.audit().ok

    changed = back(quick)

    assert changed.audit
    assert changed.audit.ok
    found = texts(quick, home(A))
    assert count == len(found)
    assert 1 == sum("edited" in each for each in found)
    assert not any(said.user_text in each for each in found)
    again = of_app(quick)
    to_shared(quick)
    back(quick)
    assert again == of_app(quick)


def test_the_way_back_killed_at_any_write(quick: Lab) -> None:
    """The next run brings the newer words, and what the ledger has of them fits."""
    adopt(quick)
    to_shared(quick)
    said = quick.said[0]
    edited(quick, said, "edited")
    by_relay(quick, said)
    pruned(quick, said)
    old = quick.points()
    noted = quick.sql("SELECT collection, point_id, stored FROM memsync.memories")
    whole = Failing(quick.vectors)
    back(quick, whole)
    expected = of_app(quick)
    for at, after in crashes(whole.calls):
        for name, points in old.items():
            quick.vectors.upsert(name, [Point(i, dict(p), v) for i, p, v in points])  # type: ignore[call-overload]
        quick.sql("UPDATE memsync.layout SET layout = 'shared'")
        for collection, point_id, stored in noted:
            quick.sql(
                "UPDATE memsync.memories SET stored = %(s)s"
                " WHERE collection = %(c)s AND point_id = %(p)s",
                c=collection,
                p=point_id,
                s=stored,
            )
        follow(quick)
        with pytest.raises(Crash):
            back(quick, Failing(quick.vectors, at, after, Crash))
        follow(quick)
        if quick.ltm.layout is Layout.SHARED:
            assert back(quick).replaced <= 1
        assert expected == of_app(quick)
        assert {} == quick.audit().counts, (at, after)


@REMADE
@WHICH
def test_an_edited_message_whose_row_stands(
    quick: Lab, remade: Callable[[Lab, Exchange], None], which: int
) -> None:
    """The note of where it was copied from ties the two, also where time and words differ."""
    count = len(quick.points()[home(A)])
    to_shared(quick)
    said = quick.said[which]
    edited(quick, said, "edited")
    remade(quick, said)
    assert quick.audit().ok

    changed = back(quick)

    assert changed.audit
    assert changed.audit.ok
    found = texts(quick, home(A))
    assert count == len(found)
    assert not any(said.user_text in each for each in found)


@REMADE
@WHICH
@ADOPTED
def test_after_a_stay_in_the_apps_own_layout(
    quick: Lab, remade: Callable[[Lab, Exchange], None], which: int, *, adopted: bool
) -> None:
    """The other way: the persona's own memory was made anew since, then its rows went."""
    if adopted:
        adopt(quick)
    to_shared(quick)
    count = quick.vectors.count(quick.home)
    said = quick.said[which]
    edited(quick, said, "once")
    by_relay(quick, said)
    back(quick)
    now = edited(quick, said, "edited")
    if remade is by_repair and not quick.audit().ok:
        by_repair(quick, said)
    else:
        (point_id,) = [i for i, p, _ in quick.points()[home(A)] if "once" in str(p)]
        payload = quick.point(point_id, home(A)).payload
        quick.put(point_id, {**payload, "content": as_told(now)}, home(A))
    if adopted:
        adopt(quick)
    else:
        quick.sql("TRUNCATE memsync.memories")
    pruned(quick, *quick.said[: which + 1])
    assert quick.audit().ok

    changed = to_shared(quick)

    assert changed.audit
    assert changed.audit.ok
    found = texts(quick, quick.home)
    assert count == len(found)
    assert 1 == sum("edited" in each for each in found)
    assert not any("once" in each for each in found)
    assert not any(said.user_text in each for each in found)


@REMADE
def test_the_old_point_is_a_copy_for_ever(
    quick: Lab, remade: Callable[[Lab, Exchange], None]
) -> None:
    """It is a fact in the shared layout, before and after its rows go, and may be retired."""
    to_shared(quick)
    first = quick.said[0]
    note = quick.point(first.anchor_id).payload["brought_from"]
    quick.respell(first.anchor_id, digest="0" * 64)
    remade(quick, first)
    assert note == quick.point(first.anchor_id).payload["brought_from"]
    assert quick.audit().ok
    pruned(quick, first)
    assert {} == quick.audit().counts
    assert 11 == retire(quick).points


def edited_and_lost(lab: Lab, said: Exchange, remade: Callable[[Lab, Exchange], None]) -> None:
    """An edit, and the loss of the point; it is made anew once, for both."""
    edited(lab, said, "edited")
    lab.vectors.delete(lab.home, [said.anchor_id])
    remade(lab, said)


def lost_then_edited(lab: Lab, said: Exchange, remade: Callable[[Lab, Exchange], None]) -> None:
    """The point is made anew after each of the two."""
    lab.vectors.delete(lab.home, [said.anchor_id])
    remade(lab, said)
    edited(lab, said, "edited")
    remade(lab, said)


@pytest.mark.parametrize(
    ("harmed", "remade", "which", "beside"),
    [
        (edited_and_lost, by_repair, 2, False),
        (edited_and_lost, by_relay, 4, True),
        (lost_then_edited, by_relay, 2, True),
        (lost_then_edited, by_repair, 4, False),
    ],
)
def test_an_old_point_is_a_copy_by_its_time(
    quick: Lab,
    harmed: Callable[..., None],
    remade: Callable[[Lab, Exchange], None],
    which: int,
    *,
    beside: bool,
) -> None:
    """The point made anew has other words, and no note of where the lost one was copied from.

    Two of the old collections may have a copy, `beside` that of another exchange of this time.
    """
    said = quick.said[which]
    if beside:
        (other,) = say(quick, 1, said.persona_id)
        quick.sql(
            "UPDATE conversation_history SET channel_id = '777',"
            " created_at = created_at - %(by)s * interval '1 ms' WHERE id = ANY(%(ids)s)",
            by=other.created_at_ms - said.created_at_ms,
            ids=[other.said_id, other.anchor_id],
        )
        copied = quick.deploy(quick.exchange(other.anchor_id))
        if which == 4:
            quick.put(copied.id, copied.payload, f"personality-{other.personality_id}")
    to_shared(quick)
    copies = quick.audit().facts["legacy-copy"]

    harmed(quick, said, remade)

    audit = quick.audit()
    assert ({}, copies) == (audit.counts, audit.facts["legacy-copy"])
    if beside:
        assert copies == retire(quick).points
    changed = back(quick)
    assert changed.audit
    assert changed.audit.ok
    assert not any(said.user_text in each for each in texts(quick, home(said.persona_id)))


@pytest.mark.parametrize("lost", [False, True])
def test_in_the_apps_own_layout_as_well(quick: Lab, *, lost: bool) -> None:
    """An older collection has a copy of a memory that the app reads; the message is edited."""
    said = quick.said[4]
    edited(quick, said, "edited")
    if lost:
        quick.vectors.delete(home(said.persona_id), [12])
    assert {"missing-point" if lost else "stale-content": 1} == quick.audit().counts
    by_repair(quick, said)
    audit = quick.audit()
    # A memory that stood in an older collection alone is replaced, not copied.
    assert ({}, 0 if lost else 1) == (audit.counts, audit.facts.get("legacy-copy", 0))


def test_a_memory_of_memsyncs_is_tied_to_the_apps(quick: Lab) -> None:
    """It stood in the shared collection first, so nothing was copied over it."""
    first = quick.said[0]
    shared = quick.ltm.in_layout(Layout.SHARED, "test")
    with quick.postgres.session() as session:
        shared.project(session, [first.anchor_id], lambda *_: {})
    newer = dict(quick.point(first.anchor_id).payload)
    to_shared(quick)
    now = dict(quick.point(first.anchor_id).payload)
    assert newer.items() <= now.items()
    assert str(now["brought_from"]).startswith(home(A))
    pruned(quick, first)
    assert quick.audit().ok


def test_a_copy_that_was_changed_is_not_taken_for_newer(quick: Lab) -> None:
    """Somebody has given an archived memory other words: the old point may be all that is left."""
    to_shared(quick)
    quick.respell(CLASH, content="User (Al): before\nAda: none")
    assert "archived-tampered" in quick.audit().counts
    with pytest.raises(GateClosed, match="archived-tampered"):
        back(quick)


# ---------------------------------------------------------------------- points of other memories


def origin_of(lab: Lab, said: Exchange) -> UUID:
    """The id of the app's point that the memory in the shared collection was copied from."""
    note = str(lab.point(said.anchor_id).payload["brought_from"])
    return UUID(note.removeprefix(f"{home(A)}/"))


def test_a_point_that_is_another_exchanges_by_now(quick: Lab) -> None:
    """An old version of the app has written a new memory of nearly that time under the id."""
    to_shared(quick)
    first = quick.said[0]
    origin = origin_of(quick, first)
    (new,) = say(quick, 1)
    quick.sql(
        "UPDATE conversation_history SET created_at = created_at - %(by)s * interval '1 ms'"
        " WHERE id = ANY(%(ids)s)",
        by=new.created_at_ms - first.created_at_ms - 4000,
        ids=[new.said_id, new.anchor_id],
    )
    new = quick.exchange(new.anchor_id)
    quick.deploy(new, point_id=origin)
    theirs = quick.point(origin, home(A))

    changed = back(quick)

    assert (1, 0, 0) == (changed.copied, changed.replaced, changed.left)
    assert theirs == quick.point(origin, home(A))
    assert first.user_text in str(quick.point(first.anchor_id, home(A)).payload["content"])
    assert changed.audit
    assert changed.audit.ok


def test_a_point_that_was_changed_since_it_was_written_down(
    quick: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell whose it is: it stays, and is told; the memory comes back beside it.

    What the ledger says was asked for many of them at once.
    """
    made, calls = Returning._copy, Counter[str]()

    def alone(*given: Any) -> object:
        with asked() as statements:
            found = made(*given)
        calls.update(statements.calls)
        return found

    monkeypatch.setattr(Returning, "_copy", alone)
    adopt(quick)
    to_shared(quick)
    first = quick.said[0]
    origin = origin_of(quick, first)
    pruned(quick, first)
    quick.put(origin, {**quick.point(origin, home(A)).payload, "content": "User (Al): x"}, home(A))

    changed = back(quick)

    assert (1, 1, 0, 0) == (changed.copied, changed.beside, changed.replaced, changed.left)
    assert "User (Al): x" == quick.point(origin, home(A)).payload["content"]
    assert first.user_text in str(quick.point(first.anchor_id, home(A)).payload["content"])
    assert changed.audit
    assert {"archived-tampered": 1} == changed.audit.counts
    assert not calls


@pytest.mark.parametrize("has_row", [True, False], ids=["with its row", "without"])
def test_a_point_that_changes_while_memories_come_back(
    quick: Lab, monkeypatch: pytest.MonkeyPatch, *, has_row: bool
) -> None:
    """It was seen as the memory that is to be replaced, and is another one right before that."""
    to_shared(quick)
    first = quick.said[0]
    origin = origin_of(quick, first)
    edited(quick, first, "edited")
    by_relay(quick, first)
    if not has_row:
        pruned(quick, first)
    other = {**quick.point(origin, home(A)).payload, "content": "User (Al): x"}
    made = Returning._made
    written: list[object] = []

    def meanwhile(self: Returning, cases: Sequence[Case]) -> object:
        # The first pass only looks whether something must be embedded.
        if len(written) == 1:
            quick.put(origin, other, home(A))
        written.append(cases)
        return made(self, cases)

    monkeypatch.setattr(Returning, "_made", meanwhile)
    changed = back(quick)

    assert other == quick.point(origin, home(A)).payload
    assert 0 == changed.replaced
    assert 1 == changed.copied + changed.left
    assert "edited" in str(quick.point(first.anchor_id).payload)


# ---------------------------------------------------------------------- the quarantine


@pytest.mark.parametrize(
    "spoilt",
    [
        "payload = jsonb_set(payload::jsonb, '{content}', '\"other\"')::json",
        "vector[1] = 0.5",
        "vector = NULL",
    ],
)
def test_a_damaged_copy_is_not_restored(quick: Lab, spoilt: str) -> None:
    """Nothing is restored where the quarantine has something else than what was put there."""
    to_shared(quick)
    retire(quick)
    [(name, point)] = quick.sql(
        f"UPDATE memsync.quarantine SET {spoilt}"  # noqa: S608  of this test
        " WHERE id = (SELECT max(id) FROM memsync.quarantine) RETURNING collection, point_id"
    )
    before = quick.points()
    with pytest.raises(GateClosed, match=f"1 point.*{name}/{point}"):
        back(quick)
    assert before == quick.points()
    quick.sql("DELETE FROM memsync.quarantine WHERE point_id = %(p)s", p=point)
    changed = back(quick)
    assert 1 == changed.copied
    assert changed.audit
    assert changed.audit.ok


@pytest.mark.parametrize("harm", ["channel", "fp1", "key", "time", "text_form"])
def test_a_safe_repair_keeps_what_the_app_wrote(quick: Lab, harm: str) -> None:
    """What was added to its texts, and keys that only it knows, stand in no row."""
    liked, enriched, *_ = quick.said
    before = of_app(quick)
    to_shared(quick)
    for each in (liked, enriched):
        payload = dict(quick.point(each.anchor_id).payload)
        if harm == "channel":
            quick.sql("UPDATE conversation_history SET channel_id = '777'")
        elif harm == "fp1":
            payload["fp1"] = 1
        elif harm == "key":
            payload["textForm"] = payload.pop("text_form")
        elif harm == "time":
            payload["created_at"] = each.created_at_ms / 1000
        else:
            del payload["text_form"]
        quick.put(each.anchor_id, payload)
    plan = quick.plan(unsafe=False)
    assert {"put"} == {each.kind for each in plan.actions}
    quick.apply(plan)

    assert quick.audit().ok
    assert quick.point(liked.anchor_id).payload["liked"] is True
    assert "[a cat]" in str(quick.point(enriched.anchor_id).payload["content"])
    assert "deployed" == quick.point(enriched.anchor_id).payload["text_form"]
    if harm != "channel":
        back(quick)
        assert before == of_app(quick)
