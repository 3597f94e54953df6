"""Tests `memsync sync`: collections, embedders, and outbox entries that fail."""

import contextlib
import sys
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from memsync import Memory, NewExchange, Settings
from memsync.stores.ltm.marks import META
from memsync.stores.postgres import Postgres
from memsync.stores.vectors.edge import open_edge
from support.cli import EMBEDDERS, on
from support.models import Model, Status


@pytest.fixture(autouse=True)
def shared_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the layout, which two empty stores do not show."""
    monkeypatch.setenv("MEMSYNC_LAYOUT", "shared")


def remember(url: str) -> None:
    """Remember one exchange, so that the outbox holds an entry."""
    with Postgres.open(url) as postgres:
        with psycopg.connect(url) as connection:
            personality, persona = connection.execute(
                "SELECT personality_id, persona_id FROM conversation_history LIMIT 1"
            ).fetchone() or (uuid4(), uuid4())
        Memory(postgres, Settings.load(environ={}, drain="no")).remember(
            NewExchange("cli", personality, persona, "a question", "an answer")
        )


def test_refused_sync_leaves_qdrant_alone(database: str, qdrant: str) -> None:
    """A relay on a database that is not the app's creates no collection."""
    assert 12 == on(database, qdrant, "sync", "run").status

    with contextlib.closing(open_edge(Path(qdrant.removeprefix("edge:")))) as vectors:
        assert [] == vectors.collections()


def test_collection_of_another_size_is_12(app: str, qdrant: str) -> None:
    """A collection of another vector size is refused, and the message gives both sizes."""
    with contextlib.closing(open_edge(Path(qdrant.removeprefix("edge:")))) as vectors:
        vectors.create("memories", 7, {})

    ran = on(app, qdrant, "sync", "run")

    assert (12, "") == (ran.status, ran.out)
    assert "7" in ran.err
    assert "4" in ran.err


def test_partly_done_is_3(app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries whose memories cannot be made stay in the outbox, and the failure counts them."""
    remember(app)
    monkeypatch.setenv("MEMSYNC_EMBEDDER", f"{EMBEDDERS}:embed_nothing")

    ran = on(app, qdrant, "sync", "run", "--json")

    assert 3 == ran.status
    failure = ran.failure()
    assert ("PartlyDone", 0) == (failure["error"], failure["done"])
    assert 1 <= failure["pending"]


@pytest.mark.parametrize("embedder", [".x:y", "builtins:len"])
def test_embedder_that_is_none_is_2(
    embedder: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedder that cannot be loaded or called is a bad setting."""
    monkeypatch.setenv("MEMSYNC_EMBEDDER", embedder)

    assert 2 == on(app, ":memory:", "sync", "run").status


def test_dead_entries_are_said(app: str, qdrant: str) -> None:
    """Dead entries make `sync run` end with 3; run and status say how many, why and what next."""
    remember(app)
    with psycopg.connect(app, autocommit=True) as connection:
        connection.execute("UPDATE memsync.outbox SET dead = true, last_error = 'text too long'")

    ran, status = on(app, qdrant, "sync", "run"), on(app, qdrant, "sync", "status")

    assert (3, "") == (ran.status, ran.out)
    for said in ("1 are dead", "text too long", "memsync sync retry"):
        assert said in ran.err
    assert 0 == status.status
    assert "the commonest error of the dead entries: text too long" in status.out
    assert "first: mend its cause\nnext: memsync sync retry\n" in status.out
    facts = on(app, qdrant, "sync", "status", "--json").json()
    assert (1, "text too long") == (facts["dead"], facts["dead_error"])
    assert 0 == on(app, qdrant, "sync", "retry").status
    assert 0 == on(app, qdrant, "sync", "run").status
    assert "next" not in on(app, qdrant, "sync", "status").out


def test_embedder_that_is_down_is_10(
    app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedder whose service does not answer is no bad setting; a check is incomplete."""
    assert 0 == on(app, qdrant, "sync", "run").status
    monkeypatch.setenv("MEMSYNC_EMBEDDER", "support.models:unreachable")

    assert 10 == on(app, qdrant, "sync", "run", "--json").failure()["exit_status"]
    checked = on(app, qdrant, "check")
    assert 15 == checked.status
    assert "not checked: whether recall can search memories" in checked.out


def test_settings_of_the_embedder_and_of_outages_hold(
    app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run asks in the batches that the settings allow, and waits as long as they say."""
    remember(app)
    remember(app)
    limited = Model(Status(429), lambda _: len(limited.calls) > 1)
    monkeypatch.setattr(sys.modules[EMBEDDERS], "embed", limited)
    monkeypatch.setenv("MEMSYNC_EMBEDDER_BATCH_TEXTS", "1")
    monkeypatch.setenv("MEMSYNC_OUTAGE_WAIT_S", "0")

    assert 3 == on(app, qdrant, "sync", "run").status

    assert [1, 1] == list(map(len, limited.calls))


def queue(url: str) -> None:
    """Queue an entry, as a build did that did not know who writes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO memsync.outbox (point_id)"
            " SELECT id FROM conversation_history WHERE role = 'assistant' LIMIT 1"
        )


def test_where_the_app_writes_all_is_held(
    app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run and status say that entries are held, and why; with nothing queued all is well."""
    monkeypatch.setenv("MEMSYNC_LAYOUT", "per-persona")
    assert 0 == on(app, qdrant, "sync", "run").status
    queue(app)

    ran, status = on(app, qdrant, "sync", "run"), on(app, qdrant, "sync", "status")

    assert (3, "") == (ran.status, ran.out)
    assert "1 outbox entry is held" in ran.err
    assert "writer = memsync" in ran.err
    assert (0, ["pending   1", "held      1"]) == (
        status.status,
        [each.strip() for each in status.out.splitlines()[:2]],
    )
    assert "why they are held: memories lie in the layout per-persona" in status.out
    assert "next" not in status.out
    facts = on(app, qdrant, "sync", "status", "--json").json()
    assert (1, 0) == (facts["held"], facts["dead"])
    assert "writer = memsync" in facts["held_error"]
    monkeypatch.setenv("MEMSYNC_WRITER", "memsync")
    assert 0 == on(app, qdrant, "sync", "run").status
    facts = on(app, qdrant, "sync", "status", "--json").json()
    assert (0, 0, None) == (facts["pending"], facts["held"], facts["held_error"])
    with contextlib.closing(open_edge(Path(qdrant.removeprefix("edge:")))) as vectors:
        [collection] = set(vectors.collections()) - {META}
        assert (1, "persona-") == (vectors.count(collection), collection[:8])


def test_a_layout_that_contradicts_the_record_is_12(
    app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a relay has written, the other layout is refused before anything is done."""
    queue(app)
    assert 0 == on(app, qdrant, "sync", "run").status
    monkeypatch.setenv("MEMSYNC_LAYOUT", "per-persona")
    queue(app)

    assert 12 == on(app, qdrant, "sync", "run", "--json").failure()["exit_status"]
