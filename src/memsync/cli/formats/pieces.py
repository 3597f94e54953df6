"""What several formats write of a finding: its evidence in two columns, and its texts, harmless.

A name from a store may hold anything. Control characters become escapes, and what is longer than a
page could show is cut, with its length.
"""

from collections.abc import Iterator, Mapping

from memsync.cli.formats.as_text import shown
from memsync.cli.output import one_line
from memsync.model.wording import count

_SHOWN_MAX = 1000
_ROW = (
    "row_id",
    "row",
    "ledger",
    "kept",
    "expected",
    "at_least",
    "collection_persona",
    "belongs_in",
)
_MEMORY = ("point", "found", "cosine", "collection", "elsewhere")


def safe(text: object, at_most: int = _SHOWN_MAX) -> str:
    """The text on one line, without characters that steer, and no longer than `at_most`."""
    whole = str(text)
    if len(whole) <= at_most:
        return one_line(whole)
    return f"{one_line(whole[:at_most])}… ({count(len(whole), 'character')})"


def values(evidence: Mapping[str, object], *, show_text: bool) -> Iterator[tuple[str, str]]:
    """The evidence as names and texts."""
    for name, value in evidence.items():
        yield safe(name), safe(shown(value, show_text=show_text))


def sides(evidence: Mapping[str, object]) -> tuple[dict[str, object], ...]:
    """The evidence as what the rows say or want, what the memory says, and the rest."""
    row = {name: evidence[name] for name in _ROW if name in evidence}
    memory = {name: evidence[name] for name in _MEMORY if name in evidence}
    rest = {name: value for name, value in evidence.items() if name not in row | memory}
    return row, memory, rest
