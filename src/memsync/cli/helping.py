"""`memsync help`: the help of a command, a page of the docs, or a topic."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from memsync.cli.output import data, page, print_json, print_table
from memsync.cli.statuses import EXIT_STATUSES
from memsync.errors import InvalidInput
from memsync.migrate.shipped import shipped
from memsync.model.wording import meant

_STATUSES = "exit-statuses"
_FOLDER = "docs"


def show(
    ctx: typer.Context,
    topic: Annotated[
        list[str] | None,
        typer.Argument(metavar="TOPIC", help="exit-statuses, a page, or a command."),
    ] = None,
) -> int:
    """Show the help of a command, a page such as docs/migrate.md, or the table of exit statuses."""
    if topic == [_STATUSES]:
        return _print_statuses(as_json=ctx.obj.as_json)
    text, printed = _found(ctx, topic or [])
    if ctx.obj.as_json:
        print_json(help=text)
    else:
        printed(text)
    return 0


def _found(ctx: typer.Context, topic: Sequence[str]) -> tuple[str, Callable[[str], None]]:
    """The help of a command, or a page, and what prints it.

    Raises: InvalidInput where the topic is neither.
    """
    root = ctx.find_root()
    found, at = root.command, root
    commands = found.list_commands(at) if isinstance(found, TyperGroup) else []
    for word in topic:
        within = found.get_command(at, word) if isinstance(found, TyperGroup) else None
        if within is None:
            return _page(" ".join(topic), commands), page
        found, at = within, typer.Context(within, info_name=word, parent=at, obj=ctx.obj)
    return found.get_help(at), data


def _page(topic: str, commands: Sequence[str]) -> str:
    """The page of that name, such as docs/tutorial.md or tutorial, for a topic that is no command.

    The folder alone is its index.

    Raises: InvalidInput where there is none, with the command or page that is most like it.
    """
    pages = _pages()
    name = topic.partition("#")[0].removesuffix("/").removesuffix(".md")
    if name not in pages:
        names = (each for each in pages if not each.startswith(f"{_FOLDER}/"))
        alike = meant(name.removeprefix(f"{_FOLDER}/"), (*commands, *names, _STATUSES)) or (
            f" it is neither a command, a page of docs/ nor {_STATUSES};"
        )
        raise InvalidInput(
            f"there is no help for {topic!r};{alike} `memsync --help` lists the commands, "
            "`memsync help docs/README.md` the pages"
        )
    return pages[name].read_text(encoding="utf-8")


def _pages() -> dict[str, Path]:
    """The pages of the docs, which an installed package has inside itself, by all their names.

    A page has two names, with the folder and without; the index is the folder's own.
    """
    folder = shipped(_FOLDER, "README.md")
    pages = {}
    for each in folder.rglob("*.md"):
        name = str(each.relative_to(folder).with_suffix(""))
        pages[f"{_FOLDER}/{name}"] = each
        pages[_FOLDER if name == "README" else name] = each
    return pages


def _print_statuses(*, as_json: bool) -> int:
    if as_json:
        print_json(exit_statuses=[each._asdict() for each in EXIT_STATUSES])
        return 0
    rows = [(str(each.status), f"{each.means} {each.then}".rstrip()) for each in EXIT_STATUSES]
    print_table(rows, right=(0,))
    return 0
