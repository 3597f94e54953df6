"""Tests `memsync check` on a database that it cannot read in full, and what it refuses."""

import psycopg
import pytest

from support.cli import NOWHERE, on


@pytest.mark.parametrize("command", ["check", "reconcile"])
def test_an_audit_of_a_legacy_database_is_15(legacy_app: str, command: str) -> None:
    """What could not read everything is not clean, and still shows its findings and a way on."""
    ran = on(legacy_app, ":memory:", command, "--json")

    assert 15 == ran.status
    report = ran.json()
    assert (False, False) == (report["ok"], report["complete"])
    assert "migration-behind" in report["counts"]
    told = {each["next_command"] for each in report["findings"]}
    assert {"memsync migrate plan"} == told
    assert [True] == ["cannot be read by persona" in each for each in report["not_checked"]]


def test_what_is_incomplete_leads_to_its_cause(legacy_app: str) -> None:
    """And not to itself, also where the cause was not asked for."""
    ran = on(legacy_app, ":memory:", "reconcile", "--select", "MSI")
    assert 15 == ran.status
    assert "next: memsync migrate plan" == ran.out.splitlines()[-1]


def test_a_lost_collection_is_clean_for_nobody(
    app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one finding in place of all about memories, so every part of them has it."""
    monkeypatch.setenv("MEMSYNC_LAYOUT", "shared")
    with psycopg.connect(app) as connection:
        [(persona,)] = connection.execute("SELECT id::text FROM personas LIMIT 1").fetchall()
    for part in (("--persona", persona), ("--select", "MSC001")):
        report = on(app, qdrant, "check", *part, "--json").json()
        assert (False, {"collection-missing": 1}) == (report["ok"], report["counts"]), part
    plan = on(app, qdrant, "reconcile", "plan", "--persona", persona)
    assert "not repaired: 1 collection-missing" in plan.out
    assert "there is nothing to repair" not in plan.out
    nobody = on(app, qdrant, "check", "--persona", "00000000-0000-4000-8000-000000000000")
    assert (2, "") == (nobody.status, nobody.out), "it names no persona"


@pytest.mark.parametrize("other", [("--deep",), ("--verify-vectors", "all"), ("--workers", "2")])
def test_options_that_contradict_each_other_are_2(other: tuple[str, ...]) -> None:
    """To read every memory and to read only some: neither is taken silently."""
    for words in (("--by-fingerprint", *other), (*other, "--by-fingerprint")):
        ran = on(NOWHERE, ":memory:", "check", *words)
        assert (2, "") == (ran.status, ran.out)
        assert "give one or the other" in " ".join(ran.err.split())
