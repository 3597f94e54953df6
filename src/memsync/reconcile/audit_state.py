"""How far a deep audit came, in a file, so that the next run goes on after a crash.

The file is a line of JSON for what is compared and where its parts begin, and a line for each part
that was read. It holds ids and nobody's words. A line that was cut short counts for nothing.
"""

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from memsync.errors import InvalidInput, StoreBusy
from memsync.model.sequences import rows_of
from memsync.stores.ltm.parts import POINT_BYTES, Seen, is_packed

_MARK = "memsync_audit"
_VERSION = 1
_KEPT = timedelta(days=1)
"""A part that was read longer ago says too little of the store, so it is read anew."""
_AHEAD = timedelta(hours=1)
"""So far may the clock of the machine be ahead that wrote it."""


class Standing(NamedTuple):
    """Where a vector store stands: the number of its mark, 0 without one, and the collection for
    which the name is an alias.
    """

    settled: int = 0
    alias_of: str | None = None

    def follows(self, settled: object, alias_of: object) -> bool:
        """Whether the store may have come here from there. One that was restored is behind."""
        return type(settled) is int and settled <= self.settled and alias_of == self.alias_of


_UNKNOWN = Standing()


class AuditState:
    """The state file at `path`, which is made where there is none.

    `bounds` are those of the run that made it, and `seen` the parts that were read, by number.
    """

    def __init__(
        self,
        path: Path,
        subject: tuple[str, ...],
        bounds: list[UUID],
        standing: Standing = _UNKNOWN,
    ) -> None:
        """`subject` names what is compared. A file of a store that cannot have come to `standing`
        since is begun anew, and so is one that is too old.

        Raises: InvalidInput for a file of something else, or one that cannot be used; StoreBusy
        while another audit uses it.
        """
        self._path, self._standing = path, standing
        try:
            # Nobody may ever write into a pipe, so it is not waited for.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise InvalidInput(
                f"cannot use {path} as a state file: {error.strerror}; name another"
            ) from None
        try:
            self._require_file()
            self._lock()
            self._read(list(subject), bounds)
        except BaseException:
            os.close(self._file)
            raise

    def _require_file(self) -> None:
        """Refuse a device, which would be removed after the audit."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise InvalidInput(
                f"cannot use {self._path} as a state file: it is a device or a pipe, and nothing "
                "was changed; name a file"
            )

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy(
                f"another audit uses the state file {self._path}; wait for it, or name another file"
            ) from None

    def _read(self, subject: list[str], bounds: list[UUID]) -> None:
        with open(self._file, "rb", closefd=False) as file:
            whole, _, torn = file.read().rpartition(b"\n")
        lines = whole.splitlines()
        self.bounds, self.seen = bounds, dict[int, Seen]()
        now = datetime.now(UTC)
        self.begun_at = now.isoformat(timespec="seconds")
        if not lines:
            if torn:
                raise self._not_ours("it is no state file")
            self._begin(subject)
            return
        try:
            head, *parts = map(json.loads, lines)
            version, theirs = head[_MARK], head.get("subject")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._not_ours("it is no state file") from None
        if version != _VERSION:
            raise self._not_ours(f"it has the version {version}, not {_VERSION}")
        if theirs != subject:
            whose = ", ".join(map(str, theirs)) if isinstance(theirs, list) else "nobody's stores"
            raise self._not_ours(f"it is of {whose}, not of {', '.join(subject)}")
        try:
            age = now - datetime.fromisoformat(head["begun_at"])
            if age > _KEPT or not self._standing.follows(head.get("settled"), head.get("alias_of")):
                os.ftruncate(self._file, 0)
                self._begin(subject)
                return
            self.bounds = _in_order([UUID(each) for each in head["bounds"]])
            self.begun_at = head["begun_at"]
            for each in parts:
                seen = _seen(each, len(self.bounds))
                self.seen[seen.number] = seen
        except (ValueError, KeyError, TypeError):
            raise self._not_ours("it is no state file") from None
        if age < -_AHEAD:
            raise self._not_ours(f"it was begun at {self.begun_at}, which is still to come")
        # What is written next must begin a line of its own.
        os.ftruncate(self._file, os.fstat(self._file).st_size - len(torn))

    def _begin(self, subject: list[str]) -> None:
        self._write(
            {
                _MARK: _VERSION,
                "subject": subject,
                "begun_at": self.begun_at,
                **self._standing._asdict(),
                "bounds": [each.hex for each in self.bounds],
            }
        )

    def _not_ours(self, why: str) -> InvalidInput:
        return InvalidInput(
            f"cannot continue from {self._path}: {why}. Name another file, or remove this one"
        )

    def add(self, seen: Seen) -> None:
        """Keep what was seen in a part."""
        self._write({"part": seen.number, "points": seen.points, "ids": seen.ids.hex()})

    def _write(self, line: dict[str, object]) -> None:
        data = (json.dumps(line) + "\n").encode()
        while data:
            data = data[os.write(self._file, data) :]

    def close(self, *, remove: bool) -> None:
        """Let go of the file; `remove` it where it is not needed any more."""
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def _in_order(bounds: list[UUID]) -> list[UUID]:
    """The bounds. Raises: ValueError for others than ascending ones."""
    if any(one >= other for one, other in pairwise(bounds)):
        raise ValueError(bounds)
    return bounds


def _seen(line: Mapping[str, object], last: int) -> Seen:
    """What a line says of a part, the number of which is `last` at most.

    Raises: ValueError, KeyError or TypeError for what no audit has written.
    """
    number, points, ids = line["part"], line["points"], line["ids"]
    if type(number) is not int or type(points) is not int or not isinstance(ids, str):
        raise TypeError(line)
    seen = Seen(number, points, bytes.fromhex(ids))
    if not 0 <= number <= last or points < 0 or len(seen.ids) % POINT_BYTES:
        raise ValueError(line)
    if not all(map(is_packed, rows_of(seen.ids, POINT_BYTES))):
        raise ValueError(line)
    return seen
