"""The scripts in `sql/` are made from the engine's statements; nobody edits them by hand."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_scripts_are_what_their_sources_make() -> None:
    """After a change of the engine's statements or of sql/parts, `make sql` was run."""
    done = subprocess.run(
        [sys.executable, "tools/make_sql.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
