"""`memsync check`: the gate for CI and cron."""

import typer

from memsync import reconcile
from memsync.cli.findings import report
from memsync.cli.views import View, viewed


@viewed
def check(ctx: typer.Context, view: View) -> int:
    """Check schema, both stores and the outbox: exit status 0 means that all agree.

    It writes nothing. In cron, `memsync check --quiet` prints nothing while all is well.
    """
    return report(ctx, view, reconcile.check)
