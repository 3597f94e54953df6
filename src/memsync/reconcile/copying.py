"""What the two directions of a change of layout share: how a copy is written, kept and judged.

A copy is right where no rule of the audit finds a fault in it, and where it says what the memory
says in the layout that ends: what stood there last is what is brought. A point that is overwritten
goes to the quarantine first, and what was written is read back. Each pass looks at everything anew
and writes only what it must, so a pass that was cut short is finished by the next.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from memsync.errors import GateClosed, StalePlan
from memsync.model.digests import point_state
from memsync.model.ids import PointId, copied_point_id
from memsync.model.progress import Tell
from memsync.model.records import Exchange, Place, Point, ids_by_collection
from memsync.model.vectors import cosine
from memsync.model.wording import listed
from memsync.reconcile.cases import Case, Found, Role
from memsync.reconcile.findings import Severity
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.quarantine import keep_whole
from memsync.reconcile.rules import CASE_RULES
from memsync.reconcile.rules.base import CaseRule
from memsync.reconcile.rules.vectors import LEAST_COSINE
from memsync.reconcile.sources import Sources
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.ltm import Failure, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.ltm.payload import PayloadCodec
from memsync.stores.postgres import Session


def pairing_of(session: Session, ltm: LongTermMemory, settings: Settings) -> Pairing:
    """The pairing of all exchanges and points, in the layout of `ltm`."""
    return Pairing(sources_of(session, ltm, settings))


def sources_of(session: Session, ltm: LongTermMemory, settings: Settings) -> Sources:
    """The collections of memories, in the layout of `ltm`."""
    return Sources.of(session, ltm, Catalog.read(session), settings.match_tolerance_s)


def require_read(pairing: Pairing) -> None:
    """Raises: GateClosed where a collection was not read to its end."""
    if pairing.sources.unread:
        whole = (f"{name}: {why}" for name, why in sorted(pairing.sources.unread.items()))
        raise GateClosed(
            f"not every collection could be read, so the layout was not changed: "
            f"{listed(whole, 3, '; ')}. Run this again; what was copied stays"
        )


@dataclass
class Copying:
    """What both directions share. `ltm` is the one of the per-persona layout."""

    session: Session
    ltm: LongTermMemory
    settings: Settings
    tell: Tell
    run_id: UUID = field(default_factory=uuid4)
    replaced: int = 0

    @property
    def shared(self) -> str:
        """The collection of the shared layout."""
        return self.ltm.collection

    def read(self, places: Iterable[Place]) -> dict[Place, Point]:
        """The points at these places that stand, with their vectors."""
        return {
            Place(collection, point.id): point
            for collection, some in ids_by_collection(places).items()
            for point in self.ltm.points(collection, some, vectors=True).values()
        }

    def put(self, collection: str, points: Sequence[Point], over: Mapping[PointId, Point]) -> int:
        """Write points where none is, or over those given, which go to the quarantine first.

        The digests that the ledger has of them are renewed. Returns how many were written.
        """
        old = {each.id: over[each.id] for each in points if each.id in over}
        decode = self.ltm.codec_of(collection).decode
        with self.session.transaction():
            keep_whole(self.session, self.run_id, collection, old.values(), "replaced")
            # What the ledger says of them is of the last time that their layout was in force.
            said = {each.id: decode(each.payload).memory for each in points}
            Ledger(self.session).renew(collection, said)
        write(self.ltm, collection, points, old)
        self.replaced += len(old)
        return len(points)

    def has_fault(self, exchange: Exchange, place: Place, point: Point, layout: Layout) -> bool:
        """Whether the audit would find a fault in this point, as the exchange's memory there."""
        found = Found.read(place.collection, point, self.ltm.codec_of(place.collection), home=True)
        named = found.reading.memory.persona_id
        found = replace(
            found,
            persona_id=exchange.persona_id,
            names_another=named not in {None, exchange.persona_id},
        )
        tolerance_ms = round(self.settings.match_tolerance_s * 1000)
        case = Case(
            Role.MEMORY, layout, exchange, found, home=place.collection, tolerance_ms=tolerance_ms
        )
        return is_faulty(case)


def is_faulty(case: Case, rules: Iterable[CaseRule] = CASE_RULES) -> bool:
    """Whether one of the rules finds a fault in the case; a fact is none."""
    findings = (rule.judge(case) for rule in rules)
    return any(each is not None and each.severity is not Severity.INFO for each in findings)


def place_of(case: Case) -> Place:
    """The place of the case's point."""
    if case.found is None:
        raise AssertionError("a case without a point is not copied")
    return case.found.place


def ids_of_a_copy(place: Place) -> tuple[PointId, ...]:
    """The ids that a copy of this point may have: its own, and one for where that is taken."""
    return place.point_id, copied_point_id(place.collection, str(place.point_id))


def both_taken(place: Place, collection: str) -> GateClosed:
    """The error where a copy has no id."""
    return GateClosed(
        f"both ids that a copy of {place} may have are taken in {collection}, so the layout was "
        "not changed. Look with `memsync reconcile`, mend it, then run this again"
    )


def is_deployed(codec: PayloadCodec, point: Point) -> bool:
    """Whether the payload has the app's text, from which its vector was made."""
    return point.payload.get(codec.key("text_form")) == "deployed"


def write(
    ltm: LongTermMemory, collection: str, points: Sequence[Point], seen: dict[PointId, Point]
) -> None:
    """Write points where none is, or over those in `seen`, and read them back.

    Raises: GateClosed, before any write, for one without a vector, and where the store refuses one;
    StalePlan when one reads back otherwise.
    """
    if without := next((each for each in points if not each.vector), None):
        raise GateClosed(
            f"the memory {without.id} has no vector, so it cannot be brought to {collection}. Make "
            "it anew with `memsync reconcile plan --verify-vectors all`, then run this again"
        )
    if failed := try_to_write(ltm, collection, points, seen):
        raise GateClosed(
            f"a memory cannot be brought to {collection}: {next(iter(failed.values())).message}. "
            "Mend it by hand, then run this again; what was copied stays"
        )


def try_to_write(
    ltm: LongTermMemory, collection: str, points: Sequence[Point], seen: dict[PointId, Point]
) -> Mapping[PointId, Failure]:
    """As `write`, but returns the refusals of the store by id. Each point has a vector."""
    if not points:
        return {}
    failed = ltm.repairs.put(collection, points, seen)
    there = ltm.points(collection, [each.id for each in points], vectors=True)
    for each in (point for point in points if point.id not in failed):
        found = there.get(each.id)
        if point_state(found) != point_state(each) or not are_alike(found, each):
            raise StalePlan(
                f"point {each.id} of {collection} was written, and reads back otherwise: something "
                "else writes there. Stop it, then run this again; what was copied stays",
                collection=collection,
                point_id=str(each.id),
            )
    return failed


def are_alike(one: Point | None, other: Point) -> bool:
    """Whether both vectors have one direction. A store may change a vector's length, and keep its
    numbers in fewer bits.
    """
    if one is None or not one.vector or not other.vector or len(one.vector) != len(other.vector):
        return False
    if one.vector == other.vector:
        return True
    have_lengths = any(one.vector) and any(other.vector)
    return have_lengths and cosine(one.vector, other.vector) >= LEAST_COSINE
