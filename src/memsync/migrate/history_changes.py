"""Notes of what memsync created and dropped of the history's table.

The app's own first step may have made the column persona_id, its index and its key before memsync
came. A rollback must undo what memsync did and nothing that the app did, so a note is written in
the transaction that changes the object. The build of an index has no transaction; its note goes
first.
"""

from typing import Literal

from memsync.stores.history.catalog import Catalog
from memsync.stores.postgres import Session, Statement, composed, sql
from memsync.stores.postgres.ddl import OnlineDdl

Change = Literal["created", "dropped"]


def noted(name: str, change: Change) -> sql.Composed:
    """The statement that notes a change, for the transaction that makes it."""
    return composed("note_history_change", object=sql.Literal(name), change=sql.Literal(change))


def unnoted(name: str) -> sql.Composed:
    """The statement that removes the note, once the change is undone."""
    return composed("forget_history_change", object=sql.Literal(name))


def note_created(session: Session, catalog: Catalog, *names: str) -> None:
    """Note that memsync is about to create those of the indexes and keys that do not exist."""
    standing = catalog.indexes.keys() | catalog.constraints.keys()
    session.execute(*(noted(name, "created") for name in names if name not in standing))


def drop_index(ddl: OnlineDdl, catalog: Catalog, name: str, drop: Statement) -> None:
    """Drop an index of the history if memsync created it."""
    if name in catalog.created:
        ddl.run_long(drop)
        ddl.session.execute(unnoted(name))
