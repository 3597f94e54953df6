"""The report as one page of HTML that needs no network and no script: the verdict comes first.

It lists the first findings of each code, and says how many more there are. The page's policy allows
its own style and nothing else, so a name from a store can neither run nor load anything.
"""

import base64
import hashlib
import inspect
from collections.abc import Iterator
from importlib.resources import files
from itertools import islice

from memsync.cli.formats.as_text import said_of
from memsync.cli.formats.drift import past
from memsync.cli.formats.evidence import evidence
from memsync.cli.formats.markup import Markup, begin, end, join, table, tag
from memsync.cli.formats.order import codes_of
from memsync.cli.formats.report import Report, numbered, whose
from memsync.model.wording import count
from memsync.reconcile.findings import Chosen, Finding, Kind, Severity
from memsync.reconcile.rules import RULES

MARK = "<!doctype html>\n<!-- memsync report: html -->\n"
LISTED_MAX = 2000
"""About so many findings are listed, the same share of each code."""
_LEAST = 40
"""So many of each code are listed in any case."""
_OPEN_MAX = 20
"""A list that is longer is closed at first."""
_ABOUT = {rule.code: inspect.getdoc(rule) or "" for rule in RULES}


def pieces(report: Report) -> Iterator[str]:
    """The page, piece by piece."""
    yield MARK
    yield begin("html", lang="en")
    yield _head(report)
    yield begin("body")
    yield tag("a", "Skip to the findings", class_="skip", href="#findings") + "\n"
    yield _verdict(report)
    yield begin("main")
    yield _scope(report)
    yield _codes(report)
    yield from _findings(report)
    yield past(report.past)
    yield end("main")
    yield _how(report)
    yield "</body>\n</html>\n"


def _head(report: Report) -> Markup:
    style = files("memsync.cli.formats").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{report.made.command}: {report.verdict}"),
        Markup(f"<style>{style}</style>"),
    )


def _verdict(report: Report) -> Markup:
    stands = "clean" if report.ok else "unknown" if not report.complete else "faulty"
    made = report.made
    when = f"{made.begun_at:%Y-%m-%d %H:%M:%S %Z}"
    commands = report.commands()
    todo = [tag("p", f"first: {report.first}")] if report.first else []
    for command, codes in commands.items():
        whose = f" for {', '.join(codes)}" if len(commands) > 1 else ""
        todo += (tag("p", f"next{whose}:"), tag("pre", tag("code", report.command(command))))
    return tag(
        "header",
        tag("p", f"{made.command} of {made.postgres} and {made.vectors}", class_="of"),
        tag("h1", report.verdict),
        tag("p", f"begun {when}, {made.seconds:,.1f}\u00a0s; exit status {report.status}"),
        *todo,
        class_=stands,
    )


def _scope(report: Report) -> Markup:
    """What was looked at, and what was not."""
    audit, not_looked = report.audit, list[object]()
    not_looked += (join(tag("strong", "not read: "), line) for line in audit.not_checked)
    not_looked += audit.left_out
    if audit.vectors is None:
        not_looked.append("vectors: --verify-vectors all looks at them")
    not_looked += report.unseen_lines()
    if unseen := report.known_unseen:
        not_looked.append(f"acknowledged findings: {numbered(unseen)}")
    if report.not_looked_at:
        left = count(report.not_looked_at, "other finding")
        not_looked.append(f"{left}, which --select or --persona leaves out")
    judged = Markup("")
    if why := [each for each in report.looked() if each.why_not]:
        rows = [(f"{each.rule.code} {each.rule.name}", each.why_not) for each in why]
        said = "Codes that were not fully checked: no finding here proves nothing"
        inside = (tag("summary", f"{count(len(why), 'code')} not judged"),)
        names = table(said, ("code", "why"), rows, ())
        judged = tag("details", *inside, names)
    return tag(
        "section",
        tag("h2", "What was looked at", id="scope"),
        tag("ul", *(tag("li", line) for line in report.scope_lines(seen_only=True))),
        tag("h3", "What was not"),
        tag("ul", *(tag("li", line) for line in not_looked or ["nothing was left out"])),
        judged,
        aria_labelledby="scope",
    )


def _codes(report: Report) -> Markup:
    """The table of counts by code."""
    rows: list[tuple[object, ...]] = []
    for code, kinds in codes_of(report.found).items():
        most, people = kinds[0], report.found.people(code)
        name = join(tag("a", code, href=f"#{code}"), f" {most.name}")
        number = sum(report.found.kinds[kind] for kind in kinds)
        of_personas = f"{people:,}" if people else ""
        rows.append((name, _severity(most.severity), f"{number:,}", of_personas, most.grade))
    head = ("finding", "severity", "count", "personas", "repair")
    clean = sum(each.is_clean for each in report.looked())
    return tag(
        "section",
        tag("h2", "Counts", id="counts"),
        table("Findings by code", head, rows, (2, 3)) if rows else "",
        tag("p", f"looked for and not found: {count(clean, 'code')}"),
        aria_labelledby="counts",
    )


def _severity(severity: Severity) -> Markup:
    return tag("span", severity, class_=f"severity {severity}")


def _findings(report: Report) -> Iterator[str]:
    yield begin("section", aria_labelledby="findings")
    yield tag("h2", "Findings", id="findings", tabindex="-1")
    if not report.found:
        yield tag("p", "No finding.")
    elif len(report.found) > _OPEN_MAX:
        closed = f"A list of more than {_OPEN_MAX} findings is closed at first. "
        yield tag("p", closed, "This command prints every finding, for programs:")
        yield tag("pre", tag("code", report.again("--json-lines")))
    yield from _lists(report, report.found)
    yield end("section")
    if report.view.acknowledged and report.known:
        yield begin("section", aria_labelledby="acknowledged")
        yield tag("h2", "Acknowledged, and let be", id="acknowledged")
        yield from _lists(report, report.known, "acknowledged-")
        yield end("section")


def _lists(report: Report, found: Chosen, prefix: str = "") -> Iterator[str]:
    codes = codes_of(found)
    share = max(LISTED_MAX // max(len(codes), 1), _LEAST)
    for code, kinds in codes.items():
        number = sum(found.kinds[kind] for kind in kinds)
        shown = min(share, number)
        yield begin("details", id=prefix + code, open=number <= _OPEN_MAX)
        severity = kinds[0].severity
        much = tag("span", count(number, severity), class_=f"severity {severity}")
        title = tag("h3", f"{code} {kinds[0].name}: ", much)
        yield tag("summary", title)
        yield _about(kinds, report)
        if shown < number:
            yield tag("p", f"The first {shown:,} are listed here, and {number - shown:,} are not.")
        yield begin("ol", class_="findings")
        for finding in islice(found.of(code), shown):
            yield _finding(finding, report)
        yield end("ol")
        yield end("details")


def _about(kinds: list[Kind], report: Report) -> Markup:
    about = _ABOUT.get(kinds[0].code, "").replace("Why it matters:", "\n\nWhy it matters:")
    paragraphs = about.replace("Repair:", "\n\nRepair:").split("\n\n")
    said = (tag("p", *_with_code(" ".join(each.split()))) for each in paragraphs if each.strip())
    commands = dict.fromkeys(report.command(kind.next_command) for kind in kinds)
    todo = (tag("pre", tag("code", each)) for each in commands)
    return join(*said, tag("p", "next:"), *todo)


def _with_code(said: str) -> Iterator[object]:
    """The text, with what stands in backticks as code."""
    for number, part in enumerate(said.split("`")):
        yield tag("code", part) if number % 2 else part


def _finding(finding: Finding, report: Report) -> Markup:
    persona, said, accept = whose(finding), finding.acknowledged, finding.accept_command
    return join(
        tag(
            "li",
            tag("p", tag("bdi", finding.store), " ", tag("bdi", finding.key), class_="subject"),
            tag("p", persona, class_="persona") if persona else "",
            evidence(finding, show_text=report.view.show_text),
            tag("p", said_of(said)) if said else "",
            tag("p", "next: ", tag("code", report.command(finding.next_command)), class_="next"),
            tag("p", "where it was meant: ", tag("code", report.command(accept))) if accept else "",
        ),
        Markup("\n"),
    )


def _how(report: Report) -> Markup:
    made = report.made
    return tag(
        "footer",
        tag("p", f"memsync {made.memsync_version}. To look again:"),
        tag("pre", tag("code", report.again())),
    )
