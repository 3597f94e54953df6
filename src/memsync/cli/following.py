"""`memsync sync run --follow`: the relay as a service, and how it ends.

It decides what a supervisor sees: a line for each change of state, and the exit status. The relay
itself is `memsync.memory.Follower`.
"""

import contextlib
import signal
from collections.abc import Iterator

import typer

from memsync.cli.options import Options
from memsync.cli.output import complain, json_line, print_json, say, typed
from memsync.errors import MemsyncError
from memsync.memory import Drained, Follower, Stores
from memsync.model.wording import count

_LOOK_S = 0.5
"""How often the main thread looks whether the relay has ended. Signals come at once."""


def follow(options: Options, *, every_s: float) -> int:
    """Drain the outbox again and again until SIGTERM, SIGHUP or Ctrl-C. Returns 0.

    A second signal waits 10 seconds at most for the batch that is under way.

    Raises: SettingsError; SchemaMismatch for a database that is not migrated; OSError where nobody
    reads stdout; MemsyncError when the relay ended by itself.
    """
    settings, lines = options.settings(), _Lines(options)
    with contextlib.ExitStack() as opened:

        def open_stores() -> Stores:
            return opened.enter_context(contextlib.closing(Stores.open(settings)))

        relay = lines.relay = Follower(
            open_stores, every_s=every_s, strict=True, tell=lines.tell, settled=lines.settled
        )
        with _ended_by_signals(relay):
            lines.tell(f"follows the outbox, and looks every {every_s:g} s", well=True)
            relay.wake()
            # The relay has a thread of its own: a handler of signals that ran inside its waits
            # could meet the very lock that it needs.
            while not relay.join(_LOOK_S):
                pass
    for failure in (relay.failure, lines.unread):
        if failure:
            raise failure
    if not relay.is_ending:
        raise MemsyncError(
            "the relay ended although nobody asked it to; start it again, and report what stderr "
            "says of it"
        )
    if not options.as_json:
        drained = count(lines.total.entries, "outbox entry", "outbox entries")
        written = count(lines.total.memories, "memory", "memories")
        say(f"ended: {drained} drained, {written} written")
    return 0


class _Lines:
    """Prints what the relay does. It ends the relay when nobody reads stdout any more."""

    def __init__(self, options: Options) -> None:
        self.total = Drained(0, 0)
        self.relay: Follower | None = None
        self.unread: OSError | None = None
        self._options = options

    def settled(self, some: Drained) -> None:
        """Count a batch that is done, and print it with --json."""
        self.total = Drained(self.total.entries + some.entries, self.total.memories + some.memories)
        # With --quiet output is held back until the end, and a service has none.
        if not self._options.as_json or self._options.quiet:
            return
        try:
            print_json(entries=some.entries, memories=some.memories)
        except OSError as error:  # the batch is done, so the relay itself must not fail
            self.unread = error
            if self.relay:
                self.relay.end()

    def tell(self, state: str, *, well: bool) -> None:
        """Print a new state on stderr."""
        if self._options.quiet:
            return
        # A log that cannot be written is no reason to stop writing memories.
        with contextlib.suppress(OSError):
            if self._options.as_json:
                kind = "working" if well else "waiting"
                typer.echo(json_line(state=kind, message=state), err=True)
            else:
                complain(typed(f"memsync: {state}"))


@contextlib.contextmanager
def _ended_by_signals(relay: Follower) -> Iterator[None]:
    """Let the first signal end the relay after its batch; the next one acts as it did before."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {each: signal.getsignal(each) for each in numbers}

    def end(number: int, _frame: object) -> None:
        relay.end()
        signal.signal(number, before[signal.Signals(number)])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
