"""The parts that the commands share: options, opening stores, progress, and printing results.

It decides how output looks, as text and as JSON. It decides nothing about the stores.
"""

import contextlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from memsync.errors import IncompleteAudit, InvalidInput, MemsyncError
from memsync.model.progress import WAITS, Kind, Progress, Tell, seconds_left, silent
from memsync.model.wording import about
from memsync.reconcile.findings import Audit, Finding
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres, open_postgres

SCHEMA_VERSION = 2
"""The version of everything that --json prints, failures too. A saved plan has its own version."""

FINDINGS = 1
USAGE = InvalidInput.exit_status
INCOMPLETE = IncompleteAudit.exit_status
INTERNAL_ERROR = MemsyncError.exit_status
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 plus the number of SIGPIPE: the status that a shell reports."""

EXIT_STATUSES = (
    "Exit statuses: 0 done and clean; 1 findings; 2 usage; 3 partly done, run again to resume; "
    "10 a store or the embedder is unreachable; 11 locked by another run; 12 schema, collection or "
    "dimension mismatch; 13 stale plan; 14 gate closed; 15 incomplete audit; 16 missing right; "
    "17 backup failed; 18 nothing runs; 70 internal error; 130 interrupted; 141 the reader of the "
    "output is gone."
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@dataclass(frozen=True, slots=True)
class Options:
    """The options that stand before the command."""

    config: Path | None = None
    postgres_url: str | None = None
    qdrant_url: str | None = None
    fixed: Settings | None = None

    def settings(self) -> Settings:
        """The settings in force: `fixed` if given, else those of file, variables and options."""
        return self.fixed or Settings.load(
            self.config, postgres_url=self.postgres_url, qdrant_url=self.qdrant_url
        )


_COMMAND = re.compile(r"\bmemsync (?=(?:migrate|reconcile|sync|check|rules)\b)")
_given: list[str] = []


def use_config(config: Path | None) -> None:
    """Let the commands that are printed name this settings file, where one was given.

    URLs are not named: they may hold a password.
    """
    _given[:] = [f"--config {shlex.quote(str(config))} "] if config else []


def typed(text: str) -> str:
    """The text, with each command in it as it must be typed to use the same settings."""
    return _COMMAND.sub(lambda found: found.group() + "".join(_given), text)


def say(text: str, *, nl: bool = True) -> None:
    """Print a line on stdout."""
    typer.echo(typed(text), nl=nl)


@contextlib.contextmanager
def opened_postgres(ctx: typer.Context) -> Iterator[tuple[Settings, Postgres]]:
    """The settings, and Postgres, open while the block runs."""
    settings: Settings = ctx.obj.settings()
    with open_postgres(settings) as postgres:
        yield settings, postgres


@contextlib.contextmanager
def opened_stores(ctx: typer.Context) -> Iterator[tuple[Settings, Postgres, LongTermMemory]]:
    """The settings, and both stores, open while the block runs. The embedder is loaded later."""
    with (
        opened_postgres(ctx) as (settings, postgres),
        contextlib.closing(LongTermMemory.open(settings)) as ltm,
    ):
        yield settings, postgres, ltm


@contextlib.contextmanager
def progress(*, as_json: bool) -> Iterator[Tell]:
    """A function that shows progress on stderr: bars for steps with a total, lines for the rest.

    A log gets only the messages that may need an operator. With --json nothing is printed, because
    stderr then carries at most one object, the error.
    """
    if as_json:
        yield silent
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _tell_waits(console)
        return
    left = TextColumn("{task.fields[left]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left)
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(step: Progress) -> None:
            if step.total is None:
                bars.console.print(_shown(step), markup=False, highlight=False)
                return
            if step.what not in tasks:
                tasks[step.what] = bars.add_task(step.what, left="")
            task = tasks[step.what]
            bars.update(task, completed=step.done, total=step.total, left=left_of(step))

        yield tell


def left_of(step: Progress) -> str:
    """How long the rest of a step takes, as a bar says it; nothing where it is not measured."""
    if step.total is None or step.worked_s is None:
        return ""
    left_s = seconds_left(step.done, step.total, step.worked_s)
    return f"time left: {about(left_s)}"


_FOR_A_LOG = WAITS | {Kind.PAUSED, Kind.RESUMED, Kind.NOTE}


def _tell_waits(console: Console) -> Tell:
    """A function that prints only the kinds of messages that an operator may have to act on."""

    def tell(step: Progress) -> None:
        if step.kind in _FOR_A_LOG:
            # Each message stays on one line, because people search a log by lines.
            console.print(_shown(step), markup=False, highlight=False, soft_wrap=True)

    return tell


def _shown(step: Progress) -> str:
    return typed(f"taking back {step.what}" if step.kind is Kind.PHASE_BACK else step.what)


def print_json(**fields: object) -> None:
    """One JSON object on stdout."""
    typer.echo(json_of({"schema_version": SCHEMA_VERSION, **fields}))


_OF_PEOPLE = frozenset(("evidence", "sql", "username"))
"""Keys of JSON whose texts stay as they are, because people or a file wrote them."""


def json_of(fields: object) -> str:
    """A value as JSON, with each command in it as it must be typed."""
    return json.dumps(_typed(json.loads(json.dumps(fields, default=str))))


def _typed(value: Any) -> Any:
    """A value from JSON with every text of memsync's own as `typed` has it."""
    if isinstance(value, dict):
        return {name: each if name in _OF_PEOPLE else _typed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    return typed(value) if isinstance(value, str) else value


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one pair a line, on stdout."""
    rows = [(name, str(value)) for name, value in facts]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        say(f"  {name:<{width}}  {value}")


def print_audit(audit: Audit, *, as_json: bool, shown_max: int = 20) -> int:
    """Print the result of an audit. Returns the exit status."""
    if as_json:
        print_json(
            ok=audit.ok,
            complete=audit.complete,
            counts=audit.counts,
            findings=[_finding(each) for each in audit.findings],
            checked={"rows": audit.rows_checked, "points": audit.points_checked},
            settling=audit.settling,
            not_checked=list(audit.not_checked),
        )
    else:
        _print_counts(audit)
        _print_findings(audit.findings[:shown_max])
        if len(audit.findings) > shown_max:
            say(f"… and {len(audit.findings) - shown_max} more; --json prints them all")
        for line in audit.not_checked:
            say(f"not checked: {line}")
        say(_verdict(audit))
    if not audit.complete:
        return INCOMPLETE
    return FINDINGS if audit.findings else 0


def _finding(finding: Finding) -> dict[str, object]:
    fields = asdict(finding)
    for internal in ("witness", "repair"):
        del fields[internal]
    return fields


def _print_counts(audit: Audit) -> None:
    say(
        f"compared {audit.rows_checked} exchanges with {audit.points_checked} points; "
        f"{audit.settling} differences still settling"
    )
    by_code = {each.code: each for each in audit.findings}
    for code, name in ((code, each.name) for code, each in sorted(by_code.items())):
        each = by_code[code]
        count = audit.counts[name]
        say(f"  {code} {name:<24} {count:>7}  {each.severity:<8} {each.grade}")


def _print_findings(findings: Sequence[Finding]) -> None:
    for each in findings:
        say(f"{each.code} {each.name} {each.store} {each.key}")
        for name, value in each.evidence.items():
            typer.echo(f"    {name}: {value!s:.100}".replace("\n", " / "))
        say(f"    next: {each.next_command}")


def _verdict(audit: Audit) -> str:
    if not audit.complete:
        return f"INCOMPLETE: {len(audit.findings)} findings so far, not everything was read"
    return f"{len(audit.findings)} findings" if audit.findings else "clean: both stores agree"
