"""Where a memory's text may be divided into what the user said and what was answered.

A text of the app's does not say where the message ends, because message and reply may hold
anything. So there are several divisions, and at most as many are tried as a constant says.
"""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence

from memsync.model.records import StoredMemory

_SPLITS_MAX = 64
"""At most so many ways to divide a text are tried."""
_BLANK = re.compile(r"[ \t\n\r]")

Key = tuple[str, str]
"""What was said: the user's message and the reply."""


def blanks_of(content: str) -> list[int]:
    """The places of white space, before which a message or a reply may end."""
    return [each.start() for each in _BLANK.finditer(content)]


def keys_of(memory: StoredMemory) -> Iterator[Key]:
    """Every message and reply from which the memory's text may have been made."""
    if memory.user_text is not None and memory.assistant_text is not None:
        yield memory.user_text, memory.assistant_text
    elif memory.content is not None:
        yield from _joined_splits(memory.content)
        yield from _splits(memory.content)


def _joined_splits(content: str) -> Iterator[Key]:
    """The divisions of a text that joins both as an earlier build did."""
    head, between = "user: ", "\nassistant: "
    if content.startswith(head):
        for number, at in enumerate(_places(content, between)):
            if number == _SPLITS_MAX:
                return
            yield content[len(head) : at], content[at + len(between) :]


def _splits(content: str) -> Iterator[Key]:
    """The divisions of `User (<name>): <message>` and `<personality>: <reply>`.

    A name holds no newline, so the message begins in the first line, and the reply behind a name
    that begins a line.
    """
    begins = list(beginnings(content))
    number = 0
    for newline in _places(content, "\n"):
        line_end = content.find("\n", newline + 1)
        end = len(content) if line_end < 0 else line_end
        for colon in _places(content, ": ", newline + 2, end):
            for begin in begins:
                if begin <= newline:
                    number += 1
                    if number > _SPLITS_MAX:
                        return
                    yield content[begin:newline], content[colon + 2 :]


def beginnings(content: str) -> Iterator[int]:
    """Where the user's message may begin: behind `): ` in the first line."""
    if content.startswith("User ("):
        first_line = content.find("\n")
        end = len(content) if first_line < 0 else first_line
        for number, at in enumerate(_places(content, "): ", len("User ("), end)):
            if number == _SPLITS_MAX:
                return
            yield at + 3


def _places(text: str, part: str, start: int = 0, end: int | None = None) -> Iterator[int]:
    at = text.find(part, start, end)
    while at >= 0:
        yield at
        at = text.find(part, at + 1, end)


def ends(
    content: str, begin: int, blanks: Sequence[int], lengths: Collection[int] | None
) -> Iterator[str]:
    """The replies of these lengths that may stand behind `begin`: each follows a colon."""
    if lengths is None:
        return
    for number, colon in enumerate(_places(content, ": ", begin + 1)):
        if number == _SPLITS_MAX:
            return
        first = colon + 2
        for end in (*blanks[bisect_left(blanks, first) :], len(content)):
            if end - first in lengths:
                yield content[first:end]
