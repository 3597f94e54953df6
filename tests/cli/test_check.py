"""Tests `memsync check` on a database that it cannot read in full."""

from support.cli import on


def test_check_of_legacy_database_is_15(legacy_app: str) -> None:
    """A check that could not read everything is not clean, and still shows its findings."""
    ran = on(legacy_app, ":memory:", "check", "--json")

    assert 15 == ran.status
    report = ran.json()
    assert (False, False) == (report["ok"], report["complete"])
    assert "migration-behind" in report["counts"]
    assert [True] == ["cannot be read by persona" in each for each in report["not_checked"]]
