"""`memsync check`: the gate for CI and cron."""

import typer

from memsync import reconcile
from memsync.cli.findings import (
    LIMIT,
    LimitOption,
    LinesOption,
    PersonaOption,
    SelectOption,
    SummaryOption,
    TextOption,
    View,
    print_audit,
    require_known,
)
from memsync.cli.progress import progress
from memsync.cli.stores import opened_stores


def check(
    ctx: typer.Context,
    *,
    select: SelectOption = None,
    persona: PersonaOption = None,
    limit: LimitOption = LIMIT,
    summary: SummaryOption = False,
    show_text: TextOption = False,
    as_lines: LinesOption = False,
) -> int:
    """Check schema, both stores and the outbox: exit status 0 means that all agree.

    It writes nothing. In cron, `memsync check --quiet` prints nothing while all is well.
    """
    view = View.of(select, persona, limit, summary=summary, show_text=show_text, as_lines=as_lines)
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(ctx.obj) as tell:
            audit = reconcile.check(postgres, ltm, settings, tell)
        require_known(postgres, view, audit)
        return print_audit(audit, view, as_json=ctx.obj.as_json)
