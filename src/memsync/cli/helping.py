"""`memsync help`: the help of a command, a page of the docs, or a topic."""

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
    if topic and topic[0].startswith(_PAGES):
        return _print_page(topic[0])
    root = ctx.find_root()
    found, at = root.command, root
    for word in topic or ():
        within = found.get_command(at, word) if isinstance(found, TyperGroup) else None
        if within is None:
            raise InvalidInput(
                f"there is no help for {' '.join(topic or ())!r}: it is neither a command nor "
                f"{_STATUSES}; `memsync --help` lists the commands"
            )
        found, at = within, typer.Context(within, info_name=word, parent=at, obj=ctx.obj)
    data(found.get_help(at))
    return 0


def _print_page(name: str) -> int:
    """Print a page of the docs, which an installed package has inside itself."""
    folder = shipped("docs", "README.md")
    pages = {f"{_PAGES}{page.relative_to(folder)}": page for page in folder.rglob("*.md")}
    page = pages.get(name.partition("#")[0])
    if page is None:
        raise InvalidInput(f"there is no page {name!r}; there are {', '.join(sorted(pages))}")
    data(page.read_text(encoding="utf-8"))
    return 0


def _print_statuses(*, as_json: bool) -> int:
    if as_json:
        print_json(exit_statuses=[each._asdict() for each in EXIT_STATUSES])
        return 0
    rows = [(str(each.status), f"{each.means} {each.then}".rstrip()) for each in EXIT_STATUSES]
    print_table(rows, right=(0,))
    return 0
