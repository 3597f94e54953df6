"""Tests `memsync check` on a database that it cannot read in full, and what it refuses."""

import pytest

from support.cli import NOWHERE, on


def test_check_of_legacy_database_is_15(legacy_app: str) -> None:
    """A check that could not read everything is not clean, and still shows its findings."""
    ran = on(legacy_app, ":memory:", "check", "--json")

    assert 15 == ran.status
    report = ran.json()
    assert (False, False) == (report["ok"], report["complete"])
    assert "migration-behind" in report["counts"]
    assert [True] == ["cannot be read by persona" in each for each in report["not_checked"]]


@pytest.mark.parametrize("other", [("--deep",), ("--verify-vectors", "all"), ("--workers", "2")])
def test_options_that_contradict_each_other_are_2(other: tuple[str, ...]) -> None:
    """To read every memory and to read only some: neither is taken silently."""
    for words in (("--by-fingerprint", *other), (*other, "--by-fingerprint")):
        ran = on(NOWHERE, ":memory:", "check", *words)
        assert (2, "") == (ran.status, ran.out)
        assert "give one or the other" in " ".join(ran.err.split())
