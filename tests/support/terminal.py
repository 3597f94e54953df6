"""A terminal of a given width, in which a command prints as it does for people."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "cli" / "golden"
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d(\.\d+)?)?"), "<time>"),
    (re.compile(r"\d+\.\d MiB"), "<size> MiB"),
    (re.compile(r"(seconds +)\d+\.\d"), r"\1<n>"),
)
"""What differs from run to run, and what stands for it in a golden file."""


def on_terminal(columns: int, call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything that the call prints on a terminal that has so many columns, codes included."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = os.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        # Linux ends the reading of a terminal that nobody holds open by an error.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 65536):
                chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w", encoding="utf-8") as screen:  # noqa: PTH123  a descriptor, no path
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", screen)
        try:
            call()
        finally:
            monkeypatch.undo()
    reader.join()
    os.close(ours)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def plain(screen: str) -> str:
    """The screen without colours, and without what differs from run to run."""
    text = _CODES.sub("", screen).replace("\r", "")
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return text


def agrees_with_golden(name: str, screen: str) -> None:
    """Compare the screen with its golden file, or write it where MEMSYNC_TEST_GOLDEN=write."""
    file, text = GOLDEN / f"{name}.txt", plain(screen)
    if os.environ.get("MEMSYNC_TEST_GOLDEN") == "write":
        file.write_text(text)
    assert file.read_text() == text
