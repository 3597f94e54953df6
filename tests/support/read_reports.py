"""Reads the facts of a report back from each format, so that tests can compare them."""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser

_VOID = frozenset(("br", "meta"))
_SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\} ([0-9.e+-]+)')
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report says: faults by code, whether clean, whether complete, the verdict's words.

    `verdict` is None where the format has none.
    """

    counts: Mapping[str, int]
    ok: bool
    complete: bool
    verdict: str | None


def of_text(text: str) -> Facts:
    """From the table by code and the verdict."""
    rows = re.findall(r"^  (?:error|warning) +(MS\w\d+) +\S+ +([\d,]+) ", text, re.MULTILINE)
    (verdict,) = re.findall(r"^(?:\d[\d,]* findings?: |clean|INCOMPLETE).*$", text, re.MULTILINE)
    counts = {code: int(number.replace(",", "")) for code, number in rows}
    is_complete = not verdict.startswith("INCOMPLETE")
    is_unasked = "nothing that you asked for" in verdict
    assert is_complete is not ("not checked: " in text or is_unasked)
    return Facts(counts, verdict.startswith("clean"), is_complete, verdict)


def of_json(text: str) -> Facts:
    """From the findings, whose numbers must be those of the summary."""
    found = json.loads(text)
    return _of_findings(found["findings"], found, found["verdict"])


def of_lines(text: str) -> Facts:
    """The same, line by line."""
    first, *findings, summary = map(json.loads, text.splitlines())
    types = [each["type"] for each in (first, *findings, summary)]
    assert ["report", *["finding"] * len(findings), "summary"] == types
    return _of_findings(findings, summary, first["verdict"])


def _of_findings(findings: list[dict[str, object]], summary: object, verdict: str) -> Facts:
    assert isinstance(summary, dict)
    new = [each for each in findings if each["acknowledged"] is None]
    assert summary["counts"] == Counter(str(each["name"]) for each in new)
    counts = Counter(str(each["code"]) for each in new)
    return Facts(counts, summary["ok"], summary["complete"], verdict)


def of_junit(text: str) -> Facts:
    """From failures, errors and their attributes, which must agree with the cases."""
    root = ET.fromstring(text)  # noqa: S314  the report is ours
    (suite,) = root
    cases = suite.findall("testcase")
    assert len({case.get("name") for case in cases}) == len(cases)
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        number = str(sum(case.find(kind) is not None for case in cases))
        assert number == suite.get(name) == root.get(name)
    assert str(len(cases)) == suite.get("tests") == root.get("tests")
    counts = {}
    for case in cases:
        if (failure := case.find("failure")) is not None:
            number, _ = (failure.get("message") or "").split(" ", 1)
            counts[(case.get("name") or "").split()[0]] = int(number.replace(",", ""))
    is_complete = suite.get("errors") == "0"
    verdict = (suite.findtext("system-out") or "").splitlines()[0]
    return Facts(counts, is_complete and not counts, is_complete, verdict)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the metrics; each name must have help and type, and stand in one place."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    described: list[str] = []
    assert text.endswith("\n")
    lines = text.splitlines()
    assert "# memsync report: prometheus" == lines[0]
    for line in lines[1:]:
        if line.startswith("# HELP "):
            described.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {described[-1]} gauge"
        else:
            whole = _SAMPLE.fullmatch(line)
            assert whole, line
            name, labels, value = whole.groups()
            key = (name, frozenset(_LABEL.findall(labels)))
            assert name == described[-1]
            assert key not in found
            found[key] = float(value)
    assert len(set(described)) == len(described)
    return found


def of_prometheus(text: str) -> Facts:
    """From the samples."""
    every = samples(text)
    counts: dict[str, int] = {}
    single = {name: value for (name, _), value in every.items() if name.startswith("memsync_check")}
    for (name, labels), value in every.items():
        if name == "memsync_findings" and value:
            counts[dict(labels)["code"]] = int(value)
    complete = single["memsync_check_complete"]
    # Of a part of the findings it is not said.
    ok = single.get("memsync_check_ok", complete and not counts)
    return Facts(counts, bool(ok), bool(complete), None)


class Page(HTMLParser):
    """A page as a browser takes it apart: elements that are closed in order, texts, tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.listed = 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element."""
        self.tags[tag] += 1
        self.attributes += attrs
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Every element ends where it must."""
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.texts.append((self.open[-1] if self.open else "", data))
        if not {"th", "td"}.isdisjoint(self.open):
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[str]:
        """The texts of these elements."""
        return [text for within, text in self.texts if within == tag]


def of_html(text: str) -> Facts:
    """From the heading and the table by code."""
    page = Page(text)
    counts = {
        row[0].split()[0]: int(row[2].replace(",", ""))
        for row in page.rows
        if len(row) == 5 and row[0].startswith("MS")
    }
    (verdict,) = page.of("h1")
    (status,) = re.findall(r"exit status (\d+)", text)
    return Facts(counts, status == "0", status != "15", verdict)


READ: Mapping[str, Callable[[str], Facts]] = {
    "text": of_text,
    "json": of_json,
    "json-lines": of_lines,
    "junit": of_junit,
    "prometheus": of_prometheus,
    "html": of_html,
}
