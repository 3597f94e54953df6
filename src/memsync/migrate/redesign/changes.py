"""The notes of what memsync created and dropped of the redesign, and rows that were kept.

A note is written in the transaction that changes the object, because the way back must not undo
what the app did.
"""

from typing import Literal

from memsync.stores.postgres import Session, composed, relations, sql

Change = Literal["created", "dropped"]

BEGUN, SIZED = "begun", "sized"
"""Notes of their own: memsync began the redesign; it gave the configs their windows."""
RENAMED, MERGED = "renamed", "merged"
"""How the table of choices got its new name: by its own, or into one that the app had made."""


def noted(name: str, change: Change) -> sql.Composed:
    """The statement that notes a change, for the transaction that makes it."""
    return composed("note_change", object=sql.Literal(name), change=sql.Literal(change))


def unnoted(name: str) -> sql.Composed:
    """The statement that forgets the note, once the change is undone."""
    return composed("forget_change", object=sql.Literal(name))


def bring_back(session: Session, table: str, rows_kept: str, columns: set[str]) -> None:
    """Insert rows again that were kept, unless they are there.

    `rows_kept` is the statement that selects them, `columns` are those that all of them have.
    Columns that the table gained since take their defaults; those that fill themselves do so.
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
