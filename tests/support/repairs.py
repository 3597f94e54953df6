"""Findings made by hand, and a spoiled app in each layout whose every fault they name."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest

from memsync.errors import PartlyDone
from memsync.model.digests import exchange_digest, point_state
from memsync.model.ids import PointId
from memsync.model.records import Exchange, Place, Point, Vector, to_ms
from memsync.reconcile.findings import Audit, Finding, Findings, Grade, Repair, Severity, Witness
from memsync.reconcile.journal import Journal
from memsync.reconcile.plans import Action, ActionKind, Plan
from memsync.settings import Settings
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.embedders import Embedder
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.marks import META
from memsync.stores.vectors import VectorStore, scan
from support.failing import Crash
from support.lab import DIMS, LONG_AGO, A, B, C, Lab
from support.models import Model

OLD_MS = to_ms(LONG_AGO) - 86_400_000
ZERO: Vector = (0.0,) * DIMS
Points = dict[str, list[tuple[PointId, object, Vector | None]]]


@dataclass
class Faults:
    """Collects findings about the points and exchanges of a lab, with their states."""

    lab: Lab
    found: list[Finding] = field(default_factory=list)

    def state(self, place: Place | None) -> str | None:
        """The state of the point there, if there is one."""
        if place is None or self.lab.vectors.describe(place.collection) is None:
            return None
        points = self.lab.vectors.retrieve(place.collection, [place.point_id])
        return point_state(points[0]) if points else None

    def add(
        self,
        repair: Repair,
        name: str = "planted",
        *,
        row: Exchange | None = None,
        place: Place | None = None,
        target: Place | None = None,
        grade: Grade = Grade.SAFE,
        severity: Severity = Severity.ERROR,
        persona: UUID | None = A,
    ) -> Finding:
        """A finding whose states are those that the stores have now."""
        names = list(dict.fromkeys([*(each.name for each in self.found), name]))
        found = Finding(
            code=f"MSC{names.index(name):03}",
            name=name,
            severity=severity,
            grade=grade,
            repair=repair,
            store="qdrant",
            key=str(place or target or (row and row.anchor_id)),
            persona_id=row.persona_id if row else persona,
            evidence={},
            next_command="memsync reconcile plan",
            witness=Witness(
                anchor_id=row.anchor_id if row else None,
                row_digest=exchange_digest(row) if row else None,
                place=place,
                state=self.state(place),
                target=target,
                target_state=self.state(target),
            ),
        )
        self.found.append(found)
        return found

    def plan(self, *, unsafe: bool = True, persona: UUID | None = None) -> Plan:
        """The plan of what was found."""
        return self.lab.plan(audit_of(self.found), unsafe=unsafe, persona=persona)


def audit_of(findings: Iterable[Finding], *not_checked: str) -> Audit:
    """An audit with these findings."""
    return Audit(Findings(findings), 0, 0, 0, not_checked)


def settled(lab: Lab, count: int = 4) -> list[Exchange]:
    """Write exchanges of personas A and C, and let the relay make their memories."""
    made = [*lab.say(count), *lab.say(count, persona=C)]
    lab.sync()
    return made


def spoiled(lab: Lab) -> Faults:
    """An app with every kind of fault, as the layout of the lab has them."""
    return _per_persona(lab) if lab.ltm.layout is Layout.PER_PERSONA else _shared(lab)


def _shared(lab: Lab) -> Faults:
    said = settled(lab, 8)
    faults, home = Faults(lab), lab.home
    at = [Place(home, each.anchor_id) for each in said]

    lab.vectors.delete(home, [said[0].anchor_id])
    faults.add(Repair.MAKE, "missing-point", row=said[0], target=at[0])
    lab.respell(said[1].anchor_id, user_text="x")
    faults.add(Repair.MAKE, "stale-content", row=said[1], place=at[1], target=at[1])
    faults.add(Repair.PATCH, "payload-drift", row=said[1], place=at[1])
    strange = lab.put(lab.new_id(), lab.point(said[2].anchor_id).payload)
    lab.vectors.delete(home, [said[2].anchor_id])
    faults.add(
        Repair.MAKE, "foreign-point-id", row=said[2], place=Place(home, strange.id), target=at[2]
    )
    double = Place(home, lab.put(7, lab.point(said[1].anchor_id).payload).id)
    faults.add(Repair.REMOVE, "duplicate-point", row=said[1], place=double, target=at[1])
    _misspell(lab, at[4])
    faults.add(Repair.PATCH, "wrong-payload-key", row=said[4], place=at[4])
    faults.add(Repair.PATCH, "wrong-time-unit", row=said[4], place=at[4])
    _without_vector(lab, at[5])
    faults.add(Repair.MAKE, "vector-zero", row=said[5], place=at[5], target=at[5])

    old: dict[str, Any] = {"createdAt": OLD_MS, "content": "User (Al): of old\nAda: indeed"}
    for number, point_id in enumerate((None, said[6].anchor_id)):
        place = Place(f"persona-{A}", lab.deploy(said[6], point_id=point_id, **old).id)
        faults.add(
            Repair.MOVE if number else Repair.COPY,
            "misplaced-point",
            place=place,
            target=Place(home, place.point_id),
        )
    legacy = Place(f"persona-{C}", lab.deploy(said[-1], **old, senders=["2", "3"]).id)
    target = Place(home, legacy.point_id)
    faults.add(Repair.MOVE, "misplaced-point", place=legacy, target=target, persona=C)
    orphan = Place(home, lab.put(lab.new_id(), {"content": "nobody's", "persona_id": str(A)}).id)
    faults.add(Repair.REMOVE, "orphan-point", place=orphan, grade=Grade.UNSAFE)
    return faults


def _per_persona(lab: Lab) -> Faults:
    said = [*lab.say(8), *lab.say(8, persona=C)]
    lab.sync()
    faults, home = Faults(lab), f"persona-{A}"
    at = [Place(home, each.anchor_id) for each in said]

    lab.vectors.delete(home, [said[0].anchor_id])
    faults.add(Repair.MAKE, "missing-point", row=said[0], target=at[0])
    [first] = lab.say(persona=B)
    lab.sql("DELETE FROM memsync.outbox")
    faults.add(
        Repair.MAKE, "missing-point", row=first, target=Place(f"persona-{B}", first.anchor_id)
    )
    lab.vectors.delete(home, [said[1].anchor_id])
    stale = Place(home, lab.deploy(said[1], content="User (Al): x\nAda: y").id)
    faults.add(Repair.MAKE, "stale-content", row=said[1], place=stale, target=stale)
    lab.vectors.delete(home, [said[2].anchor_id])
    of_c = f"persona-{C}"
    strange = Place(of_c, lab.deploy(said[2], collection=of_c, personaId=str(C)).id)
    faults.add(
        Repair.MAKE,
        "persona-mismatch",
        row=said[2],
        place=strange,
        target=Place(home, strange.point_id),
    )
    double = Place(home, lab.deploy(said[1], point_id=7, content="User (Al): x\nAda: y").id)
    faults.add(Repair.REMOVE, "duplicate-point", row=said[1], place=double, target=stale)
    _misspell(lab, at[4])
    faults.add(Repair.PATCH, "wrong-payload-key", row=said[4], place=at[4])
    _without_vector(lab, at[5])
    faults.add(Repair.MAKE, "vector-zero", row=said[5], place=at[5], target=at[5])

    old: dict[str, Any] = {"createdAt": OLD_MS, "content": "User (Al): of old\nAda: indeed"}
    older = f"personality-{said[6].personality_id}"
    for number, point_id in enumerate((None, said[6].anchor_id)):
        made = lab.deploy(said[6], collection=older, point_id=point_id, **old)
        faults.add(
            Repair.MOVE if number else Repair.COPY,
            "misplaced-point",
            place=Place(older, made.id),
            target=Place(home, made.id),
        )
    orphan = Place(home, lab.deploy(said[7], content="User (Al): no\nAda: body's").id)
    faults.add(Repair.REMOVE, "orphan-point", place=orphan, grade=Grade.UNSAFE)
    return faults


def _misspell(lab: Lab, place: Place) -> None:
    """Spell a payload as neither style does, and give its time in seconds."""
    point = lab.point(place.point_id, place.collection)
    payload = dict(point.payload)
    at = payload.pop("created_at", None) or payload.pop("createdAt")
    payload["timestamp"] = at / 1000  # type: ignore[operator]  # a number
    if "content" in payload:
        payload["text"] = payload.pop("content")
    else:
        payload["userText"] = payload.pop("user_text")
    payload["senders"] = ["1"]
    lab.vectors.upsert(place.collection, [Point(point.id, payload, point.vector)])


def _without_vector(lab: Lab, place: Place) -> None:
    point = lab.point(place.point_id, place.collection)
    lab.vectors.upsert(place.collection, [Point(point.id, point.payload, ZERO)])


def restore(lab: Lab, kept: Points) -> None:
    """Put the points back as they were, and forget what was done; the store keeps its id."""
    marks = [
        replace(each, payload={"store": each.payload["store"]})
        for each in (scan(lab.vectors, META, vectors=True) if lab.vectors.describe(META) else ())
    ]
    for name in lab.vectors.collections():
        if name != META:
            lab.vectors.drop(name)
    if marks:
        lab.vectors.upsert(META, marks)
    for name, points in kept.items():
        lab.vectors.create(name, DIMS, lab.ltm.codec.indexes if name == lab.home else {})
        _write(lab.vectors, name, points)
    lab.sql(
        "TRUNCATE memsync.quarantine, memsync.repair, memsync.journal, memsync.memories,"
        " memsync.mark"
    )


def _write(vectors: VectorStore, name: str, points: Iterable[tuple[object, ...]]) -> None:
    vectors.upsert(name, [Point(*each) for each in points])  # type: ignore[arg-type]  # as they came


@dataclass
class Transactions:
    """How many transactions of the journal's there were."""

    calls: int = 0


@contextmanager
def ends_at(at: int, *, after: bool) -> Iterator[Transactions]:
    """Let the process die at transaction number `at` of the journal's (from 1); 0: at none."""
    counted = Transactions()

    def watched(name: str) -> Callable[..., object]:
        real: Callable[..., object] = getattr(Journal, name)

        def call(*given: object, **named: object) -> object:
            counted.calls += 1
            dies = counted.calls == at
            if dies and not after:
                raise Crash
            result = real(*given, **named)
            if dies:
                raise Crash
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("begin", "intend", "settle", "settle_undone"):
            patch.setattr(Journal, name, watched(name))
        yield counted


def alike(one: Points, other: Points, *, exactly: bool) -> bool:
    """Whether the points are the same; a store that normalises may change a vector's last bit."""
    if exactly:
        return one == other
    return _rounded(one) == _rounded(other)


def _rounded(points: Points) -> object:
    return {
        name: [(i, p, v and [round(x, 6) + 0.0 for x in v]) for i, p, v in some]
        for name, some in points.items()
    }


def one(plan: Plan, kind: ActionKind, which: Callable[[Action], object] = bool) -> Action:
    """An action of the plan."""
    return next(each for each in plan.actions if each.kind is kind and which(each))


def aside(caught: pytest.ExceptionInfo[PartlyDone]) -> dict[Place, str]:
    """The points whose actions were set aside, and why."""
    assert 3 == caught.value.exit_status
    told: Any = caught.value.fields["actions"]
    assert len(told) == caught.value.fields["set_aside"]
    return {Place(each["collection"], each["point_id"]): each["why"] for each in told}


def with_model(lab: Lab, model: Model, **settings: int) -> None:
    """Give the lab another model under the same name."""
    chosen = Settings(**{**lab.settings.model_dump(), **settings})
    lab.ltm = LongTermMemory(lab.vectors, chosen, Embedder("test", model), lab.ltm.layout)


def missing(lab: Lab, number: int) -> Faults:
    """An app of which so many memories are missing."""
    said = lab.say(number)
    lab.sql("DELETE FROM memsync.outbox")
    faults = Faults(lab)
    for each in said:
        target = Place(lab.ltm.home_of(each.persona_id), each.anchor_id)
        faults.add(Repair.MAKE, row=each, target=target)
    return faults
