"""The record of audits: numbers of each audit that was asked to be kept, the newest only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from memsync import migrate
from memsync.errors import SchemaMismatch
from memsync.reconcile import recorded
from memsync.reconcile.findings import Audit, Severity
from memsync.reconcile.recorded import Record, Recorded, counts_of
from memsync.reconcile.rules import RULES
from memsync.reconcile.rules.schema import CollectionMissing
from memsync.reconcile.rules.vectors import VectorRule
from memsync.reconcile.seen_vectors import Verify
from support.lab import UNHINDERED, Lab
from support.laws.coverage import missing
from support.laws.schema import wrong_name

BEGUN_AT = datetime(2026, 3, 4, tzinfo=UTC)


def put(lab: Lab, found: Audit, hours: int = 0) -> None:
    """Record an audit that was made so many hours after the first."""
    with lab.postgres.session() as session:
        Record(session).put(found, BEGUN_AT + timedelta(hours=hours), 1.5)


def newest(lab: Lab, limit: int = 30) -> list[Recorded]:
    """The record, the newest first."""
    with lab.postgres.session() as session:
        return Record(session).newest(limit)


def test_an_audit_is_recorded_as_numbers(lab: Lab) -> None:
    """Of a code that was looked for and not found 0 is kept; of one that was not, nothing."""
    said = lab.settled()
    put(lab, lab.check())
    missing(lab, said)
    put(lab, lab.check(), 1)

    after, before = newest(lab)
    assert (BEGUN_AT, 1.5, True, 0) == (
        before.begun_at.astimezone(UTC),
        before.seconds,
        before.complete,
        before.total,
    )
    assert {0} == set(before.counts.values())
    assert {"MSC001", "MSS006", "MSI006"} <= set(before.counts)
    assert not {rule.code for rule in RULES if isinstance(rule, VectorRule)} & set(before.counts)
    assert not {rule.code for rule in RULES if rule.severity is Severity.INFO} & set(before.counts)
    assert after.counts["MSC001"] == after.total > 0


def test_an_audit_without_record_writes_nothing(lab: Lab) -> None:
    """Neither kind of audit adds to the record by itself."""
    lab.settled()
    lab.check()
    lab.audit()

    assert [] == newest(lab)


def test_only_the_newest_stay(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record does not grow without end."""
    monkeypatch.setattr(recorded, "KEPT", 3)
    found = lab.check()
    for hour in range(5):
        put(lab, found, hour)

    assert [4, 3, 2] == [
        round((each.begun_at - BEGUN_AT) / timedelta(hours=1)) for each in newest(lab)
    ]
    assert 2 == len(newest(lab, 2))


def test_an_incomplete_audit_has_no_zeros(lab: Lab) -> None:
    """What was not read is not recorded as clean."""
    lab.settled()
    with lab.check() as found:
        object.__setattr__(found, "not_checked", ("a collection",))
        assert {} == counts_of(found)
        put(lab, found)

    (kept,) = newest(lab)
    assert (False, {}) == (kept.complete, kept.counts)


def test_a_schema_of_an_older_memsync_has_no_record(
    own_database: str, open_lab: partial[Lab]
) -> None:
    """Without the table the record is empty, and recording is refused with what adds it."""
    lab = open_lab(url=own_database)
    lab.sql("DROP TABLE memsync.audits")

    assert [] == newest(lab)
    with lab.postgres.session() as session, pytest.raises(SchemaMismatch, match="migrate run"):
        Record(session).require_writable()


def test_what_cannot_be_seen_is_not_looked_for(lab: Lab) -> None:
    """Where the collection is missing or another one is named, its memories are not judged."""
    said = lab.settled()
    everything = lab.check().looked_for
    assert {"MSC001", "MSC011"} <= everything
    assert not {"MSD009", "MSD012"} & everything
    assert "MSS001" not in lab.audit().looked_for

    wrong_name(lab, said)
    found = lab.check()
    assert CollectionMissing.code in {each.code for each in found.findings}
    assert not {"MSC001", "MSC002", "MSC011", "MSI001", "MSD001"} & found.looked_for


def test_vectors_are_looked_for_when_all_are_read(open_lab: partial[Lab]) -> None:
    """A sample proves nothing of the rest."""
    codes = {rule.code for rule in RULES if isinstance(rule, VectorRule)}
    for verify, expected in ((Verify(), codes), (Verify(1, 7), set())):
        lab = open_lab("memory")
        lab.verify = verify
        lab.settled()
        assert expected == codes & lab.check().looked_for


def test_columns_that_an_earlier_build_did_not_make_are_added(
    open_lab: partial[Lab], own_database: str
) -> None:
    """`migrate run` on a finished database; the memories of the ledger stay."""
    lab = open_lab(url=own_database)
    said = lab.settled(2)
    lab.sql("ALTER TABLE memsync.layout DROP COLUMN under_way")
    assert lab.check().ok
    lab.sql("ALTER TABLE memsync.memories DROP COLUMN removed")
    lab.sql("ALTER TABLE memsync.repair DROP COLUMN done_before, DROP COLUMN set_aside")
    migrate.run(lab.postgres, lab.settings, UNHINDERED)
    assert [(len(said), 0)] == lab.sql(
        "SELECT count(*), count(*) FILTER (WHERE removed) FROM memsync.memories"
    )
    assert [] == lab.sql("SELECT done_before, set_aside FROM memsync.repair")
    assert [(None,)] == lab.sql("SELECT under_way FROM memsync.layout")
    assert lab.check().ok
