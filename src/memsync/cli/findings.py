"""Makes an audit for a command, prints its result, and writes the reports that were asked for.

It decides the order of these: what could not be written is refused before the audit begins, files
are written before stdout, which may be closed, and a file that fails hides no result.
"""

import time
from datetime import UTC, datetime
from typing import Protocol

import typer

from memsync.cli.formats import Made, Report, as_json, as_text, files
from memsync.cli.options import Options
from memsync.cli.output import complain, data_in_pieces, say
from memsync.cli.progress import progress
from memsync.cli.stores import opened_stores
from memsync.cli.views import EVERYTHING, View
from memsync.errors import InvalidInput, MemsyncError
from memsync.model.progress import Tell
from memsync.reconcile.deep import How
from memsync.reconcile.findings import Audit
from memsync.reconcile.recorded import Record, Recorded
from memsync.reconcile.seen_vectors import Verify
from memsync.settings import Settings
from memsync.stores.history.exchanges import known_personas
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres

_PAST_MAX = 30
"""So many recorded audits does a report show."""


class Look(Protocol):
    """Makes an audit."""

    def __call__(
        self,
        postgres: Postgres,
        ltm: LongTermMemory,
        settings: Settings,
        tell: Tell,
        *,
        verify: Verify | None,
        deep: bool | None,
        how: How,
    ) -> Audit:
        """The audit of these stores."""
        ...


def report(
    ctx: typer.Context, view: View, look: Look, command: str, *, record: bool = False
) -> int:
    """Open both stores, make the audit `look`, print and report it. Returns the exit status.

    `record` adds it to the record of audits. Raises: as `look` does; InvalidInput for a report that
    cannot be written, MissingRight and SchemaMismatch where it cannot be recorded.
    """
    files.require(view.reports)
    with opened_stores(ctx) as (settings, postgres, ltm):
        if record:
            with postgres.session() as session:
                Record(session).require_writable()
        begun_at, begun = datetime.now(UTC), time.monotonic()
        with progress(ctx.obj) as tell:
            reading = view.reading
            audit = look(
                postgres,
                ltm,
                settings,
                tell,
                verify=view.verify,
                deep=reading.deep,
                how=reading.how,
            )
        seconds = time.monotonic() - begun
        with audit:
            require_known(postgres, view, audit)
            past, failed = list[Recorded](), None
            if record or view.reports:
                past, failed = _past(postgres, (audit, begun_at, seconds) if record else None)
            made = Made(command, postgres.label, ltm.label, begun_at, seconds)
            made_report = Report.of(audit, view, made, past)
            failed = _write(ctx.obj, made_report) or failed
            status = _print(made_report, is_json=ctx.obj.as_json)
            if past and record and not ctx.obj.as_json and not view.as_lines:
                say(as_text.change(past))
    if failed:
        raise failed
    return status


def _past(
    postgres: Postgres, recorded: tuple[Audit, datetime, float] | None
) -> tuple[list[Recorded], MemsyncError | None]:
    """The recorded audits, after this one was `recorded`; and why that failed."""
    try:
        with postgres.session() as session:
            record = Record(session)
            if recorded:
                record.put(*recorded)
            return record.newest(_PAST_MAX), None
    except MemsyncError as error:
        return [], error


def _write(options: Options, made: Report) -> MemsyncError | None:
    """Write every file that can be written, and say so. Returns what kept the first of the others.

    It is said on stderr, where the command's progress stands, because stdout has the result.
    """
    failed = None
    for target in made.view.reports:
        try:
            files.write(made, target)
        except MemsyncError as error:
            failed = failed or error
        else:
            if not (options.quiet or options.as_json):
                complain(f"wrote the {target.format} report {target.path}")
    return failed


def require_known(postgres: Postgres, view: View, audit: Audit) -> None:
    """Refuse a persona that neither Postgres nor a finding names: a slip would read as clean.

    Raises: InvalidInput.
    """
    both = (audit.findings, audit.acknowledged)
    if view.persona is None or any(any(each.of("", view.persona)) for each in both):
        return
    with postgres.session() as session:
        if not known_personas(session, [view.persona]):
            raise InvalidInput(
                f"there is no persona {view.persona} in {postgres.label}, and no finding names it; "
                "correct --persona"
            )


def print_audit(audit: Audit, view: View = EVERYTHING, *, as_json: bool = False) -> int:
    """Print the result of an audit. Returns the exit status."""
    return _print(Report.of(audit, view), is_json=as_json)


def _print(made: Report, *, is_json: bool) -> int:
    if made.view.as_lines:
        data_in_pieces(as_json.lines(made))
    elif is_json:
        data_in_pieces(as_json.whole(made))
    else:
        as_text.print_report(made)
    return made.status
