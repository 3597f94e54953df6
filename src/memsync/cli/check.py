"""`memsync check`: the gate for CI and cron."""

import typer

from memsync import reconcile
from memsync.cli.common import JsonOption, opened_stores, print_audit, progress


def check(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Check schema, both stores and the outbox. Writes nothing; exit status 0 means all agree."""
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(as_json=as_json) as tell:
            audit = reconcile.check(postgres, ltm, settings, tell)
        return print_audit(audit, as_json=as_json)
