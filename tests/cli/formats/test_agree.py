"""All formats of a report say the same of one audit, whatever was asked for."""

import re
import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from memsync.cli.formats import FORMATS
from memsync.cli.formats.as_html import LISTED_MAX
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.targets import FORMAT_NAMES
from memsync.cli.views import EVERYTHING, View
from memsync.reconcile.findings import Audit, Severity
from memsync.reconcile.rules import RULES
from memsync.reconcile.seen_vectors import Verified
from memsync.stores.ltm.layouts import Layout
from support.read_reports import READ, Page, of_html, of_junit, of_prometheus, samples
from support.reports import OTHER_WORDS, WORDS, audit, finding, report, written

PERSONA = UUID(int=4)
CAUSES = {rule.code for rule in RULES if rule.is_cause}
UNREAD = ("collection memories: it does not answer", "whether recall can search: no")
AUDITS = {
    "none": lambda: audit(0),
    "four": lambda: audit(4),
    "many": lambda: audit(400),
    "acknowledged": lambda: audit(0, known=3),
    "both": lambda: audit(7, known=3),
    "incomplete": lambda: audit(4, not_checked=UNREAD),
    "incomplete and nothing found": lambda: audit(0, not_checked=UNREAD),
    "a fact": lambda: audit(
        0, finding(1, "MSC009", severity=Severity.INFO, evidence={"points": 7})
    ),
}
VIEWS = {
    "everything": EVERYTHING,
    "select": View.of(["MSC", "stale-content"]),
    "persona": View.of(None, str(PERSONA)),
    "limit": View.of(limit=2),
    "no limit": View.of(limit=0),
    "summary": View.of(summary=True),
    "acknowledged": View.of(acknowledged=True),
    "show text": View.of(show_text=True),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("name", AUDITS)
def test_all_formats_agree(name: str, view: View) -> None:
    """Counts, verdict, completeness and exit status are the same in every format."""
    with AUDITS[name]() as found:
        require_agreement(found, view)


def test_of_a_part_no_metric_says_that_all_is_well() -> None:
    """Whoever alerts on it would be told so, whatever else is wrong. But a part can be wrong."""
    narrow = (View.of(["MSS", "MSC"]), View.of(None, str(UUID(int=1))))
    with audit(0) as found:
        assert _ok(found, EVERYTHING) == [1]
        assert [[], []] == [_ok(found, view) for view in narrow]
    with audit(4) as found:
        assert [[0], [0], [0]] == [_ok(found, view) for view in (EVERYTHING, *narrow)]
    with audit(0, took_over=True) as found:
        assert _ok(found, EVERYTHING) == []
    with audit(4, took_over=True) as found:
        assert _ok(found, EVERYTHING) == [0]


def _ok(found: Audit, view: View) -> list[float]:
    every = samples(written(report(found, view), "prometheus"))
    return [value for (name, _), value in every.items() if name == "memsync_check_ok"]


@pytest.mark.parametrize(
    ("select", "changes", "complete"),
    [
        (["MSD010"], {}, False),
        (["vector-drift"], {"vectors": Verified(9, 9, 0)}, False),
        (["MSD010"], {"vectors": Verified(9, 2, 0, 7)}, True),
        (["MSC002"], {"unjudged": 1, "looked_for": frozenset({"MSC001"})}, True),
        (["MSD"], {}, True),
        (["MSS016"], {"looked_for": frozenset({"MSS001"})}, False),
        ([], {"looked_for": frozenset()}, False),
    ],
)
def test_what_nobody_looked_for_is_not_clean(
    select: list[str], changes: dict[str, Any], complete: bool
) -> None:
    """Where that is all that was asked for, the audit is incomplete in every format."""
    with audit(0, **changes) as found:
        view = View.of(select)
        require_agreement(found, view)
        made = report(found, view)
        assert (complete, 0 if complete else INCOMPLETE) == (made.ok, made.status)
        assert {} == made.commands()


def test_ten_thousand_findings() -> None:
    """They agree as well where there are too many for a screen or a page."""
    with audit(10_000) as found:
        require_agreement(found, EVERYTHING)


def require_agreement(found: Audit, view: View) -> None:
    """Require that what each format says of the audit is what the audit has."""
    made = report(found, view)
    expected = {
        code: sum(1 for _ in made.found.of(code))
        for code in sorted({kind.code for kind in made.found.kinds})
    }
    for each in FORMATS:
        facts = READ[each](written(made, each))

        assert expected == dict(sorted(facts.counts.items())), each
        assert (made.ok, made.complete) == (facts.ok, facts.complete), each
        assert facts.verdict in {None, made.verdict}, each
    assert not (found.not_checked and made.complete)
    status = INCOMPLETE if not made.complete else FINDINGS if expected else 0
    assert status == made.status


def test_the_names_of_formats_are_said_once() -> None:
    """The option names the formats that there are, and the tests read each."""
    assert list(FORMAT_NAMES) == list(FORMATS) == list(READ)


def test_a_command_of_each_finding_is_the_one_of_its_persona() -> None:
    """Text, JUnit and HTML name the plan for the persona that was asked for."""
    made = report(audit(8), View.of(None, str(PERSONA)))

    for each in ("text", "junit", "html"):
        wanted = f"memsync reconcile plan --unsafe --out plan-unsafe.json --persona {PERSONA}"
        assert wanted in written(made, each), each


def test_an_incomplete_audit_is_never_green() -> None:
    """What was not read is named in each format for people, and no code passes."""
    with audit(0, not_checked=UNREAD) as found:
        made = report(found)
        for each in ("text", "json", "json-lines", "junit", "html"):
            text = written(made, each)
            assert all(line in text for line in UNREAD), each
            assert "INCOMPLETE" in text, each
        for each in ("text", "html"):
            told = re.sub("<[^>]+>", " ", written(made, each)).split()
            assert "first: mend what was not checked" in " ".join(told), each
            assert "next: memsync check" in " ".join(told), each
        junit = written(made, "junit")
        metrics = samples(written(made, "prometheus"))

    assert 1 == junit.count("<error ")
    cases = junit.count("<testcase ")
    assert cases == junit.count("<skipped ") + 1
    assert not [key for key in metrics if key[0] == "memsync_findings"]


NOT_LOOKED_AT = {
    "not asked for": ({}, EVERYTHING, {"MSD009", "MSD010", "MSD011", "MSD012"}),
    "a sample": (
        {"vectors": Verified(100, 20, 20, 7)},
        EVERYTHING,
        {"MSD009", "MSD010", "MSD011", "MSD012"},
    ),
    "nothing embedded": ({"vectors": Verified(100, 100, 0)}, EVERYTHING, {"MSD012"}),
    "all": ({"vectors": Verified(100, 100, 100)}, EVERYTHING, set()),
    "only one": ({"vectors": Verified(100, 100, 100)}, View.of(["MSI001"]), None),
    "a rule that could not look": (
        {"vectors": Verified(1, 1, 1), "looked_for": frozenset({"MSC001"})},
        EVERYTHING,
        None,
    ),
}


@pytest.mark.parametrize(("changes", "view", "unknown"), NOT_LOOKED_AT.values(), ids=NOT_LOOKED_AT)
def test_what_was_not_looked_at_is_not_clean(
    changes: dict[str, Any], view: View, unknown: set[str] | None
) -> None:
    """Such a code is skipped by JUnit, has no metric, and stands in the page with the reason."""
    with audit(0, **changes) as found:
        made = report(found, view)
        junit, metrics = written(made, "junit"), samples(written(made, "prometheus"))
        page = Page(written(made, "html"))
    faults = {r.code for r in RULES if r.severity_in(Layout.SHARED) is not Severity.INFO}
    if unknown is None:
        unknown = faults - ({"MSI001", *CAUSES} if view.select else {"MSC001"})

    skipped = re.findall(r'name="(MS\w+) [\w-]+" time="0">\n<skipped ', junit)
    zero = {dict(labels)["code"] for name, labels in metrics if name == "memsync_findings"}
    assert unknown == set(skipped)
    assert faults - unknown == zero
    assert unknown == {row[0].split()[0] for row in page.rows if len(row) == 2 and row[1] != "why"}


def test_a_persona_says_nothing_of_the_stores_as_a_whole() -> None:
    """Rules about indexes and collections are not passed by the audit of one persona."""
    made = report(audit(8), View.of(None, str(PERSONA)))
    junit = written(made, "junit")

    assert re.search(r'name="MSS006 missing-index" time="0">\n<skipped ', junit)
    assert 'name="MSC002 orphan-point" time="0">\n</testcase>' in junit


@pytest.mark.parametrize("code", ["MSS015", "MSS018", "MSS019"])
@pytest.mark.parametrize("of_persona", [False, True])
@pytest.mark.parametrize("select", [None, ["MSC001"], ["MSI"]])
def test_what_may_be_the_cause_of_all_counts_whatever_was_asked_for(
    select: list[str] | None, of_persona: bool, code: str
) -> None:
    """No part of the findings is judged without it, so no format is green or skips it."""
    view = View.of(select, str(PERSONA) if of_persona else None)
    with audit(0) as clean, audit(0, finding(1, code, persona_id=None)) as found:
        require_agreement(found, view)
        made = report(found, view)
        assert (FINDINGS, [code], 0) == (
            made.status,
            [each.code for each in made.listed()],
            made.not_looked_at,
        )
        assert f'name="{code} ' in written(made, "junit").partition("<failure")[0]
        junit = written(report(clean, view), "junit")
    assert re.search(rf'name="{code} [\w-]+" time="0">\n</testcase>', junit)


def test_nobodys_words_are_in_a_report_unless_asked_for() -> None:
    """Every format leaves words out; with --show-text those that show evidence have them."""
    with audit(4) as found:
        for each in FORMATS:
            hidden = written(report(found), each)
            shown = written(report(found, View.of(show_text=True)), each)
            assert WORDS not in hidden, each
            assert OTHER_WORDS not in hidden, each
            if each != "prometheus":
                assert WORDS in re.sub("</?mark>", "", shown), each


def test_each_code_is_seen_before_one_is_repeated() -> None:
    """Of few lines each code has its share, in the order of all; known ones follow."""
    with audit(400, finding(500, "MSD004"), known=3) as found:
        every = [each.code for each in report(found).listed()]
        for most, shares in ((3, [1, 1, 1]), (7, [2, 2, 1, 1, 1]), (10, [3, 2, 2, 2, 1])):
            codes = [each.code for each in report(found).spread(most)]
            assert codes == sorted(codes, key=every.index)
            assert shares == list(Counter(codes).values())
        view = View.of(limit=0, acknowledged=True)
        assert ["MSC011"] * 3 == [each.code for each in report(found, view).spread(404)][-3:]


def test_a_long_list_of_the_page_says_how_much_it_leaves_out() -> None:
    """A page has a share of each code, says how many more there are, and which command has all."""
    with audit(10_000, known=5_000) as found:
        text = written(report(found, View.of(["MSC001", "MSD001", "MSC011"])), "html")
    page = Page(text)

    assert LISTED_MAX == page.tags["table"] - 2
    assert 2 == text.count("The first 1,000 are listed here, and 1,500 are not.")
    command = "memsync check --select MSC001 --select MSC011 --select MSD001 --json-lines"
    assert command in page.of("code")


def test_metrics_are_those_that_the_page_of_reports_names() -> None:
    """Facts, acknowledged findings and the time at which the audit ended are metrics."""
    fact = finding(1, "MSC009", severity=Severity.INFO, evidence={"points": 7})
    with audit(4, fact, known=3) as found:
        metrics = samples(written(report(found), "prometheus"))
    by_name: dict[str, float] = {}
    for (name, _), value in metrics.items():
        by_name[name] = by_name.get(name, 0) + value

    assert 7 == by_name["memsync_facts"]
    assert 3 == by_name["memsync_findings_acknowledged"]
    assert 1772600779.5 == by_name["memsync_check_timestamp_seconds"]
    assert 12.5 == by_name["memsync_check_duration_seconds"]
    assert (51_234, 51_230) == (by_name["memsync_check_rows"], by_name["memsync_check_points"])
    assert all(dict(labels)["database"] == "postgresql://db/app" for _, labels in metrics)


def test_metrics_are_read_by_the_client_of_prometheus() -> None:
    """The parser of Prometheus' own client takes the file."""
    parser = pytest.importorskip("prometheus_client.parser")
    with audit(4, known=3) as found:
        text = written(report(found), "prometheus")

    families = {each.name: each for each in parser.text_string_to_metric_families(text)}

    assert "gauge" == families["memsync_findings"].type
    assert 4 == sum(each.value for each in families["memsync_findings"].samples)
    assert len(samples(text)) == sum(len(each.samples) for each in families.values())


def test_past_audits_are_shown() -> None:
    """Text and page show the recorded audits, and say which of them were incomplete."""
    made = report(audit(0), runs=30)
    page, text = written(made, "html"), written(made, "text")

    assert 30 == page.count("<rect ")
    assert 30 == len(re.findall(r"^  2026-03-0\d \d\d:\d\d ", text, re.MULTILINE))
    assert 1 == page.count("INCOMPLETE")
    assert 1 == len(re.findall(r"^  2026-.* incomplete ", text, re.MULTILINE))


def test_a_planted_difference_is_noticed() -> None:
    """The readers of this test tell a count that is wrong."""
    made = report(audit(4))
    html = written(made, "html").replace('<td class="number">1</td>', '<td class="number">2</td>')
    junit = written(made, "junit").replace("1 finding (", "2 findings (")
    metrics = written(made, "prometheus").replace('"error"} 1\n', '"error"} 2\n')

    assert {2} == set(of_html(html).counts.values())
    assert {2} == set(of_junit(junit).counts.values())
    assert 2 in of_prometheus(metrics).counts.values()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_findings() -> None:
    """A report is written finding by finding: ten times as many need as much memory."""
    with audit(200) as few, audit(10_000) as many:
        for name, each in FORMATS.items():
            each.write(report(few), lambda _: None)
            tracemalloc.start()
            try:
                each.write(report(many), lambda _: None)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 1_000_000, name


def test_a_layout_decides_what_is_a_fault() -> None:
    """In the per-persona layout a code that is a fact there is no test."""
    found: Audit = replace(audit(0), layout=Layout.PER_PERSONA)

    assert "MSC005" not in written(report(found), "junit")
    assert "MSC005" in written(report(audit(0)), "junit")
