"""Which database this is: the id that it was given when memsync's schema was made.

A plan carries it, so that a plan made for one database is refused by another.
"""

from uuid import UUID

from memsync.stores.postgres.connection import Session


def instance_id(session: Session) -> UUID:
    """The database's own id.

    Raises: SchemaMismatch when memsync's schema is not there yet.
    """
    found: UUID = session.row("instance_id").id
    return found
