"""Tests that the generated scripts in `sql/` match the statements that they are made from."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_scripts_are_what_their_sources_make() -> None:
    """`make sql` was run after the last change of a statement or of sql/parts."""
    done = subprocess.run(
        [sys.executable, "tools/make_sql.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
