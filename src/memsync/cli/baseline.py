"""`memsync reconcile baseline`: acknowledges known findings, lists and drops acknowledgements."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from memsync import reconcile
from memsync.cli.findings import require_known
from memsync.cli.formats import Made, Report
from memsync.cli.formats.as_text import said_of
from memsync.cli.formats.report import numbered
from memsync.cli.options import command, group
from memsync.cli.output import print_json, print_json_list, say
from memsync.cli.progress import progress
from memsync.cli.stores import opened_postgres, opened_stores
from memsync.cli.vectors import SeedOption, VectorsOption, check_again, verify_of
from memsync.cli.views import LIMIT, LimitOption, PersonaOption, SelectOption, View
from memsync.errors import IncompleteAudit, InvalidInput
from memsync.reconcile import RULES
from memsync.reconcile.acknowledged import Acknowledgements
from memsync.reconcile.baseline import checked_reason, drop_by_id
from memsync.reconcile.findings import Known, counted

_NAMES = {rule.code: rule.name for rule in RULES}

app = group(
    "Acknowledge the findings that are there now, with a reason. They change no exit status and "
    "are in no plan, until they change.",
    'memsync reconcile baseline --select MSC011 --reason "lost in March, no snapshot"',
    "memsync reconcile baseline list",
    "memsync reconcile baseline drop --outdated",
    "docs/reconcile.md",
    invoke_without_command=True,
)


@app.callback()
def acknowledge(
    ctx: typer.Context,
    *,
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Why they are let be; everybody who audits reads it."),
    ] = None,
    select: SelectOption = None,
    persona: PersonaOption = None,
    verify_vectors: VectorsOption = None,
    verify_seed: SeedOption = None,
) -> int:
    """Acknowledge what the audit finds now, when no command is given."""
    if ctx.invoked_subcommand:
        if reason or select or persona:
            raise typer.BadParameter("options go after the command")
        return 0
    if reason is None:
        raise InvalidInput("give --reason TEXT: why these findings are let be")
    view, said = View.of(select, persona), checked_reason(reason)
    verify = verify_of(verify_vectors, verify_seed)
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(ctx.obj) as tell:
            audit = reconcile.check(postgres, ltm, settings, tell, verify=verify, deep=True)
        with audit, postgres.session() as session:
            require_known(postgres, view, audit)
            report = Report.of(audit, view, Made("memsync check"))
            unseen, lines = report.not_looked_for, report.unseen_lines()
            done = reconcile.acknowledge(session, audit, said, report.found, unseen=lines)
    if ctx.obj.as_json:
        print_json(acknowledged=done.findings, left=done.left, not_looked_for=unseen)
        return 0
    say(_said(done.findings, "acknowledged"))
    if done.left:
        say(f"not acknowledged, because there are more than are listed: {numbered(done.left)}")
    for line in lines:
        say(f"not looked for: {line}")
    say(f"next: {check_again(verify)}")
    return 0


@command(
    app,
    "memsync reconcile baseline list",
    "memsync reconcile baseline list --select MSC --limit 0",
    name="list",
)
def show(ctx: typer.Context, *, select: SelectOption = None, limit: LimitOption = LIMIT) -> int:
    """List what is acknowledged, the oldest first, each with the id that `drop` takes.

    Opens Postgres only.
    """
    codes = View.of(select).codes
    with opened_postgres(ctx) as (_, postgres), postgres.session() as session:
        table = Acknowledgements(session)
        counts = _by_name(
            {code: n for code, n in table.counts().items() if codes is None or code in codes}
        )
        if ctx.obj.as_json:
            print_json_list("acknowledged", map(_fields, table.all(codes)), counts=counts)
            return 0
        say(_said(counts, "acknowledged"))
        number = sum(counts.values())
        for each in islice(table.all(codes), limit or number):
            name = _NAMES.get(each.code, "")
            say(f"{each.id}  {each.code} {name}  {each.store}  {each.key}")
            say(f"    {said_of(each.acknowledgement)}")
    if 0 < limit < number:
        say(f"… {number - limit:,} more: --limit 0 prints all")
    return 0


@command(
    app,
    "memsync reconcile baseline drop --outdated",
    "memsync reconcile baseline drop --select orphan-point",
    "memsync reconcile baseline drop 12 13",
)
def drop(
    ctx: typer.Context,
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[ID]...", help="Ids that `baseline list` prints."),
    ] = None,
    *,
    select: SelectOption = None,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Those that no finding matches any more; audits.")
    ] = False,
    verify_vectors: VectorsOption = None,
    verify_seed: SeedOption = None,
) -> int:
    """Drop acknowledgements, by id, by code, or because they are outdated.

    Their findings count again from the next audit on.
    """
    if bool(ids) is bool(select or outdated):
        raise InvalidInput("give ids, or --select CODE, --outdated or both; nothing was dropped")
    verify = verify_of(verify_vectors, verify_seed)
    if verify and not outdated:
        raise InvalidInput("--verify-vectors goes with --outdated; nothing was dropped")
    codes, not_judged = View.of(select).codes, dict[str, int]()
    if outdated:
        gone, not_judged = _drop_outdated(ctx, View.of(select, verify=verify))
    else:
        with opened_postgres(ctx) as (_, postgres), postgres.session() as session:
            table = Acknowledgements(session)
            gone = drop_by_id(session, ids) if ids else table.drop(table.all(codes))
    dropped = _by_name(gone)
    if ctx.obj.as_json:
        print_json(dropped=dropped, not_judged=not_judged)
        return 0
    say(_said(dropped, "dropped"))
    if not_judged:
        say(f"kept, because they were not looked for: {numbered(not_judged)}")
    say(f"next: {check_again(verify, dropped)}")
    return 0


def _drop_outdated(ctx: typer.Context, view: View) -> tuple[Mapping[str, int], dict[str, int]]:
    """Drop what the audit calls outdated. Returns how many went, and how many it did not judge.

    Raises: IncompleteAudit where it cannot tell.
    """
    codes = view.codes
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(ctx.obj) as tell:
            audit = reconcile.check(postgres, ltm, settings, tell, verify=view.verify, deep=True)
        with audit, postgres.session() as session:
            if not audit.complete:
                raise IncompleteAudit(
                    "the audit is incomplete, so nothing was dropped: "
                    + "; ".join(audit.not_checked)
                )
            outdated = (each for each in audit.outdated if codes is None or each.code in codes)
            dropped = Acknowledgements(session).drop(outdated)
            return dropped, Report.of(audit, view).known_unseen


def _said(counts: Mapping[str, int], what: str) -> str:
    number = sum(counts.values())
    return f"{number:,} {what}{f': {numbered(counts)}' if number else ''}"


def _by_name(counts: Mapping[str, int]) -> dict[str, int]:
    """Numbers by code as numbers by name, in the order of the codes."""
    return counted((code, _NAMES.get(code, code), number) for code, number in counts.items())


def _fields(each: Known) -> dict[str, object]:
    return {
        "id": each.id,
        "code": each.code,
        "name": _NAMES.get(each.code, each.code),
        "store": each.store,
        "key": each.key,
        **asdict(each.acknowledgement),
    }
