"""A spool keeps values on disk until they are asked for, so that memory does not grow with them.

It is a file that only this process's user may read, and it goes with the process. It decides
nothing about the values.
"""

import pickle
import sqlite3
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Spool(Generic[T]):
    """Values by a key, in the order in which they came. Only the thread that made it may use it."""

    def __init__(self) -> None:
        # An empty name is a private file of SQLite's, which it removes when it is closed.
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("CREATE TABLE spool (number INTEGER PRIMARY KEY, key BLOB, value BLOB)")
        self._file.execute("CREATE INDEX by_key ON spool (key, number)")

    def add(self, key: bytes, value: T) -> None:
        """Keep the value."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._file.execute("INSERT INTO spool (key, value) VALUES (?, ?)", (key, data))

    def of(self, key: bytes) -> Iterator[T]:
        """The values of this key."""
        rows = self._file.execute("SELECT value FROM spool WHERE key = ? ORDER BY number", (key,))
        for (data,) in rows:
            yield pickle.loads(data)  # noqa: S301  this process wrote it

    def keys(self) -> Iterator[bytes]:
        """The keys that have values, in their order."""
        for (key,) in self._file.execute("SELECT DISTINCT key FROM spool ORDER BY key"):
            yield key

    def __iter__(self) -> Iterator[T]:
        for (data,) in self._file.execute("SELECT value FROM spool ORDER BY key, number"):
            yield pickle.loads(data)  # noqa: S301  this process wrote it

    def __len__(self) -> int:
        (number,) = self._file.execute("SELECT count(*) FROM spool").fetchone()
        return int(number)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
