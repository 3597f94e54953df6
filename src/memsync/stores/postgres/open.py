"""Opens the Postgres that the settings name: a server by its URL, or the embedded one."""

import contextlib
import logging
from math import ceil
from pathlib import Path
from typing import Any

from memsync.settings import Settings
from memsync.stores.postgres.connection import Postgres
from memsync.stores.postgres.embedded import start_embedded
from memsync.stores.postgres.session_settings import Pins

_POOLED = {"auto": None, "yes": True, "no": False}

logger = logging.getLogger(__name__)


def open_postgres(settings: Settings, *, for_app: bool = False, create: bool = False) -> Postgres:
    """Connect to the database; an embedded server is started first and stopped with the store.

    Only with `create` an embedded server that does not exist is made.

    Sessions `for_app` are under row level security as the app is, under the settings'
    statement_timeout_s and under the role's idle_in_transaction_session_timeout. Other sessions
    take any time, and refuse to read what a policy filters.

    Raises: StoreUnreachable, StoreBusy, SettingsError, MissingRight.
    """
    given: dict[str, Any] = {
        "connections_max": settings.pool_connections,
        "wait_s": settings.pool_wait_s,
        "pooled": _POOLED[settings.postgres_pooler],
    }
    if for_app:
        given["pins"] = Pins(
            filtered=True,
            statement_timeout_ms=ceil(settings.statement_timeout_s * 1000),
            idle_in_transaction_ms=None,
        )
    (url,) = settings.named("postgres_url")
    scheme, _, directory = url.partition(":")
    if scheme != "embedded":
        postgres = Postgres.open(url, **given)
        if postgres.left_out:
            logger.info(
                "postgres_url: these parameters are for another client, and memsync does not use "
                "them: %s. Its own settings are pool_connections and pool_wait_s",
                ", ".join(postgres.left_out),
            )
        return postgres
    with contextlib.ExitStack() as opening:
        server = opening.enter_context(start_embedded(Path(directory).expanduser(), create=create))
        label = f"the embedded Postgres in {directory}"
        return Postgres.open(server.conninfo, label=label, on_close=opening.pop_all(), **given)
