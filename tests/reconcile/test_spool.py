"""Tests what findings and actions are kept in: order, numbers, memory, and that nothing is left."""

import gc
import sqlite3
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from memsync.errors import StoreUnreachable
from memsync.model.records import Place
from memsync.reconcile import make_plan
from memsync.reconcile.findings import (
    Audit,
    Finding,
    Findings,
    Grade,
    Repair,
    Severity,
    Witness,
)
from memsync.reconcile.spool import Shelf, Spool
from support.failing import Crash
from support.lab import DIMS, A, B, Lab

MANY = 4000
A_FINDING_BYTES = 800
"""A finding in memory has more."""


def finding(
    number: int,
    code: str = "MSC001",
    *,
    persona: UUID | None = A,
    severity: Severity = Severity.ERROR,
    grade: Grade = Grade.SAFE,
) -> Finding:
    """A missing memory, of another exchange for each number."""
    target = Place("memories", UUID(int=number))
    return Finding(
        code=code,
        name=f"name-of-{code.lower()}",
        severity=severity,
        grade=grade,
        repair=Repair.MAKE,
        store="qdrant:memories",
        key=f"{number:06}",
        persona_id=persona,
        evidence={"number": number},
        next_command=f"memsync rules {code}",
        witness=Witness(UUID(int=number), f"{number:064x}", target=target),
    )


def many() -> Iterator[Finding]:
    """Many findings, one at a time."""
    return (finding(number) for number in range(MANY))


def test_findings_come_in_order_again_and_again() -> None:
    """The order is that of code, store and key, whatever the order in which they came."""
    some = [finding(n, code) for n in (30, 4, 5) for code in ("MSI001", "MSC001", "MSC0010")]
    found = Findings(some)
    in_order = sorted(some, key=lambda each: (each.code, each.store, each.key))
    assert in_order == list(found) == list(found) == list(found.chosen())
    assert 9 == len(found) == len(found.chosen())
    assert [each for each in in_order if each.code == "MSC001"] == list(found.of("MSC001"))


def test_numbers_are_those_of_the_findings() -> None:
    """Kinds, personas and counts, of all and of one persona, and with some left out."""
    some = [
        finding(1),
        finding(2, persona=B),
        finding(3, persona=B, grade=Grade.UNSAFE),
        finding(4, "MSC002", persona=None),
        finding(5, "MSD006", severity=Severity.INFO),
    ]
    found = Findings(some)
    chosen = found.chosen()
    assert {"name-of-msc001": 3, "name-of-msc002": 1, "name-of-msd006": 1} == chosen.counts
    assert [2, 0, 1] == [chosen.people(code) for code in ("MSC001", "MSC002", "MSD006")]

    of_b = found.chosen(persona=B)
    assert (2, some[1:3], 1) == (len(of_b), list(of_b), of_b.people("MSC001"))
    safe = found.chosen(lambda kind: kind.grade is Grade.SAFE, B)
    assert [some[1]] == list(safe)
    assert not found.chosen(persona=uuid4())

    audit = Audit(found, 0, 0, 0, ())
    assert some[:4] == list(audit.faults)
    assert ({"name-of-msd006": 5}, False) == (audit.facts, audit.ok)

    assert 3 == found.drop("MSC001")
    assert some[3:] == list(found)
    assert 2 == len(found) == sum(Counter(each.code for each in found).values())


def test_what_may_be_the_cause_of_all_is_of_every_persona() -> None:
    """Whoever looks at one persona alone sees it, but it is about nobody."""
    cause = replace(finding(2, "MSS015", persona=None), is_cause=True)
    of_b = Findings([finding(1), cause]).chosen(persona=B)
    assert (1, [cause], 0) == (len(of_b), list(of_b), of_b.people("MSS015"))


def test_findings_may_be_read_in_another_thread() -> None:
    """An app asks for an audit in one thread, and shows it in another."""
    with ThreadPoolExecutor(1) as other:
        found = other.submit(lambda: Findings([finding(1)])).result()
        assert [finding(1)] == list(found)
        other.submit(found.close).result()


def test_closed_findings_are_gone() -> None:
    """Closing frees them, twice too; so does the end of their use."""
    with Audit(Findings([finding(1)]), 0, 0, 0, ()) as audit:
        assert [finding(1)] == list(audit.findings)
    audit.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        list(audit.findings)


def _files(made: type[Findings] | type[Spool[int]] | type[Shelf[int]]) -> bool:
    """Whether the file of one that nothing uses any more is still open."""
    one = made()
    file = one._spool._file if isinstance(one, Findings) else one._file
    del one
    gc.collect()
    try:
        file.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


@pytest.mark.parametrize("made", [Findings, Spool, Shelf])
def test_what_nothing_uses_is_closed(
    made: type[Findings] | type[Spool[int]] | type[Shelf[int]],
) -> None:
    """Also where nobody closed it."""
    assert not _files(made)


def test_an_audit_that_ends_in_an_error_leaves_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its findings so far are closed, before the error is told."""
    made: list[Findings] = []

    class Watched(Findings):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def add(self, finding: Finding) -> None:
            super().add(finding)
            raise Crash

    lab.vectors.create(lab.home, DIMS, {})
    lab.say(2)
    lab.sql("DELETE FROM memsync.outbox")
    monkeypatch.setattr(sys.modules["memsync.reconcile.audit"], "Findings", Watched)
    with pytest.raises(Crash):
        lab.audit()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        list(made[0])


def peak_of(work: Callable[[], object]) -> int:
    """The most bytes that Python held for this work. SQLite's own memory is bounded by itself."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_findings(lab: Lab) -> None:
    """Neither that of an audit, nor that of a plan and its file."""
    assert peak_of(lambda: list(many())) > MANY * A_FINDING_BYTES
    found = Findings()
    assert peak_of(lambda: found.add_all(many())) < MANY * A_FINDING_BYTES / 5

    def plan() -> None:
        with Audit(found, 0, 0, 0, ()) as audit:
            made = make_plan(audit, instance_id=uuid4(), ltm=lab.ltm)
            assert MANY == len(made.actions)
            for _ in made.pieces():
                pass

    assert peak_of(plan) < MANY * A_FINDING_BYTES / 5


def test_a_shelf_may_be_changed_while_one_goes_through_it() -> None:
    """Each key comes once, those that are put behind included, and those that are gone are not."""
    shelf: Shelf[int] = Shelf()
    for number in range(1200):
        shelf[number.to_bytes(2, "big")] = number
    seen = []
    for key, number in shelf.items():
        seen.append(number)
        shelf[key] = -number
        shelf.pop((number + 600).to_bytes(2, "big"), None)
    assert list(range(600)) == seen
    assert [-each for each in range(600)] == list(shelf.values())
    with pytest.raises(KeyError):
        del shelf[b"?"]


def test_a_full_disk_is_told() -> None:
    """The error says what is full, and what to do."""
    spool: Spool[bytes] = Spool()
    spool._file.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StoreUnreachable, match=r"full.*TMPDIR"):
        spool.add(b"x", bytes(100_000))
