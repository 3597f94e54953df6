"""Phase contract: after its gates it drops the old places of the settings, then user_id.

First it archives the user of each message whose persona belongs to somebody else; of any other
message the persona's owner is the user. The way back fills user_id from these two, also for
messages written since. Locks: each statement for a moment and by lock_timeout; statements that scan
the table let readers and writers pass.
"""

from memsync.migrate import runs
from memsync.migrate.backfill import refill_users
from memsync.migrate.contract import gates
from memsync.migrate.expand import forget_fill, sync_triggers
from memsync.migrate.history_changes import noted, unnoted
from memsync.migrate.redesign import old_places
from memsync.migrate.run import Run
from memsync.stores.history.catalog import (
    PERSONA_CHECK,
    PERSONA_COLUMN,
    PERSONA_REQUIRED,
    TABLE,
    USER_CHECK,
    USER_ID_INDEX,
    USER_INDEX,
    USER_KEY,
)
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import Statement, statement


class _Contract:
    phase = Phase.CONTRACT
    steps = (
        "End the redesign: give every persona an owner, and drop the old places of the settings.",
        "Make persona_id NOT NULL and drop user_id; an archive keeps the way back.",
    )

    def forward(self, run: Run) -> None:
        """Check the gates; drop the old places of the settings, then user_id."""
        if "user_id" in run.catalog().columns:
            gates.require_open(run.session, run.options, run.tell)
        old_places.drop(run)
        _drop_user_id(run)

    def back(self, run: Run) -> None:
        """Give every message its user again, then bring back the old places; clients go on."""
        _bring_back_user_id(run)
        old_places.bring_back(run)


CONTRACT = _Contract()


def _drop_user_id(run: Run) -> None:
    if not run.catalog().columns[PERSONA_COLUMN]:
        run.session.execute(noted(PERSONA_REQUIRED, "created"))
    run.ddl.require_not_null(TABLE, PERSONA_COLUMN, PERSONA_CHECK)
    catalog = run.catalog()
    if "user_id" not in catalog.columns:
        return
    run.ddl.run_long(statement("archive_exceptions"))
    if USER_KEY in catalog.constraints:
        run.ddl.run(statement("drop_user_key"), noted(USER_KEY, "dropped"), table="users")
    # The index for reading by user goes with the column.
    going: list[Statement] = [
        statement("drop_user_id"),
        runs.noted_user_id_dropped(),
        unnoted(USER_INDEX),
    ]
    if USER_ID_INDEX in catalog.indexes:
        going.append(noted(USER_ID_INDEX, "dropped"))
    sync_triggers.remove(run.ddl, *going)


def _bring_back_user_id(run: Run) -> None:
    ddl = run.ddl
    if "user_id" not in run.catalog().columns:
        ddl.run(statement("add_user_id"), table=TABLE)
        forget_fill(run.session, "users")
    sync_triggers.build(ddl, run.catalog())
    run.rows_filled += refill_users(run)
    dropped = run.catalog().dropped
    if USER_ID_INDEX in dropped:
        ddl.index(USER_ID_INDEX, statement("create_user_id_index"), table=TABLE)
    if USER_KEY in dropped:
        ddl.foreign_key(TABLE, "user_id", "users")
        ddl.validate(TABLE, USER_KEY)
    ddl.require_not_null(TABLE, "user_id", USER_CHECK)
    catalog = run.catalog()
    if PERSONA_CHECK in catalog.constraints:
        ddl.run(statement("drop_persona_check"), table=TABLE)
    if PERSONA_REQUIRED in catalog.created:
        ddl.run(statement("allow_null_persona"), unnoted(PERSONA_REQUIRED), table=TABLE)
    run.session.execute(unnoted(USER_ID_INDEX), unnoted(USER_KEY))
