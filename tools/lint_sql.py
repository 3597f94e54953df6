"""Lints the SQL that memsync ships: `python tools/lint_sql.py [FILE…]`, by default all of it.

It uses Postgres' own parser and also looks inside functions, DO blocks, and the literal text of
EXECUTE. `sql_rules` has the rules, and `sql_sources` finds the SQL. A comment on a statement waives
a rule and gives the reason: `lint: allow SET-NOT-NULL a validated check proves it`.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sql_rules import CODES, breaches, made_in
from sql_sources import Chunk, Unreadable, chunks_of, is_named, shipped, statements_of

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One breach of a rule."""

    file: str
    line: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code} {self.message}"


@dataclass(frozen=True, slots=True)
class Found:
    """A breach by the statement at `line`, whose comment stands above `first`."""

    code: str
    line: int
    first: int
    message: str


def lint(file: Path, text: str | None = None) -> list[Fault]:
    """The faults of one file; `text` stands in for its content."""
    text = file.read_text() if text is None else text
    chunks = list(chunks_of(file, text))
    faults = [
        Fault(str(file), chunk.line, "UNREADABLE", chunk.why)
        for chunk in chunks
        if isinstance(chunk, Unreadable)
    ]
    faults += _head(file, text)
    readable = [chunk for chunk in chunks if isinstance(chunk, Chunk)]
    made = made_in(chunk.sql for chunk in readable)
    used: set[int] = set()
    lines = text.splitlines()
    for chunk in readable:
        for found in _found(chunk, made):
            mark = _mark(lines, found.code, found.first, found.line)
            if mark is None:
                faults.append(Fault(str(file), found.line, found.code, found.message))
            else:
                used.add(mark)
    return sorted(set(faults) | set(_idle_marks(file, lines, used)))


def _found(chunk: Chunk, made: frozenset[str]) -> Iterator[Found]:
    for statement in statements_of(chunk):
        if isinstance(statement, Unreadable):
            yield Found("UNREADABLE", statement.line, statement.first, statement.why)
            continue
        for code, message in breaches(statement.node, made):
            yield Found(code, statement.line, statement.first, message)


def _head(file: Path, text: str) -> Iterator[Fault]:
    """Require ON_ERROR_STOP, because without it psql goes on after an error and exits with 0."""
    if file.suffix != ".sql" or is_named(text):
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("--"):
            if line.strip() != r"\set ON_ERROR_STOP on":
                what = r"the first command is not \set ON_ERROR_STOP on"
                yield Fault(str(file), number, "ERROR-STOP", what)
            return


def _mark(lines: Sequence[str], code: str, first: int, line: int) -> int | None:
    """The line of the comment that waives `code`: on the statement, or right above it."""
    while first > 1 and lines[first - 2].lstrip().startswith(("--", "#")):
        first -= 1
    for number in range(first, line + 1):
        if code in _waived(lines[number - 1]):
            return number
    return None


def _waived(line: str) -> list[str]:
    """The rule that a comment waives, if it gives a reason."""
    said = line.partition("lint: allow ")[2].split()
    return said[:1] if len(said) > 1 and ("#" in line or "--" in line) else []


def _idle_marks(file: Path, lines: Sequence[str], used: set[int]) -> Iterator[Fault]:
    for number, line in enumerate(lines, start=1):
        if "lint: allow " in line and number not in used:
            code = (_waived(line) or ["?"])[0]
            why = "waives nothing" if code in CODES else "names no rule, or gives no reason"
            yield Fault(str(file), number, "IDLE-MARK", why)


def main(arguments: Sequence[str]) -> int:
    """Lint the given files, or all that is shipped; 1 when there are faults."""
    files = [Path(each).resolve() for each in arguments] or shipped(ROOT)
    faults = [fault for file in files for fault in lint(file)]
    for fault in faults:
        print(str(fault).removeprefix(f"{ROOT}/"))
    if not faults:
        print(f"{len(files)} files with SQL: clean")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
