"""Opens a store on qdrant-client: a server by its URL, or the client's local mode in a folder.

It decides how long a server may take to accept a connection, and how a forked process reaches the
same server.
"""

import contextlib
import sqlite3
import warnings
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient

from memsync.errors import SettingsError, StoreUnreachable
from memsync.model.secrets import redacted
from memsync.stores.folder_lock import busy, hold
from memsync.stores.vectors.qdrant import QdrantStore

CONNECT_S = 5
REST_PORT = 6333
LOCK_FILE = ".memsync.lock"


def open_qdrant(url: str, *, api_key: str | None, grpc: bool, timeout_s: int) -> QdrantStore:
    """The store at `url`: http(s)://host:port, local:DIR or :memory:. Calls no server yet.

    gRPC is expected one port above REST, as in Qdrant's defaults (6333 and 6334).

    Raises: StoreBusy when another process holds DIR; StoreUnreachable when DIR cannot be used;
    SettingsError for a key that no header can carry.
    """
    if url == ":memory:":
        return QdrantStore(QdrantClient(location=":memory:"), "Qdrant in memory")
    if url.startswith("local:"):
        return _open_local(Path(url.removeprefix("local:")).expanduser().absolute())
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise SettingsError(
            "qdrant_api_key: holds characters that no header can carry, maybe a line break",
            field="qdrant_api_key",
        )
    client = partial(_client, url, api_key, timeout_s)
    # gRPC does not survive a fork, so a forked process asks by REST.
    again = partial(client, grpc=False)
    try:
        return QdrantStore(client(grpc=grpc), f"Qdrant at {redacted(url)}", again)
    except ValueError:
        # The client's own message repeats the URL, and with it a password.
        raise SettingsError(
            "qdrant_url: the client cannot read host or port; percent-encode what is odd",
            field="qdrant_url",
        ) from None


def _client(url: str, api_key: str | None, timeout_s: int, *, grpc: bool) -> QdrantClient:
    parts = urlsplit(url)
    with warnings.catch_warnings():
        if parts.hostname in {"localhost", "127.0.0.1", "::1"}:
            # On the same machine a key without TLS is not worth a warning at every start.
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        return QdrantClient(
            url=url,
            port=REST_PORT,
            grpc_port=(parts.port or REST_PORT) + 1,
            prefer_grpc=grpc,
            api_key=api_key,
            timeout=timeout_s,
            check_compatibility=False,
            grpc_options={"grpc.min_reconnect_backoff_ms": CONNECT_S * 1000},
            event_hooks={"request": [_connect_quickly]},
        )


def _connect_quickly(request: httpx.Request) -> None:
    # The client has one timeout for connecting and answering. An answer may take long, but a
    # server that does not accept a connection soon is not worth waiting for.
    request.extensions["timeout"]["connect"] = CONNECT_S


def _open_local(directory: Path) -> QdrantStore:
    label = f"Qdrant's local mode in {directory}"
    with contextlib.ExitStack() as undo:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # The client's own lock does not say which process has it.
            lock = hold(directory / LOCK_FILE, label, server="Qdrant")
            undo.callback(lock.release)
            client = QdrantClient(path=str(directory))
        except RuntimeError:
            raise busy(label, server="Qdrant") from None
        except (OSError, sqlite3.Error, ValueError) as error:
            raise StoreUnreachable(
                f"{label} cannot be opened: {error}; check the folder and its permissions"
            ) from None
        return QdrantStore(client, label, on_close=undo.pop_all())
