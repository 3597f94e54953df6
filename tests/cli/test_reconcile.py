"""Tests `memsync reconcile`: the plan files that it refuses, and its JSON output."""

from pathlib import Path

import pytest

from support.cli import NOWHERE, THROUGH, on


@pytest.mark.parametrize("text", ["{}", "[]", "", "not json", '{"schema_version": 9}', "\udcff"])
def test_file_that_is_no_plan_is_2(text: str, tmp_path: Path) -> None:
    """A file that is not a plan is refused, and the message names it."""
    file = tmp_path / "plan.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    ran = on(NOWHERE, ":memory:", "reconcile", "apply", str(file))

    assert (2, "") == (ran.status, ran.out)
    assert "plan.json" in ran.err


def test_plan_that_cannot_be_saved_is_2(app: str, qdrant: str, tmp_path: Path) -> None:
    """When a plan file cannot be written, the message names it."""
    ran = on(app, qdrant, "reconcile", "plan", "--out", str(tmp_path / "none" / "plan.json"))

    assert (2, "") == (ran.status, ran.out)
    assert "plan.json" in ran.err


def test_plan_of_another_database_is_13(
    app: str, legacy_app: str, qdrant: str, tmp_path: Path
) -> None:
    """A plan is carried out on the database that it was made for, or not at all."""
    plan = str(tmp_path / "plan.json")
    assert 0 == on(app, qdrant, "reconcile", "plan", "--out", plan).status
    assert 0 == on(legacy_app, qdrant, *THROUGH).status

    ran = on(legacy_app, qdrant, "reconcile", "apply", plan)

    assert (13, "") == (ran.status, ran.out)
    assert "database" in ran.err


def test_json_before_a_subcommand_counts(app: str, qdrant: str) -> None:
    """`memsync reconcile --json plan` prints JSON or refuses the option; it never ignores it."""
    ran = on(app, qdrant, "reconcile", "--json", "plan")

    assert 2 == ran.status or ran.json()
