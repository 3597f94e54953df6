"""The audit: reads both stores, judges every case, looks twice, and says what it could not read.

Decides what becomes a finding: a difference that is old enough, has no intent in the outbox, and
is still there on a second look. Writes nothing.
"""

from collections.abc import Iterable, Iterator
from uuid import UUID

from memsync.errors import SchemaMismatch, StoreUnreachable
from memsync.model.digests import exchange_digest, point_state
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.sequences import batched
from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Audit, Finding, Witness
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.rules import CASE_RULES, coverage, isolation, schema
from memsync.settings import Settings
from memsync.stores.history.catalog import PERSONA_INDEX, RETRIEVAL_INDEX, Catalog
from memsync.stores.history.exchanges import exchanges_by_anchor
from memsync.stores.history.phases import Stage
from memsync.stores.ltm.layouts import is_deployed
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Postgres, Session
from memsync.stores.vectors.protocol import VectorStore

_BATCH = 500
_TELL_EVERY = 1000
_DAY_MS = 86_400_000
_HISTORY = "postgres:conversation_history"


def audit(
    postgres: Postgres, vectors: VectorStore, settings: Settings, tell: Tell = silent
) -> Audit:
    """Compare the memories with the history.

    Raises: StoreUnreachable when a store does not answer; SchemaMismatch when the database is not
    the app's. A deployed collection that cannot be read makes the audit incomplete.
    """
    return _Auditor(postgres, vectors, settings, tell).run(everything=False)


def check(
    postgres: Postgres, vectors: VectorStore, settings: Settings, tell: Tell = silent
) -> Audit:
    """The gate: the audit, and whether schema, indexes and outbox are as they must be."""
    return _Auditor(postgres, vectors, settings, tell).run(everything=True)


class _Auditor:
    def __init__(
        self, postgres: Postgres, vectors: VectorStore, settings: Settings, tell: Tell
    ) -> None:
        self._postgres = postgres
        self._vectors = vectors
        self._settings = settings
        self._tell = tell
        self._codec = PayloadCodec(settings.payload_style)
        self._settling = 0
        self._not_checked: list[str] = []

    def run(self, *, everything: bool) -> Audit:
        with self._postgres.session() as session:
            catalog = Catalog.read(session)
            collections = self._vectors.collections()
            findings = list(_history_findings(session, catalog))
            if everything:
                findings += _schema_findings(catalog)
                findings += self._payload_index_findings()
                findings += self._outbox_findings(session, catalog)
            pairing = self._pairing(session)
            if catalog.knows_personas:
                findings += self._memory_findings(session, pairing, collections)
                if pairing.horizon_ms is None and pairing.points:
                    self._not_checked.append(
                        "archived memories: the history is empty, so nothing says which memories "
                        "are older than it; set retention_days if that is meant"
                    )
            else:
                self._not_checked.append(
                    f"memories: history is {catalog.stage} and cannot be read by persona; "
                    "next: memsync migrate run"
                )
        return Audit(
            findings=tuple(sorted(findings, key=lambda each: (each.code, each.store, each.key))),
            rows_checked=pairing.rows,
            points_checked=pairing.points,
            settling=self._settling,
            not_checked=tuple(self._not_checked),
        )

    def _pairing(self, session: Session) -> Pairing:
        days = self._settings.retention_days
        horizon_ms = (
            session.row("now_ms").ms - days * _DAY_MS if days else session.row("horizon_ms").ms
        )
        return Pairing(session, self._vectors, self._settings.collection, self._codec, horizon_ms)

    def _memory_findings(
        self, session: Session, pairing: Pairing, collections: list[str]
    ) -> Iterator[Finding]:
        home = self._settings.collection
        deployed = [name for name in collections if is_deployed(name) and name != home]
        for done, collection in enumerate(deployed):
            self._tell(Progress(Kind.STEP, "audit of deployed collections", done, len(deployed)))
            try:
                points = pairing.read_deployed(collection)
            except (StoreUnreachable, SchemaMismatch) as error:
                self._not_checked.append(f"collection {collection}: {error.message}")
                continue
            rule = schema.LegacyLayout()
            yield rule.finding("qdrant", collection, points=points)
        candidates = (
            (finding, case)
            for case in self._cases(pairing)
            for rule in CASE_RULES
            if (finding := rule.judge(case))
        )
        for some in batched(candidates, _BATCH):
            yield from self._confirmed(session, self._settled(session, some))

    def _cases(self, pairing: Pairing) -> Iterator[Case]:
        for number, case in enumerate(pairing.merge_home()):
            if number % _TELL_EVERY == 0:
                self._tell(Progress(Kind.STEP, "audit of memories", number))
            yield case
        yield from pairing.rest()

    def _settled(
        self, session: Session, candidates: Iterable[tuple[Finding, Case]]
    ) -> list[Finding]:
        """The candidates that are neither too young nor still to be written by the relay."""
        some = list(candidates)
        anchors = [case.exchange.anchor_id for _, case in some if case.exchange]
        pending = {
            row.point_id for row in session.rows("outbox_pending_of", ids=list(set(anchors)))
        }
        now_ms = session.row("now_ms").ms
        young_ms = now_ms - self._settings.settle_s * 1000
        kept = []
        for finding, case in some:
            row = case.exchange
            missing_yet = case.found is None and row and young_ms < row.created_at_ms <= now_ms
            if row and (missing_yet or row.anchor_id in pending):
                self._settling += 1
            else:
                kept.append(finding)
        return kept

    def _confirmed(self, session: Session, findings: list[Finding]) -> Iterator[Finding]:
        """Those whose exchange and point are, on a second look, as they were on the first."""
        rows = {f.witness.anchor_id for f in findings if f.witness.anchor_id}
        exchanges = exchanges_by_anchor(session, list(rows))
        digests = {anchor: exchange_digest(each) for anchor, each in exchanges.items()}
        states = self._point_states(findings)
        for finding in findings:
            seen = finding.witness
            same_row = seen.anchor_id is None or digests.get(seen.anchor_id) == seen.row_digest
            place = (seen.collection or self._settings.collection, _point_looked_for(seen))
            if same_row and states.get(place) == seen.point_state:
                yield finding
            else:
                self._settling += 1

    def _point_states(self, findings: list[Finding]) -> dict[tuple[str, object], str | None]:
        places: dict[str, set[UUID | int]] = {}
        for finding in findings:
            seen = finding.witness
            point_id = _point_looked_for(seen)
            if point_id is not None:
                collection = seen.collection or self._settings.collection
                places.setdefault(collection, set()).add(point_id)
        states: dict[tuple[str, object], str | None] = {}
        for collection, ids in places.items():
            if self._vectors.describe(collection) is None:
                continue
            for point in self._vectors.retrieve(collection, list(ids)):
                states[collection, point.id] = point_state(point)
        return states

    def _payload_index_findings(self) -> Iterator[Finding]:
        info = self._vectors.describe(self._settings.collection)
        if info is None:
            return
        for key, kind in self._codec.indexes.items():
            if info.indexes.get(key) != kind:
                yield schema.MissingPayloadIndex().finding(
                    f"qdrant:{self._settings.collection}",
                    key,
                    expected=kind,
                    found=info.indexes.get(key),
                )

    def _outbox_findings(self, session: Session, catalog: Catalog) -> Iterator[Finding]:
        if "memsync.outbox" not in catalog.own_tables:
            return
        for row in session.rows("outbox_late", alarm_s=self._settings.outbox_alarm_s, limit=_BATCH):
            rule = coverage.DeadOutboxEntry() if row.dead else coverage.UnacknowledgedOutbox()
            yield rule.finding(
                "postgres:memsync.outbox",
                str(row.id),
                memory=row.point_id,
                age_s=round(row.age_s),
                attempts=row.attempts,
                last_error=row.last_error,
                entries_in_all=row.total,
            )


def _point_looked_for(seen: Witness) -> PointId | None:
    """The point's id (0 is one), or that which the exchange's memory would have."""
    return seen.point_id if seen.point_id is not None else seen.anchor_id


def _history_findings(session: Session, catalog: Catalog) -> Iterator[Finding]:
    if not catalog.has_null_persona:
        return
    rule = isolation.HistoryWithoutPersona()
    for row in session.rows("messages_without_persona", limit=_BATCH):
        yield rule.finding(_HISTORY, str(row.id), persona_id=None, messages_in_all=row.total)


def _schema_findings(catalog: Catalog) -> Iterator[Finding]:
    if catalog.stage is not Stage.CONTRACTED:
        yield schema.MigrationBehind().finding(
            _HISTORY, "stage", expected=Stage.CONTRACTED, found=catalog.stage
        )
    for name, valid in catalog.indexes.items():
        if not valid:
            yield schema.InvalidIndex().finding(_HISTORY, name, valid=False)
    if catalog.knows_personas or "user_id" not in catalog.columns:
        for name in (PERSONA_INDEX, RETRIEVAL_INDEX):
            if name not in catalog.indexes:
                yield schema.MissingIndex().finding(_HISTORY, name, found=None)
