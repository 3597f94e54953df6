"""Tests `memsync reconcile layout`: what it shows, what it refuses, and the whole way there and
back.
"""

import contextlib
import re
from collections.abc import Sequence

import psycopg
import pytest

from memsync.settings import Settings
from memsync.stores.history.exchanges import exchanges_in_order
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import Postgres
from memsync.stores.vectors import open_vectors
from support.cli import EMBEDDERS, on

SHARED = ("reconcile", "layout", "set", "shared")
BACK = ("reconcile", "layout", "set", "per-persona")


@pytest.fixture
def deployed(app: str, qdrant: str) -> tuple[str, str, int]:
    """An app with a memory of every exchange in its own layout: both URLs, and how many."""
    settings = Settings(postgres_url=app, qdrant_url=qdrant, embedder=f"{EMBEDDERS}:embed")
    with (
        contextlib.closing(open_vectors(settings)) as vectors,
        Postgres.open(app) as postgres,
        postgres.session() as session,
    ):
        ltm = LongTermMemory(vectors, settings, layout=Layout.PER_PERSONA)
        anchors = [each.anchor_id for each in exchanges_in_order(session)]
        ltm.project(session, anchors, lambda _: {})
    return app, qdrant, len(anchors)


def test_there_retired_and_back(deployed: tuple[str, str, int]) -> None:
    """Each command says what it did, and the next one."""
    app, qdrant, memories = deployed
    shown = on(app, qdrant, "reconcile", "layout")
    assert (0, "") == (shown.status, shown.err)
    assert "memories lie in the per-persona layout: persona-" in shown.out
    assert "it is not recorded yet" in shown.out
    assert re.search(rf"persona-\*\s+\d+\s+{memories}$", shown.out, re.MULTILINE)

    changed = on(app, qdrant, *SHARED, "--app-stopped")
    assert 0 == changed.status, changed
    assert f"the layout was changed: {memories} points copied" in changed.out
    assert 1 == changed.out.count(f"{memories} points")
    assert 1 == changed.out.count("memories lie in the shared layout: ")
    *_, first, then = changed.out.splitlines()
    assert first.startswith("first: deploy the version of the app that reads the shared collection")
    assert "next: memsync reconcile layout set shared --retire" == then
    assert [first, then] == on(app, qdrant, "reconcile", "layout").out.splitlines()[-2:]
    assert 0 == on(app, qdrant, "check").status

    retired = on(app, qdrant, *SHARED, "--retire")
    assert 0 == retired.status
    assert f"{memories} points in the quarantine, as " in retired.out
    shown = on(app, qdrant, "reconcile", "layout")
    assert "persona-*" not in shown.out
    assert f": {memories} points of" in shown.out
    with psycopg.connect(app) as connection:
        connection.execute("UPDATE memsync.quarantine SET reason = 'x' WHERE reason = 'retired'")
        connection.commit()
        shown = on(app, qdrant, "reconcile", "layout")
        assert f": 0 of {memories} points of" in shown.out
        connection.execute("UPDATE memsync.quarantine SET reason = 'retired' WHERE reason = 'x'")
    assert "there is nothing to retire\n" == on(app, qdrant, *SHARED, "--retire").out

    back = on(app, qdrant, *BACK)
    assert 0 == back.status
    assert f"restored with {memories} points" in back.out
    assert "0 points copied" in back.out
    assert "the shared collection stays" in back.out
    assert back.out.endswith("\nnext: memsync check\n")
    assert 0 == on(app, qdrant, "check").status


def test_as_json(deployed: tuple[str, str, int]) -> None:
    """One object each."""
    app, qdrant, memories = deployed
    shown = on(app, qdrant, "reconcile", "layout", "--json").json()
    assert ("per-persona", False) == (shown["layout"], shown["recorded"])
    assert [memories] == [each["points"] for each in shown["kinds"]]

    changed = on(app, qdrant, *SHARED, "--app-stopped", "--json").json()
    assert ("shared", True, memories) == tuple(changed[k] for k in ("layout", "changed", "copied"))
    assert changed["audit"]["ok"]
    again = on(app, qdrant, *SHARED, "--json").json()
    assert (False, None) == (again["changed"], again["audit"])

    waiting = on(app, qdrant, "reconcile", "layout", "--json").json()["waiting"]
    assert memories == sum(waiting.values())
    retired = on(app, qdrant, *SHARED, "--retire", "--json").json()
    assert (len(waiting), memories) == (retired["collections"], retired["points"])
    assert 0 == retired["without_copy"]
    back = on(app, qdrant, *BACK, "--json").json()
    told = ("copied", "beside", "replaced", "left", "restored", "removed", "incomplete")
    assert [0, 0, 0, 0, memories, 0, []] == [back[each] for each in told]


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (SHARED, 14, "--app-stopped"),
        ((*SHARED, "--retire"), 14, "layout set shared"),
        ((*BACK, "--retire"), 2, "--retire goes with"),
        ((*SHARED, "--unsafe"), 2, "--unsafe goes with"),
        (("reconcile", "layout", "set", "both"), 2, "both"),
    ],
)
def test_refused(
    deployed: tuple[str, str, int], command: Sequence[str], status: int, said: str
) -> None:
    """The message says what is to be done."""
    app, qdrant, _ = deployed
    ran = on(app, qdrant, *command)
    assert (status, "") == (ran.status, ran.out)
    assert said in ran.err


def test_no_embedder(deployed: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that nobody named is not compared with the app's vectors."""
    monkeypatch.delenv("MEMSYNC_EMBEDDER")
    app, qdrant, _ = deployed
    ran = on(app, qdrant, *SHARED, "--app-stopped")
    assert (12, "") == (ran.status, ran.out)
    assert "MEMSYNC_EMBEDDER" in ran.err


def test_a_setting_that_names_a_layout(
    deployed: tuple[str, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing about where memories lie when it names the one to come, and the command says
    when it must be taken back.
    """
    app, qdrant, memories = deployed
    monkeypatch.setenv("MEMSYNC_LAYOUT", "shared")
    changed = on(app, qdrant, *SHARED, "--app-stopped", "--json").json()
    assert (memories, False) == (changed["copied"], changed["setting_contradicts"])
    ran = on(app, qdrant, *BACK)
    assert 0 == ran.status
    assert "the setting layout is shared: take it back" in ran.out
    assert 12 == on(app, qdrant, "check").status
