"""`memsync check`: what cannot be read is unknown."""

from support.cli import on


def test_check_of_legacy_database_is_15(legacy_app: str) -> None:
    """What cannot be read is unknown, not clean; what was found is shown all the same."""
    ran = on(legacy_app, ":memory:", "check", "--json")

    assert 15 == ran.status
    report = ran.json()
    assert (False, False) == (report["ok"], report["complete"])
    assert "migration-behind" in report["counts"]
    assert report["not_checked"]
