"""The console script, which is `python -m memsync` as well.

It imports the commands itself, because that takes a good part of a second, in which Ctrl-C must not
print a traceback.
"""

import gc
import os
import signal
import sys
import warnings

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGTERM and SIGHUP act like Ctrl-C, so that servers which a command started are stopped."""


def entry() -> None:
    """Run the command that the arguments name, and exit with its status."""
    if not sys.warnoptions:  # python -W, which a developer asked for
        # Libraries warn their caller, and nobody can act on that at the command line.
        warnings.simplefilter("ignore")
    # A full pass of the collector goes over all that the libraries have loaded. By the usual
    # thresholds each page that an audit reads brings one about, which is a fourth of its time, and
    # what it reads has no cycles.
    gc.set_threshold(10_000, 10, 100)
    early: list[int] = []

    def remember(number: int, _frame: object) -> None:
        early.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for the imports

    heard = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]  # nohup
    for number in heard:
        signal.signal(number, remember)
    from memsync.cli.app import interrupted, main  # noqa: PLC0415  see above

    for number in heard:
        signal.signal(number, signal.default_int_handler)
    status = interrupted(sys.argv[1:]) if early else main()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            # The rest of the buffer has no reader. At exit Python would try again and end with 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


if __name__ == "__main__":
    entry()
