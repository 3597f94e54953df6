"""Names and payloads may hold anything: no report is broken by it, runs it, or is led astray."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from memsync.cli.formats import FORMATS
from memsync.cli.views import View
from support.read_reports import READ, Page, samples
from support.reports import HOSTILE, MADE, audit, hostile, report, written

STEERING = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069]"
    r"|[\ud800-\udfff\ufeff\ufffe]"
)
NAMES = list(FORMATS)


@pytest.fixture(scope="module")
def bad() -> dict[str, str]:
    """A report of which every text that a store can name is hostile, in each format."""
    lines = tuple(f"collection {text}: no" for text in HOSTILE[:8])
    found = audit(4, *hostile(), not_checked=lines, left_out=lines, why_layout=HOSTILE[0])
    made = report(found, View.of(limit=0, show_text=True), runs=2)
    made = replace(made, made=replace(MADE, postgres=HOSTILE[1], vectors="".join(HOSTILE[:8])))
    return {name: written(made, name) for name in FORMATS}


@pytest.mark.parametrize("name", NAMES)
def test_the_report_is_whole(bad: dict[str, str], name: str) -> None:
    """It is read back, and its counts are right."""
    facts = READ[name](bad[name])

    assert {"MSC001": 1, "MSC004": 1, "MSD001": len(HOSTILE) + 1, "MSI001": 1} == facts.counts
    assert not facts.complete


@pytest.mark.parametrize("name", NAMES)
def test_nothing_steers_what_shows_it(bad: dict[str, str], name: str) -> None:
    """No control character, turn of direction or half of a pair is in the file."""
    assert [] == STEERING.findall(bad[name])
    assert bad[name].startswith(FORMATS[name].mark)


def test_no_line_of_the_text_is_a_stores(bad: dict[str, str]) -> None:
    """A line break in a name does not begin a line, which could pass for one of ours."""
    assert r"\nnew line" in bad["text"]
    assert not [line for line in bad["text"].splitlines() if line.startswith("new line")]


def test_a_page_runs_and_loads_nothing(bad: dict[str, str]) -> None:
    """The page has only elements and attributes of ours, and its policy allows its style alone."""
    page = Page(bad["html"])

    assert {"script", "img", "link", "iframe", "object", "form"}.isdisjoint(page.tags)
    names = {name for name, _ in page.attributes}
    assert not [name for name in names if name.startswith("on") or name in {"src", "style"}]
    assert {"#findings"} | {f"#{each}" for each in page.ids} >= {
        str(value) for name, value in page.attributes if name == "href"
    }
    assert len(page.ids) == len(set(page.ids))
    (policy,) = (str(v) for n, v in page.attributes if n == "content" and "default-src" in str(v))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>alert(1)</script>" in "".join(text for _, text in page.texts)


def test_long_texts_are_cut_where_people_read(bad: dict[str, str]) -> None:
    """A name of 100,000 characters is told by its begin and its length; programs get it whole."""
    for name in ("html", "junit"):
        assert "x" * 1001 not in bad[name]
        assert "… (100,000 characters)" in bad[name]
    for name in ("json", "json-lines"):
        assert "x" * 100_000 in bad[name]


def test_xml_has_no_character_that_xml_forbids(bad: dict[str, str]) -> None:
    """The file is XML 1.0 by the letter, and hostile text is text."""
    forbidden = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
    root = ET.fromstring(bad["junit"])  # noqa: S314  the report is ours

    assert [] == forbidden.findall(bad["junit"])
    assert any("<script>alert(1)</script>" in (each.text or "") for each in root.iter("failure"))


def test_labels_are_escaped(bad: dict[str, str]) -> None:
    """A quotation mark, a backslash and a line break end no label."""
    every = samples(bad["prometheus"])
    (vectors,) = (dict(labels)["vector_store"] for name, labels in every if "info" in name)

    assert "back\\\\slash" in vectors
    assert r"\"'><img" in vectors
