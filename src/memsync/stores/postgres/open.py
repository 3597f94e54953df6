"""Opens the Postgres that the settings name: a server by its URL, or the embedded one."""

import contextlib
from pathlib import Path

from memsync.settings import Settings
from memsync.stores.postgres.connection import Postgres
from memsync.stores.postgres.embedded import start_embedded


def open_postgres(settings: Settings) -> Postgres:
    """Connect to the database; an embedded server is started first and stopped with the store.

    Raises: StoreUnreachable, StoreBusy, SettingsError.
    """
    scheme, _, directory = settings.postgres_url.partition(":")
    if scheme != "embedded":
        return Postgres.open(settings.postgres_url)
    with contextlib.ExitStack() as opening:
        server = opening.enter_context(start_embedded(Path(directory).expanduser()))
        label = f"the embedded Postgres in {directory}"
        return Postgres.open(server.conninfo, label=label, on_close=opening.pop_all())
