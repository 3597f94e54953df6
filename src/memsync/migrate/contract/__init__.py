"""Phase contract: the gates, then the old places of the settings and user_id go."""

from memsync.migrate.contract.phase import CONTRACT

__all__ = ["CONTRACT"]
