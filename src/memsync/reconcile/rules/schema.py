"""MSS rules: schema, indexes and collections of both stores are as the code expects."""

import re
from collections.abc import Iterator
from dataclasses import replace

from memsync.reconcile.findings import Finding, Grade, Repair, Severity, Words
from memsync.reconcile.halfway import half_done
from memsync.reconcile.rules.base import StateRule
from memsync.reconcile.state import HISTORY, QUARANTINE, State
from memsync.stores.history.catalog import PERSONA_INDEX, RETRIEVAL_INDEX
from memsync.stores.history.phases import Stage
from memsync.stores.ltm import COSINE
from memsync.stores.ltm.layouts import Layout

_EMBEDDER_NAME = re.compile(r"(?:wordllama|[\w.]+:[\w.]+)/\d+")


class MigrationBehind(StateRule):
    """The history is not fully migrated.

    Why it matters: before the last phase the database serves the old and the new version of the
    app at once, through sync triggers.
    Repair: run the rest of the migration.
    """

    code, name = "MSS001", "migration-behind"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate plan"

    def is_of(self, state: State, *, check: bool) -> bool:
        """Whether it is a check, or no memory can be compared before the migration goes on."""
        return check or not state.catalog.knows_personas

    def look(self, state: State) -> Iterator[Finding]:
        """A stage before the last."""
        if (stage := state.catalog.stage) is not Stage.CONTRACTED:
            yield self.finding(HISTORY, "stage", expected=Stage.CONTRACTED, found=stage)


class InvalidIndex(StateRule):
    """An index of the history is INVALID: its build was interrupted.

    Why it matters: Postgres still updates it at every write, but no query uses it. See
    https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY
    Repair: the migration rebuilds its own indexes; the app's operator must rebuild the others.
    """

    code, name = "MSS005", "invalid-index"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate plan"

    def look(self, state: State) -> Iterator[Finding]:
        """Indexes of the history that Postgres marks as invalid, each as a finding."""
        for name, valid in state.catalog.indexes.items():
            if not valid:
                yield self.finding(HISTORY, name, valid=False)


class MissingIndex(StateRule):
    """An index that reading by persona needs is not there.

    Why it matters: every read of a thread scans the table.
    Repair: the migration builds it.
    """

    code, name = "MSS006", "missing-index"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync migrate plan"

    def look(self, state: State) -> Iterator[Finding]:
        """Missing indexes, at the stages where the history is read by persona."""
        catalog = state.catalog
        if not catalog.knows_personas and "user_id" in catalog.columns:
            return
        for name in (PERSONA_INDEX, RETRIEVAL_INDEX):
            if name not in catalog.indexes:
                yield self.finding(HISTORY, name, found=None)


class MissingPayloadIndex(StateRule):
    """A payload key that queries filter by has no index. A copied collection may lack indexes.

    Why it matters: every recall scans the collection, or is refused under strict mode.
    Repair: the relay creates missing indexes before it writes.
    """

    code, name = "MSS007", "missing-payload-index"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    severity = Severity.WARNING
    next_command = "memsync sync run"

    def look(self, state: State) -> Iterator[Finding]:
        """Keys of the home collection that have no index, or one of another kind."""
        home = state.ltm.collection
        # The app's own collections have no indexes: each holds one persona's memories.
        info = state.form_of(home) if state.ltm.layout is Layout.SHARED else None
        if info is None:
            return
        for key, kind in state.ltm.codec.indexes.items():
            found = info.indexes.get(key)
            if found != kind:
                yield self.finding(f"qdrant:{home}", key, expected=kind, found=found)


class DimensionMismatch(StateRule):
    """The vectors of a collection that recall searches have another size than the embedder's.

    Why it matters: every recall and every run of the relay fails. It is looked for only where the
    settings name an embedder.
    Repair: name the embedder that the collection was made with, or another collection.
    """

    code, name = "MSS012", "dimension-mismatch"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync rules MSS012"
    only_in_check = False

    def can_look(self, state: State) -> bool:
        """Where the settings name an embedder."""
        return state.embedder is not None

    def look(self, state: State) -> Iterator[Finding]:
        """The collections whose size is not the embedder's."""
        for home in state.homes if state.embedder else ():
            info = state.form_of(home)
            if state.embedder is None or info is None or info.dims == state.embedder.dims:
                continue
            finding = self.finding(
                f"qdrant:{home}", "vectors", expected=state.embedder.dims, found=info.dims
            )
            made_by = state.ltm.embedders_of_a_page(home).most_common(1)
            yield _naming(made_by[0][0], finding) if made_by else finding


class EmbedderMismatch(StateRule):
    """Memories were made by another embedder than the one that the settings name.

    Why it matters: vectors of two models cannot be compared, so recall finds the wrong memories,
    without an error. It is looked for only where the settings name an embedder, in a page of the
    home collection.
    Repair: name the embedder that the memories were made with, or another collection.
    """

    code, name = "MSS013", "embedder-mismatch"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync rules MSS013"
    only_in_check = False
    moving = frozenset(("points", "looked_at"))

    def can_look(self, state: State) -> bool:
        """In the shared layout, with an embedder of the collection's size."""
        # Payloads of the app's do not say which embedder made them.
        shared = state.ltm.layout is Layout.SHARED
        info = state.form_of(state.ltm.collection) if shared and state.embedder else None
        # Where the sizes differ, MSS012 says what is to be said.
        return info is not None and state.embedder is not None and info.dims == state.embedder.dims

    def look(self, state: State) -> Iterator[Finding]:
        """Each other embedder of memories in the page, with how many are its own."""
        home = state.ltm.collection
        if state.embedder is None or not self.can_look(state):
            return
        made_by = state.ltm.embedders_of_a_page(home)
        for other, points in sorted(made_by.items()):
            if other != state.embedder.name:
                found = other if _is_a_name(other) else Words.of(other)
                finding = self.finding(
                    f"qdrant:{home}",
                    str(found),
                    expected=state.embedder.name,
                    found=found,
                    points=points,
                    looked_at=made_by.total(),
                )
                yield _naming(other, finding)


def _is_a_name(embedder: str) -> bool:
    """Whether it is written as settings name one. A payload may hold anything, people's words too.

    A name also stands in a command that an operator runs.
    """
    return _EMBEDDER_NAME.fullmatch(embedder) is not None


def _naming(embedder: str, finding: Finding) -> Finding:
    """The finding with the command that checks with the embedder of that name, if it is one."""
    if not _is_a_name(embedder):
        return finding
    model = embedder.rpartition("/")[0]
    return replace(finding, next_command=f"MEMSYNC_EMBEDDER={model} memsync check")


class WrongDistance(StateRule):
    """A collection of memories compares vectors by another measure than cosine.

    Why it matters: its scores mean something else, and recall's threshold lets the wrong ones pass.
    Repair: make the collection anew with cosine, and copy its points.
    """

    code, name = "MSS014", "wrong-distance"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, state: State) -> Iterator[Finding]:
        """The collections that recall searches."""
        for home in state.homes:
            info = state.form_of(home)
            if info and info.distance != COSINE:
                yield self.finding(
                    f"qdrant:{home}", "vectors", expected=COSINE, found=info.distance
                )


class UnsearchableVectors(StateRule):
    """A collection keeps its vectors under names, or several for a point.

    Why it matters: every recall in it fails, and no memory can be written to it.
    Repair: make the collection anew with one vector without a name, and copy its points.
    """

    code, name = "MSS017", "unsearchable-vectors"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE

    def look(self, state: State) -> Iterator[Finding]:
        """The collections of memories whose vectors have another form."""
        for home in state.homes:
            if why := state.misformed.get(home):
                yield self.finding(f"qdrant:{home}", "vectors", found=why)


class CollectionMissing(StateRule):
    """The shared collection is missing, and it should have memories by the history or the ledger.

    Why it matters: recall finds nothing. Either the name is wrong, or the collection was lost.
    Repair: correct the setting `collection`. Where the collection was lost, `memsync sync run`
    makes it, and a plan then makes its memories from Postgres.
    """

    code, name = "MSS015", "collection-missing"
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    only_in_check = False
    is_cause = True
    otherwise = (
        ("to see which collections hold memories", "memsync reconcile layout"),
        ("where the collection was lost", "memsync sync run"),
    )

    def look(self, state: State) -> Iterator[Finding]:
        """The shared collection, where it is missing and memories in it are missed."""
        name = state.ltm.collection
        is_missing = state.ltm.layout is Layout.SHARED and not state.ltm.stands(name)
        if is_missing and (state.missing_with_collection or state.noted):
            yield self.finding(
                "qdrant", name, exchanges=state.missing_with_collection, ledger=state.noted
            )


class UndoNotPossible(StateRule):
    """A run of `reconcile apply` can no longer be undone whole, though its time is not over.

    Why it matters: what the run removed or overwrote is lost in part. Copies in the quarantine are
    missing or do not fit their digests, or a collection is gone or of another size: one that they
    belong in, or that points were copied from. A run that is older than `quarantine_days` is no
    finding: its copies are forgotten by design. Nor is a collection that was retired.
    Repair: restore the rows of memsync.journal and memsync.quarantine, or the collection, from a
    backup. What is whole can still be undone. `memsync reconcile runs` lists the runs.
    """

    code, name = "MSS016", "undo-not-possible"
    severity = Severity.WARNING
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync reconcile runs"

    def can_look(self, state: State) -> bool:
        """Where no copy was left out, for want of a right or because there are many."""
        return not state.undoable.left_out

    def look(self, state: State) -> Iterator[Finding]:
        """The runs that have points which an undo could not bring back."""
        for each in state.undoable.lost:
            yield self.finding(
                QUARANTINE,
                str(each.run_id),
                points=each.points,
                copies_missing=each.missing,
                copies_damaged=each.damaged,
                without_collection=each.without_collection,
            )


class UnfinishedLayoutChange(StateRule):
    """A change of the layout, or a retirement, was begun and did not end.

    Why it matters: memories lie in two places. Recall reads the layout that is recorded, which is
    whole. The rest goes on, or waits, only with the command that was cut short.
    Repair: the same command finishes it. `memsync reconcile layout set` with the layout that is
    recorded gives a change of the layout up; what was copied stays.
    """

    code, name = "MSS021", "unfinished-layout-change"
    severity = Severity.WARNING
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync reconcile layout"

    def look(self, state: State) -> Iterator[Finding]:
        """The change that is noted, while nobody is at work."""
        if change := half_done(state.session):
            finding = self.finding("postgres:memsync.layout", str(change), layout=state.ltm.layout)
            yield replace(finding, next_command=change.command)


class LegacyLayout(StateRule):
    """Collections that the layout in force does not read still exist.

    Why it matters: they take room, and each point in them is accounted for by other findings.
    Repair: in the shared layout `memsync reconcile layout set shared --retire` removes them, once
    each of their points has its copy.
    """

    code, name = "MSS011", "legacy-layout"
    severity = Severity.INFO
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    only_in_check = False

    def look(self, state: State) -> Iterator[Finding]:
        """The collections of the app's that are not home, all together."""
        if state.elsewhere:
            first = min(state.elsewhere)
            yield self.finding("qdrant", first, collections=len(state.elsewhere))


class BaselineOutdated(StateRule):
    """Acknowledgements match no finding any more: what they were about is mended, or has changed.

    Why it matters: it does not. A difference that has changed is a finding of its own again. An
    audit that could not read everything calls nothing outdated.
    Repair: `memsync reconcile baseline drop --outdated` removes them.
    """

    code, name = "MSS020", "baseline-outdated"
    severity = Severity.INFO
    grade, repair = Grade.REPORT_ONLY, Repair.NONE
    next_command = "memsync reconcile baseline drop --outdated"
    only_in_check = False

    def look(self, state: State) -> Iterator[Finding]:
        """The acknowledgements without a finding, all together."""
        if outdated := state.count_outdated():
            yield self.finding("postgres:memsync.acknowledged", "outdated", outdated=outdated)
