"""Phase expand: the column persona_id, and the triggers that keep both ids in sync."""

from memsync.migrate.expand.phase import EXPAND, archive_personas, forget_fill
from memsync.migrate.expand.sync_triggers import pinned_search_path

__all__ = ["EXPAND", "archive_personas", "forget_fill", "pinned_search_path"]
