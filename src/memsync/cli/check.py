"""`memsync check`: the gate for CI and cron."""

from typing import Annotated

import typer

from memsync import reconcile
from memsync.cli.findings import report
from memsync.cli.views import View, viewed

RecordOption = Annotated[
    bool,
    typer.Option("--record", help="Keep the counts in Postgres, so that reports show past runs."),
]


@viewed
def check(ctx: typer.Context, view: View, *, record: RecordOption = False) -> int:
    """Check schema, both stores and the outbox: exit status 0 means that all agree.

    It changes neither store; `--record` adds a row to memsync's own table. In cron, `memsync check
    --quiet` prints nothing while all is well.
    """
    return report(ctx, view, reconcile.check, "memsync check", record=record)
