"""The report as text for people: a table by code, the findings, the verdict, the next commands.

On a terminal it is wrapped; into a file each line goes as it is. `--limit` and `--summary` make it
shorter. Nobody's words are printed unless they are asked for.
"""

from collections.abc import Callable, Sequence

from memsync.cli.formats.order import codes_of
from memsync.cli.formats.report import Report, whose
from memsync.cli.output import print_table, say, say_heading, written_by
from memsync.model.wording import count
from memsync.reconcile.findings import Acknowledgement, Finding, Words
from memsync.reconcile.recorded import Recorded

MARK = "memsync report: text\n"


def write(report: Report, into: Callable[[str], object]) -> None:
    """Write the whole report: how it was made, and then what a command prints."""
    made = report.made
    with written_by(into):
        say(MARK.strip())
        say(f"{made.command} of memsync {made.memsync_version}")
        say(f"begun {made.begun_at:%Y-%m-%d %H:%M:%S %Z}, {made.seconds:.1f} s")
        say(f"Postgres: {made.postgres}")
        say(f"vector store: {made.vectors}")
        say()
        print_report(report)
        print_past(report)


def print_report(report: Report) -> None:
    """Print the report."""
    for line in report.scope_lines():
        say(line)
    _print_codes(report)
    listed, view = report.listed_number, report.view
    shown = 0 if view.summary else min(listed, view.limit or listed)
    if shown:
        say()
    for each in report.spread(shown):
        _print_finding(each, report)
    if not view.summary and shown < listed:
        more = count(listed - shown, "more finding")
        say(f"… {more}: --limit 0 prints all, --json-lines is for programs")
    if shown:
        say()
    for line in report.audit.not_checked:
        say(f"not checked: {line}", "yellow")
    for line in report.unseen_lines():
        say(f"not looked for: {line}", "yellow")
    if view.is_narrow and (left := report.not_looked_at):
        say(f"not looked at, as you asked: {count(left, 'other finding')}")
    say(report.verdict, "green" if report.ok else "bold red")
    _print_commands(report)


def print_past(report: Report) -> None:
    """Print the recorded audits, if there are any, the newest first."""
    if not report.past:
        return
    say()
    say(f"the last {count(len(report.past), 'recorded audit')}:")
    rows = [
        (
            f"{each.begun_at:%Y-%m-%d %H:%M}",
            f"{each.total:,}",
            "" if each.complete else "incomplete",
            ", ".join(f"{n:,} {code}" for code, n in each.counts.items() if n),
        )
        for each in report.past
    ]
    print_table(rows, head=("begun, UTC", "findings", "", "of which"), right=(1,))


def change(past: Sequence[Recorded]) -> str:
    """How the newest recorded audit differs from the one before, in one line."""
    newest, *others = past
    if not others:
        return "recorded, as the first audit"
    before = others[0]
    if not (newest.complete and before.complete):
        return "recorded; not to be compared with the one before, because not everything was read"
    more = newest.total - before.total
    findings = count(abs(more), "finding")
    said = f"{findings} {'more' if more > 0 else 'fewer'} than" if more else "as many findings as"
    return f"recorded: {said} on {before.begun_at:%Y-%m-%d %H:%M} UTC"


def _print_codes(report: Report) -> None:
    rows = []
    for code, kinds in codes_of(report.found).items():
        most = kinds[0]
        number = sum(report.found.kinds[kind] for kind in kinds)
        people = report.found.people(code)
        of_personas = f"{people:,}" if people else ""
        rows.append((most.severity, code, most.name, f"{number:,}", of_personas, most.grade))
    head = ("severity", "code", "finding", "count", "personas", "repair")
    print_table(rows, head=head, right=(3, 4))


def _print_commands(report: Report) -> None:
    commands = report.commands()
    if report.first and commands:
        say(f"first: {report.first}")
    for command, codes in commands.items():
        if len(commands) > 1:
            say(f"for {', '.join(codes)}:")
        say(f"next: {report.as_asked(command)}")


def _print_finding(finding: Finding, report: Report) -> None:
    say_heading(f"{finding.code} {finding.name}  {finding.store}  {finding.key}")
    if persona := whose(finding):
        say(f"    {persona}")
    values = (
        (name, shown(value, show_text=report.view.show_text))
        for name, value in finding.evidence.items()
    )
    say("    " + "; ".join(f"{name}: {value}" for name, value in values))
    if finding.accept_command:
        say(f"    where it was meant: {finding.accept_command}")
    if finding.acknowledged:
        say(f"    {said_of(finding.acknowledged)}")


def said_of(each: Acknowledgement) -> str:
    """Who acknowledged a finding, when and why."""
    return f"acknowledged by {each.who} on {each.at:%Y-%m-%d}: {each.reason}"


def shown(value: object, *, show_text: bool) -> str:
    """A value of the evidence as text; what people wrote only where it was asked for."""
    if isinstance(value, Words) and show_text:
        return repr(value.text)
    return "none" if value is None else str(value)
