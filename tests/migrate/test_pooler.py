"""A connection pooler between memsync and the server is noticed before anything is done."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from memsync.errors import InvalidInput
from memsync.stores.history.phases import Phase, Stage
from support.pooler import needs_pgbouncer, pgbouncer, server_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.app import App

BACKEND_KEY = b"K"
KEY_OF_ITS_OWN = 0x0BADCAFE


class Proxy:
    """Passes everything on; with `rewrite`, it tells the client another process id."""

    def __init__(self, host: str, port: int, *, rewrite: bool) -> None:
        self._target = (host, port)
        self._rewrite = rewrite
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._connected()
                self._open += [client, server]
                threading.Thread(target=pump, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _connected(self) -> socket.socket:
        host, port = self._target
        if not host.startswith("/"):
            return socket.create_connection(self._target)
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        """Pass messages on one by one up to the backend's key, then bytes."""
        kind = b""
        with suppress(OSError, EOFError):
            while kind != BACKEND_KEY:
                head = exactly(server, 5)
                kind, length = head[:1], struct.unpack("!I", head[1:])[0]
                body = exactly(server, length - 4)
                if kind == BACKEND_KEY and self._rewrite:
                    body = struct.pack("!I", KEY_OF_ITS_OWN) + body[4:]
                client.sendall(head + body)
        pump(server, client)


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


@contextmanager
def proxied(app: App, *, rewrite: bool) -> Iterator[App]:
    host, port, database = server_of(app.url)
    proxy = Proxy(host, port, rewrite=rewrite)
    options = "sslmode=disable&gssencmode=disable"
    user = psycopg.conninfo.conninfo_to_dict(app.url).get("user", "postgres")
    password = psycopg.conninfo.conninfo_to_dict(app.url).get("password")
    who = f"{user}:{password}" if password else user
    try:
        yield type(app)(
            f"postgresql://{who}@127.0.0.1:{proxy.port}/{database}?{options}", app.world
        )
    finally:
        proxy.close()


def test_a_process_id_that_is_not_the_servers_is_refused(app: App) -> None:
    """A proxy that changes the process id is refused with status 2 and both ids in the message."""
    with proxied(app, rewrite=True) as behind:
        with pytest.raises(InvalidInput) as refused:
            behind.run()
        assert 2 == behind.command("run")
    assert KEY_OF_ITS_OWN == refused.value.fields["promised"]
    assert str(refused.value.fields["serving"]) in refused.value.message
    assert "give postgres_url the server's own host and port" in refused.value.message
    assert [(None,)] == app.query("SELECT to_regnamespace('memsync')")

    with proxied(app, rewrite=False) as straight:
        assert Stage.ISOLATED == straight.run(Phase.ISOLATE)


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
def test_pgbouncer_is_noticed(app: App, mode: str, reachable_dir: Path) -> None:
    """PgBouncer is refused in every mode."""
    with (
        pgbouncer(app.url, mode, reachable_dir) as behind,
        pytest.raises(InvalidInput, match="connection pooler"),
    ):
        type(app)(behind, app.world).run()
    assert [(None,)] == app.query("SELECT to_regnamespace('memsync')")
