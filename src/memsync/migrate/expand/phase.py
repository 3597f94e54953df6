"""Phase expand: the column persona_id, and the triggers that keep both ids in sync.

From here on both versions of the app can run: one writes user_id, the other persona_id. Locks:
ACCESS EXCLUSIVE for the column and SHARE ROW EXCLUSIVE for the triggers, each for a moment and
within lock_timeout.
"""

from functools import partial

from memsync.migrate.expand import sync_triggers
from memsync.migrate.history_changes import noted, unnoted
from memsync.migrate.run import Run
from memsync.stores.history.catalog import PERSONA_COLUMN, TABLE
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Session, Statement, statement
from memsync.stores.postgres.ddl import OnlineDdl


class _Expand:
    phase = Phase.EXPAND
    steps = ("Add the column persona_id, and the triggers that keep both ids in sync.",)

    def forward(self, run: Run) -> None:
        """Add the column and, while user_id exists, the triggers."""
        catalog = run.catalog()
        column: tuple[Statement, ...] = ()
        if PERSONA_COLUMN not in catalog.columns:
            column = (statement("add_persona_id"), noted(PERSONA_COLUMN, "created"))
        if "user_id" in catalog.columns:
            sync_triggers.build(run.ddl, catalog, *column)
        elif column:
            run.ddl.run(*column, table=TABLE)

    def back(self, run: Run) -> None:
        """Archive the personas that the map would not give, then drop triggers and column.

        A column that the app made itself stays, with the personas that its messages have now.
        """
        catalog = run.catalog()
        if PERSONA_COLUMN in catalog.columns:
            archive_personas(run.ddl)
            forget_fill(run.session, "personas")
        column: tuple[Statement, ...] = ()
        if PERSONA_COLUMN in catalog.created:
            column = (statement("drop_persona_id"), unnoted(PERSONA_COLUMN))
        sync_triggers.remove(run.ddl, *column)
        if PERSONA_COLUMN in catalog.columns and not column:
            # Not earlier, because the trigger would archive each of them.
            run.ddl.do(partial(run.session.run, "restore_existing"), table=TABLE)
        run.session.run("forget_existing")


EXPAND = _Expand()


def archive_personas(ddl: OnlineDdl) -> None:
    """Archive the persona of every message for which archive and map would give another."""
    ddl.run_long(statement("archive_personas"))


def forget_fill(session: Session, fill: str) -> None:
    """Remove the checkpoint of a fill, `personas` or `users`, whose column is new or dropped."""
    session.run("forget_fill", fill=fill)
