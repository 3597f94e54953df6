"""Phase isolate: memsync's own tables, and the index for reading by user."""

from memsync.migrate.isolate.phase import ISOLATE, index_users, reads_by_user

__all__ = ["ISOLATE", "index_users", "reads_by_user"]
