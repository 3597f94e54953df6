"""One process at a time in the folder of an embedded store, and the name of that process.

A lock file is locked as long as the store is open, and says which process on which host has it. The
module decides what another process is told: who has the store, and what to do. It does not know
what the folder holds.
"""

import fcntl
import os
import re
import socket
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Self

from memsync.errors import StoreBusy

_COMMAND_CHARS_MAX = 500
_PROC = Path("/proc")
_SUBCOMMAND = re.compile("[a-z]+(?:-[a-z]+)*")
_SUBCOMMAND_WORDS_MAX = 2


class FolderLock:
    """The lock of a store's folder, held until `release`."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @property
    def is_released(self) -> bool:
        """Whether the folder is free for others again."""
        return self._file.closed

    def fileno(self) -> int:
        """The descriptor that holds the lock, for a program that must hold it as well."""
        return self._file.fileno()

    def release(self) -> None:
        """Let others have the folder. Releasing twice is no error."""
        if self._file.closed:
            return
        with self._file:
            self._file.truncate(0)
            # A forked process has the same lock: closing the file alone would leave it locked.
            fcntl.flock(self._file, fcntl.LOCK_UN)


def hold(path: Path, store: str, *, server: str) -> FolderLock:
    """Lock the file at `path` for `store`; `server` is what several processes could share.

    Raises: StoreBusy naming the process that has it; OSError when the file cannot be used.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            raise busy(store, _Holder.of(file.read()), server=server) from None
    except OSError:
        file.close()
        raise
    file.truncate(0)
    file.write(f"{os.getpid()} {socket.gethostname()}\n")
    file.flush()
    return FolderLock(file)


@dataclass(frozen=True, slots=True)
class _Holder:
    """The process that wrote into a lock file, and the name of its host."""

    pid: int
    host: str

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The holder that the file names; None where it is empty, as before it is written."""
        pid, _, host = text.strip().partition(" ")
        return cls(int(pid), host) if pid.isdecimal() else None

    @property
    def is_here(self) -> bool:
        """Whether it runs on this host. Containers may share a folder, and all have a process 1."""
        return not self.host or self.host == socket.gethostname()


def busy(store: str, holder: _Holder | None = None, *, server: str) -> StoreBusy:
    """The error for a store that is open elsewhere."""
    pid = holder.pid if holder else None
    if holder and holder.is_here and holder.pid == os.getpid():
        return StoreBusy(
            f"{store} is open already, in this process ({holder.pid}). It can be open once: use "
            "the Memory that has it, or close that one first",
            pid=pid,
        )
    command = _command(holder.pid) if holder and holder.is_here else None
    return StoreBusy(
        f"{store} is open in {_told(holder, command)}. An embedded store belongs to one process: "
        f"stop that one, or ask it (`Memory.check` is the gate from inside), or run a {server} "
        "server, which processes can share",
        pid=pid,
        command=command,
    )


def _told(holder: _Holder | None, command: str | None) -> str:
    if holder is None:
        return "another process"
    if not holder.is_here:
        return f"process {holder.pid} on the host {holder.host}"
    if not _is_alive(holder.pid):
        return f"a process that {holder.pid} has forked, which itself has ended"
    return f"process {holder.pid}" + (f" ({command})" if command else "")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _command(pid: int) -> str | None:
    """The program of the process and its script or module; None where the system shows none.

    No option or value is shown, because any may be a secret or people's words. Of memsync's own
    commands the subcommand is shown as well.
    """
    process = _PROC / str(pid)
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    # A process that has renamed itself has its whole title as the first word.
    program, rest = Path(words[0].partition(" ")[0]).name, words[1:]
    shown = [program]
    if rest[0:1] == ["-m"]:
        shown, rest = shown + rest[:2], rest[2:]
    elif rest and _is_file(process / "cwd" / rest[0]):
        shown, rest = shown + rest[:1], rest[1:]
    if Path(shown[-1]).name == "memsync":
        subcommand = takewhile(_SUBCOMMAND.fullmatch, rest)
        shown += islice(subcommand, _SUBCOMMAND_WORDS_MAX)
    return " ".join(" ".join(shown).split())[:_COMMAND_CHARS_MAX] or None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # another user's
        return False
