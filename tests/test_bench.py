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
