"""Shows on stderr what a command is doing.

It decides which reports are shown where: bars on a terminal; in a log what may need an operator,
and now and then how far a long step is. With --quiet or --json stderr carries errors only.
"""

import contextlib
import time
from collections.abc import Iterator

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
    figures = TextColumn("{task.fields[done]}"), TextColumn("{task.fields[left]}")
    columns = (TextColumn("{task.description}"), BarColumn(), *figures)
    with Bars(*columns, console=stderr, transient=True) as bars:

        def tell(step: Progress) -> None:
            for each in bars.tasks:
                # The bar of a step that has ended goes, whether it was full or not.
                if each.description != step.what and (each.finished or _counts(step)):
                    bars.remove_task(each.id)
                    bars.refresh()
            if not _counts(step):
                bars.console.print(_shown(step))
                return
            done, left = _done(step, "/"), left_of(step)
            if not bars.tasks:
                # Without its total a new bar would claim one of 100.
                bars.add_task(step.what, total=step.total, done=done, left=left)
            (bar,) = bars.task_ids
            bars.update(bar, completed=step.done, total=step.total, done=done, left=left)

        yield tell


def _counts(step: Progress) -> bool:
    """Whether the report says how far a step is; else it is a line of its own."""
    return step.total is not None or step.kind is Kind.COUNT


def _done(step: Progress, of: str) -> str:
    if step.total is None:
        return f"{step.done:,}" if step.done else ""
    return f"{step.done:,}{of}{step.total:,}"


def left_of(step: Progress) -> str:
    """How long the rest of a step takes, as a bar says it; nothing where it is not measured."""
    if step.total is None or step.worked_s is None or step.done >= step.total:
        return ""
    left_s = seconds_left(step.done, step.total, step.worked_s)
    return f"time left: {about(left_s)}"


def _log(stderr: Console, *, verbose: bool) -> Tell:
    """A function that prints lines for a log.

    How far a step is is told at most every LOG_EVERY_S, so that somebody who looks at the log sees
    that the run is alive.
    """
    told_at = time.monotonic()

    def tell(step: Progress) -> None:
        nonlocal told_at
        if not _counts(step):
            if verbose or step.kind in _FOR_A_LOG:
                # Each message stays on one line, because people search a log by lines.
                stderr.print(_shown(step), soft_wrap=True)
            return
        now = time.monotonic()
        if now - told_at >= LOG_EVERY_S:
            told_at = now
            left = left_of(step)
            line = f"{step.what}: {_done(step, ' of ')}{f'; {left}' if left else ''}"
            stderr.print(line, soft_wrap=True)

    return tell


def _shown(step: Progress) -> str:
    what = f"taking back {step.what}" if step.kind is Kind.PHASE_BACK else step.what
    return one_line(typed(what))
