"""Shows on stderr what a command is doing.

It decides which reports are shown where: bars on a terminal; in a log what may need an operator,
and now and then how far a long step is. With --quiet or --json stderr carries errors only.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from memsync.cli.options import Options
from memsync.cli.output import console, one_line, typed
from memsync.model.progress import WAITS, Kind, Progress, Tell, seconds_left, silent
from memsync.model.wording import about

LOG_EVERY_S = 30.0
"""How often a log hears how far a step is."""

_FOR_A_LOG = WAITS | {Kind.PAUSED, Kind.RESUMED, Kind.NOTE}


@contextlib.contextmanager
def progress(options: Options) -> Iterator[Tell]:
    """A function that shows the reports of a long step while the block runs.

    The block prints no result: a bar would be drawn over it.
    """
    if options.as_json or options.quiet:
        yield silent
        return
    stderr = console(stderr=True)
    if not stderr.is_terminal:
        yield _log(stderr, verbose=options.verbose)
        return
    done, left = TextColumn("{task.completed:,}/{task.total:,}"), TextColumn("{task.fields[left]}")
    columns = (TextColumn("{task.description}"), BarColumn(), done, left)
    with Bars(*columns, console=stderr, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(step: Progress) -> None:
            for each in bars.tasks:
                # Else the bars of steps that are done would fill the screen.
                if each.finished and each.description != step.what:
                    bars.remove_task(tasks.pop(each.description))
                    bars.refresh()
            if step.total is None:
                bars.console.print(_shown(step))
                return
            if step.what not in tasks:
                # Without its total a new bar would claim one of 100.
                tasks[step.what] = bars.add_task(step.what, total=step.total, left="")
            task = tasks[step.what]
            bars.update(task, completed=step.done, total=step.total, left=left_of(step))

        yield tell


def left_of(step: Progress) -> str:
    """How long the rest of a step takes, as a bar says it; nothing where it is not measured."""
    if step.total is None or step.worked_s is None or step.done >= step.total:
        return ""
    left_s = seconds_left(step.done, step.total, step.worked_s)
    return f"time left: {about(left_s)}"


def _log(stderr: Console, *, verbose: bool) -> Tell:
    """A function that prints lines for a log.

    A step with a total is told at most every LOG_EVERY_S, so that somebody who looks at the log
    sees that the run is alive.
    """
    told_at = time.monotonic()

    def tell(step: Progress) -> None:
        nonlocal told_at
        if step.total is None:
            if verbose or step.kind in _FOR_A_LOG:
                # Each message stays on one line, because people search a log by lines.
                stderr.print(_shown(step), soft_wrap=True)
            return
        now = time.monotonic()
        if now - told_at >= LOG_EVERY_S:
            told_at = now
            left = left_of(step)
            line = f"{step.what}: {step.done:,} of {step.total:,}{f'; {left}' if left else ''}"
            stderr.print(line, soft_wrap=True)

    return tell


def _shown(step: Progress) -> str:
    what = f"taking back {step.what}" if step.kind is Kind.PHASE_BACK else step.what
    return one_line(typed(what))
