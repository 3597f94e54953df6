"""Phase isolate: memsync's own tables, and the index for reading by user.

This module decides when that index is built. A run that goes on to fill leaves it out, because each
filled row would have to update it, and after the fill threads are read by persona. Locks: SHARE
UPDATE EXCLUSIVE on the history, which blocks neither readers nor writers.
"""

import re

from memsync.migrate.history_changes import drop_index, note_created
from memsync.migrate.run import Run
from memsync.stores.history.catalog import TABLE, USER_INDEX, Catalog
from memsync.stores.history.phases import Phase
from memsync.stores.postgres import relations, statement, statements_of

_OWN_SCHEMA = "migrate/isolate/own_schema.sql"
_TABLE = re.compile(r"^CREATE TABLE IF NOT EXISTS (memsync\.\w+)", re.MULTILINE)
_ALTERED = re.compile(r"^ALTER TABLE (memsync\.\w+)", re.MULTILINE)
_COLUMN = re.compile(r"ADD COLUMN IF NOT EXISTS (\w+)")
_BEFORE_PERSONAS = frozenset((Phase.ISOLATE, Phase.REDESIGN, Phase.EXPAND))


class _Isolate:
    phase = Phase.ISOLATE
    steps = (
        "Create memsync's own tables, in a schema of their own.",
        "Build the index for reading one user's thread, unless the run goes on to fill.",
    )

    def forward(self, run: Run) -> None:
        """Create memsync's tables if they are missing, and the index if it is wanted."""
        run.ddl.run(*statements_of(_OWN_SCHEMA), table="memsync.instance")
        if reads_by_user(run.catalog(), run.options.to):
            index_users(run)

    def back(self, run: Run) -> None:
        """Drop the index. The tables stay, because a later run needs what is archived in them."""
        drop_index(run.ddl, run.catalog(), USER_INDEX, statement("drop_user_index"))


ISOLATE = _Isolate()


def add_own_tables(run: Run) -> None:
    """Make the tables and columns that an older memsync did not. Where all stand, do nothing."""
    own_schema = statements_of(_OWN_SCHEMA)
    names = [name for each in own_schema for name in _TABLE.findall(each)]
    tables_stand = len(relations.existing(run.session, names)) == len(names)
    if tables_stand and all(_columns_stand(run, each) for each in own_schema):
        return
    ledger = relations.columns(run.session, "memsync.memories")
    run.ddl.run(*own_schema, table="memsync.instance")
    if ledger and "removed" not in ledger:
        run.session.run("what_left_was_removed")


def _columns_stand(run: Run, statement: str) -> bool:
    """Whether the columns stand that a statement of the own schema adds to a table."""
    columns = set(_COLUMN.findall(statement))
    if not columns:
        return True
    [table] = _ALTERED.findall(statement)
    return columns <= relations.columns(run.session, table).keys()


def reads_by_user(catalog: Catalog, to: Phase) -> bool:
    """Whether a run wants the user index: it exists, or the run ends, at `to`, before there are
    personas to read by.
    """
    return catalog.has_users and (to in _BEFORE_PERSONAS or USER_INDEX in catalog.indexes)


def index_users(run: Run) -> bool:
    """Build the index for reading by user, if there is a user_id; whether it had to be built."""
    catalog = run.catalog()
    if not catalog.has_users:
        return False
    note_created(run.session, catalog, USER_INDEX)
    run.ddl.index(USER_INDEX, statement("create_user_index"), table=TABLE)
    return not catalog.indexes.get(USER_INDEX, False)
