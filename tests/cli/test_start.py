"""How a command begins: quickly, and quiet where it is interrupted before it is ready."""

import json
import subprocess
import sys
from textwrap import dedent

import pytest

SLOW = {"alembic", "sqlalchemy", "mako", "qdrant_client", "qdrant_edge", "grpc", "wordllama"}
"""What only a run of the migration, or an open vector store, has a use for."""
INTERRUPTED_AT_ONCE = dedent("""
    import signal, sys


    class Finder:
        def find_spec(self, name, *_):
            if name == "typer":
                signal.raise_signal(signal.Signals[sys.argv.pop()])


    sys.meta_path.insert(0, Finder())
    from memsync.__main__ import entry

    entry()
""")
"""The console script, which gets a signal while it imports the commands."""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def imported_by(statement: str) -> set[str]:
    """The packages that stand in a new process after this statement."""
    code = f"{statement}; import sys; print(*{{each.partition('.')[0] for each in sys.modules}})"
    return set(python(code).stdout.split())


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted_while_it_starts(signal_name: str) -> None:
    """The first second of a command ends as the rest does: one line, and status 130."""
    heeds = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # also under nohup
    ran = python(heeds + INTERRUPTED_AT_ONCE, "--version", signal_name)

    assert (130, "") == (ran.returncode, ran.stdout)
    assert "memsync: interrupted; it is safe to run it again\n" == ran.stderr


def test_interrupted_while_it_starts_as_json() -> None:
    """With --json stderr is one object then, too."""
    ran = python(INTERRUPTED_AT_ONCE, "check", "--json", "SIGINT")

    assert 130 == ran.returncode
    assert "Interrupted" == json.loads(ran.stderr)["error"]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """A command under nohup begins in spite of SIGHUP."""
    ignores = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    ran = python(ignores + INTERRUPTED_AT_ONCE, "--version", "SIGHUP")

    assert (0, "") == (ran.returncode, ran.stderr)


def test_a_command_imports_what_it_needs() -> None:
    """No command waits for alembic or a client of Qdrant before it is known what it is."""
    assert "typer" in (found := imported_by("import memsync.cli.app"))
    assert set() == found & SLOW


def test_the_package_alone_imports_nothing_slow() -> None:
    """`import memsync` is at once there; the first use of a name imports what is behind it."""
    slow = SLOW | {"pydantic", "psycopg", "typer", "rich", "httpx"}

    assert set() == imported_by("import memsync") & slow
    assert "psycopg" in imported_by("from memsync import Memory")
