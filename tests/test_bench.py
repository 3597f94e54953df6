"""The benchmark runs: its figures are made by hand, and a run that fails is noticed late."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_small_benchmark_ends_with_figures(tmp_path: Path) -> None:
    """It compares memsync with the script that people used, and gives nobody a wrong persona."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "bench/migrate.py", "--rows", "5000"),
            *("--no-hostile", "--json", str(file)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert json.loads(file.read_text())


@pytest.mark.slow
def test_reconcile_finds_what_was_planted_and_mends_it(tmp_path: Path) -> None:
    """At three sizes, so that lines are fitted. It fails where an audit finds anything else."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "bench/reconcile.py", "--sizes", "100", "200", "400"),
            *("--share", "0.1", "--stores", "edge", "--json", str(file)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    fits = json.loads(file.read_text())["lines"]
    assert 2 * 4 * 2 == len(fits)
    assert 2 * 4 * 2 == done.stdout.count("R² = ")


@pytest.mark.slow
def test_proof_names_what_was_planted(tmp_path: Path) -> None:
    """By fingerprint and deep. It fails where an audit finds anything else."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "bench/proof.py", "--sizes", "400"),
            *("--stores", "edge", "--json", str(file)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert {"T4", "T5"} == {each["target"] for each in json.loads(file.read_text())["figures"]}
