"""Decides in which layout memories lie, and records it.

The record in Postgres counts. Until a command that writes has made it, the setting counts, and
where that is `auto`, what stands in the vector store. A setting that contradicts the record stops
every command, because one of the two is wrong, and a write by the wrong one would be read by
nobody.
"""

from dataclasses import dataclass

from memsync.errors import SchemaMismatch
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog, require_app
from memsync.stores.ltm.layouts import CollectionKind, Layout, kind_of
from memsync.stores.postgres import Session, relations
from memsync.stores.vectors import VectorStore

_TABLE = "memsync.layout"
_NAME_IT = (
    "Name the layout, with MEMSYNC_LAYOUT=per-persona (a collection for each persona, as the app "
    "made them) or MEMSYNC_LAYOUT=shared (one collection for all)"
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The layout in force, and why it is."""

    layout: Layout
    why: str


def recorded(session: Session) -> Layout | None:
    """The layout that is recorded; None where no command that writes has decided it.

    Raises: MissingRight where the role may not read the record.
    """
    if not relations.existing(session, [_TABLE]):
        return None
    rows = session.rows("recorded_layout")
    return Layout(rows[0].layout) if rows else None


def decide(session: Session, vectors: VectorStore, settings: Settings) -> Decision:
    """The layout in force. Writes nothing.

    Raises: SchemaMismatch where the setting contradicts the record, and where nothing is recorded
    or named and the store does not show it; StoreUnreachable.
    """
    standing = recorded(session)
    named = None if settings.layout == "auto" else Layout(settings.layout)
    if standing and named and named is not standing:
        raise SchemaMismatch(
            f"the setting layout is {named}, but {_TABLE} says that memories lie in the layout "
            f"{standing}. Take the setting back, or change the layout with `memsync reconcile "
            f"layout set {named}`",
            setting=named.value,
            recorded=standing.value,
        )
    if standing:
        return Decision(standing, "it is recorded")
    if named:
        return Decision(named, "the setting names it")
    return _looked_for(session, vectors, settings.collection)


def record(session: Session, decision: Decision) -> None:
    """Record the layout, unless one is recorded. Effects: Postgres."""
    session.run("record_layout", layout=decision.layout.value, why=decision.why)


def require_layout(session: Session, layout: Layout, label: str) -> None:
    """Refuse to write in a layout that is not the recorded one any more. `label` is the store's.

    Raises: SchemaMismatch.
    """
    if (standing := recorded(session)) not in {None, layout}:
        raise SchemaMismatch(
            f"memories lie in the layout {standing} by now, and this command has opened {label} "
            f"for the layout {layout}. Run it again"
        )


def change(session: Session, before: Layout, after: Layout, why: str) -> None:
    """Record another layout. Effects: Postgres.

    Raises: SchemaMismatch when the recorded one is not `before`.
    """
    if not session.run("change_layout", before=before.value, after=after.value, why=why):
        raise SchemaMismatch(
            f"{_TABLE} no longer says {before}, so it was not changed to {after}. Look at it with "
            "`memsync reconcile layout`"
        )


def _looked_for(session: Session, vectors: VectorStore, shared: str) -> Decision:
    require_app(session)  # In another database no layout is the right one.
    names = vectors.collections()
    in_shared = shared in names and vectors.count(shared) > 0
    deployed = (
        name
        for name in names
        if kind_of(name, shared) not in {CollectionKind.SHARED, CollectionKind.OTHER}
    )
    first = next((name for name in deployed if vectors.count(name)), None)
    if first and not in_shared:
        return Decision(Layout.PER_PERSONA, f"{first} holds memories, and {shared!r} none")
    if in_shared and not first:
        return Decision(Layout.SHARED, f"{shared!r} holds memories, and no collection of the app's")
    if first:
        raise SchemaMismatch(
            f"memories lie in both layouts: in {first} and in {shared!r} of {vectors.label}. "
            f"{_NAME_IT}",
            collections=[first, shared],
        )
    if not Catalog.read(session, notes=False).knows_personas:
        return Decision(Layout.PER_PERSONA, "the history is not migrated, so the app's own counts")
    if _is_new(session):
        return Decision(Layout.SHARED, "neither store has a memory yet, and none was due before")
    raise SchemaMismatch(
        f"{vectors.label} holds no memories, and the history has exchanges that should have some: "
        "memsync cannot tell in which layout they belong. See whether the URL is right. "
        f"{_NAME_IT}",
        collections=names,
    )


def _is_new(session: Session) -> bool:
    """Whether no exchange should have had a memory before: each is still in the outbox."""
    if not relations.existing(session, ["memsync.outbox"]):
        return False
    new: bool = session.row("no_memory_is_due_yet").is_new
    return new
