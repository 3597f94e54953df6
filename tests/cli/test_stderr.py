"""stderr carries what memsync says, and nothing of the libraries under it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = """
from memsync import Memory, NewExchange
with Memory.open() as memory:
    nova, alice = memory.add_personality("Nova"), memory.add_persona("Alice")
    memory.remember(NewExchange("1", nova, alice, "I like tea.", "Noted."))
    memory.get_recent_history("1", nova, persona_id=alice)
    assert memory.recall("what do I drink?", persona_id=alice) == []
"""


@pytest.mark.parametrize(
    "runtime_dir", [None, pytest.param("/nonexistent", marks=pytest.mark.slow)]
)
def test_nothing_of_the_libraries_is_on_stderr(
    reachable_dir: Path, runtime_dir: str | None
) -> None:
    """Commands and the library, with every warning shown, print nothing on stderr."""
    environ = {
        name: value
        for name, value in os.environ.items()
        # The default embedder, which loads the most.
        if not name.startswith("MEMSYNC_") and name != "XDG_RUNTIME_DIR"
    }
    environ |= {"XDG_RUNTIME_DIR": runtime_dir} if runtime_dir else {}
    for words in (
        ["-m", "memsync", "--help"],
        ["-m", "memsync", "init", "--embedded", "data"],
        ["-c", LIBRARY],
        ["-m", "memsync", "sync", "run"],
        ["-m", "memsync", "reconcile", "plan", "--out", "plan.json"],
        ["-m", "memsync", "reconcile", "apply", "plan.json"],
        ["-m", "memsync", "check"],
        ["-m", "memsync", "migrate", "plan"],
        ["-m", "memsync", "migrate", "verify"],
        ["-m", "memsync", "migrate", "backup", "--out", "a.dump"],
        ["-m", "memsync", "rules"],
    ):
        ran = subprocess.run(
            [sys.executable, "-W", "default", *words],
            cwd=reachable_dir,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (words, 0, "") == (words, ran.returncode, ran.stderr), ran.stdout
