"""Opens the stores for a command."""

import contextlib
from collections.abc import Iterator

import typer

from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres, open_postgres


@contextlib.contextmanager
def opened_postgres(ctx: typer.Context) -> Iterator[tuple[Settings, Postgres]]:
    """The settings, and Postgres, open while the block runs."""
    settings: Settings = ctx.obj.settings()
    with open_postgres(settings) as postgres:
        yield settings, postgres


@contextlib.contextmanager
def opened_stores(ctx: typer.Context) -> Iterator[tuple[Settings, Postgres, LongTermMemory]]:
    """The settings, and both stores, open while the block runs. The embedder is loaded later."""
    # Asked first, so that one message names both, and no server is started for nothing.
    ctx.obj.settings().named("postgres_url", "qdrant_url")
    with opened_postgres(ctx) as (settings, postgres):
        with postgres.session() as session:
            ltm = LongTermMemory.open(settings, session)
        with contextlib.closing(ltm):
            yield settings, postgres, ltm
