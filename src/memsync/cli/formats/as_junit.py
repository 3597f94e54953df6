"""The report as JUnit XML, as GitLab and Jenkins read it: a test case for each code.

A code that was looked for and not found is a test that passed. One that was not looked for, or not
everywhere, is skipped, so it is never green; where something could not be read, the first test case
is an error.
"""

from collections.abc import Iterator
from itertools import islice
from xml.sax.saxutils import escape, quoteattr

from memsync.cli.formats.pieces import safe, values
from memsync.cli.formats.report import Looked, Report, whose
from memsync.model.wording import count
from memsync.reconcile.findings import Finding

MARK = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- memsync report: junit -->\n'
SHOWN_MAX = 10
"""So many findings of each code are quoted."""


def pieces(report: Report) -> Iterator[str]:
    """The file, piece by piece."""
    made = report.made
    cases = list(report.looked())
    numbers = _attributes(
        tests=len(cases) + 1,
        failures=sum(bool(each.found) for each in cases),
        errors=int(not report.complete),
        skipped=sum(bool(each.why_not) for each in cases),
        time=f"{made.seconds:.3f}",
    )
    yield f"{MARK}<testsuites{_attributes(name='memsync')}{numbers}>\n"
    name = f"{made.command}: {made.postgres}"
    at = f"{made.begun_at:%Y-%m-%dT%H:%M:%S}"
    yield f"<testsuite{_attributes(name=name)}{numbers}{_attributes(timestamp=at)}>\n"
    yield from _properties(report)
    yield from _completeness(report)
    for each in cases:
        yield from _case(report, each)
    said = (report.verdict, *report.scope_lines())
    yield _element("system-out", "\n".join(map(safe, said)))
    yield "</testsuite>\n</testsuites>\n"


def _properties(report: Report) -> Iterator[str]:
    made = report.made
    facts = {
        "memsync_version": made.memsync_version,
        "postgres": made.postgres,
        "qdrant": made.vectors,
        "layout": report.audit.layout.value,
        "exit_status": report.status,
    }
    yield "<properties>\n"
    for name, value in facts.items():
        yield f"<property{_attributes(name=name, value=value)}/>\n"
    yield "</properties>\n"


def _completeness(report: Report) -> Iterator[str]:
    yield f"<testcase{_attributes(classname='memsync', name='everything was read', time=0)}>\n"
    if not report.complete:
        lines = [f"not checked: {each}" for each in report.audit.not_checked]
        lines += (f"not looked for: {each}" for each in report.unseen_lines())
        why = "\n".join(map(safe, lines))
        yield _element("error", why, message=report.verdict, type="incomplete")
    yield "</testcase>\n"


def _case(report: Report, looked: Looked) -> Iterator[str]:
    rule = looked.rule
    name = f"{rule.code} {rule.name}"
    yield f"<testcase{_attributes(classname='memsync', name=name, time=0)}>\n"
    if looked.found:
        message = f"{count(looked.found, 'finding')} ({looked.severity})"
        yield f"<failure{_attributes(message=message, type=rule.name)}>"
        for finding in islice(report.found.of(rule.code), SHOWN_MAX):
            yield escape(_said(finding, report))
        if (more := looked.found - SHOWN_MAX) > 0:
            yield f"… {count(more, 'more finding')}\n"
        yield "</failure>\n"
    elif looked.why_not:
        yield f"<skipped{_attributes(message=looked.why_not)}/>\n"
    if looked.known:
        yield _element("system-out", f"{looked.known:,} acknowledged")
    yield "</testcase>\n"


def _said(finding: Finding, report: Report) -> str:
    persona = f"{whose(finding)}; " if finding.persona_id else ""
    accept = finding.accept_command
    meant = f"    where it was meant: {safe(report.command(accept))}\n" if accept else ""
    evidence = values(finding.evidence, show_text=report.view.show_text)
    return (
        f"{safe(finding.store)} {safe(finding.key)}\n"
        f"    {persona}{'; '.join(f'{name}: {value}' for name, value in evidence)}\n"
        f"    next: {safe(report.command(finding.next_command))}\n{meant}"
    )


def _element(name: str, text: str, **attributes: object) -> str:
    return f"<{name}{_attributes(**attributes)}>{escape(text)}</{name}>\n"


def _attributes(**attributes: object) -> str:
    return "".join(f" {name}={quoteattr(safe(value))}" for name, value in attributes.items())
