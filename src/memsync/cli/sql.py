"""`memsync sql`: lists the scripts for psql that memsync ships, and prints one."""

import os
from pathlib import Path
from typing import Annotated

import typer

from memsync import migrate
from memsync.cli.output import data, print_json, print_table, say, say_command, say_next
from memsync.errors import InvalidInput
from memsync.settings import ENV_PREFIX
from memsync.stores.postgres.embedded import by_hand

_URL = f"{ENV_PREFIX}POSTGRES_URL"


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
    _print_next(ctx.obj.settings().postgres_url or "")
    return 0


def _print_next(url: str) -> None:
    """Print how a script is given to psql, which reads no file of settings."""
    script, (scheme, _, folder) = "memsync sql ops/progress", url.partition(":")
    if scheme == "embedded":
        server = by_hand(Path(folder))
        say("this Postgres runs only while memsync has it open; what you start, this stops again:")
        say_command(f"  {server.stop}")
        say_command(f"first: {server.start}")
        say_command(f"next: {script} | {server.psql}")
        return
    hint = f"set {_URL} to the URL of the database, because psql reads no settings of memsync"
    say_next(f'{script} | psql "${_URL}"', None if os.environ.get(_URL) else hint)
