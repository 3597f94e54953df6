"""Tests the options of check, reconcile and plan that look at vectors."""

from pathlib import Path

import pytest

from memsync.model.records import Point
from memsync.stores.ltm.marks import META
from memsync.stores.vectors.edge import open_edge
from memsync.stores.vectors.protocol import scan
from support.cli import NOWHERE, on

pytestmark = pytest.mark.usefixtures("per_persona")


@pytest.fixture
def spoilt(app: str, qdrant: str, per_persona: None) -> int:  # noqa: ARG001  the layout comes first
    """An app with a memory whose vector is zero; how many memories it has."""
    assert 0 == on(app, qdrant, "reconcile", "plan").status
    assert 0 == on(app, qdrant, "reconcile", "apply", "plan.json").status
    Path("plan.json").unlink()
    store = open_edge(Path(qdrant.removeprefix("edge:")))
    homes = [name for name in store.collections() if name != META]
    home = homes[0]
    [first, *_] = scan(store, home, vectors=True)
    store.upsert(home, [Point(first.id, first.payload, (0.0,) * len(first.vector or ()))])
    memories = sum(store.count(name) for name in homes)
    store.close()
    return memories


@pytest.mark.parametrize("command", [("check",), ("reconcile", "audit")])
def test_a_report_says_how_many_vectors_were_looked_at(
    app: str, qdrant: str, spoilt: int, command: tuple[str, ...]
) -> None:
    """None is looked at unless it is asked for; then a zero is found, in each form of output."""
    plain = on(app, qdrant, *command)
    assert 0 == plain.status, plain.out
    assert "vectors were not looked at: --verify-vectors all does it" in plain.out
    nothing = {"memories": None, "looked_at": 0, "compared": 0, "seed": None}
    assert nothing == on(app, qdrant, *command, "--json").json()["checked"]["vectors"]

    every = ("--verify-vectors", "all")
    found = on(app, qdrant, *command, *every)
    assert 1 == found.status
    assert f"looked at the vectors of {spoilt} of {spoilt} memories; {spoilt - 1} embedded" in (
        found.out
    )
    report = on(app, qdrant, *command, *every, "--json").json()
    assert {"vector-zero": 1} == report["counts"]
    assert ([], []) == (report["left_out"], report["not_checked"])
    assert report["checked"]["vectors"] == {
        "memories": spoilt,
        "looked_at": spoilt,
        "compared": spoilt - 1,
        "seed": None,
    }


def test_a_sample_is_told_with_its_seed(app: str, qdrant: str, spoilt: int) -> None:
    """A report names what would make it again; without a seed each run has its own."""
    some = ("check", "--verify-vectors", "2")
    ran = on(app, qdrant, *some, "--verify-seed", "7")
    assert f"looked at the vectors of 2 of {spoilt} memories (--verify-seed 7)" in ran.out
    seeds = {
        on(app, qdrant, *some, "--json").json()["checked"]["vectors"]["seed"] for _ in range(3)
    }
    assert len(seeds) > 1


@pytest.mark.parametrize(
    "options",
    [
        ("--verify-vectors", "0"),
        ("--verify-vectors", "-1"),
        ("--verify-vectors", "some"),
        ("--verify-vectors", ""),
        ("--verify-seed", "1"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("command", [("check",), ("reconcile", "plan")], ids=" ".join)
def test_what_cannot_be_looked_at_is_2(command: tuple[str, ...], options: tuple[str, ...]) -> None:
    """A slip is refused before any store is opened."""
    ran = on(NOWHERE, ":memory:", *command, *options)
    assert (2, "") == (ran.status, ran.out)
    assert "--verify" in ran.err


@pytest.mark.usefixtures("spoilt")
def test_a_plan_mends_what_was_looked_at(app: str, qdrant: str) -> None:
    """Without the option the plan is empty; with it the vector is made anew, and undone."""
    planned = on(app, qdrant, "--json", "reconcile", "plan", "--out", "none.json").json()
    assert 0 == planned["actions"]
    # A plan without an action gives way to the next one of its name.
    assert 0 == on(app, qdrant, "reconcile", "plan", "--out", "none.json").status
    ran = on(app, qdrant, "--json", "reconcile", "plan", "--verify-vectors", "all").json()
    assert (1, {}) == (ran["actions"], ran["left"])
    shown = on(app, qdrant, "reconcile", "show", "plan.json").out
    assert "vector-zero" in shown
    again = "next: memsync check --verify-vectors all"
    assert again == on(app, qdrant, "reconcile", "apply", "plan.json").out.splitlines()[-1]
    assert 0 == on(app, qdrant, "check", "--verify-vectors", "all").status
    assert again == on(app, qdrant, "reconcile", "undo", ran["plan_id"]).out.splitlines()[-1]
    assert 1 == on(app, qdrant, "check", "--verify-vectors", "all").status


@pytest.mark.usefixtures("spoilt")
def test_what_was_not_looked_for_is_said(app: str, qdrant: str) -> None:
    """A finding of vectors that is asked for, or acknowledged, is no clean one unless seen."""
    select, every = ("--select", "MSD010"), ("--verify-vectors", "all")
    baseline = ("reconcile", "baseline")
    why = "MSD010: vectors were not looked at: --verify-vectors all does it"
    unseen = on(app, qdrant, *baseline, *select, "--reason", "x")
    assert 2 == unseen.status
    assert f"Not looked for: {why}" in " ".join(unseen.err.split())

    done = on(app, qdrant, *baseline, *every, "--reason", "x")
    assert ("1 acknowledged: 1 vector-zero", "next: memsync check --verify-vectors all") == (
        tuple(done.out.splitlines())
    )
    clean = on(app, qdrant, "check", *select).out.splitlines()
    assert "1 acknowledged, and not looked for: 1 vector-zero" in clean
    assert f"not looked for: {why}" in clean
    assert "INCOMPLETE: nothing that you asked for was looked for" == clean[-1]
    family = on(app, qdrant, "check", "--select", "MSD").out.splitlines()[-1]
    assert family.startswith("clean, of what you asked for, but for what was not looked for: MSD")
    assert "MSD010" in family
    report = on(app, qdrant, "check", *select, "--json").json()
    assert ({"vector-zero": 1}, ["MSD010"]) == (
        report["acknowledged_not_looked_for"],
        list(report["not_looked_for"]),
    )
    seen = on(app, qdrant, "check", *every, "--json").json()
    assert {} == seen["acknowledged_not_looked_for"]
    assert "MSD010" not in seen["not_looked_for"]

    narrow = on(app, qdrant, "reconcile", "audit", "--select", "MSS016").out
    assert "not looked for: MSS016: only memsync check looks for it" in narrow.splitlines()

    kept = on(app, qdrant, *baseline, "drop", "--outdated").out
    assert "kept, because they were not looked for: 1 vector-zero" in kept
    gone = on(app, qdrant, *baseline, "drop", *select).out.splitlines()
    assert ["1 dropped: 1 vector-zero", "next: memsync check --verify-vectors all"] == gone
