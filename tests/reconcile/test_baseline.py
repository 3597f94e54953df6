"""The baseline: an acknowledged finding changes no status until it changes itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from memsync import migrate, reconcile
from memsync.errors import (
    GateClosed,
    IncompleteAudit,
    InvalidInput,
    MissingRight,
    SchemaMismatch,
)
from memsync.reconcile import baseline, relayout, state
from memsync.reconcile.acknowledged import Acknowledgements
from memsync.reconcile.findings import Audit, Severity
from memsync.reconcile.rules import RULES
from memsync.stores.ltm import Embedder, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.marks import META
from memsync.stores.postgres import Postgres
from support.lab import DIMS, UNHINDERED, Lab, embed
from support.laws import LAWS, Law
from support.laws.coverage import dead, lost, missing, never_said, orphan, unacknowledged
from support.laws.data import stale_row
from support.laws.isolation import left_behind
from support.laws.schema import another_embedder, missing_payload_index, rewound, wrong_name
from support.releasing import released

if TYPE_CHECKING:
    from memsync.model.records import Exchange, Point

HOSTILE = "gone\n'); DROP TABLE memsync.acknowledged; -- %s %(x)s {x} \x1b[2J\u202e \U0001f42f"
NEVER = {rule.code for rule in RULES if rule.is_cause}
INFO = {each.code for each in RULES if each.severity is Severity.INFO}
OF_EACH_CODE = [
    next((law, layout) for law in LAWS for layout in law.layouts if law.code == code)
    for code in sorted({law.code for law in LAWS} - NEVER - INFO)
]


@pytest.fixture(params=Layout)
def lab(request: pytest.FixtureRequest, open_lab: partial[Lab]) -> Lab:
    """A lab on the store in memory, in each of the layouts."""
    return open_lab(layout=request.param.value)


def acknowledge(lab: Lab, reason: str = "known") -> reconcile.Accepted:
    with lab.check() as found, lab.postgres.session() as session:
        return reconcile.acknowledge(session, found, reason)


def known(found: Audit) -> dict[str, int]:
    return found.acknowledged.chosen().counts


def outdated(found: Audit) -> int:
    """How many acknowledgements are outdated; the list and the fact must say the same."""
    assert len(found.outdated) == found.facts.get("baseline-outdated", 0)
    return len(found.outdated)


def rows(lab: Lab) -> list[Any]:
    return lab.sql("SELECT code, store, key, state, reason FROM memsync.acknowledged ORDER BY 1, 3")


def taken(lab: Lab, said: Exchange) -> Point:
    """The memory of an exchange, which is removed."""
    place = lab.place(said)
    point = lab.point(place.point_id, place.collection)
    lab.lose(said)
    return point


# ---------------------------------------------------------------------- what is acknowledged


@pytest.mark.parametrize("case", OF_EACH_CODE, ids=lambda case: case[0].code)
def test_a_finding_of_each_code_is_acknowledged(
    case: tuple[Law, Layout], open_lab: partial[Lab], request: pytest.FixtureRequest
) -> None:
    """The gate is open then, the next audit sees the same state, and no plan has it."""
    law, layout = case
    url = request.getfixturevalue("own_database") if law.alters else None
    lab = open_lab(url=url, layout=layout.value)
    law.plant(lab, lab.settled())
    before = lab.check().counts
    assert before
    done = acknowledge(lab, f"known: {law.code}")
    assert (before, {}) == (done.findings, done.left)
    after = lab.check()
    assert (True, {}, before, 0) == (after.ok, after.counts, known(after), outdated(after))
    assert {f"known: {law.code}"} == {
        each.acknowledged.reason for each in after.acknowledged if each.acknowledged
    }
    plan = lab.plan(after)
    assert ((), {}) == (plan.actions, plan.left)


def test_what_changes_is_a_new_finding(lab: Lab) -> None:
    """A point that changes again counts again, and acknowledging it anew replaces the old."""
    said = lab.settled()
    orphan(lab, said)
    acknowledge(lab, "first")
    assert lab.check().ok
    place = lab.place(said[1])
    point = lab.point(place.point_id, place.collection)
    lab.put(place.point_id, {**point.payload, "note": 1}, place.collection)

    changed = lab.check()
    assert ({"orphan-point": 1}, {}, 1) == (changed.counts, known(changed), outdated(changed))
    acknowledge(lab, "second")
    assert ["second"] == [reason for *_, reason in rows(lab)]
    assert (True, 0) == ((after := lab.check()).ok, outdated(after))


def test_a_row_that_changes_makes_a_new_finding(lab: Lab) -> None:
    """The memory of an edited message is stale; a second edit is a second finding."""
    said = lab.settled()
    stale_row(lab, said)
    acknowledge(lab)
    assert {"stale-content": 1} == known(lab.check())
    lab.sql("UPDATE conversation_history SET content = content || '!' WHERE role = 'assistant'")
    found = lab.check()
    assert ({"stale-content": len(said)}, {}) == (found.counts, known(found))


def test_a_lost_memory_is_known_by_the_ledger(lab: Lab) -> None:
    """It has neither row nor point; the digest in the ledger is its state."""
    lost(lab, lab.settled())
    acknowledge(lab)
    assert {"archived-missing": 1} == known(lab.check())
    lab.sql("UPDATE memsync.memories SET stored = decode(repeat('ab', 32), 'hex')")
    assert {"archived-missing": 1} == {
        name: n for name, n in lab.check().counts.items() if name == "archived-missing"
    }


def test_only_what_is_chosen_is_acknowledged(lab: Lab) -> None:
    """The others stay, in the audit and in the plan."""
    said = lab.settled()
    missing(lab, said)
    never_said(lab, said[2:])
    with lab.check() as found, lab.postgres.session() as session:
        orphans = found.findings.chosen(lambda kind: kind.code == "MSC002")
        assert {"orphan-point": 1} == reconcile.acknowledge(
            session, found, "known", orphans
        ).findings
    after = lab.check()
    assert ({"missing-point": 1}, {"orphan-point": 1}) == (after.counts, known(after))
    plan = lab.plan(after)
    assert (["missing-point"], {}) == ([each.reason for each in plan.actions], plan.left)
    lab.apply(plan)
    assert {"orphan-point": 1} == known(lab.check())


@pytest.mark.parametrize("plant", [dead, unacknowledged])
def test_an_age_and_an_attempt_are_no_change(lab: Lab, plant: Any) -> None:
    """Values that move by themselves are not in the state; another error is a new finding."""
    plant(lab, lab.settled())
    acknowledge(lab)
    lab.sql(
        "UPDATE memsync.outbox SET attempts = attempts + 1,"
        " enqueued_at = enqueued_at - interval '1 day'"
    )
    assert lab.check().ok
    lab.sql("UPDATE memsync.outbox SET last_error = 'another'")
    assert (plant is unacknowledged) is lab.check().ok


def test_more_points_of_a_known_embedder_are_no_change(open_lab: partial[Lab]) -> None:
    """The number of points is left out of the state."""
    lab = open_lab()
    said = lab.settled()
    another_embedder(lab, said)
    acknowledge(lab)
    lab.respell(said[3], embedder="app.models:older/8")
    assert {"embedder-mismatch": 1} == known(lab.check())


# ---------------------------------------------------------------------- what is outdated


def test_what_is_mended_is_outdated(lab: Lab) -> None:
    """It is a fact, which changes no status; dropping it ends that."""
    said = lab.settled()
    point = taken(lab, said[0])
    orphan(lab, said[1:])
    acknowledge(lab)
    lab.vectors.upsert(lab.place(said[0]).collection, [point])
    for found in (lab.audit(), lab.check()):
        assert (True, {"orphan-point": 1}, 1) == (found.ok, known(found), outdated(found))
    with lab.postgres.session() as session:
        assert {"MSC001": 1} == Acknowledgements(session).drop(found.outdated)
    assert (1, 0) == (len(rows(lab)), outdated(lab.check()))


def test_an_audit_calls_nothing_outdated_that_it_did_not_look_for(lab: Lab) -> None:
    """Rules of the gate alone are not looked for by `reconcile`, and mended they are outdated."""
    said = lab.settled()
    if lab.ltm.layout is Layout.SHARED:
        missing_payload_index(lab, said)
    else:
        dead(lab, said)
    acknowledge(lab)
    found = lab.audit()
    assert (0, {}) == (outdated(found), known(found))
    if lab.ltm.layout is Layout.SHARED:
        lab.vectors.create(lab.home, DIMS, lab.ltm.codec.indexes)
    else:
        lab.sql("DELETE FROM memsync.outbox")
    assert (0, 1) == (outdated(lab.audit()), outdated(lab.check()))


def test_without_the_embedder_nothing_about_it_is_outdated(open_lab: partial[Lab]) -> None:
    """An audit by cron names none, so it cannot tell; one of another size cannot either."""
    lab = open_lab()
    another_embedder(lab, lab.settled())
    acknowledge(lab)
    named = lab.settings
    lab.settings = named.model_copy()
    lab.settings.model_fields_set.discard("embedder")
    lab.ltm = LongTermMemory(lab.vectors, lab.settings, lab.ltm.embedder, lab.ltm.layout)
    assert (0, {}) == (outdated(found := lab.check()), known(found))
    larger = Embedder("test", lambda texts: [[1.0] * (DIMS + 1) for _ in texts])
    lab.settings = named
    lab.ltm = LongTermMemory(lab.vectors, named, larger, lab.ltm.layout)
    found = lab.check()
    assert ({"dimension-mismatch": 1}, 0) == (found.counts, outdated(found))
    lab.ltm = LongTermMemory(lab.vectors, named, Embedder("test", embed), lab.ltm.layout)
    assert {"embedder-mismatch": 1} == known(lab.check())


def test_an_incomplete_audit_calls_nothing_outdated(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection that cannot be read hides its findings, and nothing may be acknowledged."""
    said = lab.settled()
    missing(lab, said)
    acknowledge(lab)

    def scroll(*_: object, **__: object) -> Any:
        raise SchemaMismatch("unreadable")

    monkeypatch.setattr(type(lab.vectors), "scroll", scroll)
    found = lab.check()
    assert (False, 0) == (found.complete, outdated(found))
    with pytest.raises(IncompleteAudit, match="nothing was acknowledged"):
        acknowledge(lab)


def test_what_is_still_settling_is_not_outdated(lab: Lab) -> None:
    """A missing memory that the outbox will write is not judged; once it stands, it is."""
    said = lab.settled()
    missing(lab, said)
    acknowledge(lab)
    lab.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=said[0].anchor_id)
    found = lab.check()
    assert (1, 0, {}) == (found.settling, outdated(found), known(found))
    lab.sync()
    assert 1 == outdated(lab.check())


def test_another_store_makes_nothing_outdated(lab: Lab) -> None:
    """While the mark is gone, losses are not looked for."""
    lost(lab, lab.settled())
    lab.say()
    lab.sync()
    acknowledge(lab)
    lab.vectors.drop(META)
    found = lab.check()
    assert "collection-recreated" in found.counts
    assert (0, {}) == (outdated(found), known(found))


def test_a_missing_collection_makes_nothing_outdated(open_lab: partial[Lab]) -> None:
    """A wrong name is one finding, and the memories that it hides are all counted. No plan makes
    the collection, not for a memory that lies elsewhere either.
    """
    lab = open_lab()
    said = lab.settled()
    missing(lab, said)
    acknowledge(lab)
    left_behind(lab, said)
    wrong_name(lab, said)
    found = lab.check()
    assert ({"collection-missing": 1}, {}, 0) == (found.counts, known(found), outdated(found))
    assert () == lab.plan(found, unsafe=True).actions
    [one] = found.findings.of("MSS015")
    assert len(said) == one.evidence["exchanges"]


# ---------------------------------------------------------------------- what is never acknowledged


def test_stores_of_two_times_cannot_be_acknowledged(lab: Lab) -> None:
    """Nothing is, while they may be; and what was acknowledged before opens no removal."""
    said = lab.settled()
    orphan(lab, said)
    acknowledge(lab)
    rewound(lab, said)
    never_said(lab, said[2:])
    with pytest.raises(GateClosed, match="store-rewound"):
        acknowledge(lab)
    found = lab.check()
    assert {"store-rewound": 1, "orphan-point": 1} == found.counts
    assert () == lab.plan(found, unsafe=True).actions


def test_a_wrong_name_cannot_be_acknowledged(open_lab: partial[Lab]) -> None:
    """It hides every missing memory."""
    lab = open_lab()
    wrong_name(lab, lab.settled())
    with pytest.raises(GateClosed, match="collection-missing"):
        acknowledge(lab)
    assert [] == rows(lab)


def test_what_is_listed_in_part_is_not_acknowledged(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The acknowledged ones would hide the rest; those of before count again, and are kept."""
    said = lab.settled()
    dead(lab, said)
    acknowledge(lab)
    lab.sql(
        "INSERT INTO memsync.outbox (point_id, dead, last_error) VALUES (%(id)s, true, 'no')",
        id=said[1].anchor_id,
    )
    for module in (state, baseline):
        monkeypatch.setattr(module, "SHOWN_MAX", 1)
    found = lab.check()
    assert ({"dead-outbox-entry": 1}, {}, 0) == (found.counts, known(found), outdated(found))
    assert {"dead-outbox-entry": 1} == acknowledge(lab).left
    assert 1 == len(rows(lab))


def test_no_change_of_layout_with_acknowledged_faults(open_lab: partial[Lab]) -> None:
    """A copy of what has a fault is as wrong as before."""
    lab = open_lab(layout="per-persona", embedder="support.lab:embed")
    never_said(lab, lab.settled())
    acknowledge(lab)
    before = lab.points()
    with released(lab.url), pytest.raises(GateClosed, match=r"1 orphan-point \(acknowledged\)"):
        relayout.set_shared(lab.postgres, lab.ltm, lab.settings, app_stopped=True)
    assert before == lab.points()


def test_nothing_to_acknowledge(lab: Lab) -> None:
    """A clean app, and findings that are acknowledged already."""
    said = lab.settled()
    with pytest.raises(InvalidInput, match="no such finding"):
        acknowledge(lab)
    missing(lab, said)
    acknowledge(lab, "first")
    with pytest.raises(InvalidInput, match="acknowledged already"):
        acknowledge(lab, "second")
    assert ["first"] == [reason for *_, reason in rows(lab)]


# ---------------------------------------------------------------------- reasons, rights, schemas


def test_a_hostile_reason_is_kept_as_it_is(lab: Lab) -> None:
    """It is data for Postgres, and comes back whole."""
    missing(lab, lab.settled())
    acknowledge(lab, HOSTILE)
    assert [HOSTILE] == [reason for *_, reason in rows(lab)]
    [one] = lab.check().acknowledged
    assert one.acknowledged
    assert HOSTILE == one.acknowledged.reason


@pytest.mark.parametrize("reason", ["", " \n ", "a\0b", "half \ud83d", "x" * 501])
def test_a_reason_that_cannot_be_kept_is_refused(reason: str, open_lab: partial[Lab]) -> None:
    """Before anything is written."""
    lab = open_lab()
    missing(lab, lab.settled())
    with pytest.raises(InvalidInput, match="reason"):
        acknowledge(lab, reason)
    assert [] == rows(lab)


def test_two_baselines_at_once(lab: Lab) -> None:
    """Both acknowledge the same findings; each stands once, and no one waits for ever."""
    said = lab.settled(10)
    for each in said:
        lab.lose(each)
    ready = Barrier(2)

    def one(reason: str) -> int:
        with lab.check() as found, lab.postgres.session() as session:
            ready.wait(60)
            return sum(reconcile.acknowledge(session, found, reason).findings.values())

    with ThreadPoolExecutor(2) as both:
        done = list(both.map(one, ("one", "two")))
    assert [len(said)] * 2 == done
    assert len(said) == len(rows(lab))
    assert {"one", "two"} >= {reason for *_, reason in rows(lab)}
    assert (True, 0) == ((found := lab.check()).ok, outdated(found))


def test_a_drop_leaves_what_was_acknowledged_anew(lab: Lab) -> None:
    """Between the audit and the drop somebody acknowledged another state."""
    said = lab.settled()
    point = taken(lab, said[0])
    acknowledge(lab)
    lab.vectors.upsert(lab.place(said[0]).collection, [point])
    with lab.check() as found, lab.postgres.session() as session:
        assert 1 == outdated(found)
        lab.sql("UPDATE memsync.acknowledged SET state = decode(repeat('ab', 32), 'hex')")
        assert {} == Acknowledgements(session).drop(found.outdated)
    assert 1 == len(rows(lab))


def test_unknown_ids_drop_nothing(lab: Lab) -> None:
    """One that there is not keeps the others."""
    missing(lab, lab.settled())
    acknowledge(lab)
    [(id_,)] = lab.sql("SELECT id FROM memsync.acknowledged")
    with lab.postgres.session() as session:
        with pytest.raises(InvalidInput, match="no acknowledgement 987654321"):
            baseline.drop_by_id(session, [id_, 987654321])
        assert 1 == len(rows(lab))
        assert {"MSC001": 1} == baseline.drop_by_id(session, [id_])
    assert {"missing-point": 1} == lab.check().counts


def test_a_schema_of_an_older_memsync(open_lab: partial[Lab], own_database: str) -> None:
    """Audits work without the table, and acknowledging says which command adds it."""
    lab = open_lab(url=own_database)
    missing(lab, lab.settled())
    lab.sql("DROP TABLE memsync.acknowledged")
    assert {"missing-point": 1} == lab.check().counts
    with lab.postgres.session() as session:
        assert ([], {}) == (
            list(Acknowledgements(session).all()),
            Acknowledgements(session).counts(),
        )
    with pytest.raises(SchemaMismatch, match="memsync migrate run"):
        acknowledge(lab)
    migrate.run(lab.postgres, lab.settings, UNHINDERED)
    acknowledge(lab)
    assert {"missing-point": 1} == known(lab.check())


def test_a_role_without_the_grant(open_lab: partial[Lab], own_database: str) -> None:
    """An audit that may not read the baseline, and a reader that may not write it, are refused."""
    lab = open_lab(url=own_database)
    said = lab.settled()
    missing(lab, said)
    acknowledge(lab)
    lab.sql("CREATE ROLE baseline_reader LOGIN")
    try:
        lab.sql("GRANT USAGE ON SCHEMA public, memsync TO baseline_reader")
        lab.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public, memsync TO baseline_reader")
        owner = lab.postgres
        with Postgres.open(lab.url.replace("postgres@", "baseline_reader@", 1)) as reader:
            lab.postgres = reader
            assert {"missing-point": 1} == known(lab.check())
            orphan(lab, said)
            with pytest.raises(MissingRight):
                acknowledge(lab)
            lab.sql("REVOKE SELECT ON memsync.acknowledged FROM baseline_reader")
            with pytest.raises(MissingRight, match="acknowledged"):
                lab.check()
        lab.postgres = owner
    finally:
        lab.sql("DROP OWNED BY baseline_reader; DROP ROLE baseline_reader")
