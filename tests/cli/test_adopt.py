"""Tests `memsync reconcile adopt`: what it takes, prints and refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from support.cli import on

NOBODY = "aaaaaaaa-0000-4000-8000-0000000000ff"
Run = Callable[..., Any]


@pytest.fixture
def ran(app: str, qdrant: str, per_persona: None) -> Run:  # noqa: ARG001  the layout of the app
    """Runs a command on an app whose memories are all missing."""

    def run(*command: str) -> Any:
        return on(app, qdrant, "reconcile", "adopt", *command)

    return run


def test_what_a_part_may_be(ran: Run) -> None:
    """A slip is refused, and says what to correct."""
    for words, said in (
        (("--persona", NOBODY), f"there is no persona {NOBODY}"),
        (("--point", "somewhere"), "is no COLLECTION/ID"),
        (("--point", f"memsync-meta/{NOBODY}"), "keeps no memories there"),
        (("--persona", "me"), "must be a valid UUID"),
    ):
        done = ran("--anew", *words)
        assert done.status == 2, done
        assert said in " ".join(done.err.split())


def test_what_it_says(ran: Run) -> None:
    """Numbers, and nobody's words."""
    done = ran("--json").json()
    assert {"memories", "archived", "changed", "left_out", "dropped"} <= done.keys()
    assert ran().out.endswith("in the ledger\nnext: memsync check\n")
