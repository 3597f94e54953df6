"""Tests `memsync reconcile baseline`: what it prints, what it refuses, and the green gate."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.cli import NOWHERE, on

pytestmark = pytest.mark.usefixtures("per_persona")

BASELINE = ("reconcile", "baseline")
HOSTILE = "lost \x1b[2J\u202e in\nMarch; see `memsync check`"
Run = Callable[..., Any]


@pytest.fixture
def ran(app: str, qdrant: str) -> Run:
    """Runs a command on an app whose memories are all missing."""

    def run(*command: str) -> Any:
        return on(app, qdrant, *command)

    return run


def test_from_findings_to_a_green_gate_and_back(ran: Run) -> None:
    """Acknowledged, cron is silent; what was mended is outdated, and dropping it ends that."""
    number = ran("check", "--json").json()["counts"]["missing-point"]

    done = ran(*BASELINE, "--select", "MSC001", "--reason", HOSTILE)
    said = f"{number} acknowledged: {number} missing-point"
    assert (0, f"{said}\nnext: memsync check\n") == (done.status, done.out)

    assert (0, "", "") == ((quiet := ran("check", "--quiet")).status, quiet.out, quiet.err)
    gate = ran("check")
    assert said in gate.out.splitlines()
    assert gate.out.splitlines()[-1] == (
        f"clean: both stores agree, but for {number} acknowledged findings"
    )
    assert HOSTILE not in gate.out
    listed = ran("check", "--acknowledged", "--limit", "1").out
    assert r"lost \x1b[2J\u202e in\nMarch; see `memsync check`" in listed
    assert "acknowledged by " in listed
    assert f"… {number - 1} more findings" in listed

    planned = ran("reconcile", "plan")
    assert f"acknowledged, so not in the plan: {number} missing-point" in planned.out
    assert "saved 0 actions in plan.json" in planned.out
    assert 0 == ran(*BASELINE, "drop", "--select", "missing-point").status
    made = ran("reconcile", "plan", "--json").json()
    assert (number, {}, {}) == (made["actions"], made["left"], made["acknowledged"])
    assert 0 == ran(*BASELINE, "--reason", "again").status
    assert 0 == ran("reconcile", "apply", "plan.json").status

    mended = ran("check")
    assert (
        0,
        ["clean: both stores agree", "next: memsync reconcile baseline drop --outdated"],
    ) == (
        mended.status,
        mended.out.splitlines()[-2:],
    )
    assert f"{number} baseline-outdated" in mended.out
    assert 0 == ran(*BASELINE, "drop", "--outdated", "--select", "MSI").status
    gone = ran(*BASELINE, "drop", "--outdated")
    assert (0, f"{number} dropped: {number} missing-point") == (
        gone.status,
        gone.out.splitlines()[0],
    )
    assert "baseline-outdated" not in ran("check").out
    assert (0, "0 acknowledged\n") == ((empty := ran(*BASELINE, "list")).status, empty.out)


def test_lists_for_people_and_for_programs(ran: Run) -> None:
    """Each acknowledgement has an id, which drop takes; JSON has all of them."""
    assert 0 == ran(*BASELINE, "--reason", HOSTILE).status
    whole = ran(*BASELINE, "list", "--json").json()
    number = whole["counts"]["missing-point"]
    every = whole["acknowledged"]
    assert number == len(every) > 11
    assert {HOSTILE} == {each["reason"] for each in every}

    lines = ran(*BASELINE, "list").out.splitlines()
    assert 1 + 2 * 10 + 1 == len(lines)
    assert lines[1].startswith(f"{every[0]['id']}  MSC001 missing-point  ")
    assert f"… {number - 10} more: --limit 0 prints all" == lines[-1]
    assert 1 + 2 * number == len(ran(*BASELINE, "list", "--limit", "0").out.splitlines())
    assert "0 acknowledged\n" == ran(*BASELINE, "list", "--select", "MSI").out

    ids = [str(each["id"]) for each in every[:2]]
    assert {"missing-point": 2} == ran(*BASELINE, "drop", *ids, "--json").json()["dropped"]
    gate = ran("check", "--json").json()
    assert (2, number - 2) == (
        gate["counts"]["missing-point"],
        gate["acknowledged"]["missing-point"],
    )
    assert [None, None] == [each["acknowledged"] for each in gate["findings"]]
    *shown, summary = map(
        json.loads, ran("check", "--json-lines", "--acknowledged").out.splitlines()
    )
    assert [False] * 2 + [True] * (number - 2) == [bool(each["acknowledged"]) for each in shown]
    assert {"reason", "who", "at"} == set(shown[-1]["acknowledged"])
    assert summary["acknowledged"] == gate["acknowledged"]


def test_one_persona(ran: Run) -> None:
    """--persona acknowledges that persona's findings alone."""
    personas = [each["persona_id"] for each in ran("check", "--json").json()["findings"]]
    one = personas[0]
    done = ran(*BASELINE, "--persona", one, "--reason", "gone", "--json").json()
    assert {"missing-point": personas.count(one)} == done["acknowledged"]
    assert 0 == ran("check", "--persona", one).status
    assert 1 == ran("check").status
    nobody = ran(*BASELINE, "--persona", "00000000-0000-4000-8000-000000000000", "--reason", "x")
    assert (2, "") == (nobody.status, nobody.out)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "--reason"),
        (("--reason", " "), "the reason is empty"),
        (("--reason", "x", "--select", "MSX"), "there is no finding MSX"),
        (("--reason", "x", "list"), "options go after the command"),
        (("drop",), "nothing was dropped"),
        (("drop", "1", "--outdated"), "nothing was dropped"),
        (("drop", "one"), "[ID]"),
        (("drop", "1", "--verify-vectors", "all"), "goes with --outdated"),
    ],
)
def test_mistakes_are_2(words: tuple[str, ...], why: str) -> None:
    """Before a store is opened."""
    done = on(NOWHERE, ":memory:", *BASELINE, *words)
    assert (2, "") == (done.status, done.out)
    assert why in done.err


def test_what_is_not_there_is_2(ran: Run) -> None:
    """Neither a finding nor an id of that kind."""
    for words in (("--select", "MSI", "--reason", "x"), ("drop", "77")):
        done = ran(*BASELINE, *words)
        assert (2, "") == (done.status, done.out)
