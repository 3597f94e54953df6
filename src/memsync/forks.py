"""Makes objects begin anew in a forked process, for servers that load the app before they fork.

A connection that two processes share gives each the other's answers, and a lock that another thread
held while the process forked is never released in the child. An object that holds such things calls
`watch` once; its `begin_anew` is called in each child before anything else runs there. The module
does not know what the objects hold.
"""

import ctypes
import os
import threading
import weakref
from typing import Protocol


class BeginsAnew(Protocol):
    """An object that must not use in a child what its parent opened."""

    def begin_anew(self) -> None:
        """Let go of what belongs to the parent, without closing it, and make new locks."""
        ...


_watched: weakref.WeakSet[BeginsAnew] = weakref.WeakSet()
# Held while the process forks, so that no other thread is changing the set at that moment.
_guard = threading.RLock()


def watch(holder: BeginsAnew) -> None:
    """Call `holder.begin_anew` in every process that is forked from this one."""
    with _guard:
        _watched.add(holder)


def keep_for_ever(holding: object) -> None:
    """Never destroy `holding`, not even when the process ends.

    The destructor of a connection says goodbye to the server, that of an embedded store writes to
    its files. In a child both would act on what the parent uses.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(holding))


def _before() -> None:
    _guard.acquire()


def _in_parent() -> None:
    _guard.release()


def _in_child() -> None:
    global _guard  # noqa: PLW0603  the parent's lock cannot be released here
    _guard = threading.RLock()
    failures: list[BaseException] = []
    for holder in list(_watched):
        # One that fails must not leave the others on the parent's connections.
        try:
            holder.begin_anew()
        except BaseException as error:  # noqa: BLE001  raised below; a signal may come here, too
            failures.append(error)
    if failures:
        raise failures[0]  # Python prints it: a fork itself cannot fail


if hasattr(os, "register_at_fork"):  # no process is forked on Windows
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
