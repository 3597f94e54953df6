"""Tests `memsync sync`: collections, embedders, and outbox entries that fail."""

import contextlib
import sys
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from memsync import Memory, NewExchange, Settings
from memsync.stores.postgres import Postgres
from memsync.stores.vectors.edge import open_edge
from support.cli import EMBEDDERS, on
from support.models import Model, Status


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
    assert "next: mend its cause, then memsync sync retry" in status.out
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
