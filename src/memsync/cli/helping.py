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

_STATUSES = "exit-statuses"
_PAGES = "docs/"


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
    if topic and topic[0].startswith(_PAGES):
        return _page(topic[0])
    root = ctx.find_root()
    found, at = root.command, root
    for word in topic:
        within = found.get_command(at, word) if isinstance(found, TyperGroup) else None
        if within is None:
            return _page_called(" ".join(topic))
        found, at = within, typer.Context(within, info_name=word, parent=at, obj=ctx.obj)
    return found.get_help(at)


def _page(name: str) -> str:
    """The text of a page of docs/. Raises: InvalidInput naming those that there are."""
    pages = _pages()
    page = pages.get(name.partition("#")[0])
    if page is None:
        raise InvalidInput(f"there is no page {name!r}; there are {', '.join(sorted(pages))}")
    return page.read_text(encoding="utf-8")


def _page_called(topic: str) -> str:
    """The page of that name, such as `tutorial`, for a topic that is no command.

    Raises: InvalidInput where there is none.
    """
    name = f"{_PAGES}{topic}.md"
    if name not in _pages():
        raise InvalidInput(
            f"there is no help for {topic!r}: it is neither a command, a page of docs/ nor "
            f"{_STATUSES}; `memsync --help` lists the commands, `memsync help docs/README.md` the "
            "pages"
        )
    return _page(name)


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
