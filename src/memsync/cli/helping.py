"""`memsync help`: the help of a command, a page of the docs, or a topic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from memsync.cli.output import data, print_json, print_table
from memsync.cli.statuses import EXIT_STATUSES
from memsync.errors import InvalidInput
from memsync.migrate.shipped import shipped
from memsync.model.wording import meant

_STATUSES = "exit-statuses"
_PAGES = "docs/"
_PAGE = ".md"


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
    text = _text(ctx, topic or [])
    if ctx.obj.as_json:
        print_json(help=text)
    else:
        data(text)
    return 0


def _text(ctx: typer.Context, topic: Sequence[str]) -> str:
    """The help of a command, or a page. Raises: InvalidInput where the topic is neither."""
    root = ctx.find_root()
    found, at = root.command, root
    commands = found.list_commands(at) if isinstance(found, TyperGroup) else []
    for word in topic:
        within = found.get_command(at, word) if isinstance(found, TyperGroup) else None
        if within is None:
            return _page(" ".join(topic), commands)
        found, at = within, typer.Context(within, info_name=word, parent=at, obj=ctx.obj)
    return found.get_help(at)


def _page(topic: str, commands: Sequence[str]) -> str:
    """The page of that name, such as docs/tutorial.md or tutorial, for a topic that is no command.

    The folder alone is its index.

    Raises: InvalidInput where there is none, with the command or page that is most like it.
    """
    pages = _pages()
    path = f"{topic.partition('#')[0]}/".removeprefix(_PAGES).removesuffix("/")
    name = path.removesuffix(_PAGE)
    page = pages.get(f"{_PAGES}{name or 'README'}{_PAGE}")
    if page is None:
        names = (each.removeprefix(_PAGES).removesuffix(_PAGE) for each in pages)
        alike = meant(name, (*commands, *names, _STATUSES)) or (
            f" it is neither a command, a page of docs/ nor {_STATUSES};"
        )
        raise InvalidInput(
            f"there is no help for {topic!r};{alike} `memsync --help` lists the commands, "
            "`memsync help docs/README.md` the pages"
        )
    return page.read_text(encoding="utf-8")


def _pages() -> dict[str, Path]:
    """The pages of the docs, which an installed package has inside itself."""
    folder = shipped("docs", "README.md")
    return {f"{_PAGES}{page.relative_to(folder)}": page for page in folder.rglob("*.md")}


def _print_statuses(*, as_json: bool) -> int:
    if as_json:
        print_json(exit_statuses=[each._asdict() for each in EXIT_STATUSES])
        return 0
    rows = [(str(each.status), f"{each.means} {each.then}".rstrip()) for each in EXIT_STATUSES]
    print_table(rows, right=(0,))
    return 0
