"""Spools keep values on disk until they are asked for, so that memory does not grow with them.

A spool is a file that only this process's user may read. It goes when the spool is closed, when
nothing uses the spool any more, and with the process. It decides nothing about the values.
"""

import os
import pickle
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any, TypeVar, overload

from memsync.errors import StoreUnreachable
from memsync.model.sequences import rows_of

T = TypeVar("T")

NOBODY = b""
"""The key of what belongs to nobody who can be told."""
_BEHIND_ALL = b"\xff"
"""What follows a prefix in no key: keys are texts in UTF-8, or have a text in front."""


class _File:
    """A private file of SQLite's. One thread uses it at a time."""

    def __init__(self, *statements: str) -> None:
        # An empty name is a file that SQLite removes when it is closed. The last thread to let go
        # of it may be another one than the first.
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = OFF")
        for each in statements:
            self._file.execute(each)
        self._closing = weakref.finalize(self, self._file.close)

    def close(self) -> None:
        """Remove the file. Closing twice is no error."""
        self._closing()

    def _write(self, statement: str, *given: object) -> int:
        """Change the file. Returns how many rows were changed."""
        try:
            return self._file.execute(statement, given).rowcount
        except sqlite3.OperationalError as error:
            raise _disk_full(error) from None

    def _number(self, statement: str, *given: object) -> int:
        (number,) = self._file.execute(statement, given).fetchone()
        return int(number)

    def _values(self, statement: str, *given: object) -> Iterator[Any]:
        for (data,) in self._file.execute(statement, given):
            yield pickle.loads(data)  # noqa: S301  this process wrote it


class Tape(Sequence[bytes]):
    """Rows of one size in bytes, on disk, in the order in which they were written."""

    def __init__(self, size: int, rows: Iterable[bytes]) -> None:
        """Raises: StoreUnreachable where the disk is full."""
        self._size = size
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it is closed by `close`
        try:
            self._file.writelines(rows)
            self._file.flush()
            self._rows = self._file.tell() // size
        except OSError as error:
            self._file.close()
            raise _disk_full(error) from None

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(0, self._rows, 1000):
            yield from rows_of(self.slice(begin, begin + 1000), self._size)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._rows))]
        if not 0 <= index < self._rows:
            raise IndexError(index)
        return self.slice(index, index + 1)

    def slice(self, begin: int, end: int) -> bytes:
        """The rows from `begin` to before `end`, one behind the other."""
        size = self._size
        return os.pread(self._file.fileno(), (end - begin) * size, begin * size)

    def close(self) -> None:
        """Remove what waits. Closing twice is no error."""
        self._file.close()


def _disk_full(error: Exception) -> StoreUnreachable:
    return StoreUnreachable(
        f"cannot keep in a temporary file what waits: {error}. Free space where such files are, or "
        "name another folder with TMPDIR; no store was changed by this"
    )


class Spool(_File, Sequence[T]):
    """Values by a key, in the order of the keys, and of one key in that in which they came.

    A value may have an owner, or two.
    """

    def __init__(self) -> None:
        super().__init__(
            "CREATE TABLE spool "
            "(number INTEGER PRIMARY KEY, key BLOB, owner BLOB, other BLOB, value BLOB)",
            "CREATE INDEX by_key ON spool (key, number, owner, other)",
        )

    def add(self, key: bytes, value: T, owners: Sequence[bytes] = ()) -> None:
        """Keep the value. Raises: StoreUnreachable where the disk is full."""
        owner, other = (*owners, None, None)[:2]
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        statement = "INSERT INTO spool (key, owner, other, value) VALUES (?, ?, ?, ?)"
        self._write(statement, key, owner, other, data)

    def add_all(self, values: Iterable[T]) -> None:
        """Keep these values, in their order."""
        for each in values:
            self.add(b"", each)

    def of(self, key: bytes) -> Iterator[T]:
        """The values of this key."""
        return self._values("SELECT value FROM spool WHERE key = ? ORDER BY number", key)

    def under(self, prefix: bytes, owner: bytes | None = None) -> Iterator[T]:
        """The values whose keys begin so, which are texts; with `owner` only that one's."""
        return self._values(
            "SELECT value FROM spool WHERE key >= ?1 AND key < ?2 "
            "AND (?3 IS NULL OR owner = ?3 OR other = ?3) ORDER BY key, number",
            prefix,
            prefix + _BEHIND_ALL,
            owner,
        )

    def owners_under(self, prefix: bytes) -> int:
        """How many owners the values have whose keys begin so."""
        return self._number(
            "SELECT count(each) FROM ("
            "SELECT owner AS each FROM spool WHERE key >= ?1 AND key < ?2 UNION "
            "SELECT other FROM spool WHERE key >= ?1 AND key < ?2)",
            prefix,
            prefix + _BEHIND_ALL,
        )

    def remove_under(self, prefix: bytes) -> None:
        """Forget the values whose keys begin so."""
        behind = prefix + _BEHIND_ALL
        self._write("DELETE FROM spool WHERE key >= ? AND key < ?", prefix, behind)

    def keys(self) -> Iterator[bytes]:
        """The keys that have values, in their order."""
        for (key,) in self._file.execute("SELECT DISTINCT key FROM spool ORDER BY key"):
            yield key

    def has(self, key: bytes) -> bool:
        """Whether the key has a value."""
        return bool(self._number("SELECT EXISTS (SELECT 1 FROM spool WHERE key = ?)", key))

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        for value in self._values(
            "SELECT value FROM spool ORDER BY key, number LIMIT 1 OFFSET ?", at
        ):
            found: T = value
            return found
        raise IndexError(index)

    def __iter__(self) -> Iterator[T]:
        return self._values("SELECT value FROM spool ORDER BY key, number")

    def __len__(self) -> int:
        return self._number("SELECT count(*) FROM spool")


class Shelf(_File, MutableMapping[bytes, T]):
    """A mapping, in the order of its keys. It may be changed while one goes through it."""

    def __init__(self) -> None:
        super().__init__("CREATE TABLE shelf (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def __getitem__(self, key: bytes) -> T:
        for value in self._values("SELECT value FROM shelf WHERE key = ?", key):
            found: T = value
            return found
        raise KeyError(key)

    def __setitem__(self, key: bytes, value: T) -> None:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._write("INSERT OR REPLACE INTO shelf VALUES (?, ?)", key, data)

    def __delitem__(self, key: bytes) -> None:
        if not self._write("DELETE FROM shelf WHERE key = ?", key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return bool(self._number("SELECT EXISTS (SELECT 1 FROM shelf WHERE key = ?)", key))

    def __iter__(self) -> Iterator[bytes]:
        statement = "SELECT min(key) FROM shelf WHERE key > ?"
        (key,) = self._file.execute("SELECT min(key) FROM shelf").fetchone()
        while key is not None:
            yield key
            (key,) = self._file.execute(statement, (key,)).fetchone()

    def __len__(self) -> int:
        return self._number("SELECT count(*) FROM shelf")
