"""An outside judge, the package agent-memory-integrity, examines the audit.

It edits both stores at rest in nine ways (T1 to T9) and asks whether memsync reports it. Its own
controls come first: the stores are clean before the edit and after a restart, and the edit landed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.relayout import EMBEDDER

if TYPE_CHECKING:
    from functools import partial

    from support.lab import Lab

check = pytest.importorskip("agmi.check", reason="agent-memory-integrity is not installed")
runner = pytest.importorskip("agmi.runner")

from support.judge import Hand, PointsStore, RowsStore, table  # noqa: E402  they need the judge

PAGE = Path(__file__).parents[2] / "docs" / "integrity.md"
EDITS = list(check.LABELS)
TABLES = {
    "shared, deep": ("shared", True),
    "shared, by fingerprint": ("shared", False),
    "per-persona, deep": ("per-persona", True),
}


def opened(open_lab: partial[Lab], layout: str, store: str = "memory") -> Lab:
    """A lab whose settings name the embedder, as those of an app do."""
    return open_lab(store, layout=layout, embedder=EMBEDDER)


def silent(rows: list[dict[str, str]]) -> dict[str, str]:
    """The edits that were not reported, with what the judge said."""
    return {row["attack"]: row["verdict"] for row in rows if row["verdict"] != "REPORTED"}


def test_the_judge_has_nine_edits() -> None:
    """A new version of the judge with more of them is noticed."""
    assert [f"T{number}" for number in range(1, 10)] == [
        label.split()[0] for label in check.LABELS.values()
    ]


def test_the_judge_reports_what_the_audit_finds(open_lab: partial[Lab]) -> None:
    """Two of the nine edits, in every run of the tests: a text, and memories that are gone."""
    judged = PointsStore(opened(open_lab, "shared"), deep=True)
    some = [each() for each in check.ALL_AT_REST_ATTACKS if each.name in {"tamper", "truncate"}]
    results = runner.run_matrix([judged], some)

    assert ["safe", "safe"] == [each.status for each in results], results
    assert "detected on reload (missing-point)" == results[1].detail


def test_an_edit_that_is_not_reported_is_told_from_one_that_is(open_lab: partial[Lab]) -> None:
    """The judge is no stub: what an audit by fingerprint trusts, it accepts."""
    judged = PointsStore(opened(open_lab, "shared"), deep=False, hand=Hand.WORDS)
    [tamper] = [each() for each in check.ALL_AT_REST_ATTACKS if each.name == "tamper"]

    assert "ACCEPTED" == check.verdict(tamper.run(judged), judged)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["memory", "edge"])
@pytest.mark.parametrize("layout", ["shared", "per-persona"])
def test_a_deep_audit_reports_all_nine_edits_of_memories(
    open_lab: partial[Lab], layout: str, store: str
) -> None:
    """Whoever edits a memory in Qdrant and leaves the history alone is found out."""
    judged = PointsStore(opened(open_lab, layout, store), deep=True, field="persona")
    rows = check.run(judged)

    assert EDITS == [row["attack"] for row in rows]
    assert {} == silent(rows)


@pytest.mark.slow
@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("layout", ["shared", "per-persona"])
def test_every_audit_reports_all_nine_edits_of_exchanges(
    open_lab: partial[Lab], layout: str, *, deep: bool
) -> None:
    """Whoever edits the history and leaves the memories alone is found out, by fingerprint too."""
    judged = RowsStore(opened(open_lab, layout), deep=deep, field="persona")
    rows = check.run(judged)

    assert EDITS == [row["attack"] for row in rows]
    assert {} == silent(rows)


@pytest.mark.slow
def test_in_the_per_persona_layout_every_audit_is_deep(open_lab: partial[Lab]) -> None:
    """So the page has one table for it."""
    judged = PointsStore(opened(open_lab, "per-persona"), deep=False, field="persona")

    assert {} == silent(check.run(judged))


@pytest.mark.slow
@pytest.mark.parametrize("title", TABLES)
def test_the_tables_of_the_page_are_what_was_measured(open_lab: partial[Lab], title: str) -> None:
    """Every cell of docs/integrity.md; MEMSYNC_TEST_GOLDEN=write writes them."""
    layout, deep = TABLES[title]
    measured = table(opened(open_lab, layout), deep=deep)
    block = re.compile(rf"(<!-- measured: {title} -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)
    if os.environ.get("MEMSYNC_TEST_GOLDEN") == "write":
        PAGE.write_text(block.sub(lambda found: found[1] + measured, PAGE.read_text()))
    found = block.search(PAGE.read_text())
    assert found is not None
    assert measured == found[0].removeprefix(found[1])
