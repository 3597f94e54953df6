"""The report for programs: one JSON object, or one a line. docs/json.md lists the fields.

What is printed on stdout has the result. A file also says how it was made, because it is read later
and elsewhere. Both are written in pieces, a finding at a time.
"""

from collections.abc import Iterator

from memsync.cli.formats.report import Report
from memsync.cli.output import json_line, json_pieces

MARK = '{"memsync_report": "json", '
LINES_MARK = '{"memsync_report": "json-lines", '


def summary(report: Report) -> dict[str, object]:
    """Everything but the findings."""
    audit = report.audit
    return {
        "ok": report.ok,
        "complete": report.complete,
        "counts": report.found.counts,
        "facts": audit.facts,
        "acknowledged": report.known.counts,
        "layout": audit.layout,
        "why_layout": audit.why_layout,
        "not_looked_at": report.not_looked_at,
        "not_looked_for": report.not_looked_for,
        "acknowledged_not_looked_for": report.known_unseen,
        "checked": report.scope,
        "left_out": list(audit.left_out),
        "settling": audit.settling,
        "not_checked": list(audit.not_checked),
    }


def made(report: Report) -> dict[str, object]:
    """How the report was made."""
    of = report.made
    return {
        "command": of.command,
        "stores": {"postgres": of.postgres, "qdrant": of.vectors},
        "begun_at": of.begun_at.isoformat(),
        "seconds": round(of.seconds, 3),
        "memsync_version": of.memsync_version,
        "exit_status": report.status,
        "verdict": report.verdict,
    }


def whole(report: Report) -> Iterator[str]:
    """What `--json` prints."""
    findings = map(report.fields_of, report.listed())
    return json_pieces("findings", findings, **summary(report))


def lines(report: Report) -> Iterator[str]:
    """What `--json-lines` prints: each finding, then the summary."""
    for each in report.listed():
        yield json_line(type="finding", **report.fields_of(each)) + "\n"
    yield json_line(type="summary", **summary(report)) + "\n"


def file(report: Report) -> Iterator[str]:
    """The file of the format json."""
    findings = map(report.fields_of, report.listed())
    pieces = json_pieces("findings", findings, **made(report), **summary(report))
    yield MARK + next(pieces).removeprefix("{")
    yield from pieces


def lines_file(report: Report) -> Iterator[str]:
    """The file of the format json-lines: how it was made, each finding, the summary."""
    yield LINES_MARK + json_line(type="report", **made(report)).removeprefix("{") + "\n"
    yield from lines(report)
