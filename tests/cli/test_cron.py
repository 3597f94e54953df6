"""Tests `memsync check --quiet` as cron runs it: by a role that may only read."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from memsync.demo.world import make_world
from support.app import App
from support.cli import RECIPE, on
from support.roles import role

pytestmark = pytest.mark.usefixtures("per_persona")

PAGE = Path(__file__).parents[2] / "docs" / "operate.md"


def grants() -> list[str]:
    """The grants that docs/operate.md names for the role of cron."""
    lines = PAGE.read_text().splitlines()
    return [each for each in lines if each.startswith("GRANT") and "memsync_reader" in each]


@pytest.fixture
def reader(app: str) -> Iterator[str]:
    """The URL of a role that has those grants and no more."""
    statements = [each.replace("memsync_reader", "{}") for each in grants()]
    with role(App(app, make_world(RECIPE)), *statements) as url:
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
