"""Prints results on stdout, as text for people or as JSON for programs.

It decides the form and nothing about the content. On a terminal text is wrapped between words at
the terminal's width, and coloured; into a pipe or a file each line goes as it is, because people
search logs by lines. With --quiet the output is held back until the exit status is known.
"""

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

import typer
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memsync.cli.options import Options

SCHEMA_VERSION = 2
"""The version of everything that --json prints, failures too. A saved plan has its own version."""

_COMMAND = re.compile(r"\bmemsync (?=(?:migrate|reconcile|sync|check|rules|init|demo|sql)\b)")
_WITHOUT_TERMINAL = 100_000
"""The width, in columns, at which no line is wrapped."""

_GAP = "  "
"""The space before a table, and between its columns."""

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069"
    r"\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Characters that steer a terminal, break lines, turn the direction of text or are not seen, and
those that are none, such as halves of a surrogate pair."""

_CHARS = 1 << 20
"""So much of what is held back is in memory at a time."""

_options = Options()
_held: IO[str] | None = None
"""What --quiet holds back, on disk when it is long."""
_captured: list[str] | None = None
_write: Callable[[str], object] | None = None
"""What takes all that is printed, where it goes into a file of its own."""

STYLES = {
    "error": "bold red",
    "blocker": "bold red",
    "FAILED": "bold red",
    "closed": "bold red",
    "warning": "yellow",
    "ok": "green",
    "open": "green",
    "n/a": "dim",
    "info": "dim",
}
"""The colours of the words that say how something stands."""


def begin(options: Options) -> None:
    """Print by these options from now on."""
    global _options  # noqa: PLW0603  one command runs in a process at a time
    _options = options
    _forget()


def end(status: int) -> None:
    """Print what --quiet held back, if there is a reason to."""
    if status and _held:
        _held.seek(0)
        while text := _held.read(_CHARS):
            typer.echo(text, nl=False, color=True)
    _forget()


def _forget() -> None:
    """Forget what is held back."""
    global _held  # noqa: PLW0603  one command runs in a process at a time
    if _held:
        _held.close()
    _held = None


def _hold(text: str) -> None:
    global _held  # noqa: PLW0603  one command runs in a process at a time
    if _held is None:
        file = SpooledTemporaryFile(_CHARS, "w+", encoding="utf-8", newline="")  # noqa: SIM115  `_forget` closes it
        _held = cast("IO[str]", file)
    _held.write(text)


@contextlib.contextmanager
def captured(options: Options) -> Iterator[list[str]]:
    """Collect in a list all that is printed while the block runs, by these options."""
    global _options, _captured
    before, printed = (_options, _captured), list[str]()
    _options, _captured = options, printed
    try:
        yield printed
    finally:
        _options, _captured = before


@contextlib.contextmanager
def written_by(write: Callable[[str], object]) -> Iterator[None]:
    """Give all that is printed while the block runs to `write`, in the form of a file's lines."""
    global _write  # noqa: PLW0603  one command runs in a process at a time
    _write = write
    try:
        yield
    finally:
        _write = None


def typed(text: str) -> str:
    """The text, with each command in it as it must be typed to use the same settings.

    URLs are not named: they may hold a password.
    """
    config = _options.config
    given = f"--config {shlex.quote(str(config))} " if config else ""
    return _COMMAND.sub(lambda found: found.group() + given, text)


def harmless(text: str) -> str:
    """The text with an escape in place of each control character.

    A name from a store, such as a collection's, may hold anything.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """The same without line breaks, so that a name from a store cannot pass for a line of ours."""
    return harmless(text).replace("\n", r"\n")


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr, with the colours and the width in force."""
    into_file = _write is not None and not stderr
    made = Console(
        file=StringIO() if into_file else sys.stderr if stderr else sys.stdout,
        color_system=None if _options.is_plain or into_file else "auto",
        force_terminal=False if into_file else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if not made.is_terminal:
        made.width = _WITHOUT_TERMINAL
    return made


def say(text: str = "", style: str = "") -> None:
    """Print one line. A line of `next:` or `$` is never broken, because people copy it.

    A line break in it is escaped: a name from a store could bring one.
    """
    line = one_line(typed(text))
    if line.lstrip().startswith(("next: ", "$ ")):
        say_command(line)
    else:
        _emit(_line(line, style))


def say_lines(text: str) -> None:
    """Print lines that memsync itself wrote."""
    for line in text.split("\n"):
        say(line)


def say_heading(text: str) -> None:
    """Print one line; where the terminal is too narrow, its rest is indented as what follows."""
    on, whole = console(), Text(one_line(typed(text)))
    if not on.is_terminal:
        _emit(_line(whole.plain))
        return
    first = whole.wrap(on, on.width)[0]
    _emit(_rendered(first, on))
    if rest := whole.plain.removeprefix(first.plain).strip():
        _emit(_rendered(Padding(rest, (0, 0, 0, 2 * len(_GAP))), on))


def say_command(line: str) -> None:
    """Print a command that people copy, on one line however long it is."""
    _emit(_rendered(Text(one_line(typed(line))), soft_wrap=True))


def say_next(command: str | None, first: str | None = None) -> None:
    """Print the command to type now, if there is one, and `first` what to do before it."""
    if first:
        say(f"first: {first}")
    if command:
        say(f"next: {command}")


def complain(text: str, *, is_data: bool = False) -> None:
    """Print an error on stderr, wrapped as the terminal needs it; data for a program as it is."""
    if sys.stderr and is_data:
        typer.echo(text, err=True)
    elif sys.stderr:
        on = console(stderr=True)
        for line in harmless(text).split("\n"):
            typer.echo(_rendered(_indented(line), on), err=True)


def data(text: str) -> None:
    """Print a text as it is, such as a script."""
    _emit(text.removesuffix("\n"))


def page(text: str) -> None:
    """Print a page in Markdown: a terminal shows it formatted, anything else gets it as it is."""
    on = console()
    if not on.is_terminal:
        data(text)
        return
    from memsync.cli.pages import Page  # noqa: PLC0415  slow to import

    _emit(_rendered(Page(text), on))


def data_in_pieces(pieces: Iterable[str]) -> None:
    """Print a text as it is, piece by piece; the last one ends the line."""
    for each in pieces:
        _emit(each, end="")


def print_json(**fields: object) -> None:
    """Print one JSON object."""
    _emit(json_line(**fields))


def print_json_list(name: str, items: Iterable[object], **fields: object) -> None:
    """Print one JSON object whose last value is a list. Its items are printed one by one."""
    data_in_pieces(json_pieces(name, items, **fields))


def json_pieces(name: str, items: Iterable[object], **fields: object) -> Iterator[str]:
    """One JSON object whose last value is a list, as a line in pieces, a piece for each item."""
    yield f'{json_line(**fields).removesuffix("}")}, "{name}": ['
    for number, each in enumerate(items):
        yield f"{', ' if number else ''}{json_of(each)}"
    yield "]}\n"


def json_line(**fields: object) -> str:
    """One JSON object, without a break, as a line of `--json-lines`."""
    return json_of({"schema_version": SCHEMA_VERSION, **fields})


_OF_PEOPLE = frozenset(("evidence", "reason", "sql", "username"))
"""Keys of JSON whose texts stay as they are, because people or a file wrote them."""


def json_of(fields: object) -> str:
    """A value as JSON, with each command in it as it must be typed."""
    return json.dumps(_typed(json.loads(json.dumps(fields, default=str))))


def _typed(value: Any) -> Any:
    """A value from JSON with every text of memsync's own as `typed` has it."""
    if isinstance(value, dict):
        return {name: each if name in _OF_PEOPLE else _typed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    return typed(value) if isinstance(value, str) else value


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    print_table((name, f"{value:,}" if type(value) is int else str(value)) for name, value in facts)


def print_table(
    rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), right: Sequence[int] = ()
) -> None:
    """Print a table, indented by two. Columns in `right` are set to the right, as numbers are.

    Where the terminal is too narrow, the last column is wrapped between words. A word that is
    longer than the column sends its cell to a line of its own. Where even the other columns are too
    wide, the terminal breaks the lines, because an id that is cut cannot be copied.
    """
    lines = [[Text(one_line(typed(each)), STYLES.get(each, "")) for each in row] for row in rows]
    if not lines:
        return
    if head:
        lines.insert(0, [Text(each, "bold") for each in head])
    *widths, _ = (max(cell.cell_len for cell in column) for column in zip(*lines, strict=True))
    on = console()
    taken = sum(widths) + len(_GAP) * (len(widths) + 1)
    if taken > on.width:
        on.width = _WITHOUT_TERMINAL
    left = on.width - taken
    for *cells, cell in lines:
        fits = max(map(cell_len, cell.plain.split()), default=0) <= left
        table = Table.grid(padding=(0, len(_GAP), 0, 0))
        for column, width in enumerate(widths):
            table.add_column(width=width, justify="right" if column in right else "left")
        table.add_column(justify="right" if len(widths) in right else "left")
        table.add_row(*cells, cell if fits else "")
        _emit(_rendered(Padding(table, (0, 0, 0, len(_GAP))), on))
        if not fits:
            _emit(_rendered(Padding(cell, (0, 0, 0, 3 * len(_GAP))), on))


def _rendered(what: RenderableType, on: Console | None = None, *, soft_wrap: bool = False) -> str:
    """The output of the console, without the spaces that fill its lines."""
    on = on or console()
    with on.capture() as captured:
        on.print(what, soft_wrap=soft_wrap, crop=False)
    return "\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n"))


def _line(line: str, style: str = "") -> str:
    """A line as people see it; without a terminal it is not wrapped, and making it costs little."""
    on = console()
    if on.is_terminal:
        return _rendered(_indented(line, style), on)
    content = line.lstrip()
    return (line.removesuffix(content) + content.expandtabs()).rstrip()


def _indented(line: str, style: str = "") -> Padding:
    """A line whose continuations on a narrow terminal are indented as it is."""
    content = line.lstrip()
    return Padding(Text(content, style=style), (0, 0, 0, len(line) - len(content)))


def _emit(text: str, end: str = "\n") -> None:
    if _write is not None:
        _write(text + end)
    elif _captured is not None:
        _captured.append(text + end)
    elif _options.quiet:
        _hold(text + end)
    else:
        # The console has left the codes out already where they do not belong.
        typer.echo(text + end, nl=False, color=True)
