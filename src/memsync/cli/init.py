"""`memsync init`: makes the finished schema; with --embedded both stores, and settings for them."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from memsync import migrate
from memsync.cli import sandbox
from memsync.cli.output import print_facts, print_json, say
from memsync.errors import InvalidInput
from memsync.model.secrets import redacted
from memsync.settings import DEFAULT_FILE, EMBEDDED, Settings
from memsync.stores.ltm.layouts import Layout
from memsync.stores.postgres import open_postgres
from memsync.stores.vectors import open_vectors


def init(
    ctx: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="With --embedded the folder for both stores; by default one for this project in "
            "the user's folder for data.",
        ),
    ] = None,
    *,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            help="Make both stores in a folder of this machine, so that no server is needed, and "
            "a memsync.toml that names them.",
        ),
    ] = False,
) -> int:
    """Make the tables of an app and of memsync where there are none. Safe to run again.

    They are the tables that the migration leaves. A legacy app is refused: migrate it.
    """
    file: Path | None = None
    if embedded:
        file = ctx.obj.config or DEFAULT_FILE
        home = (folder or sandbox.folder_for(file)).expanduser().absolute()
        settings, text = sandbox.stores_in(home), sandbox.text_of(file, home)
        sandbox.require_unhidden(file)
        sandbox.require_free(file, text)
    elif folder:
        raise InvalidInput("DIR is where --embedded makes both stores: give both, or neither")
    else:
        settings = ctx.obj.settings()
    with open_postgres(settings, create=True) as postgres:
        named = settings.layout
        made = migrate.init(postgres, Layout.SHARED if named == "auto" else Layout(named))
        stores = [("postgres", postgres.label), *_vectors(settings)]
    # Last, so that a file says that its stores stand.
    is_new = file is not None and sandbox.write_new(file, text)
    if ctx.obj.as_json:
        print_json(made=made, stores=dict(stores), settings=str(file.absolute()) if file else None)
        return 0
    print_facts([*stores, *([("settings", file.absolute())] if file else [])])
    changed = f"{file} is new" if is_new else "nothing was changed"
    say("the schema is made" if made else f"the schema stands already; {changed}")
    say(f"next: {'memsync check' if len(stores) > 1 else 'memsync migrate status'}")
    return 0


def _vectors(settings: Settings) -> list[tuple[str, str]]:
    """The vector store that the settings name, if any: a missing folder is made.

    The collection is not: the relay makes it with the first memory, because its size is that of the
    embedder's vectors.
    """
    url = settings.qdrant_url
    if url is None or url.partition(":")[0] not in EMBEDDED:
        return [("qdrant", redacted(url))] if url else []
    with contextlib.closing(open_vectors(settings, create=True)) as vectors:
        return [("qdrant", vectors.label)]
