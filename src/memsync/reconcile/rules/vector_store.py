"""MSS rules: how the vector store keeps the collections of memories, beside what is in them."""

from collections.abc import Iterator

from memsync.reconcile.findings import Finding, Grade, Repair, Severity
from memsync.reconcile.rules.base import StateRule
from memsync.reconcile.state import State
from memsync.stores.ltm.layouts import is_deployed


class AliasOfMemories(StateRule):
    """An alias has a name that the app gives to collections of memories.

    Why it matters: the app asks a collection of that name without a filter, and gets the memories
    of everybody in the collection behind it. Points that are written under that name lie there,
    too. The library asks with a filter then, so it finds no memory that names no persona. No
    collection has the name, so the persona's own memories are missing. The collection of the shared
    layout may be an alias, because it is never asked without a filter.
    Repair: remove the alias in Qdrant. A plan then makes the memories that are missing.
    """

    code, name = "MSS022", "alias-of-memories"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, state: State) -> Iterator[Finding]:
        """Aliases that are named like collections of the app's."""
        for alias, collection in sorted(state.ltm.aliases().items()):
            if is_deployed(alias):
                yield self.finding(f"qdrant:{alias}", "alias", found=collection)


class VectorIndexDisabled(StateRule):
    """A collection of memories builds no index of its vectors.

    Why it matters: every recall compares with each vector, which takes longer with each memory. A
    bulk load switches the index off, and nothing switches it on again by itself.
    Repair: in Qdrant set `indexing_threshold` of the collection to more than 0, or `m` of its hnsw
    (of a shared collection `payload_m`).
    """

    code, name = "MSS023", "vector-index-disabled"
    severity = Severity.WARNING
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, state: State) -> Iterator[Finding]:
        """The collections that recall searches."""
        for home in state.homes:
            info = state.form_of(home)
            if info and info.why_unindexed:
                yield self.finding(f"qdrant:{home}", "vectors", found=info.why_unindexed)
