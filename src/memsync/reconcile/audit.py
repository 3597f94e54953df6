"""The audit reads both stores and turns their differences into findings. It writes nothing.

A difference becomes a finding when it is older than the settle window by either side's clock, no
outbox entry will repair it, and it is still there on a second read. A fact that is no fault is
counted: all of one kind are one finding, of severity info. Findings that an operator has
acknowledged are kept apart. An audit also lists the parts that it could not read.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from memsync.errors import MemsyncError
from memsync.model.digests import exchange_digest, point_state
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Place, ids_by_collection
from memsync.model.sequences import batched
from memsync.model.wording import count
from memsync.reconcile.baseline import Baseline
from memsync.reconcile.cases import Case
from memsync.reconcile.deep import ALONE, Deep, How
from memsync.reconcile.facts import Fact
from memsync.reconcile.findings import Audit, Finding, Findings, Known, Severity
from memsync.reconcile.locating import Located, Whole, locate
from memsync.reconcile.losses import losses
from memsync.reconcile.on_its_way import OnItsWay
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.reading import read_points
from memsync.reconcile.rules import CASE_RULES, STATE_RULES
from memsync.reconcile.rules.coverage import NOT_JUDGED, ArchivedMissing, MissingPoint
from memsync.reconcile.rules.vectors import VectorRule
from memsync.reconcile.seen_vectors import Verify
from memsync.reconcile.sources import Sources
from memsync.reconcile.spool import Spool
from memsync.reconcile.state import State
from memsync.reconcile.verifying import Verifier
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.exchanges import exchanges_by_anchor, history_is_empty
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.ltm.marks import Marks, Verdict
from memsync.stores.ltm.parts import Pace
from memsync.stores.postgres import Postgres, Session

_BATCH = 500


def audit(
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
    *,
    verify: Verify | None = None,
    deep: bool | None = None,
    how: How = ALONE,
) -> Audit:
    """Compare the memories with the history, and look at the vectors that `verify` names.

    A large shared collection is compared by fingerprints, and only what differs is read; `deep`
    reads everything, `how` says by whom, and False also compares a small one by fingerprints.

    A collection that cannot be read makes the audit incomplete, and so does an embedder that the
    settings name and that cannot be loaded.

    Raises: StoreUnreachable when a store does not answer; SchemaMismatch when the database is not
    the app's.
    """
    return _Auditor(postgres, ltm, settings, tell, verify, deep=deep, how=how).run(everything=False)


def check(
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
    *,
    verify: Verify | None = None,
    deep: bool | None = None,
    how: How = ALONE,
) -> Audit:
    """Audit, and check that schema, indexes and outbox are as they must be. Raises: as `audit`."""
    return _Auditor(postgres, ltm, settings, tell, verify, deep=deep, how=how).run(everything=True)


class _Auditor:
    def __init__(
        self,
        postgres: Postgres,
        ltm: LongTermMemory,
        settings: Settings,
        tell: Tell,
        verify: Verify | None,
        *,
        deep: bool | None,
        how: How,
    ) -> None:
        self._postgres = postgres
        self._ltm = ltm
        self._settings = settings
        self._tell = tell
        self._settling = 0
        self._not_checked: list[str] = []
        self._facts: dict[str, Fact] = {}
        self._unread: dict[str, str] = {}
        self._verify = verify
        self._verifier = Verifier(ltm, settings, verify)
        # Vectors are looked at where every point is read.
        self._deep = deep if verify is None else True
        self._reading = Deep(settings, how)
        self._pace = Pace(how.points_per_s)
        self._findings = Findings()
        self._known = Findings()
        self._outdated, self._unseen = Spool[Known](), Spool[Known]()

    def run(self, *, everything: bool) -> Audit:
        try:
            found = self._filled(everything=everything)
        except BaseException:
            for each in (self._findings, self._known, self._outdated, self._unseen):
                each.close()
            self._reading.close(is_complete=False)
            raise
        self._reading.close(is_complete=found.complete)
        return found

    def _filled(self, *, everything: bool) -> Audit:
        findings = self._findings
        with (
            self._postgres.session() as session,
            contextlib.closing(Baseline(session)) as baseline,
        ):
            self._way = OnItsWay(session, self._settings)
            catalog = Catalog.read(session)
            pairing, where = self._pairing(session, catalog, baseline)
            missing = noted = 0
            marks = self._ltm.mark.read(session)
            if catalog.knows_personas:
                noted = Ledger(session).standing(self._ltm.layout, self._ltm.collection)
                found = self._memory_findings(session, pairing, marks, baseline)
                findings.add_all(baseline.new(found, self._known))
                missing = self._missing_with_the_collection()
                self._note_what_was_not_read(session, pairing)
                self._not_checked += self._verifier.not_checked
            else:
                self._not_checked.append(
                    f"memories: the history is {catalog.stage} and cannot be read by persona; "
                    "`memsync migrate plan` says what is ahead"
                )
            homes, elsewhere = pairing.sources.collections
            state = State(
                session,
                self._ltm,
                self._settings,
                catalog,
                homes,
                elsewhere,
                self._named_embedder(homes),
                missing,
                marks,
                noted,
                pairing.sources.unjudged,
                lambda: self._count_outdated(baseline, state, everything=everything),
            )
            for rule in STATE_RULES:
                if rule.is_of(state, check=everything):
                    findings.add_all(baseline.new(rule.look(state), self._known))
            left_out = (*self._reading.left_out, *pairing.sources.left_out, *marks.left_out)
            left_out += state.undoable.left_out if everything else ()
            looked_for = self._looked_for(state, everything=everything)
            self._unseen.add_all(baseline.unseen(self._known, findings, looked_for))
        findings.add_all(fact.finding() for fact in self._facts.values())
        return Audit(
            findings=findings,
            rows_checked=pairing.sources.counts.rows,
            points_checked=pairing.sources.counts.points,
            archived=pairing.sources.counts.archived,
            noted=noted,
            settling=self._settling,
            not_checked=tuple(self._not_checked),
            layout=self._ltm.layout,
            why_layout=self._ltm.why_layout,
            vectors=self._verifier.verified,
            left_out=left_out,
            trusted=pairing.sources.counts.trusted,
            why_whole=where.why if isinstance(where, Whole) else None,
            acknowledged=self._known,
            outdated=self._outdated,
            unseen=self._unseen,
            looked_for=looked_for,
            took_over=bool(self._reading.left_out),
            why_alone=self._reading.why_alone,
            unjudged=pairing.sources.unjudged.points,
        )

    def _pairing(
        self, session: Session, catalog: Catalog, baseline: Baseline
    ) -> tuple[Pairing, Located | Whole]:
        """The pairing of this audit, and what it reads."""
        tolerance_s = self._settings.match_tolerance_s
        pairing = Pairing.of(session, self._ltm, catalog, tolerance_s=tolerance_s)
        pairing.sources.pace, pairing.sources.told = self._pace, self._told
        pairing.sources.is_young = self._way.may_get_rows
        # A memory whose vector is looked at must be a case.
        pairing.at_sight = self._verify is None
        pairing.awaited = partial(self._way.awaited, session=session)
        where = self._where_to_look(pairing.sources, baseline)
        if isinstance(where, Located):
            pairing.look = where
        elif self._reading.serves(self._ltm.layout, are_vectors_seen=self._verify is not None):
            pairing.look = self._reading
        if self._reading.why_alone:
            self._tell(Progress(Kind.NOTE, self._reading.why_alone))
        return pairing, where

    def _where_to_look(self, sources: Sources, baseline: Baseline) -> Located | Whole:
        """What must be read. What is acknowledged is read in any case, to see whether it stands."""
        if self._deep or not sources.catalog.knows_personas:
            return Whole()
        _, others = sources.collections
        small_too = self._deep is False
        both, known = (self._postgres, sources.session), baseline.points()
        return locate(*both, self._ltm, known, others, small_too=small_too)

    def _count_outdated(self, baseline: Baseline, state: State, *, everything: bool) -> int:
        """Keep the acknowledgements that no finding matched. Returns how many there are.

        An audit that did not read everything cannot tell.
        """
        is_other_store = state.marks.verdict is Verdict.GONE or self._collection_is_missing()
        if self._not_checked or is_other_store or self._reading.left_out:
            return 0
        looked_for = self._looked_for(state, everything=everything)
        self._outdated.add_all(baseline.outdated(self._known, looked_for))
        return len(self._outdated)

    def _looked_for(self, state: State, *, everything: bool) -> frozenset[str]:
        """The codes whose rules saw all that they are for, as far as it could be read."""
        codes = {
            rule.code
            for rule in STATE_RULES
            if rule.is_of(state, check=everything) and rule.can_look(state)
        }
        is_seen = not (self._reading.left_out or self._collection_is_missing())
        if state.catalog.knows_personas and is_seen:
            codes |= {
                rule.code
                for rule in CASE_RULES
                if self._verifier.looks_at_all or not isinstance(rule, VectorRule)
            }
        if state.marks.are_of_a_standby or state.marks.verdict is Verdict.GONE:
            codes.discard(ArchivedMissing.code)
        if state.unjudged.points:
            codes -= NOT_JUDGED
        return frozenset(codes)

    def _missing_with_the_collection(self) -> int:
        """How many memories are missing because their collection is. A wrong name is one finding,
        and may be the cause of each about a memory, so these are dropped.
        """
        if not self._collection_is_missing():
            return 0
        both = (self._findings, self._known)
        hidden = {rule.code: sum(each.drop(rule.code) for each in both) for rule in CASE_RULES}
        return hidden[MissingPoint.code]

    def _collection_is_missing(self) -> bool:
        return self._ltm.layout is Layout.SHARED and not self._ltm.stands(self._ltm.collection)

    def _note_what_was_not_read(self, session: Session, pairing: Pairing) -> None:
        self._not_checked += (
            f"collection {name}: {why}"
            for name, why in sorted((self._unread | pairing.sources.unread).items())
        )
        if pairing.sources.counts.points and history_is_empty(session):
            self._not_checked.append(
                f"memories: the history is empty, and {self._ltm.label} holds "
                f"{count(pairing.sources.counts.points, 'point')}. See whether both URLs are right"
            )

    def _named_embedder(self, homes: Sequence[str]) -> Embedder | None:
        """The embedder, if the settings name one and there are memories to compare it with.

        One that nobody named is not loaded: an audit needs no model.
        """
        if "embedder" not in self._settings.model_fields_set or not homes:
            return None
        try:
            return self._ltm.embedder
        except MemsyncError as error:
            self._not_checked.append(f"whether recall can search {homes[0]}: {error.message}")
            return None

    # ------------------------------------------------------------------ memories

    def _memory_findings(
        self, session: Session, pairing: Pairing, marks: Marks, baseline: Baseline
    ) -> Iterator[Finding]:
        for some in batched(self._candidates(self._cases(pairing, marks)), _BATCH):
            settled = self._settled(session, some, baseline)
            yield from self._confirmed(session, settled, baseline)

    def _cases(self, pairing: Pairing, marks: Marks) -> Iterator[Case]:
        yield from self._verifier.looked(pairing.cases())
        # Another store than the one that was written to lacks everything, which is one finding, and
        # a standby does not know yet what a repair removes.
        if marks.verdict is not Verdict.GONE and not marks.are_of_a_standby:
            yield from losses(
                pairing.sources, pairing.look.ids if isinstance(pairing.look, Located) else None
            )

    def _candidates(self, cases: Iterable[Case]) -> Iterator[tuple[Finding, Case]]:
        for case in cases:
            for rule in CASE_RULES:
                finding = rule.judge(case)
                if finding is None:
                    continue
                if finding.severity is Severity.INFO:
                    self._facts.setdefault(finding.code, Fact(finding)).add(finding, case.alike)
                else:
                    yield finding, case

    def _told(self, points: int) -> None:
        self._tell(Progress(Kind.COUNT, "audit of memories", points))

    def _settled(
        self, session: Session, some: Sequence[tuple[Finding, Case]], baseline: Baseline
    ) -> list[Finding]:
        """The candidates that are not settling; counts the others."""
        kept = []
        way = self._way.of([case for _, case in some], session)
        for (finding, _), is_on_its_way in zip(some, way, strict=True):
            if is_on_its_way:
                self._settling += 1
                baseline.leave_open(finding)
            else:
                kept.append(finding)
        return kept

    def _confirmed(
        self, session: Session, findings: Sequence[Finding], baseline: Baseline
    ) -> Iterator[Finding]:
        """The findings whose exchange and points are still as they were when first read."""
        rows = {f.witness.anchor_id for f in findings if f.witness.anchor_id}
        exchanges = exchanges_by_anchor(session, list(rows))
        digests = {anchor: exchange_digest(each) for anchor, each in exchanges.items()}
        states = self._states(findings)
        vectors = self._verifier.states(findings)
        for finding in findings:
            seen = finding.witness
            same_row = seen.anchor_id is None or digests.get(seen.anchor_id) == seen.row_digest
            same_points = (seen.place is None or states.get(seen.place) == seen.state) and (
                seen.target is None or states.get(seen.target) == seen.target_state
            )
            same_vector = seen.vector is None or seen.vector == (
                seen.place and vectors.get(seen.place)
            )
            if same_row and same_points and same_vector:
                yield finding
            else:
                self._settling += 1
                baseline.leave_open(finding)

    def _states(self, findings: Sequence[Finding]) -> dict[Place, str | None]:
        seen = {place for f in findings for place in (f.witness.place, f.witness.target) if place}
        found: dict[Place, str | None] = {}
        for collection, ids in ids_by_collection(seen).items():
            read = read_points(self._ltm, collection, ids)
            for point_id, point in read.points.items():
                found[Place(collection, point_id)] = point_state(point)
            for why in read.unread.values():
                self._unread[collection] = why
        return found
