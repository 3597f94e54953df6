"""Types the commands that memsync prints, as an operator does, and reads what they print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from memsync.cli.app import app

if TYPE_CHECKING:
    from support.cli import Ran

_IN_TICKS = re.compile(r"`(memsync [^`]+)`")
_LINE = re.compile(r"(?:next|do|where it was meant|saved .*next): (?:.*?)(memsync .*)")
_PLACEHOLDERS = {"assign:USER_ID": "assign:00000000-0000-0000-0000-000000000001"}


def printed(ran: Ran) -> list[list[str]]:
    """Every command in the output of another, as the words behind `memsync`."""
    return [list(_words(each)) for each in _commands(" ".join(ran.err.split()) + "\n" + ran.out)]


def next_of(ran: Ran) -> list[str] | None:
    """The words of the last line, if it is `next:`; else None."""
    last = ran.out.splitlines()[-1]
    return shlex.split(last.removeprefix("next: "))[1:] if last.startswith("next: ") else None


def parse(words: list[str]) -> None:
    """Parse the command without running it.

    Raises: the error of the command line.
    """
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        while rest[0].startswith("--"):
            rest = rest[2:]
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(words[0], rest)


def _commands(text: str) -> Iterator[str]:
    yield from _IN_TICKS.findall(text)
    for line in text.splitlines():
        for found in _LINE.findall(line):
            # Prose may stand around the command, and several commands in a line.
            for each in re.split(r"[;,] | decides | to go by |, or |\bthen\b|\)\. ", found):
                if each.strip().startswith("memsync "):
                    yield each.strip()


def _words(command: str) -> Iterator[str]:
    for word in shlex.split(command)[1:]:
        yield _PLACEHOLDERS.get(word, word)
