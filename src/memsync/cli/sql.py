"""`memsync sql`: lists the scripts for psql that memsync ships, and prints one."""

from typing import Annotated

import typer

from memsync import migrate
from memsync.cli.output import data, print_json, print_table, say
from memsync.errors import InvalidInput


def sql(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The script to print; none: list them.")
    ] = None,
    path: Annotated[
        bool, typer.Option("--path", help="Print the folder of the scripts, for psql -f.")
    ] = False,
) -> int:
    """List the scripts for psql, or print one. It asks no store.

    The scripts in ops only read. `memsync migrate plan --sql` prints the part of the migration that
    is still ahead of your database.
    """
    scripts = migrate.scripts()
    if path:
        folder = scripts[0].folder
        if ctx.obj.as_json:
            print_json(path=folder)
        else:
            data(str(folder))
        return 0
    if name is not None:
        found = [each for each in scripts if name.removesuffix(".sql") == each.name]
        if not found:
            raise InvalidInput(f"there is no script {name}; `memsync sql` lists them")
        if ctx.obj.as_json:
            print_json(sql=found[0].text)
        else:
            data(found[0].text)
        return 0
    if ctx.obj.as_json:
        print_json(scripts=[{"name": each.name, "about": each.about} for each in scripts])
        return 0
    print_table([(each.name, each.about) for each in scripts])
    say('next: memsync sql ops/progress | psql "$MEMSYNC_POSTGRES_URL"')
    return 0
