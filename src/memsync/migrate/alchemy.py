"""Lends a session to SQLAlchemy, which alembic needs to keep its version table.

Decides only how: the same connection, in autocommit, never closed by the borrower.
"""

import contextlib
from collections.abc import Iterator

import sqlalchemy
from sqlalchemy.pool import StaticPool

from memsync.stores.postgres import Session, translated


@contextlib.contextmanager
def lent(session: Session) -> Iterator[sqlalchemy.Connection]:
    """A SQLAlchemy connection over the session's own."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: session.connection,
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
    )
    # The engine is not disposed of: that would close the session, which holds the lock.
    with translated(session.label):
        try:
            with engine.connect() as connection:
                yield connection
        except sqlalchemy.exc.DBAPIError as error:
            # What the driver said; SQLAlchemy only wraps it.
            raise error.orig or error from None
