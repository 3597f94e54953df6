"""Evidence before a run: what `plan` reports of it, and stores that do not answer."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString

import pytest
from psycopg import sql

from memsync import migrate
from memsync.demo.world import World
from memsync.errors import GateClosed, StoreUnreachable
from memsync.migrate.checks import State
from memsync.settings import Settings
from memsync.stores.history.phases import Stage
from memsync.stores.vectors import open_vectors
from support.evidence import UNHINDERED, exchanges, first_of, load, move_on, personas, remember_as

if TYPE_CHECKING:
    from pathlib import Path

    from memsync.stores.vectors.protocol import VectorStore
    from support.app import App

NOWHERE = "http://127.0.0.1:1"


# ------------------------------------------------------------------ before running


def test_plan_tells_what_evidence_decides(app: App, store: VectorStore) -> None:
    """Plan counts rows by rule, and shows where evidence and settings disagree, and the point."""
    differs, same = exchanges(app)[:2]
    point = remember_as(store, differs, differs.other)
    remember_as(store, same, same.now)
    rows: LiteralString = "SELECT * FROM conversation_history ORDER BY id"
    before = app.catalog(), app.query(rows)
    without, ahead = app.plan(), app.plan(store)

    assert before == (app.catalog(), app.query(rows))
    assert without.rows_by_decision
    assert ahead.rows_by_decision
    assert 4 == ahead.rows_by_decision["evidence"]
    assert sum(without.rows_by_decision.values()) == sum(ahead.rows_by_decision.values())
    assert without.rows_by_decision["default"] - 4 == ahead.rows_by_decision["default"]
    assert ahead.evidence
    assert 2 == ahead.evidence.disagreeing
    assert {
        migrate.Disagreement(
            str(row), str(differs.other), str(differs.now), f"persona-{differs.other}", str(point)
        )
        for row in differs.rows
    } == set(ahead.evidence.samples)
    assert None is without.evidence


def test_the_command_line_opens_the_store(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan prints the disagreement as text and as JSON; run decides by the evidence."""
    qdrant = f"edge:{tmp_path / 'qdrant'}"
    said = exchanges(app)[0]
    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant), create=True)) as store:
        point = remember_as(store, said, said.other)

    assert 14 == app.command("plan", qdrant=qdrant)
    out = capsys.readouterr().out
    assert "evidence and settings disagree on 2 messages" in out
    assert (
        f"  message {said.anchor}, memory persona-{said.other}/{point}\n"
        f"    by evidence  {said.other}\n    by settings  {said.now}\n"
    ) in out
    assert 14 == app.command("plan", "--evidence", "ignore", "--json", qdrant=qdrant)
    assert None is json.loads(capsys.readouterr().out)["evidence"]
    assert 14 == app.command("plan", "--json", qdrant=qdrant)
    found = json.loads(capsys.readouterr().out)
    assert (2, 2) == (found["rows_by_decision"]["evidence"], found["evidence"]["disagreeing"])
    assert str(point) == found["evidence"]["samples"][0]["point_id"]

    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant), create=True)):
        assert 11 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=qdrant)
    assert "--evidence ignore" in capsys.readouterr().err
    assert 0 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=qdrant)
    assert [said.other] * 2 == personas(app, *said.rows)


def test_plan_shows_at_most_ten_samples(app: App, store: VectorStore, remembered: World) -> None:
    """Plan counts every disagreement and shows ten."""
    load(remembered, store)
    move_on(app)
    report = app.plan(store).evidence

    assert report
    assert 10 == len(report.samples) < report.disagreeing


def test_users_whom_evidence_decides_need_no_default(app: App, store: VectorStore) -> None:
    """A user whose every message has a memory needs no default, and gets no created persona."""
    user, _, _, other = first_of(exchanges(app))
    theirs = [said for said in exchanges(app) if said.user == user]
    kept = [row for said in theirs for row in said.rows]
    app.do("DELETE FROM conversation_history WHERE user_id = %s AND id <> ALL(%s)", user, kept)
    app.do("DELETE FROM users WHERE global_persona_id IS NULL")
    app.do("UPDATE users SET global_persona_id = NULL WHERE id = %s", user)
    app.do("DELETE FROM user_personality_settings WHERE user_id = %s", user)
    for said in theirs:
        remember_as(store, said, other)

    assert [str(user)] == [each.user_id for each in app.plan().unresolved]
    with pytest.raises(GateClosed):
        app.run(unresolved="fail")
    told = app.plan(store)
    assert () == told.unresolved
    assert [State.OK] == [check.state for check in told.checks if check.name == "users"]
    assert Stage.CONTRACTED == app.run(unresolved="fail", vectors=store)
    assert {other} == set(personas(app, *kept))
    status = app.status()
    assert status.rows_total == status.rows_done
    assert [] == app.query("SELECT FROM personas WHERE description = 'Default persona'")


# ------------------------------------------------------------------ stores that do not answer


def test_a_store_that_does_not_answer_stops_the_run_before_it_changes_anything(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names --evidence ignore; plan says why evidence is missing, and all the rest."""
    before = app.catalog()
    with (
        contextlib.closing(open_vectors(Settings(qdrant_url=NOWHERE))) as nowhere,
        pytest.raises(StoreUnreachable, match="--evidence ignore"),
    ):
        app.run(vectors=nowhere)
    assert 10 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=NOWHERE)
    assert "--evidence ignore" in capsys.readouterr().err
    assert 14 == app.command("plan", qdrant=NOWHERE)
    out = capsys.readouterr().out
    assert f"evidence: not read: Qdrant at {NOWHERE}" in out
    assert "persona by default" in out
    assert before == app.catalog()

    without = ("run", *UNHINDERED, "--unresolved", "create", "--evidence", "ignore")
    assert 0 == app.command(*without, qdrant=NOWHERE)
    assert app.expected() == app.personas()
    # A finished migration needs no evidence any more.
    assert 0 == app.command("run", qdrant=NOWHERE)
    assert 0 == app.command("plan", qdrant=NOWHERE)


def test_what_blocks_the_backfill_is_told_without_reading_the_memories(
    app: App, store: VectorStore, remembered: World
) -> None:
    """Plan does not read memories, which may take long, where a check blocks the backfill."""
    load(remembered, store)
    app.do("CREATE VIEW by_user AS SELECT user_id FROM conversation_history")
    ahead = app.plan(store)
    assert ahead.blockers
    assert ahead.evidence
    assert ahead.evidence.points

    name = sql.Identifier(app.query("SELECT current_database()")[0][0])
    with app.connected() as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
        )
    ahead = app.plan(store)
    assert "the blockers of a run come first" == (ahead.evidence and ahead.evidence.not_read)


def test_half_of_the_points_are_no_evidence(
    app: App, store: VectorStore, remembered: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails in the middle of reading decides nothing, neither in plan nor in run."""
    load(remembered, store)
    last = max(remembered.points)
    scroll = type(store).scroll

    def failing(self: Any, collection: str, **given: Any) -> Any:
        if collection == last:
            raise StoreUnreachable("the store went away")
        return scroll(self, collection, **given)

    monkeypatch.setattr(type(store), "scroll", failing)
    ahead, without = app.plan(store), app.plan()

    assert ahead.evidence
    assert "the store went away" == ahead.evidence.not_read
    assert "evidence" in {each.name for each in ahead.blockers}
    # The checks are left out, because they depend on the moment, and `next`, which they decide.
    plain = replace(without, checks=(), next=None)
    assert plain == replace(ahead, checks=(), next=None, evidence=None)
    with pytest.raises(StoreUnreachable):
        app.run(vectors=store)
    assert Stage.LEGACY == app.plan().stage


@pytest.mark.parametrize("kind", ["edge", "local"])
def test_no_store_is_made(
    app: App, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An embedded store without a folder is one that cannot be read, and its folder is not made."""
    folder = tmp_path / "not" / "there"
    before = app.catalog()

    assert 14 == app.command("plan", qdrant=f"{kind}:{folder}")
    assert "the folder does not exist" in capsys.readouterr().out
    assert 2 == app.command("run", *UNHINDERED, "--unresolved", "create", qdrant=f"{kind}:{folder}")
    assert "--evidence ignore" in capsys.readouterr().err
    assert not folder.parent.exists()
    assert before == app.catalog()


def test_nothing_is_written_into_the_store(app: App, store: VectorStore) -> None:
    """A run leaves collections and points as they are."""
    said = exchanges(app)[0]
    point = remember_as(store, said, said.other)
    app.run(vectors=store)

    assert [f"persona-{said.other}"] == store.collections()
    assert said.payload(said.other) == store.retrieve(store.collections()[0], [point])[0].payload
