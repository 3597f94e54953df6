"""Tests every finding code: a clean app has no faults, a planted fault is found and repaired.

Each law of support.laws plants one fault in a clean app and says what the gate must then report:
name, number, key and evidence.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from memsync import migrate
from memsync.memory import revive
from memsync.reconcile.findings import Audit, Severity, Words
from memsync.reconcile.rules import RULES, Rule
from memsync.reconcile.rules.base import CaseRule, differing
from memsync.stores.ltm.layouts import Layout
from support.lab import UNHINDERED, Lab
from support.laws import LAWS, Law, data, schema
from support.laws.base import PLAN, Plant
from support.laws.coverage import dead, duplicate, foreign_id, missing, orphan, unacknowledged
from support.laws.data import stale, wrong_text_key, wrong_unit
from support.laws.isolation import mismatch, no_persona, unknown
from support.laws.schema import behind, missing_index, missing_payload_index
from support.releasing import drain

CASES = [(each, layout) for each in LAWS for layout in each.layouts]
ALTERING = [case for case in CASES if case[0].alters]
OTHERS = [case for case in CASES if not case[0].alters]
IN_QDRANT = [case for case in OTHERS if case[0].where != "outbox"]


def _ids(case: tuple[Law, Layout]) -> str:
    law, layout = case
    return "-".join((law.code, law.where.replace(" ", "-"), layout.value, law.name))


def _facts_of_a_clean_app(layout: Layout, exchanges: int) -> dict[str, int]:
    return {"foreign-point-id": exchanges} if layout is Layout.PER_PERSONA else {}


def test_every_rule_has_a_law_in_each_layout() -> None:
    """Every finding code has a law where it can be found, and every law has a finding code."""
    codes = {rule.code for rule in RULES}
    nowhere = data.NOT_EVERYWHERE | schema.NOT_EVERYWHERE
    assert codes == {law.code for law in LAWS}
    assert {(code, layout) for code in codes for layout in Layout} - nowhere == {
        (law.code, layout) for law, layout in CASES
    }


def test_no_law_stands_twice() -> None:
    """Each law has a name of its own, so that a report of the tests says which one it was."""
    assert {1} == set(Counter(map(_ids, CASES)).values())


def test_codes_and_names_are_unique() -> None:
    """No two rules share a code or a name."""
    assert {1} == set(Counter(rule.code for rule in RULES).values())
    assert {1} == set(Counter(rule.name for rule in RULES).values())


@pytest.mark.parametrize(
    ("row", "point", "at"),
    [
        ("user: no", "user: now", 8),
        ("yes", "no", 0),
        ("user: no", None, None),
        ("user: no\nassistant: yes", "User (Al): now\nAda: yes", None),
    ],
)
def test_a_place_of_a_difference_is_one_of_both_texts(
    row: str, point: str | None, at: int | None
) -> None:
    """A text in the app's form begins otherwise than the row's, so no place is named there."""
    assert at == differing(row, point).get("differs_at")


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("store", ["memory", "edge", "server"])
def test_a_clean_app_has_no_faults(
    store: str, layout: Layout, open_lab: "partial[Lab]", seed: int
) -> None:
    """In an app whose stores agree nothing is found, everything is read and the plan is empty."""
    lab = open_lab(store, layout=layout.value)
    said = lab.settled()
    gate = lab.check()
    assert ({}, (), 0) == (gate.counts, gate.not_checked, gate.settling), seed
    assert _facts_of_a_clean_app(layout, len(said)) == gate.facts
    assert (len(said), len(said), 0) == (gate.rows_checked, gate.points_checked, gate.archived)
    assert () == lab.plan().actions


@pytest.mark.parametrize("case", OTHERS, ids=_ids)
def test_a_planted_fault_is_found_and_mended(
    case: tuple[Law, Layout], open_lab: "partial[Lab]"
) -> None:
    """Exactly the planted fault is found; an apply repairs it unless it is report-only."""
    law, layout = case
    _hold(law, open_lab(layout=layout.value))


@pytest.mark.parametrize("case", ALTERING, ids=_ids)
def test_a_planted_fault_of_the_schema_is_found(
    case: tuple[Law, Layout], open_lab: "partial[Lab]", own_database: str
) -> None:
    """The same holds for faults in schema and history, on a database of their own."""
    law, layout = case
    _hold(law, open_lab(url=own_database, layout=layout.value))


@pytest.mark.parametrize("store", ["edge", "server"])
@pytest.mark.parametrize("case", IN_QDRANT, ids=_ids)
@pytest.mark.slow
def test_laws_on_real_engines(
    case: tuple[Law, Layout], store: str, open_lab: "partial[Lab]"
) -> None:
    """The same holds on qdrant-edge and on a Qdrant server."""
    law, layout = case
    _hold(law, open_lab(store, layout=layout.value))


def _hold(law: Law, lab: Lab) -> None:
    _mended(lab, _found(law, lab))


def _found(law: Law, lab: Lab) -> Audit:
    """Plant the fault, and see that the gate reports it and nothing else."""
    name = next(each.name for each in RULES if each.code == law.code)
    said = lab.settled()
    planted = law.plant(lab, said)
    gate = lab.check()
    assert gate.complete, gate.not_checked
    assert {each.code for each in gate.findings} <= gate.looked_for

    ours = [each for each in gate.findings if each.code == law.code]
    if {Severity.INFO} == {each.severity for each in ours}:
        assert dict(planted.others) == gate.counts
    else:
        assert {**planted.others, name: len(planted.evidence)} == gate.counts
    facts = _facts_of_a_clean_app(lab.ltm.layout, len(said)) | dict(planted.facts)
    assert facts == gate.facts

    found = {each.key: dict(each.evidence) for each in ours}
    assert set(planted.evidence) == set(found)
    for key, evidence in planted.evidence.items():
        assert _is_within(evidence, found[key]), found[key]
    assert {planted.next_command} == {each.next_command for each in ours}
    rule = next(each for each in RULES if each.code == law.code)
    if planted.next_command.startswith(PLAN):
        assert rule.command_in(lab.ltm.layout).startswith(PLAN)
    return gate


def _is_within(expected: Mapping[str, object], actual: Mapping[str, object]) -> bool:
    plain = {key: each.text if isinstance(each, Words) else each for key, each in actual.items()}
    return dict(expected) == {key: plain[key] for key in expected if key in plain}


def _mended(lab: Lab, gate: Audit) -> None:
    """See that a plan of this audit repairs everything that is not report-only."""
    report_only = Counter(each.name for each in gate.faults if each.grade == "report-only")
    plan = lab.plan(gate)
    assert dict(report_only) == plan.left
    lab.apply(plan)
    after = lab.check()
    assert plan.left == after.counts
    assert () == lab.plan(after).actions


PLANNED = [
    (rule, layout)
    for rule in RULES
    for layout in Layout
    if rule.command_in(layout).startswith(PLAN)
]


@pytest.mark.parametrize(
    ("rule", "layout"), PLANNED, ids=[f"{rule.code}-{layout}" for rule, layout in PLANNED]
)
def test_a_rule_that_names_a_plan_is_in_one(
    rule: Rule, layout: Layout, open_lab: "partial[Lab]"
) -> None:
    """In the layouts in which a rule names a plan, one of its laws plants what a plan takes up."""
    for law in (law for law, there in CASES if (law.code, there) == (rule.code, layout)):
        gate = _found(law, open_lab(layout=layout.value))
        if any(each.code == rule.code and each.grade != "report-only" for each in gate.findings):
            return
    raise AssertionError("no plan takes its findings up there")


# ---------------------------------------------------------------------- laws find broken rules


FIRST_LAWS = [
    next(case for case in CASES if case[0].code == code)
    for code in dict.fromkeys(law.code for law, _ in CASES)
]


def _finds_nothing(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(*_: object) -> Any:
        return None if isinstance(rule, CaseRule) else iter(())

    monkeypatch.setattr(type(rule), "look", blind)


@pytest.mark.parametrize("case", FIRST_LAWS, ids=_ids)
def test_a_rule_that_finds_nothing_breaks_its_law(
    case: tuple[Law, Layout],
    open_lab: "partial[Lab]",
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """A law fails when its rule is blind."""
    law, layout = case
    url = request.getfixturevalue("own_database") if law.alters else None
    rule = next(each for each in RULES if each.code == law.code)
    _finds_nothing(rule, monkeypatch)
    with pytest.raises(AssertionError):
        _found(law, open_lab(url=url, layout=layout.value))


def test_without_unsafe_nothing_is_removed_for_lack_of_a_row(lab: Lab) -> None:
    """Without `unsafe`, orphans and memories of unknown personas stay and are counted as left."""
    said = lab.settled()
    orphan(lab, said)
    unknown(lab, said[1:])
    before = lab.points()
    plan = lab.plan(unsafe=False)
    assert ((), {"orphan-point": 1, "unknown-persona": 1}) == (plan.actions, plan.left)
    lab.apply(plan)
    assert before == lab.points()


# A finding that is report-only is gone after the command that it advises.


def test_sync_run_mends_the_outbox_and_the_indexes(lab: Lab) -> None:
    """MSC006 and MSS007 advise `memsync sync run`; after it both are gone."""
    said = lab.settled()
    unacknowledged(lab, said)
    missing_payload_index(lab, said)
    assert {"unacknowledged-outbox": 1, "missing-payload-index": 1} == lab.check().counts
    drain(lab.postgres, lab.with_store(lab.vectors))
    assert {} == lab.check().counts


def test_sync_retry_mends_dead_entries(lab: Lab) -> None:
    """MSC007 advises `memsync sync retry`; after it and a drain the finding is gone."""
    dead(lab, lab.settled())
    assert 1 == revive(lab.postgres)
    lab.sync()
    assert {} == lab.check().counts


@pytest.mark.parametrize("plant", [behind, missing_index])
def test_migrate_run_mends_the_schema(
    plant: Plant, open_lab: "partial[Lab]", own_database: str
) -> None:
    """MSS001 and MSS006 advise `memsync migrate run`; after it both are gone."""
    lab = open_lab(url=own_database)
    plant(lab, lab.settled())
    migrate.run(lab.postgres, lab.settings, UNHINDERED)
    assert {} == lab.check().counts


def test_all_faults_at_once(lab: Lab) -> None:
    """Many faults in one app do not hide one another."""
    said = lab.settled(30)
    plants: list[Plant] = [missing, orphan, duplicate, foreign_id, mismatch, unknown]
    plants += [no_persona, stale, wrong_text_key, partial(wrong_unit, lambda ms: ms // 1000)]
    for at, plant in enumerate(plants):
        plant(lab, said[3 * at :])
    names = Counter(
        ("missing-point", "orphan-point", "duplicate-point", "foreign-point-id", "persona-mismatch")
    )
    names.update(("unknown-persona", "missing-persona", "stale-content", "wrong-payload-key"))
    names.update(["wrong-time-unit"])
    assert dict(names) == lab.audit().counts
    lab.apply(lab.plan())
    assert lab.check().ok
