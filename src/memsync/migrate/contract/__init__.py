"""Phase contract: after its gates it drops the old places of the settings, then user_id."""

from memsync.migrate.contract.phase import CONTRACT

__all__ = ["CONTRACT"]
