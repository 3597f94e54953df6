"""Phase isolate: memsync's own tables, and the index for reading by user."""

from memsync.migrate.isolate.phase import ISOLATE, add_own_tables, index_users, reads_by_user

__all__ = ["ISOLATE", "add_own_tables", "index_users", "reads_by_user"]
