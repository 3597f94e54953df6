"""Evidence that was not read is not evidence that there is none: the store must be named."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from memsync import migrate
from memsync.cli.app import main
from memsync.errors import GateClosed, StoreUnreachable
from memsync.migrate.attribution.choice import UNNAMED
from memsync.migrate.checks import BEFORE_CONTRACT, Check, State
from memsync.settings import Settings, data_dir
from memsync.stores.history.phases import Phase, Stage
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from support.evidence import (
    UNHINDERED,
    exchanges,
    move_on,
    personas,
    remember,
    remember_as,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memsync.migrate import Plan, Verification
    from memsync.model.progress import Tell
    from memsync.stores.vectors.protocol import VectorStore
    from support.app import App

    When = Callable[[str, Callable[[], object]], Tell]
    WhenFilled = Callable[[float, Callable[[], object]], Tell]

PLAN = ("plan", "--unresolved", "create")
RUN = ("run", *UNHINDERED, "--unresolved", "create")


class StopError(Exception):
    """Ends a run in its middle."""


def stop() -> None:
    raise StopError


@pytest.fixture(autouse=True)
def nothing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the caller's settings, and enter a folder without a file of settings."""
    monkeypatch.delenv("MEMSYNC_QDRANT_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def qdrant(tmp_path: Path) -> str:
    """The URL of a vector store that stands, and has no collection."""
    (tmp_path / "qdrant").mkdir()
    return f"local:{tmp_path / 'qdrant'}"


def plainly(app: App, *arguments: str) -> int:
    """The exit status of `memsync migrate …` with nothing but the database named."""
    return main(["--postgres-url", app.url, "migrate", *arguments])


def check(seen: Plan | Verification) -> Check:
    """The check of the evidence."""
    (found,) = [each for each in seen.checks if each.name == "evidence"]
    return found


# ------------------------------------------------------------------ a store that nobody named


def test_without_a_named_store_plan_blocks_and_run_refuses(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan and run say which setting is missing, and both ways out; nothing is changed."""
    before = app.catalog()

    assert 14 == plainly(app, *PLAN)
    told = capsys.readouterr().out
    assert 14 == plainly(app, *RUN)
    refused = capsys.readouterr().err

    assert "\nNOT clear: evidence; " in told
    assert told.endswith("\nnext: memsync migrate plan\n")
    for said in (told, refused):
        assert UNNAMED in said
        assert "MEMSYNC_QDRANT_URL" in said
        assert "--evidence ignore" in said
    assert before == app.catalog()
    assert 0 == plainly(app, *RUN, "--evidence", "ignore")
    assert app.expected() == app.personas()


def test_a_sandbox_of_the_user_is_not_read(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store where `memsync init --embedded` puts one is not named by standing there."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    said = exchanges(app)[0]
    there = Settings(qdrant_url=f"edge:{data_dir() / 'qdrant'}")
    with contextlib.closing(open_vectors(there, create=True)) as store:
        remember_as(store, said, said.other)
    assert (tmp_path / "memsync" / "qdrant").is_dir()

    assert 14 == plainly(app, *PLAN, "--json")
    assert UNNAMED == json.loads(capsys.readouterr().out)["evidence"]["not_read"]


@pytest.mark.parametrize("where", ["option", "variable", "file"])
def test_file_variable_and_option_name_a_store(
    app: App, qdrant: str, where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A store is named by each way of setting qdrant_url."""
    said = exchanges(app)[0]
    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant), create=True)) as store:
        remember_as(store, said, said.other)
    given: list[str] = []
    if where == "option":
        given = ["--qdrant-url", qdrant]
    elif where == "variable":
        monkeypatch.setenv("MEMSYNC_QDRANT_URL", qdrant)
    else:
        (tmp_path / "memsync.toml").write_text(f'qdrant_url = "{qdrant}"\n')

    assert 0 == main(["--postgres-url", app.url, *given, "migrate", *RUN])
    assert [said.other] * 2 == personas(app, *said.rows)


def test_the_psql_script_asks_for_no_store(app: App) -> None:
    """A plan for psql needs no store, because the script cannot read one."""
    assert 0 == plainly(app, "plan", "--sql")


# ------------------------------------------------------------------ a store without a point


def test_an_empty_store_must_be_confirmed(
    app: App, qdrant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero points are a blocker in plan, and stop run until the operator confirms them."""
    before = app.catalog()
    assert 14 == app.command(*PLAN, qdrant=qdrant)
    told = capsys.readouterr().out
    assert 14 == app.command(*RUN, qdrant=qdrant)
    refused = capsys.readouterr().err

    confirmed = "memsync migrate run --to backfill --unresolved create --evidence none-expected"
    assert told.endswith(f"\nnext: {confirmed}\n")
    assert "  blocker  evidence" in told
    for said in (told, refused):
        assert "has 0 points in 0 collections of memories, and 0 other collections" in said
        assert "check qdrant_url" in said
        assert "--evidence none-expected" in said
    assert before == app.catalog()
    assert 0 == app.command(*PLAN, "--evidence", "none-expected", "--verbose", qdrant=qdrant)
    assert re.search(r"ok +evidence ", capsys.readouterr().out)
    assert 0 == app.command(*RUN, "--evidence", "none-expected", qdrant=qdrant)
    assert app.expected() == app.personas()


def test_a_wrong_store_is_not_an_empty_one(app: App, store: VectorStore) -> None:
    """Collections that hold no memories are counted, and do not count as evidence."""
    remember(store, "images", {"content": "a cat"})
    ahead = app.plan(store)

    assert State.BLOCKER == check(ahead).state
    assert check(ahead).found.endswith("in 0 collections of memories, and 1 other collection")
    with pytest.raises(GateClosed, match="none-expected"):
        app.run(vectors=store)


def test_none_expected_still_takes_what_there_is(app: App, store: VectorStore) -> None:
    """Memories decide, though none were expected."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    app.run(vectors=store, options={"evidence": "none-expected"})

    assert [said.other] * 2 == personas(app, *said.rows)


# ------------------------------------------------------------------ what was read


def test_plan_tells_what_was_read(
    app: App, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Plan prints the store, and points by kind of collection: matched, contradicting, unusable."""
    qdrant = f"edge:{tmp_path / 'edge'}"
    differs, same, older, home = exchanges(app)[:4]
    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant), create=True)) as edge:
        label = edge.label
        remember_as(edge, differs, differs.other)
        remember_as(edge, same, same.now)
        remember_as(edge, same, same.now, createdAt=None)
        remember(edge, f"personality-{older.personality}", older.payload(older.other))
        remember(edge, f"personality-{older.personality}", older.payload(older.other, content="x"))
        remember(edge, "memories", home.payload(home.now))
        remember(edge, "images", {"content": "a cat"})

    assert 0 == app.command(*PLAN, qdrant=qdrant)
    told = capsys.readouterr().out
    assert 0 == app.command(*PLAN, "--json", qdrant=qdrant)
    kinds = json.loads(capsys.readouterr().out)["evidence"]["kinds"]

    keys = ("kind", "collections", "points", "unusable", "matched", "contradicting")
    assert [
        ("persona-*", len({differs.other, same.now}), 3, 1, 2, 1),
        ("personality-*", 1, 2, 0, 1, 1),
        ("shared", 1, 1, 0, 1, 0),
    ] == [tuple(kind[key] for key in keys) for kind in kinds]
    assert f"evidence: {label}, 6 points; 1 other collection holds no memories\n" in told
    assert (
        "  personality-*: 1 collection, 2 points, 0 of them unusable; 1 match an exchange, 1 of "
        "these contradict the settings\n"
    ) in told


def test_a_collection_that_cannot_be_read_is_a_blocker(
    app: App, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unreadable collection blocks in plan, and stops run before it changes anything."""
    readable, lost = exchanges(app)[:2]
    remember_as(store, readable, readable.other)
    remember(store, f"personality-{lost.personality}", lost.payload(lost.other))
    scroll = type(store).scroll

    def failing(self: Any, collection: str, **given: Any) -> Any:
        if collection.startswith("personality-"):
            raise StoreUnreachable(f"{collection} has named vectors")
        return scroll(self, collection, **given)

    monkeypatch.setattr(type(store), "scroll", failing)
    found = check(app.plan(store))

    assert State.BLOCKER == found.state
    assert "has named vectors" in found.found
    assert BEFORE_CONTRACT == found.phases
    with pytest.raises(StoreUnreachable, match="Nothing was changed"):
        app.run(vectors=store)
    assert Stage.LEGACY == app.plan().stage


# ------------------------------------------------------------------ resuming, and no more need


def test_nothing_left_to_decide_asks_for_no_store(app: App) -> None:
    """Once the messages are filled, neither plan nor run asks for a store."""
    assert 0 == plainly(app, *RUN, "--to", "backfill", "--evidence", "ignore")
    assert 0 == plainly(app, *RUN)
    assert Stage.CONTRACTED == app.plan().stage


def test_an_empty_history_asks_for_no_store(app: App) -> None:
    """Without a message there is nothing to decide."""
    app.do("TRUNCATE conversation_history CASCADE")
    assert 0 == plainly(app, *RUN)


@pytest.mark.parametrize("moment", ["expand", "fill"])
def test_a_resumed_run_goes_on_as_it_was_begun(
    app: App, moment: str, when: When, when_filled: WhenFilled, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that ignores evidence and is cut short is resumed without saying so again."""
    tell = when("expand", stop) if moment == "expand" else when_filled(0, stop)
    with pytest.raises(StopError):
        app.run(tell=tell, options={"evidence": "ignore"})

    assert 0 == plainly(app, "plan")
    assert "blocker" not in capsys.readouterr().out
    assert 0 == plainly(app, *RUN)
    assert app.expected() == app.personas()


def test_a_resumed_run_still_needs_the_store_that_it_prefers(
    app: App, store: VectorStore, when: When
) -> None:
    """A run that was cut short before it kept the evidence must read it again."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    with pytest.raises(StopError):
        app.run(vectors=store, tell=when("backfill", stop))

    assert 14 == plainly(app, *RUN)
    app.run(vectors=store)
    assert [said.other] * 2 == personas(app, *said.rows)


def test_a_choice_holds_until_another_is_given(app: App, store: VectorStore) -> None:
    """A run up to expand may ignore evidence, and the one that fills can be told to read it."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    app.run(Phase.EXPAND, options={"evidence": "ignore"})

    assert 14 == plainly(app, *RUN, "--evidence", "prefer")
    assert 0 == plainly(app, "plan")
    app.run(vectors=store, options={"evidence": "prefer"})
    assert [said.other] * 2 == personas(app, *said.rows)


def test_a_choice_ends_with_the_way_back(app: App) -> None:
    """Once everything was taken back, the next run must be told anew."""
    app.run(Phase.BACKFILL, options={"evidence": "ignore"})
    app.back()

    assert 14 == plainly(app, *RUN)


# ------------------------------------------------------------------ verify


def test_verify_compares_messages_with_their_memories(
    app: App, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Messages with another persona than their memories say fail, and the SQL given mends them."""
    qdrant = f"edge:{tmp_path / 'edge'}"
    said = exchanges(app)[0]
    with contextlib.closing(open_vectors(Settings(qdrant_url=qdrant), create=True)) as store:
        remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, options={"evidence": "ignore"})
    capsys.readouterr()

    assert 0 == app.command("verify", qdrant=qdrant)
    assert "ignored: the settings alone decide who spoke" in capsys.readouterr().out
    for left in ("2 messages have", "1 message has"):
        assert 1 == app.command("verify", "--evidence", "prefer", "--json", qdrant=qdrant)
        proof = json.loads(capsys.readouterr().out)
        (found,) = [each for each in proof["checks"] if each["name"] == "evidence"]
        assert found["found"].startswith(f"{left} another persona than their")
        with app.connected() as connection:
            connection.execute(found["next"].partition(": ")[2].encode())
    assert 0 == app.command("verify", "--evidence", "prefer", qdrant=qdrant)
    assert "2 messages have the persona of their memory" in capsys.readouterr().out
    assert [said.other] * 2 == personas(app, *said.rows)


def test_verify_says_when_it_could_not_look(
    app: App, store: VectorStore, qdrant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a record of a run and without a store, verify is incomplete (15), never green."""
    said = exchanges(app)[0]
    remember_as(store, said, said.other)
    app.run(Phase.BACKFILL, vectors=store)
    capsys.readouterr()
    # The run read the store, and the proof goes by what it kept.
    assert 0 == plainly(app, "verify")
    assert "not compared again" in capsys.readouterr().out

    app.do("UPDATE memsync.runs SET options = NULL")
    nowhere = ("--qdrant-url", "http://127.0.0.1:1")
    for given in ((), nowhere, ("--qdrant-url", qdrant)):
        assert 15 == main(["--postgres-url", app.url, *given, "migrate", "verify"])
        assert capsys.readouterr().out.endswith("see the check `evidence`\n")
    assert 0 == plainly(app, "verify", "--evidence", "ignore")
    none = ("verify", "--evidence", "none-expected")
    assert 0 == main(["--postgres-url", app.url, "--qdrant-url", qdrant, "migrate", *none])


def test_verify_finds_what_a_forgotten_store_did(app: App, store: VectorStore) -> None:
    """Every message whose persona the settings would get wrong is counted."""
    told = exchanges(app)[:20]
    for said in told:
        remember_as(store, said, said.now)
    move_on(app)
    app.run(Phase.BACKFILL, options={"evidence": "ignore"})
    with Postgres.open(app.url) as postgres:
        proof = migrate.verify(postgres, app.settings(), lambda: store, use="prefer")

    assert not proof.ok
    assert check(proof).found.startswith("40 messages have another persona")
