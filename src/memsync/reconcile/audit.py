"""The audit reads both stores and turns their differences into findings. It writes nothing.

A difference becomes a finding when it is older than the settle window, no outbox entry will repair
it, and it is still there on a second read. An audit also lists the parts that it could not read.
"""

from collections.abc import Iterable, Iterator
from uuid import UUID

from memsync.errors import MemsyncError, SchemaMismatch, StoreUnreachable
from memsync.model.digests import exchange_digest, point_state
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.sequences import batched
from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Audit, Finding, Witness
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.rules import CASE_RULES, STATE_RULES
from memsync.reconcile.state import State
from memsync.settings import Settings
from memsync.stores.history import outbox
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.exchanges import exchanges_by_anchor, horizon_ms, now_ms
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.layouts import is_deployed
from memsync.stores.postgres import Postgres, Session

_BATCH = 500
_TELL_EVERY = 1000
_DAY_MS = 86_400_000


def audit(
    postgres: Postgres, ltm: LongTermMemory, settings: Settings, tell: Tell = silent
) -> Audit:
    """Compare the memories with the history.

    A deployed collection that cannot be read makes the audit incomplete, and so does an embedder
    that the settings name and that cannot be loaded.

    Raises: StoreUnreachable when a store does not answer; SchemaMismatch when the database is not
    the app's.
    """
    return _Auditor(postgres, ltm, settings, tell).run(everything=False)


def check(
    postgres: Postgres, ltm: LongTermMemory, settings: Settings, tell: Tell = silent
) -> Audit:
    """Audit, and also check that schema, indexes and outbox are as they must be.

    Raises: as `audit` does.
    """
    return _Auditor(postgres, ltm, settings, tell).run(everything=True)


class _Auditor:
    def __init__(
        self, postgres: Postgres, ltm: LongTermMemory, settings: Settings, tell: Tell
    ) -> None:
        self._postgres = postgres
        self._ltm = ltm
        self._settings = settings
        self._tell = tell
        self._settling = 0
        self._not_checked: list[str] = []

    def run(self, *, everything: bool) -> Audit:
        with self._postgres.session() as session:
            catalog = Catalog.read(session)
            collections = self._ltm.collections()
            pairing = self._pairing(session)
            deployed = {}
            if catalog.knows_personas:
                deployed = self._read_deployed(pairing, collections)
            state = State(
                session, self._ltm, self._settings, catalog, deployed, self._named_embedder()
            )
            findings: list[Finding] = []
            for rule in STATE_RULES:
                if everything or not rule.only_in_check:
                    findings += rule.look(state)
            if catalog.knows_personas:
                findings += self._memory_findings(session, pairing)
                if pairing.horizon_ms is None and pairing.points:
                    self._not_checked.append(
                        "archived memories: the history is empty, so memsync cannot tell which "
                        "memories are older than it; set retention_days if it is meant to be empty"
                    )
            else:
                self._not_checked.append(
                    f"memories: the history is {catalog.stage} and cannot be read by persona; "
                    "next: memsync migrate run --to backfill"
                )
        return Audit(
            findings=tuple(sorted(findings, key=lambda each: (each.code, each.store, each.key))),
            rows_checked=pairing.rows,
            points_checked=pairing.points,
            settling=self._settling,
            not_checked=tuple(self._not_checked),
        )

    def _named_embedder(self) -> Embedder | None:
        """The embedder, if the settings name one and there are memories to compare it with.

        One that nobody named is not loaded: an audit needs no model.
        """
        if "embedder" not in self._settings.model_fields_set:
            return None
        if not self._ltm.stands(self._ltm.collection):
            return None
        try:
            return self._ltm.embedder
        except MemsyncError as error:
            self._not_checked.append(
                f"whether recall can search {self._ltm.collection}: {error.message}"
            )
            return None

    def _pairing(self, session: Session) -> Pairing:
        days = self._settings.retention_days
        horizon = now_ms(session) - days * _DAY_MS if days else horizon_ms(session)
        return Pairing(session, self._ltm, horizon)

    def _read_deployed(self, pairing: Pairing, collections: list[str]) -> dict[str, int]:
        """Read the deployed collections. Returns the point counts of those that could be read."""
        home = self._ltm.collection
        deployed = [name for name in collections if is_deployed(name) and name != home]
        points: dict[str, int] = {}
        for done, collection in enumerate(deployed):
            self._tell(Progress(Kind.STEP, "audit of deployed collections", done, len(deployed)))
            try:
                points[collection] = pairing.read_deployed(collection)
            except (StoreUnreachable, SchemaMismatch) as error:
                self._not_checked.append(f"collection {collection}: {error.message}")
        return points

    def _memory_findings(self, session: Session, pairing: Pairing) -> Iterator[Finding]:
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
        """The candidates that are not settling; counts those too young or with an outbox entry."""
        some = list(candidates)
        anchors = [case.exchange.anchor_id for _, case in some if case.exchange]
        pending = outbox.pending_of(session, set(anchors))
        now = now_ms(session)
        young_ms = now - self._settings.settle_s * 1000
        kept = []
        for finding, case in some:
            row = case.exchange
            missing_yet = case.found is None and row and young_ms < row.created_at_ms <= now
            if row and (missing_yet or row.anchor_id in pending):
                self._settling += 1
            else:
                kept.append(finding)
        return kept

    def _confirmed(self, session: Session, findings: list[Finding]) -> Iterator[Finding]:
        """The findings whose exchange and point are still as they were when first read."""
        rows = {f.witness.anchor_id for f in findings if f.witness.anchor_id}
        exchanges = exchanges_by_anchor(session, list(rows))
        digests = {anchor: exchange_digest(each) for anchor, each in exchanges.items()}
        states = self._point_states(findings)
        for finding in findings:
            seen = finding.witness
            same_row = seen.anchor_id is None or digests.get(seen.anchor_id) == seen.row_digest
            place = (seen.collection or self._ltm.collection, _point_looked_for(seen))
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
                collection = seen.collection or self._ltm.collection
                places.setdefault(collection, set()).add(point_id)
        states: dict[tuple[str, object], str | None] = {}
        for collection, ids in places.items():
            for point_id, point in self._ltm.points(collection, ids).items():
                states[collection, point_id] = point_state(point)
        return states


def _point_looked_for(seen: Witness) -> PointId | None:
    """The id of the point that was seen (it may be 0), else the id that the memory must have."""
    return seen.point_id if seen.point_id is not None else seen.anchor_id
