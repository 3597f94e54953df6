"""The HTML page in a real browser: narrow and wide, light and dark, by keyboard, without network.

The browser is Chromium, where one is installed (MEMSYNC_TEST_CHROMIUM, or on PATH). Where
MEMSYNC_TEST_AXE names the file axe.min.js of axe-core, it judges contrast, labels and structure.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memsync.cli.formats import files
from memsync.cli.targets import Target
from memsync.cli.views import View
from memsync.reconcile.findings import Audit
from support.browser import Browser, chromium, opened
from support.reports import audit, hostile, past, report

AXE = os.environ.get("MEMSYNC_TEST_AXE")
PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium")

LONG = ("collection " + "long" * 60 + ": it does not answer",)
SHOWN = View.of(show_text=True, acknowledged=True)
AUDITS = {
    "none": lambda: audit(0),
    "four": lambda: audit(4, known=2),
    "closed": lambda: audit(100),
    "many": lambda: audit(10_000, known=100),
    "hostile": lambda: audit(4, *hostile(), not_checked=LONG, left_out=LONG),
}

OPEN_ALL = "document.querySelectorAll('details').forEach(each => { each.open = true })"


def too_wide(browser: Browser, width: int) -> list[str]:
    """The elements that end behind the right edge of a window of this width.

    A phone makes its window as wide as what does not fit, so the window is not asked.
    """
    found: list[str] = browser.value(
        f"""
        [document.documentElement, ...document.querySelectorAll('body *')].filter(each =>
            Math.max(each.getBoundingClientRect().right, each === document.documentElement
                ? each.scrollWidth : 0) > {width} + 0.5 && !each.closest('svg')
        ).map(each => each.outerHTML.slice(0, 200))
        """
    )
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests of this file."""
    with opened(str(PROGRAM), tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=AUDITS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of each audit."""
    made: Audit = AUDITS[request.param]()
    target = Target("html", tmp_path_factory.mktemp("page") / "report.html")
    with made:
        files.write(report(made, SHOWN, runs=len(past())), target)
    return target.path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_asks_for_nothing(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    """Nothing is wider than the window, with all lists open too, and no request leaves the page."""
    browser.show(page, width=width, scheme=scheme)
    closed = too_wide(browser, width)
    browser.value(OPEN_ALL)

    assert [] == closed
    assert [] == too_wide(browser, width)
    assert [page.as_uri()] == browser.requests
    assert [] == browser.complaints
    assert 0 == browser.value("document.scripts.length")
    dark = browser.value("getComputedStyle(document.documentElement).backgroundColor")
    assert (scheme == "dark") is (dark == "rgb(20, 23, 26)")


def test_a_script_in_the_page_would_not_run(browser: Browser, page: Path, tmp_path: Path) -> None:
    """The policy holds even where somebody puts a script into the page."""
    planted = "<body><script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x'>"
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text().replace("<body>", planted, 1))

    browser.show(changed, width=1280)

    assert "ran" != browser.value("document.title")
    assert browser.complaints


def test_it_is_read_by_keyboard(browser: Browser, page: Path) -> None:
    """The first key leads past the head; every link and every list is reached, and shows it."""
    browser.show(page, width=1280)
    browser.press("Tab")
    focused = "document.activeElement"
    assert "Skip to the findings" == browser.value(f"{focused}.textContent")
    assert browser.value(f"{focused}.getBoundingClientRect().top") >= 0
    browser.press("Enter")
    assert "findings" == browser.value(f"{focused}.id")
    if not browser.value("document.querySelector('details summary')"):
        return
    browser.press("Tab")
    assert "SUMMARY" == browser.value(f"{focused}.tagName")
    assert "solid" == browser.value(f"getComputedStyle({focused}).outlineStyle")
    was = browser.value(f"{focused}.parentElement.open")
    browser.press("Enter")
    assert was is not browser.value(f"{focused}.parentElement.open")


@pytest.mark.skipif(AXE is None, reason="MEMSYNC_TEST_AXE names no axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(browser: Browser, page: Path, width: int, scheme: str) -> None:
    """axe-core finds no fault, best practices included."""
    if page.stat().st_size > 500_000:
        pytest.skip("thousands of the same tables take minutes")
    browser.show(page, width=width, scheme=scheme)
    browser.value(OPEN_ALL)
    browser.value(Path(str(AXE)).read_text() + "; 1")

    found: dict[str, Any] = browser.value("axe.run(document, {resultTypes: ['violations']})")

    wrong = [(each["id"], [n["html"] for n in each["nodes"]][:3]) for each in found["violations"]]
    assert [] == wrong
    assert len(found["passes"]) > 10


def test_a_page_that_is_too_wide_is_noticed(browser: Browser, tmp_path: Path) -> None:
    """The measures of this test see an element that does not fit."""
    wide = tmp_path / "wide.html"
    wide.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'>"
        "<body><div style='width: 900px'>wide</div>"
    )
    browser.show(wide, width=390)

    assert 2 == len([each for each in too_wide(browser, 390) if "wide" in each])
