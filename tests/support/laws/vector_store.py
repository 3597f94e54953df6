"""Laws of how the vector store keeps collections."""

from dataclasses import replace

from memsync.model.records import Exchange
from memsync.stores.vectors import CollectionInfo
from support.failing import Failing
from support.lab import B, C, Lab
from support.laws.base import Planted, law, one


class _Aliased(Failing):
    """A store with aliases, two of which are no names of the app's collections."""

    def aliases(self) -> dict[str, str]:
        return {f"persona-{B}": "other", "memories": "memories-2", "unused": "other"}


@law("MSS022", "home", "deployed")
def another_collection(lab: Lab, _: list[Exchange]) -> Planted:
    """A persona's name stands for a collection of others."""
    lab.ltm = lab.with_store(_Aliased(lab.vectors))
    return Planted(one("alias", found="other"), next_command="memsync rules MSS022")


class _Unindexed(Failing):
    """A store of which one collection builds no index."""

    def describe(self, collection: str) -> CollectionInfo | None:
        found = super().describe(collection)
        is_it = collection in {"memories", f"persona-{C}"}
        return replace(found, why_unindexed="indexing_threshold 0") if found and is_it else found


@law("MSS023", "home", "deployed")
def after_a_bulk_load(lab: Lab, _: list[Exchange]) -> Planted:
    """The index was switched off, and is off still."""
    lab.ltm = lab.with_store(_Unindexed(lab.vectors))
    return Planted(
        one("vectors", found="indexing_threshold 0"), next_command="memsync rules MSS023"
    )
