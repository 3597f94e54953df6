"""Tests `memsync check` on a database that it cannot read in full, and what it refuses."""

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


@pytest.mark.parametrize("other", [("--deep",), ("--verify-vectors", "all"), ("--workers", "2")])
def test_options_that_contradict_each_other_are_2(other: tuple[str, ...]) -> None:
    """To read every memory and to read only some: neither is taken silently."""
    for words in (("--by-fingerprint", *other), (*other, "--by-fingerprint")):
        ran = on(NOWHERE, ":memory:", "check", *words)
        assert (2, "") == (ran.status, ran.out)
        assert "give one or the other" in " ".join(ran.err.split())
