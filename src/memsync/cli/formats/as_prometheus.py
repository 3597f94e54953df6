"""The report as metrics in Prometheus' text format, for the textfile collector of node_exporter.

A number that is not known has no sample: a code that was not looked for is not 0. Each sample names
the database, so that a host can have a file for each of several.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta

from memsync.cli.formats.pieces import safe
from memsync.cli.formats.report import Report
from memsync.reconcile.findings import Kind, Severity

MARK = "# memsync report: prometheus\n"

Sample = tuple[dict[str, object], float]
"""Labels, and the value."""


def pieces(report: Report) -> Iterator[str]:
    """The file, metric by metric."""
    yield MARK
    database = safe(report.made.postgres)
    for name, about, samples in _metrics(report):
        every = list(samples)
        if every:
            yield f"# HELP {name} {about}\n# TYPE {name} gauge\n"
        for labels, value in every:
            yield f"{name}{_labels(database=database, **labels)} {value:.15g}\n"


def _metrics(report: Report) -> Iterator[tuple[str, str, Iterable[Sample]]]:
    audit, made = report.audit, report.made
    info: dict[str, object] = {
        "command": made.command,
        "layout": audit.layout.value,
        "vector_store": made.vectors,
        "version": made.memsync_version,
    }
    ended = made.begun_at + timedelta(seconds=made.seconds)
    yield "memsync_check_info", "The audit that this file is of; always 1.", [(info, 1)]
    if not report.ok or not (report.view.is_narrow or audit.took_over):
        # Of a part nobody can say that all is well, but that it is not.
        about = "Whether everything was read and nothing was found."
        yield "memsync_check_ok", about, [({}, report.ok)]
    for name, about, value in (
        ("complete", "Whether everything was read.", report.complete),
        ("timestamp_seconds", "When the audit ended, in Unix time.", ended.timestamp()),
        ("duration_seconds", "How long the audit took.", made.seconds),
        ("rows", "Exchanges that were compared.", audit.rows_checked),
        ("points", "Memories that were compared.", audit.points_checked),
        ("vectors", "Memories whose vectors were looked at.", _vectors(report)),
        ("settling", "Differences that are no findings yet.", audit.settling),
        ("unread_parts", "Parts that could not be read.", len(audit.not_checked)),
    ):
        yield f"memsync_check_{name}", about, [({}, value)]
    about = "Faults that nobody has acknowledged; none for a code that was not looked for."
    yield "memsync_findings", about, _findings(report)
    known = _by_kind(report.known.kinds.items())
    yield "memsync_findings_acknowledged", "Faults that an operator has acknowledged.", known
    facts = audit.findings.chosen(lambda kind: kind.severity is Severity.INFO)
    codes = {kind.name: kind.code for kind in facts.kinds}
    yield (
        "memsync_facts",
        "Points or collections that a fact is about, which is no fault.",
        [({"code": codes[name], "name": name}, number) for name, number in audit.facts.items()],
    )


def _vectors(report: Report) -> int:
    return report.audit.vectors.looked_at if report.audit.vectors else 0


def _findings(report: Report) -> Iterator[Sample]:
    yield from _by_kind(report.found.kinds.items())
    for each in report.looked():
        if each.is_clean:
            rule = each.rule
            yield {"code": rule.code, "name": rule.name, "severity": each.severity.value}, 0


def _by_kind(kinds: Iterable[tuple[Kind, int]]) -> list[Sample]:
    numbers: dict[tuple[str, str, str], int] = {}
    for kind, number in kinds:
        of = (kind.code, kind.name, kind.severity.value)
        numbers[of] = numbers.get(of, 0) + number
    names = ("code", "name", "severity")
    return [(dict(zip(names, of, strict=True)), n) for of, n in sorted(numbers.items())]


def _labels(**labels: object) -> str:
    said = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(said)}}}"


def _escaped(value: object) -> str:
    return safe(value).replace("\\", r"\\").replace('"', r"\"")
