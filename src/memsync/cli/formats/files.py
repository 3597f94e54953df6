"""Writes reports into files: whole or not at all, and never over somebody else's file.

A file is written beside its target under another name, and then takes the target's place. What it
replaces must be empty or begin with the mark of the same format. A new file may be read by its
owner only; one that is replaced keeps its permissions and its group, so that another program may
read it.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Sequence

from memsync.cli.formats import FORMATS, Report
from memsync.cli.targets import Target
from memsync.errors import InvalidInput

_READABLE = 0o666
_OF_GROUP = 0o070
_BUFFER = 1 << 20


def require(targets: Sequence[Target]) -> None:
    """Refuse, before the audit begins, what could not be written after it. Changes nothing.

    Raises: InvalidInput.
    """
    for each in targets:
        _standing(each)
        try:
            with tempfile.TemporaryFile(dir=each.path.parent):
                pass
        except OSError as error:
            raise InvalidInput(
                f"cannot write the report {each}: {error.strerror}. Nothing was audited; see that "
                f"the folder {each.path.parent} exists and that this user may write in it"
            ) from None


def write(report: Report, target: Target) -> None:
    """Write one report. The file that stood there before stays whole until the new one is.

    Raises: InvalidInput where it cannot be written; then nothing has changed.
    """
    before = _standing(target)
    folder, name = target.path.parent, target.path.name
    try:
        descriptor, beside = tempfile.mkstemp(".tmp", f".{name[:50]}.", folder)
        try:
            # A name may hold halves of a surrogate pair; a format that shows them escapes them.
            with os.fdopen(descriptor, "w", _BUFFER, "utf-8", "backslashreplace", "\n") as file:
                FORMATS[target.format].write(report, file.write)
                file.flush()
                if before is not None:
                    _take_over(file.fileno(), before)
                os.fsync(file.fileno())
            os.replace(beside, target.path)  # noqa: PTH105  a name of ours, no path of the caller's
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)  # noqa: PTH108
            raise
    except OSError as error:
        raise InvalidInput(
            f"cannot write the report {target}: {error.strerror}; what stood there stays"
        ) from None


def _standing(target: Target) -> os.stat_result | None:
    """The file that the report would replace; None where there is none.

    Raises: InvalidInput for one that no report of this format may replace.
    """
    path, mark = target.path, FORMATS[target.format].mark.encode()
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(
                f"cannot write the report {target}: {path} is a folder, a link or a device, and "
                "nothing was changed. Name a file"
            )
        with path.open("rb") as file:
            begin = file.read(len(mark))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput(
            f"cannot write the report {target}: {path} cannot be read, so it is not known whose "
            f"it is: {error.strerror}. Nothing was changed"
        ) from None
    if begin not in {b"", mark}:
        raise InvalidInput(
            f"{path} exists and is no {target.format} report of memsync's, so nothing was changed. "
            "Name another file, or remove that one"
        )
    return found


def _take_over(descriptor: int, before: os.stat_result) -> None:
    """Give the file permissions and group of the one before, as far as this user may."""
    mode = before.st_mode & _READABLE
    if os.fstat(descriptor).st_gid != before.st_gid:
        try:
            os.fchown(descriptor, -1, before.st_gid)
        except OSError:
            mode &= ~_OF_GROUP
    os.fchmod(descriptor, mode)
