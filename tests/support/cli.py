"""Runs memsync commands as the console script does, and keeps their status and output."""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from memsync.cli.app import main
from memsync.demo.world import Recipe

NOWHERE = "postgresql://user@127.0.0.1:1/app"
NO_QDRANT = "http://127.0.0.1:1"
EMBEDDERS = "memsync_cli_embedders"
RECIPE = Recipe(users=8, dialogues=16, points=False)

THROUGH = (
    *("migrate", "run", "--unresolved", "create"),
    *("--quiet-minutes", "0", "--backup-confirmed", "test", "--evidence", "ignore"),
)
"""`migrate run` through all phases, with the gates of quiet and backup open."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The exit status and the output of one command."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The JSON object on stdout; stderr must be empty."""
        assert "" == self.err
        found: dict[str, Any] = json.loads(self.out)
        return found

    def failure(self) -> dict[str, Any]:
        """The JSON error on stderr; stdout must be empty."""
        assert "" == self.out
        found: dict[str, Any] = json.loads(self.err)
        assert self.status == found["exit_status"]
        assert 2 == found["schema_version"]
        assert {"error", "message"} <= set(found)
        return found


def run(*arguments: str) -> Ran:
    """Run one command as the console script would."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    return Ran(status, out.getvalue(), err.getvalue())


def on(postgres: str, qdrant: str, *command: str) -> Ran:
    """Run a command on these stores."""
    return run("--postgres-url", postgres, "--qdrant-url", qdrant, *command)


COMMANDS = [
    ("migrate", "plan"),
    ("migrate", "run"),
    ("migrate", "status"),
    ("migrate", "verify"),
    ("reconcile",),
    ("reconcile", "audit"),
    ("reconcile", "plan"),
    ("check",),
    ("sync", "run"),
    ("sync", "status"),
    ("sync", "retry"),
]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Vectors that a store accepts."""
    return [[1.0 + len(text) % 7, 2.0, 3.0, 4.0] for text in texts]


def embed_nothing(texts: Sequence[str]) -> list[list[float]]:
    """Zero vectors, which no store can compare."""
    return [[0.0] * 4 for _ in texts]
