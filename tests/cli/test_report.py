"""`--report` and `--record` of `memsync check` and `memsync reconcile`, on real stores."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from memsync.cli.formats import FORMATS, as_html
from memsync.demo.world import make_world
from support.app import App
from support.cli import NO_QDRANT, NOWHERE, RECIPE, Ran, on
from support.read_reports import READ, samples
from support.roles import reader_grants, role

pytestmark = pytest.mark.usefixtures("per_persona")

EVERY = tuple(word for name in FORMATS for word in ("--report", f"{name}=report.{name}"))


@pytest.fixture
def reader(app: str) -> Iterator[str]:
    """The URL of a role that has the grants of cron and no more."""
    with role(App(app, make_world(RECIPE)), *reader_grants()) as url:
        yield url


def mend(app: str, qdrant: str) -> None:
    """Make every memory that is missing."""
    assert 0 == on(app, qdrant, "reconcile", "plan").status
    assert 0 == on(app, qdrant, "reconcile", "apply", "plan.json").status
    Path("plan.json").unlink()


def audits(app: str) -> list[tuple[object, ...]]:
    """The rows of the record, the oldest first."""
    with psycopg.connect(app) as connection:
        return connection.execute(
            "SELECT complete, layout, counts, who, points_checked FROM memsync.audits ORDER BY id"
        ).fetchall()


@pytest.mark.parametrize("command", [("check",), ("reconcile",), ("reconcile", "audit")])
def test_a_reader_gets_every_report(
    command: tuple[str, ...], reader: str, app: str, qdrant: str
) -> None:
    """All formats say what stdout says; stdout is as without them; nothing is written elsewhere."""
    alone = on(reader, qdrant, *command)
    ran = on(reader, qdrant, *command, *EVERY)

    said = [f"wrote the {name} report report.{name}" for name in FORMATS]
    assert (1, said) == (ran.status, ran.err.splitlines())
    lines = ran.out.splitlines()
    assert alone.out == ran.out
    facts = [READ[name](Path(f"report.{name}").read_text()) for name in FORMATS]
    assert [facts[0].counts] * len(facts) == [each.counts for each in facts]
    assert facts[0].verdict in lines
    assert {0o600} == {stat.S_IMODE(each.stat().st_mode) for each in Path().glob("report.*")}
    assert [] == audits(app)
    made = json.loads(Path("report.json").read_text())
    assert ("memsync check" if command == ("check",) else "memsync reconcile audit") == (
        made["command"]
    )
    for text in (Path(f"report.{name}").read_text() for name in FORMATS):
        assert "secret" not in text


def test_clean_and_quiet(app: str, qdrant: str) -> None:
    """A clean check prints nothing with --quiet, and replaces its reports."""
    on(app, qdrant, "check", *EVERY)
    before = samples(Path("report.prometheus").read_text())
    mend(app, qdrant)
    ran = on(app, qdrant, "check", "--quiet", *EVERY)

    assert (0, "", "") == (ran.status, ran.out, ran.err)
    assert all(READ[name](Path(f"report.{name}").read_text()).ok for name in FORMATS)
    after = samples(Path("report.prometheus").read_text())
    seconds = [
        next(value for (name, _), value in each.items() if name.endswith("timestamp_seconds"))
        for each in (before, after)
    ]
    assert seconds[0] < seconds[1]


def test_an_incomplete_audit_writes_its_reports(legacy_app: str) -> None:
    """The status is 15, and every report says that not everything was read."""
    ran = on(legacy_app, ":memory:", "check", *EVERY)

    assert 15 == ran.status
    assert [False] * len(FORMATS) == [
        READ[name](Path(f"report.{name}").read_text()).complete for name in FORMATS
    ]


def test_json_stays_one_object(app: str, qdrant: str) -> None:
    """With --json and --json-lines stdout has nothing but JSON."""
    assert 1 == on(app, qdrant, "check", "--json", "--record", *EVERY).json()["ok"] + 1
    ran = on(app, qdrant, "check", "--json-lines", "--record", *EVERY)
    assert "summary" == [json.loads(line) for line in ran.out.splitlines()][-1]["type"]


def refused(ran: Ran) -> None:
    """The command has not begun its audit."""
    assert (2, "") == (ran.status, ran.out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--report", "pdf=report.pdf"), "no format"),
        (("--report", "html=-"), "needs a file"),
        (("--report", "html=missing/report.html"), "Nothing was audited"),
        (("--report", "html=plan.json"), "is no html report of memsync's"),
        (("--report", "html=a", "--report", "json=a"), "one file twice"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_audit(
    words: tuple[str, ...], said: str
) -> None:
    """No store is opened: these are none."""
    Path("plan.json").write_text("{}")
    for command in (("check",), ("reconcile",), ("reconcile", "audit")):
        ran = on(NOWHERE, NO_QDRANT, *command, *words)
        refused(ran)
        assert said in ran.err
    assert [Path("plan.json")] == list(Path().glob("*.*"))


def test_an_audit_that_cannot_be_made_leaves_the_old_reports(app: str, qdrant: str) -> None:
    """A store that does not answer changes no report; its time tells how old it is."""
    on(app, qdrant, "check", *EVERY)
    before = {each: each.read_bytes() for each in Path().glob("report.*")}

    ran = on(NOWHERE, qdrant, "check", *EVERY)

    assert 10 == ran.status
    assert before == {each: each.read_bytes() for each in Path().glob("report.*")}


def test_a_report_that_fails_hides_no_result(
    app: str, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other reports are written, the result is printed, and the status says that one failed."""

    def full(*_: object) -> str:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(as_html, "past", full)
    ran = on(app, qdrant, "check", *EVERY)

    assert 2 == ran.status
    assert "missing-point" in ran.out
    assert "cannot write the report html=report.html: No space left on device" in ran.err
    assert sorted(set(FORMATS) - {"html"}) == sorted(
        each.suffix[1:] for each in Path().glob("report.*")
    )


def test_a_record_shows_the_drift(app: str, qdrant: str) -> None:
    """`--record` keeps each audit whole, whatever was asked for, and reports show those before."""
    first = on(app, qdrant, "check", "--record")
    mend(app, qdrant)
    second = on(app, qdrant, "check", "--select", "MSI", "--record", "--report", "html=r.html")

    assert "recorded, as the first audit" in first.out.splitlines()
    assert any(
        line.startswith("recorded: ") and " findings fewer than on 20" in line
        for line in second.out.splitlines()
    )
    kept = audits(app)
    assert [True, True] == [complete for complete, *_ in kept]
    counts = [each for _, _, each, *_ in kept]
    assert [True, False] == [bool(each["MSC001"]) for each in counts if isinstance(each, dict)]
    assert 2 == Path("r.html").read_text().count("<rect ")


def test_a_reader_sees_the_record_and_cannot_add_to_it(reader: str, app: str, qdrant: str) -> None:
    """The role of cron is refused with the grant that it lacks, before the audit."""
    on(app, qdrant, "check", "--record")

    ran = on(reader, qdrant, "check", "--record", "--report", "html=r.html")
    assert (16, "") == (ran.status, ran.out)
    assert "GRANT SELECT, INSERT, DELETE ON memsync.audits" in ran.err
    assert not Path("r.html").exists()

    assert 1 == on(reader, qdrant, "check", "--report", "html=r.html").status
    assert 1 == Path("r.html").read_text().count("<rect ")
    with role(
        App(app, make_world(RECIPE)),
        *reader_grants(),
        "GRANT SELECT, INSERT, DELETE ON memsync.audits TO {}",
    ) as url:
        assert 1 == on(url, qdrant, "check", "--record").status


def test_only_a_check_is_recorded(app: str, qdrant: str) -> None:
    """`memsync reconcile` looks for less, so its numbers would not compare."""
    assert 2 == on(app, qdrant, "reconcile", "audit", "--record").status


def test_options_of_the_audit_go_behind_its_name(app: str, qdrant: str) -> None:
    """A report that was asked for before another command is refused, and not forgotten."""
    ran = on(app, qdrant, "reconcile", "--report", "html=r.html", "runs")

    assert 2 == ran.status
    assert "options of the audit go after" in ran.err
