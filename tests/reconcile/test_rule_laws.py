"""Tests every finding code: a clean app has no findings, a planted fault is found and repaired.

Each law of support.laws plants one fault in a clean app and says what the gate must then report:
name, number, key and evidence.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from uuid import UUID

import pytest

from memsync import migrate, reconcile
from memsync.memory import revive
from memsync.reconcile.findings import Finding, Words
from support.lab import UNHINDERED, Lab, drain
from support.laws.base import LAWS, Law
from support.laws.coverage import dead, duplicate, foreign_id, missing, orphan, unacknowledged
from support.laws.data import stale, wrong_text_key, wrong_unit
from support.laws.isolation import mismatch, no_persona, unknown
from support.laws.schema import behind, missing_index, missing_payload_index


def _ids(each: tuple[str, str, Law]) -> str:
    code, where, plant = each
    return f"{code}-{where}-{getattr(plant, '__name__', 'field')}"


def test_every_rule_has_a_law() -> None:
    """Every finding code has a law, and every law has a finding code."""
    assert {rule.code for rule in reconcile.RULES} == {code for code, *_ in LAWS}


def test_codes_and_names_are_unique() -> None:
    """No two rules share a code or a name."""
    assert {1} == set(Counter(rule.code for rule in reconcile.RULES).values())
    assert {1} == set(Counter(rule.name for rule in reconcile.RULES).values())


def test_a_clean_app_has_no_findings(any_lab: Lab) -> None:
    """In an app whose stores agree nothing is found, everything is read and the plan is empty."""
    said = any_lab.settled()
    gate = any_lab.check()
    assert ({}, (), 0) == (gate.counts, gate.not_checked, gate.settling)
    assert (len(said), len(said)) == (gate.rows_checked, gate.points_checked)
    assert () == any_lab.plan().actions


def _of(findings: list[Finding], code: str) -> dict[str, dict[str, object]]:
    return {each.key: dict(each.evidence) for each in findings if each.code == code}


def _is_within(expected: Mapping[str, object], actual: Mapping[str, object]) -> bool:
    plain = {key: each.text if isinstance(each, Words) else each for key, each in actual.items()}
    return expected == {key: plain[key] for key in expected if key in plain}


ALTERING = [each for each in LAWS if each[1] in {"schema", "history"}]
OTHERS = [each for each in LAWS if each not in ALTERING]
ELSEWHERE = [each for each in LAWS if each[1] in {"home", "deployed"}]


@pytest.mark.parametrize("rule", OTHERS, ids=_ids)
def test_a_planted_fault_is_found_and_mended(rule: tuple[str, str, Law], lab: Lab) -> None:
    """Exactly the planted fault is found; an apply repairs it unless it is report-only."""
    _hold(rule, lab)


@pytest.mark.parametrize("rule", ALTERING, ids=_ids)
def test_a_planted_fault_of_the_schema_is_found(
    rule: tuple[str, str, Law], open_lab: "partial[Lab]", own_database: str
) -> None:
    """The same holds for faults in schema and history, on a database of their own."""
    _hold(rule, open_lab(url=own_database))


@pytest.mark.parametrize("store", ["edge", "server"])
@pytest.mark.parametrize("rule", ELSEWHERE, ids=_ids)
@pytest.mark.slow
def test_laws_on_real_engines(
    rule: tuple[str, str, Law], store: str, open_lab: "partial[Lab]"
) -> None:
    """The same holds on qdrant-edge and on a Qdrant server."""
    _hold(rule, open_lab(store))


def _hold(rule: tuple[str, str, Law], lab: Lab) -> None:
    code, _, plant = rule
    name = next(each.name for each in reconcile.RULES if each.code == code)
    planted = plant(lab, lab.settled())
    gate = lab.check()
    others = dict(planted.others or {})
    assert others | {name: others.get(name, 0) + len(planted.evidence)} == gate.counts
    found = _of(list(gate.findings), code)
    assert set(planted.evidence) == set(found)
    for key, evidence in planted.evidence.items():
        assert _is_within(evidence, found[key]), found[key]
    commands = {each.next_command for each in gate.findings if each.code == code}
    assert {planted.next_command} == commands
    report_only = {each.name for each in gate.findings if each.grade == "report-only"}

    plan = lab.plan(gate)
    assert {n: c for n, c in gate.counts.items() if n in report_only} == plan.left
    lab.apply(plan)
    after = lab.check()
    assert plan.left == after.counts
    assert () == lab.plan(after).actions


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
    plant: Law, open_lab: "partial[Lab]", own_database: str
) -> None:
    """MSS001 and MSS006 advise `memsync migrate run`; after it both are gone."""
    lab = open_lab(url=own_database)
    plant(lab, lab.settled())
    migrate.run(lab.postgres, lab.settings, UNHINDERED)
    assert {} == lab.check().counts


def test_all_faults_at_once(lab: Lab) -> None:
    """Many faults in one app do not hide one another."""
    said = lab.settled(12)
    plants: list[Law] = [missing, orphan, duplicate, foreign_id, mismatch, unknown]
    plants += [no_persona, stale, wrong_text_key, partial(wrong_unit, lambda ms: ms // 1000)]
    for at, plant in enumerate(plants):
        plant(lab, said[at:])
    names = Counter(
        ("missing-point", "orphan-point", "duplicate-point", "foreign-point-id", "persona-mismatch")
    )
    names.update(("unknown-persona", "missing-persona", "stale-content", "wrong-payload-key"))
    names.update(["wrong-time-unit"])
    assert dict(names) == lab.audit().counts
    lab.apply(lab.plan())
    assert lab.check().ok
    assert isinstance(said[0].anchor_id, UUID)
