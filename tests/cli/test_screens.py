"""Tests what people see in a terminal: golden files at 80 and 120 columns, colours, no words."""

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import psycopg
import pytest

from memsync.cli import output
from memsync.cli.app import main
from memsync.cli.control import _print_runner
from memsync.cli.findings import print_audit
from memsync.cli.options import Options
from memsync.cli.output import say_heading
from memsync.cli.progress import progress
from memsync.cli.reconcile import _save
from memsync.cli.views import EVERYTHING, View
from memsync.errors import InvalidInput
from memsync.migrate import Runner
from memsync.model.progress import Kind, Progress
from memsync.reconcile.findings import Acknowledgement, Audit, Finding, Findings, Words
from memsync.reconcile.rules import RULES
from memsync.stores.ltm.layouts import Layout
from support.cli import THROUGH, on, run
from support.terminal import agrees_with_golden, on_terminal, plain

WORDS = "Meet me at the old mill, Aurelia said"
Screen = Callable[[Callable[[], object]], str]

widths = pytest.mark.parametrize("columns", [80, 120])


def finding(number: int, code: str) -> Finding:
    """One of many findings, with words of people in its evidence."""
    rule = next(each for each in RULES if each.code == code)
    return Finding(
        code=rule.code,
        name=rule.name,
        severity=rule.severity,
        grade=rule.grade,
        repair=rule.repair,
        store="qdrant:memories",
        key=str(UUID(int=number)),
        persona_id=UUID(int=number % 700 + 1),
        evidence={"row": Words.of(WORDS), "point": None},
        next_command=rule.command(rule.grade),
    )


def audit(number: int) -> Audit:
    """The result of an audit with so many findings, of three kinds."""
    codes = ("MSC001", "MSC004", "MSC001", "MSI001")
    found = tuple(finding(n, codes[n % len(codes)]) for n in range(number))
    return Audit(
        Findings(found),
        rows_checked=51_234,
        points_checked=51_230,
        settling=1,
        not_checked=(),
        layout=Layout.PER_PERSONA,
        why_layout="it is recorded",
        archived=1_204,
        looked_for=frozenset(rule.code for rule in RULES),
    )


def printed(found: Audit, view: View = EVERYTHING) -> None:
    """Print the audit as a command does."""
    output.begin(Options())
    print_audit(found, view)


@widths
@pytest.mark.parametrize("number", [0, 4, 10_000])
def test_reconcile(number: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit with none, few and many findings fits one screen."""
    screen = on_terminal(columns, lambda: printed(audit(number)), monkeypatch)

    assert max(map(len, plain(screen).splitlines())) <= columns
    assert len(screen.splitlines()) <= 50
    agrees_with_golden(f"reconcile-{number}-{columns}", screen)


@widths
@pytest.mark.parametrize("number", [0, 4])
def test_what_is_acknowledged(number: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted in one line, listed where asked for, and told where it is outdated."""
    said = Acknowledgement(
        "deleted user\n\x1b[2J, ticket 7", "ops", datetime(2026, 3, 4, tzinfo=UTC)
    )
    known = [replace(each, acknowledged=said) for each in audit(3).findings]
    outdated = replace(
        finding(9, "MSS020"), store="postgres:memsync.acknowledged", evidence={"outdated": 2}
    )
    found = audit(number)
    found.findings.add(outdated)
    found = replace(found, acknowledged=Findings(known))
    view = View(acknowledged=number > 0)
    screen = on_terminal(columns, lambda: printed(found, view), monkeypatch)

    assert "\x1b[2J" not in screen
    agrees_with_golden(f"reconcile-known-{number}-{columns}", screen)
    assert (1 if number else 0) == print_audit(found, view)


def test_an_incomplete_audit_is_never_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not read is said, and the verdict with it."""
    found = replace(audit(0), not_checked=("the collection memories: it does not answer",))
    screen = plain(on_terminal(80, lambda: printed(found), monkeypatch))

    assert "not checked: the collection memories: it does not answer" in screen
    assert "INCOMPLETE: 0 findings so far, not everything was read" in screen
    assert "clean" not in screen


@widths
def test_plan_and_a_refused_run(
    legacy_app: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan with blockers, a status, a failed verification, and the run that is refused."""
    settings = ("--postgres-url", legacy_app, "--qdrant-url", ":memory:")
    for name, command in (
        ("plan", ("migrate", "plan", "--evidence", "ignore")),
        ("status-legacy", ("migrate", "status")),
        ("verify-legacy", ("migrate", "verify", "--evidence", "ignore")),
        ("run-refused", ("migrate", "run", "--evidence", "ignore")),
    ):
        screen = on_terminal(columns, lambda words=command: main([*settings, *words]), monkeypatch)  # type: ignore[misc]
        agrees_with_golden(f"{name}-{columns}", screen)


@widths
def test_after_the_migration(app: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same commands when everything is done."""
    settings = ("--postgres-url", app, "--qdrant-url", ":memory:")
    for name, command in (
        ("status", ("migrate", "status")),
        ("verify", ("migrate", "verify")),
        ("run-again", ("migrate", "run", "--evidence", "ignore")),
    ):
        screen = on_terminal(columns, lambda words=command: main([*settings, *words]), monkeypatch)  # type: ignore[misc]
        agrees_with_golden(f"{name}-{columns}", screen)


def test_a_run_shows_a_bar(legacy_app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a run shows its phases, and a bar for what takes long."""
    words = ("--postgres-url", legacy_app, "--qdrant-url", ":memory:", *THROUGH)
    screen = on_terminal(80, lambda: main(words), monkeypatch)

    assert "━" in screen
    assert "next: memsync migrate finalize" in screen


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colours, unless NO_COLOR or --no-color says otherwise; a pipe never does."""
    words = ("rules",)
    assert "\x1b[" in on_terminal(80, lambda: main(words), monkeypatch)
    assert "\x1b[" not in on_terminal(80, lambda: main((*words, "--no-color")), monkeypatch)
    assert "\x1b[" not in run(*words).out

    def with_variable() -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        main(words)

    assert "\x1b[" not in on_terminal(80, with_variable, monkeypatch)


def test_nobodys_words_are_printed_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Text, JSON and JSON lines hold length and digest; --show-text adds the words."""
    for view in (View(), View(as_lines=True)):
        for as_json in (False, True):
            print_audit(audit(4), view, as_json=as_json)
            hidden = capsys.readouterr().out
            print_audit(audit(4), replace(view, show_text=True), as_json=as_json)
            shown = capsys.readouterr().out

            assert WORDS not in hidden
            assert "37" in hidden
            assert WORDS in shown


def test_a_hostile_name_does_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection may be named anything; its control characters are printed as escapes."""
    hostile = replace(finding(1, "MSC001"), store="qdrant:\x1b[2J\x07\u202e\ud800\nclean")
    screen = on_terminal(
        120, lambda: printed(replace(audit(0), findings=Findings([hostile]))), monkeypatch
    )

    assert r"qdrant:\x1b[2J\x07\u202e\ud800\nclean" in plain(screen)
    assert "\x1b[2J" not in screen


def test_names_of_people_are_not_in_a_plan_unless_asked_for(legacy_app: str) -> None:
    """Neither the text nor the JSON of a plan names a user."""
    plan = ("migrate", "plan", "--evidence", "ignore")
    shown = on(legacy_app, ":memory:", *plan, "--show-text", "--json").json()
    names = [each["username"] for each in shown["unresolved"]]
    assert names

    for options in ((), ("--json",)):
        hidden = on(legacy_app, ":memory:", *plan, *options).out
        written = [name if not options else json.dumps(name)[1:-1] for name in names]
        assert [] == [name for name in written if name in hidden]
        assert written[0] in on(legacy_app, ":memory:", *plan, *options, "--show-text").out


def test_findings_come_by_severity_then_by_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors come before warnings; of equal ones that which concerns more personas."""
    print_audit(audit(100), View(limit=0), as_json=True)
    codes = [each["code"] for each in json.loads(capsys.readouterr().out)["findings"]]

    assert ["MSC001"] * 50 + ["MSI001"] * 25 + ["MSC004"] * 25 == codes


@pytest.mark.parametrize(
    ("select", "counts"),
    [
        (["MSC004"], {"duplicate-point": 25}),
        (["persona-mismatch"], {"persona-mismatch": 25}),
        (["MSC"], {"missing-point": 50, "duplicate-point": 25}),
    ],
)
def test_selection(
    select: list[str], counts: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A code, a name or a family selects; the exit status follows the selection."""
    view = View(select=frozenset(select))

    assert 1 == print_audit(audit(100), view, as_json=True)
    assert counts == json.loads(capsys.readouterr().out)["counts"]
    assert 0 == print_audit(audit(1), replace(view, select=frozenset(["MSI"])))
    assert "not looked at, as you asked: 1 other finding" in capsys.readouterr().out


@pytest.mark.usefixtures("per_persona")
def test_a_persona_that_nobody_has_is_refused(app: str, qdrant: str) -> None:
    """A slip in --persona is an error, and no clean verdict; a real one without findings is not."""
    nobody = "00000000-0000-4000-8000-000000000000"
    for command in ("check", "reconcile"):
        ran = on(app, qdrant, command, "--persona", nobody, "--quiet")
        assert (2, "") == (ran.status, ran.out)
        assert nobody in ran.err
    assert 0 == on(app, qdrant, "reconcile", "plan").status
    assert 0 == on(app, qdrant, "reconcile", "apply", "plan.json").status
    with psycopg.connect(app) as connection:
        row = connection.execute("SELECT id FROM personas LIMIT 1").fetchone()
    assert row
    ran = on(app, qdrant, "check", "--persona", str(row[0]))
    assert (0, "clean, of what you asked for") == (ran.status, ran.out.splitlines()[-1])


@pytest.mark.usefixtures("per_persona")
def test_a_plan_replaces_no_file_unless_told(app: str, qdrant: str, tmp_path: Path) -> None:
    """Neither the file nor one beside it is touched; --force replaces the file alone."""
    out, beside = tmp_path / "p.json", tmp_path / "p.json.partial"
    out.write_text("mine")
    beside.write_text("mine, too")
    plan = ("reconcile", "plan", "--out", str(out))

    assert 2 == on(app, qdrant, *plan).status
    assert "mine" == out.read_text()
    os.mkfifo(pipe := tmp_path / "pipe")
    for other in (tmp_path, pipe):
        assert 2 == on(app, qdrant, "reconcile", "plan", "--out", str(other), "--force").status
    assert 0 == on(app, qdrant, *plan, "--force").status
    assert out.read_text().startswith("{")
    assert 0o600 == out.stat().st_mode & 0o777
    assert "mine, too" == beside.read_text()
    assert {"p.json", "p.json.partial"} <= {each.name for each in tmp_path.iterdir()}
    assert [] == list(tmp_path.glob(".p.json.*"))


def test_a_plan_that_is_replaced_stays_until_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what finishes an apply that was cut short. No link to it is needed."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    def broken() -> Iterator[str]:
        yield "{"
        raise KeyboardInterrupt

    out = tmp_path / "plan.json"
    out.write_text("the old one")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(KeyboardInterrupt):
        _save(SimpleNamespace(pieces=broken), out, force=True)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no links here"):
        _save(SimpleNamespace(pieces=lambda: ["{}"]), out, force=False)  # type: ignore[arg-type]
    assert "the old one" == out.read_text()
    _save(SimpleNamespace(pieces=lambda: ["{}"]), out, force=True)  # type: ignore[arg-type]
    assert "{}" == out.read_text()
    assert [out] == list(tmp_path.iterdir())


def test_a_bar_has_its_own_total_and_goes_when_it_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No bar claims a hundred, none stays behind the step that it was of, and figures are read."""

    def work() -> None:
        with progress(Options()) as tell:
            for done in (0, 2150):
                tell(Progress(Kind.STEP, "reading", done, 2150, 1.0))
            tell(Progress(Kind.PHASE, "backfill"))
            for done in (0, 7):
                tell(Progress(Kind.STEP, "filling", done, 9, 1.0))

    screen = plain(on_terminal(80, work, monkeypatch))
    before, after = screen.split("backfill")

    assert "/100 " not in screen
    assert "0/2,150" in before
    assert "about 0 s" not in before
    assert "7/9" in after
    assert "reading" not in after


def test_a_table_that_is_too_wide_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is cut could not be copied, so the terminal breaks the lines itself."""
    row = (str(UUID(int=7)), "persona-mismatch", "70 of 70", "postgres")
    screen = plain(on_terminal(50, lambda: output.print_table([row]), monkeypatch))

    assert [] == [each for each in row if each not in screen], screen


def test_a_step_whose_end_is_unknown_counts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is one bar with a figure, and no line for each report; a log hears it now and then."""

    def work(options: Options) -> None:
        with progress(options) as tell:
            for done in range(0, 4000, 1000):
                tell(Progress(Kind.COUNT, "reading", done))
            time.sleep(0.3)  # bars are drawn ten times a second
            tell(Progress(Kind.STEP, "writing", 0, 9))

    screen = plain(on_terminal(80, lambda: work(Options()), monkeypatch))
    assert "3,000" in screen
    assert [] == [line for line in screen.splitlines() if line.strip() == "reading"]
    assert "reading" not in screen.rpartition("writing")[2]
    monkeypatch.setattr("memsync.cli.progress.LOG_EVERY_S", 0.0)
    work(Options(verbose=True))
    assert "reading: 3,000\n" in capfd.readouterr().err


def test_the_next_step_takes_the_place_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step may end before its bar is full; its bar does not stand beside the next one."""

    def work() -> None:
        with progress(Options()) as tell:
            tell(Progress(Kind.STEP, "looking", 69, 70))
            tell(Progress(Kind.STEP, "applying", 1, 70))

    screen = plain(on_terminal(80, work, monkeypatch))
    assert "\n" not in screen.partition("69/70")[2].partition("applying")[0]
    assert "looking" not in screen.partition("applying")[2]


@pytest.mark.parametrize("width", [60, 80])
def test_the_rest_of_a_long_heading_is_indented(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """A finding begins at the edge, and nothing else of it does."""
    store = "qdrant:persona-d5e52778-b2f8-4fbd-a12f-10f17226bc53"
    text = f"MSI001 persona-mismatch  {store}  600ab361-ae32-4ffe-934a-781ae39f49aa"
    screen = plain(on_terminal(width, lambda: say_heading(text), monkeypatch)).splitlines()

    assert text.split() == " ".join(screen).split()
    assert 1 == sum(not line.startswith("    ") for line in screen)
    assert max(map(len, screen)) <= width


@pytest.mark.parametrize(
    ("command", "result"),
    [(THROUGH, "stage: contracted"), (("migrate", "rollback", "--to", "start"), "stage: legacy")],
    ids=["run", "rollback"],
)
def test_no_bar_is_drawn_over_a_result(
    legacy_app: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], result: str
) -> None:
    """A result begins at the edge, and nothing moves up into it; its last line is `next:`."""
    if command is not THROUGH:
        assert 0 == on(legacy_app, ":memory:", *THROUGH).status
    words = ("--postgres-url", legacy_app, "--qdrant-url", ":memory:", *command)
    screen = on_terminal(80, lambda: main(words), monkeypatch)
    before, told = screen.split(result)

    assert ("\n" + plain(before.rpartition("\x1b[2K")[2])).endswith("\n")
    assert not {"\x1b[1A", "\x1b[2K"} & {code[0] for code in re.finditer(r"\x1b\[\w+", told)}
    assert told.splitlines()[-1].startswith("next: memsync migrate ")


def test_progress_cannot_steer_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A report may quote a service; its control characters are printed as escapes."""
    step = Progress(Kind.NOTE, "down \x1b[31mRED\x1b]0;title\x07")
    with progress(Options()) as tell:
        tell(step)
    assert r"down \x1b[31mRED\x1b]0;title\x07" in capfd.readouterr().err


def test_what_follows_a_pause_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    """The next command has a line of its own."""
    output.begin(Options())
    assert 0 == _print_runner(Runner("paused", 12), "memsync migrate resume", as_json=False)
    said = capsys.readouterr().out.splitlines()
    assert ["paused (pid 12 since None)", "next: memsync migrate resume"] == said


def test_json_lines_end_with_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """Each finding is a line; the last line is the summary."""
    assert 1 == print_audit(audit(3), View(as_lines=True))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert ["finding", "finding", "finding", "summary"] == [each["type"] for each in lines]
    assert not lines[-1]["ok"]


def test_quiet_is_silent_where_all_is_well(app: str, legacy_app: str, qdrant: str) -> None:
    """With --quiet a status of 0 comes without output; another one comes with all of it."""
    assert (0, "", "") == (
        (ran := on(app, qdrant, "migrate", "status", "-q")).status,
        ran.out,
        ran.err,
    )
    loud = on(legacy_app, qdrant, "migrate", "verify", "--evidence", "ignore")
    quiet = on(legacy_app, qdrant, "migrate", "verify", "--evidence", "ignore", "--quiet")
    assert (1, loud.out) == (quiet.status, quiet.out)


def test_global_options_may_stand_on_either_side(app: str) -> None:
    """An option of all commands counts before the command and after it; the later one wins."""
    before = run("--json", "--postgres-url", app, "migrate", "status")
    after = run("migrate", "--postgres-url", "postgresql://127.0.0.1:1/no", "status", "--json")
    last = run(
        "--postgres-url",
        "postgresql://127.0.0.1:1/no",
        "migrate",
        "status",
        f"--postgres-url={app}",
        "--json",
    )

    assert "contracted" == before.json()["stage"]
    assert 10 == after.failure()["exit_status"]
    assert before.json() == last.json()


def test_help_is_whole_and_names_its_own_help() -> None:
    """Nothing in a list of commands is cut, and a mistake points to the help of its command."""
    assert "..." not in run("--help").out.replace("[ARGS]...", "")
    assert run("migrate", "run", "-h").out == run("help", "migrate", "run").out
    assert "Try 'memsync migrate run --help'." in run("migrate", "run", "--nope").err
    assert run("help", "exit-statuses").out.startswith("    0  Done")


@widths
@pytest.mark.parametrize("page", ["runbook", "docs"])
def test_a_page_fits_the_terminal(page: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but code is wrapped, code is whole, and no marks of Markdown or targets are left."""
    source = plain(run("help", page).out)
    code = [
        line.strip() for part in source.split("```")[1::2] for line in part.split("\n")[1:] if line
    ]
    screen = plain(on_terminal(columns, lambda: main(["help", page]), monkeypatch))
    lines = [line.strip() for line in screen.split("\n")]
    too_long = [line.strip() for line in screen.split("\n") if len(line) > columns]

    assert set(code) <= set(lines)
    assert set(too_long) <= set(code)
    assert not re.search(r"^#+ |^\||\]\(|(\w+\.md) \(\1\)|\*\*", screen, re.MULTILINE)


def test_the_shell_gets_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bash is told the commands that may follow."""
    monkeypatch.setenv("_MEMSYNC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "memsync migrate ")
    monkeypatch.setenv("COMP_CWORD", "2")
    ran = run()

    assert 0 == ran.status
    assert {"plan", "run", "status", "verify"} <= set(ran.out.split())
