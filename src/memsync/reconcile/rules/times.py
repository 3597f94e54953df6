"""MSS rules: both stores are of one time, as their marks say."""

from collections.abc import Iterator

from memsync.reconcile.findings import Finding, Grade, Repair
from memsync.reconcile.rules.base import StateRule
from memsync.reconcile.state import State
from memsync.stores.ltm.marks import META, Verdict


class _OfTwoTimes(StateRule):
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    only_in_check = False
    is_cause = True
    otherwise = (("to go on with what is there", "memsync reconcile adopt --anew"),)

    def can_look(self, state: State) -> bool:
        """Where the marks could be read."""
        return not state.marks.why_unread


class StoreRewound(_OfTwoTimes):
    """Postgres is older than what was written to the vector store from it.

    Why it matters: it was restored from a backup, or it is a copy of the database that writes
    there. Memories whose rows seem to be missing may be the only trace of what was said since.
    Repair: restore the newer database, or correct the URL. To go on with what is there, and only
    then, run `memsync reconcile adopt --anew`; until then no plan removes a memory without a row.
    """

    code, name = "MSS018", "store-rewound"

    def look(self, state: State) -> Iterator[Finding]:
        """The mark of the vector store is ahead, or was when something was last written."""
        marks = state.marks
        if marks.verdict is Verdict.REWOUND:
            yield self.finding(
                "postgres:memsync.mark", "settled", postgres=marks.here, vector_store=marks.there
            )


class CollectionRecreated(_OfTwoTimes):
    """The vector store has no mark of this database any more.

    Why it matters: it was made anew, it was restored from before memsync wrote to it, or the URL
    names another store. Memories without rows are gone, and those with rows are missing.
    Repair: correct the URL, or restore the store from a snapshot. To go on with what is there, run
    `memsync reconcile adopt --anew`, and then `memsync reconcile plan`, which makes the memories
    that have rows.
    """

    code, name = "MSS019", "collection-recreated"

    def look(self, state: State) -> Iterator[Finding]:
        """Postgres has marked the store, and the mark is gone."""
        marks = state.marks
        if marks.verdict is Verdict.GONE:
            yield self.finding(f"qdrant:{META}", "settled", postgres=marks.here, vector_store=None)
