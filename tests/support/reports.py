"""Reports of made-up audits: few and many findings, hostile texts, recorded audits."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from memsync.cli.formats import FORMATS, Made, Report
from memsync.cli.views import EVERYTHING, View
from memsync.reconcile.findings import Acknowledgement, Audit, Finding, Findings, Words
from memsync.reconcile.recorded import Recorded
from memsync.reconcile.rules import RULES
from memsync.stores.ltm.layouts import Layout

WORDS = "Meet me at the old mill, Aurelia said"
OTHER_WORDS = "Meet me at the new mill, Aurelia said"
BEGUN_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MADE = Made("memsync check", "postgresql://db/app", "http://qdrant:6333", BEGUN_AT, 12.5, "1.2.3")
CODES = ("MSC001", "MSD001", "MSC004", "MSI001")
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=http://127.0.0.1:9/x onerror=alert(1)>",
    "\u202egnp.exe\u2066 isolate \u200f\u200e\u061c marks \ufeff\u2060 unseen",
    "nul\0bell\x07escape\x1b[2J",
    "half \ud800 a pair",
    "]]> &amp; --> {{ 7 * 7 }} %(x)s",
    "\ufffe\uffff\x85\u2028",
    "back\\slash\nnew line\r\ttab",
    "x" * 100_000,
    "",
)


def finding(number: int, code: str, **changes: object) -> Finding:
    """One of many findings, with words of people in its evidence."""
    rule = next(each for each in RULES if each.code == code)
    memory = None if code == "MSC001" else Words.of(OTHER_WORDS)
    evidence: dict[str, object] = {"row": Words.of(WORDS), "point": memory}
    if memory:
        evidence["differs_at"] = 15
    made = Finding(
        code=rule.code,
        name=rule.name,
        severity=rule.severity,
        grade=rule.grade,
        repair=rule.repair,
        store="qdrant:memories",
        key=str(UUID(int=number)),
        persona_id=UUID(int=number % 700 + 1),
        evidence=evidence,
        next_command=rule.command(rule.grade),
        is_cause=rule.is_cause,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def audit(number: int, *more: Finding, known: int = 0, **changes: object) -> Audit:
    """The result of an audit with so many findings, of four kinds, and `known` acknowledged."""
    found = (finding(n, CODES[n % len(CODES)]) for n in range(number))
    said = Acknowledgement("deleted user, ticket 7", "ops", BEGUN_AT)
    made = Audit(
        Findings((*found, *more)),
        rows_checked=51_234,
        points_checked=51_230,
        settling=1,
        not_checked=(),
        layout=Layout.SHARED,
        why_layout="it is recorded",
        archived=1_204,
        acknowledged=Findings(finding(n, "MSC011", acknowledged=said) for n in range(known)),
        looked_for=frozenset(rule.code for rule in RULES),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def hostile() -> Iterator[Finding]:
    """Findings whose store, key and evidence are as bad as a store can make them."""
    for number, text in enumerate(HOSTILE):
        evidence = {"row": Words.of(text), "point": text, text[:50]: text}
        yield finding(number, "MSD001", store=f"qdrant:{text}", key=text, evidence=evidence)


def past(number: int = 30) -> list[Recorded]:
    """So many recorded audits, the newest first."""
    return [
        Recorded(
            BEGUN_AT - timedelta(hours=n),
            10.0 + n,
            "shared",
            n != 4,
            {"MSC001": n * 7 % 23, "MSI001": n % 3, "MSS005": 0},
            2,
            0,
            "1.2.3",
        )
        for n in range(number)
    ]


def report(of: Audit, view: View = EVERYTHING, *, runs: int = 0) -> Report:
    """The report of this audit."""
    return Report.of(of, view, MADE, past(runs))


def written(made: Report, name: str) -> str:
    """The report in one format, as its file has it."""
    pieces: list[str] = []
    FORMATS[name].write(made, pieces.append)
    return "".join(pieces).encode("utf-8", "backslashreplace").decode()
