"""Evidence of runs that are cut short, on a live app, and on the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from memsync import migrate
from memsync.demo.world import World
from memsync.errors import StoreBusy, StoreUnreachable
from memsync.migrate.attribution import evidence
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres, Session
from support.evidence import (
    Said,
    at,
    by_evidence,
    exchanges,
    first_of,
    load,
    move_on,
    personas,
    reasons,
    remember_as,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from memsync.model.progress import Tell
    from memsync.stores.vectors.protocol import VectorStore
    from support.app import App

    Eventually = Callable[[Callable[[], bool], str], None]
    When = Callable[[str, Callable[[], object]], Tell]
    WhenFilled = Callable[[float, Callable[[], object]], Tell]

STEPS = ("match_points", "keep_evidence", "freeze_map", "fill_archived")


def finished(app: App, store: VectorStore) -> bool:
    """Run again, unless the server has not noticed yet that the last one ended."""
    try:
        return app.run(vectors=store) is Stage.CONTRACTED
    except StoreBusy:
        return False


@pytest.mark.parametrize("step", STEPS)
def test_a_run_cut_short_is_finished_by_the_next(
    app: App,
    store: VectorStore,
    remembered: World,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    step: str,
) -> None:
    """A run ended right after any of its steps is finished by the next, as if undisturbed."""
    load(remembered, store)
    move_on(app)
    expected = by_evidence(app, remembered)
    monkeypatch.setattr(evidence, "_KEPT_ROWS", 50)
    with monkeypatch.context() as patched:
        run, run_with = Session.run, Session.run_with

        def cut(self: Session, name: str, /, **params: Any) -> int:
            touched = run(self, name, **params)
            if name == step:
                self.connection.close()
            return touched

        def cut_with(self: Session, fragments: dict[str, str], name: str, /, **params: Any) -> int:
            touched = run_with(self, fragments, name, **params)
            if name == step:
                self.connection.close()
            return touched

        patched.setattr(Session, "run", cut)
        patched.setattr(Session, "run_with", cut_with)
        with pytest.raises(StoreUnreachable):
            app.run(vectors=store, batch_target_ms=1)
    eventually(lambda: finished(app, store), "the ended session lets go of its lock")

    after = app.personas()
    assert expected == {row: after[row] for row in expected}
    assert app.verify().ok


def test_running_twice_decides_once(app: App, store: VectorStore) -> None:
    """A decision stays, though the memory changed before the next run."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, vectors=store)
    store.drop(f"persona-{said.other}")
    remember_as(store, said, said.now)
    app.run(vectors=store)

    assert [said.other] * 2 == personas(app, *said.rows)


def test_what_was_written_live_is_not_overwritten(app: App, store: VectorStore) -> None:
    """Rows that the sync trigger decided after expand keep its decision, whatever a point says."""
    user, personality, now, other = first_of(exchanges(app))
    app.run(Phase.EXPAND)
    message = write(app, user, personality, "user", "live", 1)
    anchor = write(app, user, personality, "assistant", "too", 2)
    said = Said(anchor, message, user, personality, "live", "too", at(2), now, other)
    remember_as(store, said, other)
    app.run(vectors=store)

    assert [now, now] == personas(app, message, anchor)
    assert ["written-live"] * 2 == reasons(app, message, anchor)


@pytest.mark.parametrize("moment", ["expand", "backfill"])
def test_an_old_row_that_is_edited_meanwhile_gets_its_persona(
    app: App, store: VectorStore, when: When, moment: str
) -> None:
    """An edit of an old row between expand and the freeze does not decide its persona."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)

    def edit() -> None:
        app.do("UPDATE conversation_history SET content = 'edited' WHERE id = %s", said.anchor)

    if moment == "expand":
        app.run(Phase.EXPAND)
        app.do("UPDATE conversation_history SET channel_id = channel_id || '' ")
        app.run(vectors=store)
    else:
        app.run(vectors=store, tell=when("backfill", edit))

    assert [said.other] * 2 == personas(app, *said.rows)
    assert ["evidence"] * 2 == reasons(app, *said.rows)


@pytest.mark.parametrize("method", ["in-place", "copy"])
@pytest.mark.usefixtures("small_batches")
def test_an_old_row_that_is_edited_before_its_batch_takes_what_was_decided(
    app: App, store: VectorStore, when_filled: WhenFilled, method: str
) -> None:
    """The sync trigger gives an old row edited before its batch the evidence's persona."""
    block: LiteralString = (
        "SELECT id FROM conversation_history ORDER BY (ctid::text::point)[0] DESC LIMIT 20"
    )
    last = {row for (row,) in app.query(block)}
    said = next(each for each in exchanges(app) if each.anchor in last)
    remember_as(store, said, said.other)
    edited: list[Any] = []

    def edit() -> None:
        assert [None] == personas(app, said.anchor)
        edited.extend(
            app.query(
                "UPDATE conversation_history SET content = 'edited' WHERE id = %s"
                " RETURNING persona_id",
                said.anchor,
            )
        )

    app.run(vectors=store, tell=when_filled(0, edit), options={"method": method})

    assert [(said.other,)] == edited
    assert [("edited",)] == app.query(
        "SELECT content FROM conversation_history WHERE id = %s", said.anchor
    )
    assert [said.other] * 2 == personas(app, *said.rows)
    assert ["evidence"] * 2 == reasons(app, *said.rows)


@pytest.mark.parametrize("moment", ["read", "judged"])
def test_what_changes_between_reading_and_keeping_counts(
    app: App, store: VectorStore, when: When, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence is void once its persona is deleted or changes owner, or the app fills the row."""
    gone = exchanges(app)[0]
    moved = next(said for said in exchanges(app) if said.user != gone.user)
    spoken = next(each for each in exchanges(app) if each.user not in {gone.user, moved.user})
    for said in (gone, moved, spoken):
        remember_as(store, said, said.other)

    def change() -> None:
        app.do("DELETE FROM personas WHERE id = %s", gone.other)
        app.do("UPDATE personas SET owner_id = %s WHERE id = %s", gone.user, moved.other)

    def speak() -> None:
        app.do(
            "UPDATE conversation_history SET persona_id = %s WHERE id = ANY(%s)",
            spoken.now,
            [*spoken.rows],
        )

    asked = Session.row

    def row(session: Session, name: str, /, **params: Any) -> Any:
        if name == "evidence_rows":
            if moment == "judged":
                change()
            speak()
        return asked(session, name, **params)

    monkeypatch.setattr(Session, "row", row)
    app.run(vectors=store, tell=when("expand", change if moment == "read" else lambda: None))

    for said in (gone, moved, spoken):
        assert [said.now] * 2 == personas(app, *said.rows)
        assert [None] * 2 == reasons(app, *said.rows)
    assert app.verify().ok


@pytest.mark.parametrize("again", [True, False], ids=["read again", "not read again"])
def test_back_and_forward_keeps_the_persona(app: App, store: VectorStore, again: bool) -> None:
    """Back and forward, rows keep their personas, with or without the memories being read."""
    kept, changed, by_map = exchanges(app)[:3]
    for said in (kept, changed):
        remember_as(store, said, said.other)
    app.run(vectors=store)
    # This memory comes too late, because a run has decided the exchange.
    remember_as(store, by_map, by_map.other)
    app.do(
        "UPDATE conversation_history SET persona_id = %s WHERE id = %s", changed.now, changed.anchor
    )
    before = app.personas()
    with Postgres.open(app.url) as postgres:
        migrate.rollback(postgres, app.settings(), to=None)
    assert Stage.CONTRACTED == app.run(vectors=store if again else None)

    assert before == app.personas()
    assert [by_map.now] * 2 == personas(app, *by_map.rows)
    assert ["evidence", "evidence"] == reasons(app, *kept.rows)
    assert ["kept", "evidence"] == reasons(app, *changed.rows)
    assert [(None,)] == app.query(
        "SELECT source FROM memsync.row_archive WHERE history_id = %s", changed.anchor
    )


def test_evidence_speaks_of_what_was_written_after_the_way_back(
    app: App, store: VectorStore
) -> None:
    """Evidence decides messages written since the way back, though their pair was decided."""
    said = exchanges(app)[0]
    app.run(Phase.BACKFILL)
    with Postgres.open(app.url) as postgres:
        migrate.rollback(postgres, app.settings(), to=None)
    app.do(
        "UPDATE conversation_history SET created_at = created_at"
        " + (timezone('UTC', now())::date - created_at::date + 1) * interval '1 day'"
        " WHERE id = ANY(%s)",
        list(said.rows),
    )
    later = next(each for each in exchanges(app) if each.anchor == said.anchor)
    remember_as(store, later, later.other)
    app.run(Phase.BACKFILL, vectors=store)
    assert [later.other] * 2 == personas(app, *later.rows)
    assert app.verify().ok
