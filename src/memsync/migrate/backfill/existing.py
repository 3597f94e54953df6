"""Messages that had a persona before memsync came, by the app's own script or its new version.

The proof refuses those that the settings do not confirm: the script went by another rule, or the
settings were changed since. One choice of the operator serves all of them. `keep` makes each one a
decision of its own, `decide` gives each the persona that the settings say, and archives the one
that it had, so that the way back restores it. The choice is inherited by a run that goes on with
the backfill. Once the backfill stands, only a command that gives it anew settles messages that went
wrong since: they are for the proof to refuse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from memsync.errors import GateClosed
from memsync.migrate.attribution import places
from memsync.migrate.backfill.blocks import end_block, range_of_blocks
from memsync.migrate.backfill.decide import require_resolved
from memsync.migrate.options import RunOptions
from memsync.migrate.run import Run
from memsync.model.progress import Kind, Progress
from memsync.model.wording import count
from memsync.stores.history.catalog import TABLE, Catalog
from memsync.stores.postgres import Session

_DECIDED_BLOCKS = 1024


@dataclass(frozen=True, slots=True)
class Refused:
    """How many messages the proof would refuse for the persona that they have, and the first.

    Of them the settings say no persona for `unsaid`, which are messages of `users`.
    """

    total: int
    unsaid: int
    users: Sequence[str]
    first: str | None

    def __str__(self) -> str:
        have = count(self.total, "message has", "messages have")
        return (
            f"{have} a persona that the proof refuses: the settings say another one for "
            f"{self.total - self.unsaid:,} of them and none for {self.unsaid:,}. The first is "
            f"{self.first}"
        )


def refused_existing(session: Session, catalog: Catalog) -> Refused:
    """Count the messages that have such a persona now. Reads the whole history."""
    if not ({"user_id", "persona_id"} <= catalog.columns.keys() and catalog.has_users):
        return Refused(0, 0, (), None)
    (row,) = session.rows_with(_fragments(catalog), "count_refused")
    return Refused(row.total, row.unsaid, tuple(row.users), row.first)


def require_chosen(session: Session, catalog: Catalog, options: RunOptions) -> None:
    """Stop, before anything is changed, if the operator must choose what becomes of them.

    Raises: GateClosed.
    """
    if options.existing == "keep":
        return
    if options.existing == "decide" and options.for_unresolved == "create":
        return
    found = refused_existing(session, catalog)
    if options.existing == "decide":
        require_resolved(found.users, found.unsaid, options)
    elif found.total:
        raise GateClosed(
            f"{found}. Type `{options.command(existing='keep')}` if they are right, or "
            f"`{options.command(existing='decide')}` to give them what the settings say; nothing "
            "was changed",
            rows=found.total,
        )


def settle_existing(run: Run) -> None:
    """Do with them what the operator chose; nothing under `fail`. Safe to repeat."""
    session, catalog, chosen = run.session, run.catalog(), run.options.existing
    if chosen in {None, "fail"} or not catalog.has_users:
        return
    fragments = _fragments(catalog)
    if chosen == "keep":
        rows = session.run_with(fragments, "keep_existing")
    else:
        rows = 0
        for start in range(0, end_block(session), _DECIDED_BLOCKS):
            first, last = range_of_blocks(start, start + _DECIDED_BLOCKS)
            decide = partial(session.run_with, fragments, "decide_existing", start=first, stop=last)
            rows += run.ddl.do(decide, table=TABLE)
            run.pace.between_batches()
    if rows:
        run.tell(Progress(Kind.NOTE, f"--existing {chosen}: {count(rows, 'message')}"))


def _fragments(catalog: Catalog) -> dict[str, str]:
    kept = "kept" if catalog.has_own_table("persona_map") else "none"
    return places(catalog.settings) | {
        "decisions": f"decisions_{kept}",
        "archived": f"archived_{kept}",
    }
