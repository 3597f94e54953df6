"""Phase backfill: fills persona_id of every message, then builds the indexes and the foreign key.

The order: evidence is stored, every (user, personality) is decided once, messages are filled in
place or by a shadow table, and further passes fill the rows that are left. Indexes and key come
last, because each filled row would have to update them. Locks: the index builds do not block
readers or writers; the key is added NOT VALID (SHARE ROW EXCLUSIVE on both tables, for a moment)
and validated on its own.
"""

from memsync.errors import PartlyDone
from memsync.migrate import runs
from memsync.migrate.backfill import checkpoint, cutover
from memsync.migrate.backfill.blocks import end_block
from memsync.migrate.backfill.decide import (
    clear_vanished,
    decided_rows,
    freeze,
    note_unresolved,
)
from memsync.migrate.backfill.existing import settle_existing
from memsync.migrate.backfill.fill import analyze_history, fill_in_place
from memsync.migrate.backfill.method import Choice, choose_method
from memsync.migrate.history_changes import drop_index, note_created, unnoted
from memsync.migrate.pacing.workers import Workers, open_workers
from memsync.migrate.run import Run
from memsync.model.progress import Kind, Progress
from memsync.model.wording import count
from memsync.stores.history.catalog import (
    PERSONA_INDEX,
    PERSONA_KEY,
    RETRIEVAL_INDEX,
    TABLE,
    history_has_null_persona,
)
from memsync.stores.history.exchanges import messages_without_persona
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import statement

_PASSES_MAX = 5


class _Backfill:
    phase = Phase.BACKFILL
    steps = (
        "Fill persona_id of every message.",
        "After the fill, build two indexes for reading by persona, and the foreign key.",
    )

    def forward(self, run: Run) -> None:
        """Fill every message that has no persona, and build what is missing or INVALID."""
        note_created(run.session, run.catalog(), PERSONA_INDEX, RETRIEVAL_INDEX, PERSONA_KEY)
        is_open = _is_open(run)
        if is_open:
            # Evidence goes first: until the fill starts, the sync trigger decides no old row.
            run.evidence.keep(run.ddl)
        settle_existing(run)
        if is_open:
            _fill(run)
        ddl = run.ddl
        ddl.index(PERSONA_INDEX, statement("create_persona_index"), table=TABLE)
        ddl.index(RETRIEVAL_INDEX, statement("create_retrieval_index"), table=TABLE)
        if not run.catalog().constraints.get(PERSONA_KEY):
            ddl.foreign_key(TABLE, "persona_id", "personas")
            # The key now refuses unknown personas. Older ones must go before its validation.
            clear_vanished(ddl)
            ddl.validate(TABLE, PERSONA_KEY)

    def back(self, run: Run) -> None:
        """Drop the key and the indexes that memsync created.

        Messages keep their personas until expand goes back.
        """
        ddl, catalog = run.ddl, run.catalog()
        if PERSONA_KEY in catalog.created:
            ddl.run(statement("drop_persona_key"), unnoted(PERSONA_KEY), table=TABLE)
        drop_index(ddl, catalog, RETRIEVAL_INDEX, statement("drop_retrieval_index"))
        drop_index(ddl, catalog, PERSONA_INDEX, statement("drop_persona_index"))


BACKFILL = _Backfill()


def _is_open(run: Run) -> bool:
    """Whether the fill must run, because no earlier run completed it.

    The catalog alone cannot tell, because personas that others filled in must be decided and proven
    too.
    """
    catalog = run.catalog()
    if not catalog.has_users:
        return False
    if Phase.BACKFILL in catalog.done and runs.backfill_stands(run.session):
        # Users without a persona may still appear until contract, and the triggers decide them.
        note_unresolved(run.session, run.options.for_unresolved)
        return False
    return True


def _fill(run: Run) -> None:
    """Fill persona_id of every message that has none.

    Raises: GateClosed for users without a persona under `fail`; PartlyDone if rows are left after
    several passes.
    """
    session = run.session
    cutover.settle(run.ddl, keep_copy=True)
    choice = choose_method(session, run.catalog(), run.options.method)
    runs.note_method(session, str(choice))
    run.tell(Progress(Kind.METHOD, f"filling {choice}"))
    if choice.method == "in-place":
        cutover.settle(run.ddl)
    freeze(run.ddl, run.options)
    checkpoint.start_fill(
        session,
        "personas",
        end_block=end_block(session),
        rows_total=decided_rows(session),
        unresolved=run.options.for_unresolved,
    )
    run.rows_filled += _first_pass(run, choice)
    for _ in range(_PASSES_MAX):
        clear_vanished(run.ddl)
        if not history_has_null_persona(session):
            if choice.method == "in-place":
                analyze_history(session)
            return
        # The rows that are left lost their persona to a deletion, or were not decided yet.
        freeze(run.ddl, run.options)
        checkpoint.restart_fill(session, "personas", end_block=end_block(session))
        run.rows_filled += fill_in_place(run, Workers(run.ddl), "personas")
    for left in messages_without_persona(session, limit=1):
        raise PartlyDone(
            f"{count(left.total, 'message still has', 'messages still have')} no persona after "
            f"{_PASSES_MAX} passes, the first is {left.id}. Run again; if it stays, "
            "`memsync migrate plan` lists users without a persona",
            rows=left.total,
        )


def _first_pass(run: Run, choice: Choice) -> int:
    if choice.method == "copy":
        return cutover.fill_by_copy(run)
    # Workers connect only now, because the network may cut a connection that is idle for hours.
    with open_workers(run.postgres, run.ddl, run.options.workers) as workers:
        return fill_in_place(run, workers, "personas")
