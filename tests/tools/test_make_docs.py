"""Tests that the pages of `docs/reference` and the README's picture match the code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("tool", ["make_docs", "make_picture"])
def test_what_is_made_from_the_code_is_current(tool: str) -> None:
    """`make docs` was run after the last change of a command, a setting, a finding or a report."""
    done = subprocess.run(
        [sys.executable, f"tools/{tool}.py", "--check"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "MEMSYNC_EMBEDDER"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout), done.stderr
