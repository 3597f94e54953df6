"""Who writes new memories: memsync, or in the per-persona layout the app until it hands them over.

It decides what a caller is told where the app writes. Two writers would make each memory twice.
"""

from memsync.settings import Settings
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.record import recorded
from memsync.stores.postgres import Session


def known_layout(session: Session, settings: Settings) -> Layout | None:
    """The layout that is recorded or named; None where only the vector store can show it.

    Raises: MissingRight where the role may not read the record.
    """
    named = None if settings.layout == "auto" else Layout(settings.layout)
    return recorded(session) or named


def why_app_writes(layout: Layout | None, settings: Settings) -> str | None:
    """Why memsync writes no new memories, and what changes that; None where it does."""
    if layout is not Layout.PER_PERSONA or settings.writer == "memsync":
        return None
    return (
        "memories lie in the layout per-persona, where the app itself writes them, and the setting "
        "writer is app: a second writer would make each memory twice. Set writer = memsync "
        "(MEMSYNC_WRITER) once the app has handed its long-term memory over to `remember`; or "
        "change the layout with `memsync reconcile layout set shared`"
    )
