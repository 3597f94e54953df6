"""Blocks of the history: where its rows end, and how a statement is told a range of them."""

from memsync.stores.history.catalog import history_blocks
from memsync.stores.postgres import Session


def end_block(session: Session) -> int:
    """The block before which all rows of the history stand now."""
    return history_blocks(session) + 1


def range_of_blocks(start: int, stop: int) -> tuple[str, str]:
    """The first places of rows in these two blocks of the history, as a statement takes them."""
    return f"({start},0)", f"({stop},0)"
