"""Notes of what memsync created and dropped in the redesign; archived rows and values.

A note is written in the transaction that changes the object, because a rollback must undo what
memsync did and nothing that the app did.
"""

from typing import Literal

from memsync.stores.postgres import Session, composed, relations, sql

Change = Literal["created", "dropped"]

BEGUN, SIZED = "begun", "sized"
"""Notes about steps: memsync began the redesign; it gave the configs their windows."""
RENAMED, MERGED = "renamed", "merged"
"""How the table of choices got its new name: it was renamed, or merged into one that the app made.
"""


def noted(name: str, change: Change) -> sql.Composed:
    """The statement that notes a change, for the transaction that makes it."""
    return composed("note_change", object=sql.Literal(name), change=sql.Literal(change))


def unnoted(name: str) -> sql.Composed:
    """The statement that removes the note, once the change is undone."""
    return composed("forget_change", object=sql.Literal(name))


def forgotten(column: str) -> sql.Composed:
    """The statement that removes the archived values of a column, named `table.column`."""
    return composed("forget_values", column_name=sql.Literal(column))


def bring_back(session: Session, table: str, rows_kept: str, columns: set[str]) -> None:
    """Insert archived rows again, unless they exist.

    `rows_kept` is the statement that selects them, `columns` are those that all of them have.
    Columns that the table gained since take their defaults; generated columns fill themselves.
    """
    names = [name for name in relations.insertable_columns(session, table) if name in columns]
    session.execute(
        composed(
            "bring_back_rows",
            target=sql.Identifier(table),
            columns=sql.SQL(", ").join(map(sql.Identifier, names)),
            rows_kept=sql.SQL(f"({rows_kept})"),
        )
    )
