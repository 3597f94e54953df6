"""Tests `memsync check --quiet` as cron runs it: by a role that may only read."""

from collections.abc import Iterator

import psycopg
import pytest

from memsync.demo.world import make_world
from support.app import App
from support.cli import RECIPE, on
from support.roles import reader_grants, role

pytestmark = pytest.mark.usefixtures("per_persona")


@pytest.fixture
def reader(app: str) -> Iterator[str]:
    """The URL of a role that has those grants and no more."""
    with role(App(app, make_world(RECIPE)), *reader_grants()) as url:
        yield url


def test_cron_is_silent_while_all_is_well(reader: str, app: str, qdrant: str) -> None:
    """A clean check by a reader prints nothing, so cron sends no mail."""
    assert 0 == on(app, qdrant, "reconcile", "plan").status
    assert 0 == on(app, qdrant, "reconcile", "apply", "plan.json").status

    ran = on(reader, qdrant, "check", "--quiet")

    assert (0, "", "") == (ran.status, ran.out, ran.err)


def test_cron_mails_one_screen_without_words(
    reader: str, app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that finds something fits one screen, and quotes nobody. It needs no embedder."""
    monkeypatch.delenv("MEMSYNC_EMBEDDER")
    ran = on(reader, qdrant, "check", "--quiet")

    assert (1, "") == (ran.status, ran.err), ran.err
    assert 0 < len(ran.out.splitlines()) <= 45
    assert "missing-point" in ran.out
    with psycopg.connect(app) as connection:
        said = connection.execute("SELECT content FROM conversation_history").fetchall()
        named = connection.execute("SELECT username FROM users").fetchall()
    assert [] == [text for (text,) in (*said, *named) if text in ran.out]


def test_a_missing_grant_is_named(app: str, qdrant: str) -> None:
    """Without the grants the check says which right is missing, and proves nothing."""
    with role(App(app, make_world(RECIPE))) as url:
        ran = on(url, qdrant, "check", "--quiet")

    assert (16, "") == (ran.status, ran.out)
    assert "may not" in ran.err or "GRANT" in ran.err
