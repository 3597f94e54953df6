"""What holds for every finding code: clean is silent, a planted fault is found, a plan mends it.

Each law plants one fault in a clean app and says what the gate must then report beyond what it
reported before: name, number, key and evidence.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from memsync import migrate, reconcile
from memsync.memory import revive
from memsync.model.digests import exchange_digest
from memsync.model.records import Exchange
from memsync.reconcile.findings import Finding
from memsync.stores.history.catalog import RETRIEVAL_INDEX
from support.lab import ADA, BASIL, DIMS, LONG_AGO, NOBODY, UNHINDERED, A, B, C, Lab, at_ms, drain

OLD_MS = at_ms(LONG_AGO) - 86_400_000


@dataclass(frozen=True)
class Planted:
    """What must be found: keys and evidence of the law's code; others of which it is the cause."""

    evidence: Mapping[str, Mapping[str, object]]
    others: Mapping[str, int] | None = None
    next_command: str = "memsync reconcile plan"
    left: Mapping[str, int] | None = None


Law = Callable[[Lab, list[Exchange]], Planted]
LAWS: list[tuple[str, str, Law]] = []


def law(code: str, where: str) -> Callable[[Law], Law]:
    """Register a law for a code."""

    def register(plant: Law) -> Law:
        LAWS.append((code, where, plant))
        return plant

    return register


def one(key: object, **evidence: object) -> dict[str, dict[str, object]]:
    """One finding."""
    return {str(key): evidence}


# ---------------------------------------------------------------------- coverage


@law("MSC001", "home")
def missing(lab: Lab, said: list[Exchange]) -> Planted:
    """A lost point."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    return Planted(one(said[0].anchor_id, row=said[0].content, point=None))


@law("MSC001", "deployed")
def missing_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A point lost while the others stand as deployed."""
    _, *others = said
    for each in said:
        lab.vectors.delete(lab.home, [each.anchor_id])
    for each in others:
        lab.deploy(each)
    return Planted(
        one(said[0].anchor_id, row=said[0].content, point=None),
        {"foreign-point-id": len(others), "legacy-layout": 2},
    )


@law("MSC002", "home")
def orphan(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory whose rows were deleted."""
    content = said[0].content
    lab.sql("DELETE FROM conversation_history WHERE id = %(id)s", id=said[0].anchor_id)
    return Planted(
        one(said[0].anchor_id, row=None, point=content),
        next_command="memsync reconcile plan --unsafe",
    )


@law("MSC002", "deployed")
def orphan_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory of something never said."""
    point = lab.deploy(said[0], createdAt=said[0].created_at_ms + 7, content="User (Al): a\nAda: b")
    return Planted(
        one(point.id, row=None, point="User (Al): a\nAda: b"),
        {"legacy-layout": 1},
        next_command="memsync reconcile plan --unsafe",
    )


@law("MSC004", "home")
def duplicate(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy under another id."""
    copy = lab.put(lab.new_id(), lab.point(said[0].anchor_id).payload)
    return Planted(one(copy.id, kept=str(said[0].anchor_id), point=str(copy.id)))


@law("MSC004", "home")
def duplicate_under_an_integer(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy under an integer."""
    lab.put(2**64 - 1, lab.point(said[0].anchor_id).payload)
    return Planted(one(2**64 - 1, kept=str(said[0].anchor_id), point=2**64 - 1))


@law("MSC004", "deployed")
def duplicate_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory of an exchange whose memory stands at home."""
    point = lab.deploy(said[0])
    return Planted(
        one(point.id, kept=str(said[0].anchor_id), point=str(point.id)), {"legacy-layout": 1}
    )


@law("MSC004", "deployed")
def duplicates_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """Two deployed memories of an exchange that has none at home: the first by id is kept."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    first, second = sorted(str(lab.deploy(said[0]).id) for _ in range(2))
    return Planted(
        one(second, kept=first, point=second), {"foreign-point-id": 1, "legacy-layout": 1}
    )


@law("MSC005", "home")
def foreign_id(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under another id."""
    anchor = said[0].anchor_id
    moved = lab.put(lab.new_id(), lab.point(anchor).payload)
    lab.vectors.delete(lab.home, [anchor])
    return Planted(one(moved.id, row=str(anchor), point=str(moved.id)))


@law("MSC005", "deployed")
def foreign_id_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory as deployed."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0])
    return Planted(
        one(point.id, row=str(said[0].anchor_id), point=str(point.id)), {"legacy-layout": 1}
    )


@law("MSC006", "outbox")
def unacknowledged(lab: Lab, said: list[Exchange]) -> Planted:
    """An entry that nobody drains."""
    [(key,)] = lab.sql(
        "INSERT INTO memsync.outbox (point_id, enqueued_at) VALUES (%(id)s, now() - interval '2h')"
        " RETURNING id",
        id=said[0].anchor_id,
    )
    return Planted(
        one(key, memory=str(said[0].anchor_id), attempts=0, last_error=None),
        next_command="memsync sync run",
    )


@law("MSC007", "outbox")
def dead(lab: Lab, said: list[Exchange]) -> Planted:
    """An entry that failed too often."""
    [(key,)] = lab.sql(
        "INSERT INTO memsync.outbox (point_id, dead, attempts, last_error)"
        " VALUES (%(id)s, true, 10, 'why') RETURNING id",
        id=said[0].anchor_id,
    )
    return Planted(
        one(key, memory=str(said[0].anchor_id), attempts=10, last_error="why"),
        next_command="memsync sync retry",
    )


# ---------------------------------------------------------------------- isolation


@law("MSI001", "home")
def mismatch(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory under the right id that names another persona."""
    lab.respell(said[0].anchor_id, persona_id=str(B))
    return Planted(one(said[0].anchor_id, row=str(A), point=str(B)))


@law("MSI001", "deployed")
def mismatch_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in the collection of somebody else."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], collection=f"persona-{C}", personaId=str(C))
    return Planted(one(point.id, row=str(A), point=str(C)), {"legacy-layout": 1})


@law("MSI001", "deployed")
def mismatch_beside_a_right_one(lab: Lab, said: list[Exchange]) -> Planted:
    """A copy in the collection of somebody else, the right memory standing at home."""
    point = lab.deploy(said[0], collection=f"persona-{C}", personaId=str(C))
    return Planted(one(point.id, row=str(A), point=str(C)), {"legacy-layout": 1})


@law("MSI002", "home")
def unknown(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of a persona that does not exist."""
    point = lab.put(
        lab.new_id(),
        {**lab.point(said[0].anchor_id).payload, "persona_id": str(NOBODY), "created_at": OLD_MS},
    )
    return Planted(
        one(point.id, row=None, point=str(NOBODY)), next_command="memsync reconcile plan --unsafe"
    )


@law("MSI002", "deployed")
def unknown_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A collection of a persona that does not exist."""
    point = lab.deploy(
        said[0],
        collection=f"persona-{NOBODY}",
        personaId=str(NOBODY),
        content="User (N): x\nAda: y",
    )
    return Planted(
        one(point.id, row=None, point=str(NOBODY)),
        {"legacy-layout": 1},
        next_command="memsync reconcile plan --unsafe",
    )


@law("MSI003", "home")
def no_persona(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory that names no persona."""
    lab.respell(said[0].anchor_id, persona_id=None)
    return Planted(one(said[0].anchor_id, row=str(A), point=None, collection=lab.home))


@law("MSI003", "deployed")
def no_persona_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory whose persona only the collection names."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], personaId=None)
    return Planted(
        one(point.id, row=str(A), point=None, collection=f"persona-{A}"),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )


@law("MSI003", "deployed")
def older_layout(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory in a collection by personality."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    name = f"personality-{ADA}"
    point = lab.deploy(said[0], collection=name, personaId=None, userId=str(NOBODY))
    return Planted(
        one(point.id, row=str(A), point=None, collection=name),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )


@law("MSI003", "hopeless")
def no_persona_no_row(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory at home that neither a persona nor a row explains is reported, never touched."""
    payload = {**lab.point(said[0].anchor_id).payload, "created_at": OLD_MS}
    del payload["persona_id"]
    point = lab.put(lab.new_id(), payload)
    return Planted(
        one(point.id, row=None, point=None, collection=lab.home), left={"missing-persona": 1}
    )


@law("MSI004", "deployed")
def misplaced(lab: Lab, said: list[Exchange]) -> Planted:
    """An archived memory in a deployed collection."""
    point = lab.deploy(said[0], createdAt=OLD_MS)
    return Planted(
        one(point.id, collection=f"persona-{A}", collection_persona=str(A), point=str(A)),
        {"legacy-layout": 1},
    )


@law("MSI006", "history")
def without_persona(lab: Lab, said: list[Exchange]) -> Planted:
    """A message without a persona."""
    lab.sql("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    [(key,)] = lab.sql(
        "INSERT INTO conversation_history (id, channel_id, personality_id, role, content)"
        " VALUES (gen_random_uuid(), '1', %(p)s, 'system', 'x') RETURNING id",
        p=said[0].personality_id,
    )
    return Planted(
        one(key, persona_id=None, messages_in_all=1),
        {"migration-behind": 1},
        next_command="memsync migrate run --to backfill",
    )


# ---------------------------------------------------------------------- data


@law("MSD001", "home")
def stale(lab: Lab, said: list[Exchange]) -> Planted:
    """A memory of another text."""
    lab.respell(said[0].anchor_id, content="user: x\nassistant: y")
    return Planted(one(said[0].anchor_id, row=said[0].content, point="user: x\nassistant: y"))


@law("MSD001", "home")
def stale_row(lab: Lab, said: list[Exchange]) -> Planted:
    """A row that was edited after its memory was made."""
    lab.sql(
        "UPDATE conversation_history SET content = 'edited' WHERE id = %(id)s", id=said[0].anchor_id
    )
    return Planted(
        one(
            said[0].anchor_id,
            row=f"user: {said[0].user_text}\nassistant: edited",
            point=said[0].content,
        )
    )


@law("MSD001", "deployed")
def stale_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory of a draft."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], content="User (Al): x\nAda: draft")
    return Planted(
        one(point.id, row=said[0].content, point="User (Al): x\nAda: draft"),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )


def _drift(field: str, wrong: object, lab: Lab, said: list[Exchange]) -> Planted:
    """A field that is not the row's."""
    row, key = said[0], "created_at" if field == "created_at" else field
    lab.respell(row.anchor_id, **{field: wrong})
    right = {
        "personality_id": str(row.personality_id),
        "channel_id": row.channel_id,
        "created_at": row.created_at_ms,
        "digest": exchange_digest(row),
    }[field]
    return Planted(one(row.anchor_id, field=key, row=right, point=wrong))


for _field, _wrong in (
    ("personality_id", str(BASIL)),
    ("channel_id", "another"),
    ("created_at", OLD_MS),
    ("digest", "0" * 64),
    ("personality_id", None),
    ("channel_id", None),
    ("created_at", None),
    ("digest", None),
):
    law("MSD002", f"home-{_field}-{_wrong and 'wrong'}")(partial(_drift, _field, _wrong))


@law("MSD003", "home")
def wrong_text_key(lab: Lab, said: list[Exchange]) -> Planted:
    """The text under another key."""
    lab.respell(said[0].anchor_id, content=None, text=said[0].content)
    return Planted(one(said[0].anchor_id, point="text"))


@law("MSD003", "home")
def other_style(lab: Lab, said: list[Exchange]) -> Planted:
    """A key in the other style."""
    lab.respell(said[0].anchor_id, persona_id=None, personaId=str(A))
    return Planted(one(said[0].anchor_id, point="personaId"))


@law("MSD003", "deployed")
def wrong_key_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory with its text and time under other keys."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    content = f"User (Al): {said[0].user_text}\nAda: {said[0].assistant_text}"
    changes: dict[str, Any] = {"text": content, "content": None}
    changes |= {"timestamp": said[0].created_at_ms, "createdAt": None}
    point = lab.deploy(said[0], **changes)
    return Planted(
        one(point.id, point="text, timestamp"), {"foreign-point-id": 1, "legacy-layout": 1}
    )


def _unit(wrong: Callable[[int], object], lab: Lab, said: list[Exchange]) -> Planted:
    """A time that is not whole milliseconds."""
    row = said[0]
    lab.respell(row.anchor_id, created_at=wrong(row.created_at_ms))
    return Planted(one(row.anchor_id, row=row.created_at_ms, point=wrong(row.created_at_ms)))


law("MSD004", "home-seconds")(partial(_unit, lambda ms: ms // 1000))
law("MSD004", "home-fraction")(partial(_unit, lambda ms: ms + 0.5))
law("MSD004", "home-text")(partial(_unit, lambda _: "2025-05-01"))
law("MSD004", "home-boolean")(partial(_unit, lambda _: True))


@law("MSD004", "deployed")
def seconds_deployed(lab: Lab, said: list[Exchange]) -> Planted:
    """A deployed memory whose time is in seconds."""
    lab.vectors.delete(lab.home, [said[0].anchor_id])
    point = lab.deploy(said[0], createdAt=said[0].created_at_ms // 1000)
    return Planted(
        one(point.id, row=said[0].created_at_ms, point=said[0].created_at_ms // 1000),
        {"foreign-point-id": 1, "legacy-layout": 1},
    )


# ---------------------------------------------------------------------- schema


@law("MSS001", "schema")
def behind(lab: Lab, _: list[Exchange]) -> Planted:
    """A history that may hold messages without a persona."""
    lab.sql("ALTER TABLE conversation_history ALTER persona_id DROP NOT NULL")
    return Planted(
        one("stage", expected="contracted", found="backfilled"), next_command="memsync migrate run"
    )


@law("MSS005", "schema")
def invalid_index(lab: Lab, _: list[Exchange]) -> Planted:
    """An index whose build was cut short."""
    lab.sql("CREATE INDEX cut_short ON conversation_history (role)")
    lab.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'cut_short'::regclass")
    return Planted(one("cut_short", valid=False), next_command="memsync migrate run")


@law("MSS006", "schema")
def missing_index(lab: Lab, _: list[Exchange]) -> Planted:
    """The index that serves reading by persona is gone."""
    lab.sql(f"DROP INDEX {RETRIEVAL_INDEX}")
    return Planted(
        one(RETRIEVAL_INDEX, found=None),
        {"migration-behind": 1},
        next_command="memsync migrate run",
    )


@law("MSS007", "schema")
def missing_payload_index(lab: Lab, said: list[Exchange]) -> Planted:
    """A collection that was restored without one of its indexes."""
    kept = [lab.point(each.anchor_id) for each in said]
    indexes = dict(lab.ltm.codec.indexes)
    kind = indexes.pop("persona_id")
    lab.vectors.drop(lab.home)
    lab.vectors.create(lab.home, DIMS, indexes)
    lab.vectors.upsert(lab.home, kept)
    return Planted(
        one("persona_id", expected=str(kind), found=None), next_command="memsync sync run"
    )


@law("MSS011", "deployed")
def empty_collection(lab: Lab, _: list[Exchange]) -> Planted:
    """An empty deployed collection."""
    lab.vectors.create(f"persona-{B}", DIMS, {})
    return Planted(one(f"persona-{B}", points=0))


# ---------------------------------------------------------------------- the laws themselves


def _ids(each: tuple[str, str, Law]) -> str:
    code, where, plant = each
    return f"{code}-{where}-{getattr(plant, '__name__', 'field')}"


def test_every_rule_has_a_law() -> None:
    """A code without a law here, or a law for no code, is an oversight."""
    assert {rule.code for rule in reconcile.RULES} == {code for code, *_ in LAWS}


def test_codes_and_names_are_unique() -> None:
    """No two rules share a code or a name."""
    assert {1} == set(Counter(rule.code for rule in reconcile.RULES).values())
    assert {1} == set(Counter(rule.name for rule in reconcile.RULES).values())


def test_a_clean_app_has_no_findings(any_lab: Lab) -> None:
    """Both stores in step: nothing is found, everything is read, the plan is empty."""
    said = any_lab.settled()
    gate = any_lab.check()
    assert ({}, (), 0) == (gate.counts, gate.not_checked, gate.settling)
    assert (len(said), len(said)) == (gate.rows_checked, gate.points_checked)
    assert () == any_lab.plan().actions


def _of(findings: list[Finding], code: str) -> dict[str, dict[str, object]]:
    return {each.key: dict(each.evidence) for each in findings if each.code == code}


def _is_within(expected: Mapping[str, object], actual: Mapping[str, object]) -> bool:
    return expected == {key: actual[key] for key in expected if key in actual}


ALTERING = [each for each in LAWS if each[1] in {"schema", "history"}]
OTHERS = [each for each in LAWS if each not in ALTERING]
ELSEWHERE = [each for each in LAWS if each[1] in {"home", "deployed"}]
CAMEL_KEYS = "decode() overlooks camelCase keys in a snake_case collection"


@pytest.mark.parametrize("rule", OTHERS, ids=_ids)
def test_a_planted_fault_is_found_and_mended(rule: tuple[str, str, Law], lab: Lab) -> None:
    """Exactly the planted fault is found; plan and apply leave nothing; the next plan is empty."""
    _hold(rule, lab)


@pytest.mark.parametrize("rule", ALTERING, ids=_ids)
def test_a_planted_fault_of_the_schema_is_found(
    rule: tuple[str, str, Law], open_lab: "partial[Lab]", own_database: str
) -> None:
    """The same for faults that alter the database."""
    _hold(rule, open_lab(url=own_database))


@pytest.mark.parametrize("store", ["edge", "server"])
@pytest.mark.parametrize("rule", ELSEWHERE, ids=_ids)
@pytest.mark.slow
def test_laws_on_real_engines(
    rule: tuple[str, str, Law], store: str, open_lab: "partial[Lab]"
) -> None:
    """The same holds on the engine in process and on a server."""
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
    """Orphans and memories of unknown personas stay, and are said to be left."""
    said = lab.settled()
    orphan(lab, said)
    unknown(lab, said[1:])
    before = lab.points()
    plan = lab.plan(unsafe=False)
    assert ((), {"orphan-point": 1, "unknown-persona": 1}) == (plan.actions, plan.left)
    lab.apply(plan)
    assert before == lab.points()


# What the report-only findings advise does mend them.


def test_sync_run_mends_the_outbox_and_the_indexes(lab: Lab) -> None:
    """MSC006 and MSS007 say `memsync sync run`; after it both are gone."""
    said = lab.settled()
    unacknowledged(lab, said)
    missing_payload_index(lab, said)
    assert {"unacknowledged-outbox": 1, "missing-payload-index": 1} == lab.check().counts
    drain(lab.postgres, lab.with_store(lab.vectors))
    assert {} == lab.check().counts


def test_sync_retry_mends_dead_entries(lab: Lab) -> None:
    """MSC007 says `memsync sync retry`; after it, and a drain, the entry is gone."""
    dead(lab, lab.settled())
    assert 1 == revive(lab.postgres)
    lab.sync()
    assert {} == lab.check().counts


@pytest.mark.parametrize("plant", [behind, missing_index])
def test_migrate_run_mends_the_schema(
    plant: Law, open_lab: "partial[Lab]", own_database: str
) -> None:
    """MSS001 and MSS006 say `memsync migrate run`; after it both are gone."""
    lab = open_lab(url=own_database)
    plant(lab, lab.settled())
    migrate.run(lab.postgres, lab.settings, UNHINDERED)
    assert {} == lab.check().counts


def test_all_faults_at_once(lab: Lab) -> None:
    """Many faults in one app do not hide one another."""
    said = lab.settled(12)
    plants: list[Law] = [missing, orphan, duplicate, foreign_id, mismatch, unknown]
    plants += [no_persona, stale, wrong_text_key, partial(_unit, lambda ms: ms // 1000)]
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
