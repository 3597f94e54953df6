"""The benchmark runs: its figures are made by hand, and a run that fails is noticed late."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def figures_of(tmp_path: Path, script: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """The figures of a benchmark, which must end well, and what it printed."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, f"bench/{script}", *arguments, "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(file.read_text()), done.stdout


@pytest.mark.slow
def test_a_small_benchmark_ends_with_figures(tmp_path: Path) -> None:
    """It compares memsync with the script that people used, and gives nobody a wrong persona."""
    figures, _ = figures_of(tmp_path, "migrate.py", "--rows", "5000", "--no-hostile")

    assert figures


@pytest.mark.slow
def test_reconcile_finds_what_was_planted_and_mends_it(tmp_path: Path) -> None:
    """At three sizes, so that lines are fitted. It fails where an audit finds anything else."""
    sizes = ("--sizes", "100", "200", "400")
    figures, printed = figures_of(
        tmp_path, "reconcile.py", *sizes, "--share", "0.1", "--stores", "edge"
    )

    assert 2 * 4 * 2 == len(figures["lines"])
    assert 2 * 4 * 2 == printed.count("R² = ")


@pytest.mark.slow
def test_proof_names_what_was_planted(tmp_path: Path) -> None:
    """By fingerprint and deep. It fails where an audit finds anything else."""
    figures, _ = figures_of(tmp_path, "proof.py", "--sizes", "400", "--stores", "edge")

    assert {"T4", "T5"} == {each["target"] for each in figures["figures"]}
