"""The change to the shared layout: what is copied, what stays, and what it refuses."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, Any

import pytest

from memsync import reconcile
from memsync.errors import DimensionMismatch, GateClosed, SchemaMismatch, StalePlan
from memsync.reconcile import relayout
from memsync.reconcile.findings import Severity
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.record import recorded
from support.failing import Crash, Failing
from support.lab import DIMS, A, B, C, Lab
from support.ledger import adopt
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
    recalled,
    retire,
    say,
    to_shared,
)
from support.releasing import released

if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial

    from memsync.model.records import Point, Vector


# ---------------------------------------------------------------------- to shared


def test_everything_is_copied_and_found_as_before(deployed: Lab) -> None:
    """Texts, scores and vectors stay; the audit is clean, with the old collections as a fact."""
    queries = ("question 1", "before", "anything")
    before = {(p, q): found_as_app(deployed, p, q) for p in (A, C) for q in queries}
    old = of_app(deployed)

    changed = to_shared(deployed)

    assert (10, 0) == (changed.copied, changed.replaced)
    assert changed.audit
    assert changed.audit.ok
    facts = {"enriched-content", "legacy-copy", "legacy-layout"}
    assert facts == {each.name for each in changed.audit.findings}
    assert {Severity.INFO} == {each.severity for each in changed.audit.findings}
    assert Layout.SHARED is deployed.ltm.layout
    assert deployed.check().ok
    assert old == of_app(deployed)
    assert before == {(p, q): recalled(deployed, p, q) for p, q in before}


def test_what_a_copy_looks_like(quick: Lab) -> None:
    """The anchor's id, the row's time, the app's text, and the keys that memsync does not know."""
    first = quick.said[0]
    old = next(p for p in quick.points()[home(A)] if dict(p[1]).get("liked"))  # type: ignore[call-overload]
    to_shared(quick)

    copy = quick.point(first.anchor_id)
    payload = dict(copy.payload)
    assert pytest.approx(old[2], abs=1e-6) == copy.vector
    assert {
        "persona_id": str(A),
        "created_at": first.created_at_ms,
        "channel_id": first.channel_id,
        "content": f"User (Al): {first.user_text}\nAda: {first.assistant_text}",
        "text_form": "deployed",
        "embedder": "test/8",
        "liked": True,
        "personalityName": "Ada",
    }.items() <= payload.items()
    assert not {"personaId", "createdAt", "user_text"} & set(payload)


def test_two_archived_memories_of_one_id(quick: Lab) -> None:
    """The second one gets an id of its own, the same one each time."""
    to_shared(quick)
    texts = {
        str(point_id): dict(payload)["content"]  # type: ignore[call-overload]
        for point_id, payload, _ in quick.points()[quick.home]
    }
    kept = [
        name
        for name, text in texts.items()
        if text in {"User (Al): before\nAda: all", "User (Bo): then\nAda: ok"}
    ]
    assert 2 == len(kept)
    assert str(CLASH) in kept
    assert "7" in texts


def test_again_is_nothing(quick: Lab) -> None:
    """The layout is what it was, and nothing is written."""
    to_shared(quick)
    before = quick.points()
    changed = to_shared(quick)
    assert (0, None) == (changed.copied, changed.audit)
    assert before == quick.points()


def test_the_indexes_come_before_the_points(quick: Lab) -> None:
    """Payload indexes that come later have to be built while the collection is in use."""
    failing = Failing(quick.vectors)
    to_shared(quick, failing)
    assert failing.calls.index("create") < failing.calls.index("upsert")
    info = quick.vectors.describe(quick.home)
    assert info
    assert quick.ltm.codec.indexes == info.indexes


@pytest.mark.parametrize("store", ["memory", pytest.param("edge", marks=pytest.mark.slow)])
def test_killed_at_any_write(open_lab: partial[Lab], store: str) -> None:
    """The next run ends as one that was never killed."""
    lab = deploy(open_lab(store, layout="per-persona", embedder=EMBEDDER))
    whole = Failing(lab.vectors)
    to_shared(lab, whole)
    expected = lab.memories()
    for at, after in crashes(whole.calls):
        lab.vectors.drop(lab.home)
        lab.sql("TRUNCATE memsync.layout")
        lab.ltm = lab.ltm.in_layout(Layout.PER_PERSONA, "test")
        with pytest.raises(Crash):
            to_shared(lab, Failing(lab.vectors, at, after, Crash))
        with lab.postgres.session() as session:
            assert Layout.PER_PERSONA is recorded(session)
        to_shared(lab)
        assert expected == lab.memories()
        assert lab.audit().ok


def test_killed_while_the_record_is_changed(quick: Lab) -> None:
    """Everything is copied; the record says what was before, and the next run changes it."""
    quick.sql(
        "CREATE OR REPLACE FUNCTION pg_temp_fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE 'no'; END$$"
    )
    quick.sql(
        "CREATE TRIGGER fail BEFORE UPDATE OF layout ON memsync.layout"
        " FOR EACH ROW EXECUTE FUNCTION pg_temp_fail()"
    )
    try:
        with pytest.raises(Exception, match="no"):
            to_shared(quick)
    finally:
        quick.sql("DROP FUNCTION pg_temp_fail CASCADE")
    follow(quick)
    assert Layout.PER_PERSONA is quick.ltm.layout
    changed = to_shared(quick)
    assert 0 == changed.copied
    assert changed.audit
    assert changed.audit.ok


def cut(*_: object, **__: object) -> None:
    """The process dies here."""
    raise Crash


@pytest.mark.parametrize("change", [to_shared, back])
def test_killed_before_the_ledger_has_the_new_layout(
    quick: Lab, monkeypatch: pytest.MonkeyPatch, change: Callable[[Lab], relayout.Changed]
) -> None:
    """The layout is changed, and half done all the same, because a loss would not be told. The same
    command finishes it, and neither a retirement nor the other change takes its place.
    """
    adopt(quick)
    if change is back:
        to_shared(quick)
        quick.sql("DELETE FROM memsync.memories WHERE collection <> 'memories'")
    with monkeypatch.context() as killed:
        killed.setattr(relayout, "adopt_in", cut)
        with pytest.raises(Crash):
            change(quick)
    follow(quick)
    if change is to_shared:
        with pytest.raises(GateClosed, match="set shared --app-stopped`"):
            retire(quick)
    other, command = (to_shared, "set per-persona`") if change is back else (back, "--app-stopped`")
    with pytest.raises(GateClosed, match=command):
        other(quick)
    assert {"unfinished-layout-change": 1} == quick.check().counts

    assert change(quick).audit
    assert 10 == quick.check().noted
    assert {} == quick.check().counts
    assert change(quick).audit is None


def test_a_newer_memory_in_the_shared_collection_stays(quick: Lab) -> None:
    """What memsync made from a row is right, and is not replaced by the app's text. It only gets
    the note of the app's point.
    """
    first = quick.said[0]
    shared = quick.ltm.in_layout(Layout.SHARED, "test")
    with quick.postgres.session() as session:
        shared.project(session, [first.anchor_id], lambda _: {})
    newer = quick.point(first.anchor_id)

    changed = to_shared(quick)

    assert (10, 1) == (changed.copied, changed.replaced)
    now = quick.point(first.anchor_id)
    note = {"brought_from": now.payload["brought_from"]}
    assert dataclasses.replace(newer, payload={**newer.payload, **note}) == now


def test_an_older_copy_is_replaced_and_kept(quick: Lab) -> None:
    """A run was cut short, then a message was edited and its memory repaired."""
    first = quick.said[0]
    with pytest.raises(Crash):
        to_shared(
            quick, Failing(quick.vectors, calls_until(quick, "upsert"), after=True, error=Crash)
        )
    old = quick.point(first.anchor_id)
    quick.sql(
        "UPDATE conversation_history SET content = 'edited' WHERE id = %(id)s", id=first.said_id
    )
    (point_id,) = [i for i, p, _ in quick.points()[home(A)] if dict(p).get("liked")]  # type: ignore[call-overload]
    payload = dict(quick.point(point_id, home(A)).payload)
    quick.put(
        point_id, {**payload, "content": f"User (Al): edited\nAda: {first.assistant_text}"}, home(A)
    )

    changed = to_shared(quick)

    assert 1 == changed.replaced
    assert changed.audit
    assert changed.audit.ok
    assert [(quick.home, str(first.anchor_id))] == quick.quarantined()
    assert "edited" in str(quick.point(first.anchor_id).payload["content"])
    assert "edited" not in str(old.payload["content"])


def calls_until(lab: Lab, name: str) -> int:
    """The number of the first call of this name, in a run that is then undone."""
    failing = Failing(lab.vectors)
    to_shared(lab, failing)
    lab.vectors.drop(lab.home)
    lab.sql("TRUNCATE memsync.layout")
    lab.ltm = lab.ltm.in_layout(Layout.PER_PERSONA, "test")
    return failing.calls.index(name) + 1


def test_what_is_written_meanwhile_is_copied_too(quick: Lab) -> None:
    """An old version writes while the copy runs."""
    (late,) = say(quick, 1, B)
    quick.sql(
        "DELETE FROM conversation_history WHERE id = ANY(%(ids)s)",
        ids=[late.anchor_id, late.said_id],
    )
    state: list[str] = []

    def write_once(name: str) -> None:
        if name == "upsert" and not state:
            state.append(name)
            (again,) = say(quick, 1, B)
            quick.deploy(again)

    changed = to_shared(quick, Failing(quick.vectors, meanwhile=write_once))
    assert 11 == changed.copied
    assert changed.audit
    assert changed.audit.ok


def test_somebody_who_never_stops_writing(quick: Lab) -> None:
    """The layout is not changed while each pass finds something new."""

    def write(name: str) -> None:
        if name == "upsert":
            (again,) = say(quick, 1, B)
            quick.deploy(again)

    with pytest.raises(GateClosed, match="after 10 passes"):
        to_shared(quick, Failing(quick.vectors, meanwhile=write))
    follow(quick)
    assert Layout.PER_PERSONA is quick.ltm.layout


def test_a_point_that_reads_back_otherwise(quick: Lab) -> None:
    """Another writer has put something under the id between the look and the write."""
    first = quick.said[0]
    state: list[str] = []

    def meddle(name: str) -> None:
        if name == "upsert" and not state:
            state.append(name)
            quick.vectors.upsert(
                quick.home, [dataclasses.replace(quick.point(CLASH, home(A)), id=first.anchor_id)]
            )

    with pytest.raises(StalePlan, match=str(first.anchor_id)):
        to_shared(quick, Failing(quick.vectors, meanwhile=meddle))


class Halved(Failing):
    """Keeps vectors in 16 bits, as a collection of the datatype float16 does."""

    def retrieve(self, *args: Any, **kwargs: Any) -> list[Point]:
        found = super().retrieve(*args, **kwargs)
        return [dataclasses.replace(p, vector=p.vector and halved(p.vector)) for p in found]


def halved(vector: Vector) -> Vector:
    form = f"{len(vector)}e"
    return struct.unpack(form, struct.pack(form, *vector))


def test_a_store_that_rounds_vectors(quick: Lab) -> None:
    """It is no other writer: a vector of the same direction is the one that was written."""
    to_shared(quick)
    quick.say(1)
    quick.sync()
    assert 1 == back(quick, Halved(quick.vectors)).copied
    assert quick.check().ok


# ---------------------------------------------------------------------- refusals


def refused(lab: Lab, error: type[Exception], match: str, *, app_stopped: bool = True) -> None:
    """It is refused, and nothing was written."""
    before = lab.points()
    with released(lab.url), pytest.raises(error, match=match):
        relayout.set_shared(lab.postgres, lab.ltm, lab.settings, app_stopped=app_stopped)
    assert before == lab.points()
    with lab.postgres.session() as session:
        assert recorded(session) is None


def test_not_confirmed(quick: Lab) -> None:
    """Nobody said that the old app has stopped."""
    refused(quick, GateClosed, "--app-stopped", app_stopped=False)


def test_a_fault_is_mended_first(quick: Lab) -> None:
    """The audit must be clean."""
    quick.deploy(quick.said[0])
    refused(quick, GateClosed, "1 duplicate-point")
    with quick.postgres.session() as session:
        reconcile.acknowledge(session, quick.audit(), "x")
    refused(quick, GateClosed, "memsync reconcile baseline drop --select duplicate-point` ends")


def test_an_unread_collection_is_not_taken_for_clean(quick: Lab) -> None:
    """A part that could not be read."""
    quick.ltm = quick.with_store(Once(quick.vectors))
    refused(quick, GateClosed, "incomplete")


class Once(Failing):
    """Fails at the first scroll and at no other call."""

    def scroll(self, collection: str, **more: object):  # type: ignore[no-untyped-def]
        self.at = len(self.calls) + 1 if "scroll" not in self.calls else 0
        return super().scroll(collection, **more)  # type: ignore[arg-type]


def test_no_embedder_is_named(open_lab: partial[Lab]) -> None:
    """The default is not the app's."""
    lab = deploy(open_lab("memory", layout="per-persona"))
    refused(lab, SchemaMismatch, "MEMSYNC_EMBEDDER")


def test_an_embedder_of_another_size(quick: Lab) -> None:
    """One collection is of another size."""
    quick.vectors.create(home(B), DIMS * 2, {})
    refused(quick, DimensionMismatch, home(B))


def test_an_alias(quick: Lab) -> None:
    """A persona's name that stands for another collection."""

    class Aliased(Failing):
        def aliases(self) -> dict[str, str]:
            return {home(B): "memories", "other": "x"}

    quick.ltm = quick.with_store(Aliased(quick.vectors))
    refused(quick, GateClosed, f"{home(B)} \\(of memories\\)")


def test_the_layout_was_changed_meanwhile(quick: Lab) -> None:
    """Another process has changed it since this one opened the store. So it retires nothing, as
    the app may read it again; plans, undos and adoptions begin in the same way.
    """
    per_persona = quick.ltm
    to_shared(quick)
    shared = quick.ltm
    with released(quick.url), pytest.raises(SchemaMismatch, match="Run it again"):
        relayout.set_shared(quick.postgres, per_persona, quick.settings, app_stopped=True)
    back(quick)
    before, quick.ltm = of_app(quick), shared
    with pytest.raises(SchemaMismatch, match="Run it again"):
        retire(quick)
    assert before == of_app(quick)
