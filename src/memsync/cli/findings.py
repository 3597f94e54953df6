"""Makes an audit for a command, and prints its result: a table by code, findings, the verdict.

It decides order, length and what is left out. Nobody's words are printed unless they are asked for.
All counts and the exit status come from the findings that were selected, which are read one by one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain, islice
from typing import Protocol

import typer

from memsync.cli import vectors
from memsync.cli.output import (
    data,
    json_line,
    one_line,
    print_json_list,
    print_table,
    say,
    say_heading,
)
from memsync.cli.progress import progress
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.stores import opened_stores
from memsync.cli.vectors import looked_at
from memsync.cli.views import EVERYTHING, View
from memsync.errors import InvalidInput
from memsync.model.progress import Tell
from memsync.model.wording import count
from memsync.reconcile.findings import (
    Acknowledgement,
    Audit,
    Chosen,
    Finding,
    Kind,
    Severity,
    Words,
)
from memsync.reconcile.rules.schema import BaselineOutdated
from memsync.reconcile.seen_vectors import Verify
from memsync.settings import Settings
from memsync.stores.history.exchanges import known_personas
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres

_PLAN = "memsync reconcile plan"


class Look(Protocol):
    """Makes an audit."""

    def __call__(
        self,
        postgres: Postgres,
        ltm: LongTermMemory,
        settings: Settings,
        tell: Tell,
        *,
        verify: Verify | None,
        deep: bool | None,
    ) -> Audit:
        """The audit of these stores."""
        ...


def report(
    ctx: typer.Context,
    view: View,
    look: Look,
) -> int:
    """Open both stores, make the audit `look`, and print it. Returns the exit status."""
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(ctx.obj) as tell:
            audit = look(postgres, ltm, settings, tell, verify=view.verify, deep=view.deep)
        with audit:
            require_known(postgres, view, audit)
            return print_audit(audit, view, as_json=ctx.obj.as_json)


def require_known(postgres: Postgres, view: View, audit: Audit) -> None:
    """Refuse a persona that neither Postgres nor a finding names: a slip would read as clean.

    Raises: InvalidInput.
    """
    both = (audit.findings, audit.acknowledged)
    if view.persona is None or any(each.chosen(persona=view.persona) for each in both):
        return
    with postgres.session() as session:
        if not known_personas(session, [view.persona]):
            raise InvalidInput(
                f"there is no persona {view.persona} in {postgres.label}, and no finding names it; "
                "correct --persona"
            )


def print_audit(audit: Audit, view: View = EVERYTHING, *, as_json: bool = False) -> int:
    """Print the result of an audit. Returns the exit status."""
    found = view.of_audit(audit)
    findings = (_fields(each, view) for each in _listed(audit, view))
    if view.as_lines:
        for each in findings:
            data(json_line(type="finding", **each))
        data(json_line(type="summary", **_summary(audit, view)))
    elif as_json:
        print_json_list("findings", findings, **_summary(audit, view))
    else:
        _print(audit, found, view)
    if not audit.complete:
        return INCOMPLETE
    return FINDINGS if found else 0


def _listed(audit: Audit, view: View) -> Iterator[Finding]:
    """The findings to be listed: those that are new, then those that are acknowledged."""
    known = _in_order(view.of_known(audit)) if view.acknowledged else ()
    return chain(_in_order(view.of_audit(audit)), known)


def _in_order(found: Chosen) -> Iterator[Finding]:
    """The most severe findings first, then those of the codes that concern most people."""
    for code in _codes(found):
        yield from found.of(code)


def _print(audit: Audit, found: Chosen, view: View) -> None:
    known = view.of_known(audit)
    _print_what_was_read(audit, known)
    _print_codes(found)
    listed = len(found) + (len(known) if view.acknowledged else 0)
    shown = 0 if view.summary else min(listed, view.limit or listed)
    if shown:
        say()
    for each in islice(_listed(audit, view), shown):
        _print_finding(each, view)
    if not view.summary and shown < listed:
        more = count(listed - shown, "more finding")
        say(f"… {more}: --limit 0 prints all, --json-lines is for programs")
    if shown:
        say()
    for line in audit.not_checked:
        say(f"not checked: {line}", "yellow")
    if view.is_narrow and (left := len(audit.faults) - len(found)):
        say(f"not looked at, as you asked: {count(left, 'other finding')}")
    verdict = _verdict(audit, found, len(known), is_narrow=view.is_narrow)
    say(verdict, "green" if audit.complete and not found else "bold red")
    _print_commands(audit, found, view)


def _print_what_was_read(audit: Audit, known: Chosen) -> None:
    say(f"memories lie in the {audit.layout} layout: {audit.why_layout}")
    exchanges, points = count(audit.rows_checked, "exchange"), count(audit.points_checked, "point")
    say(f"compared {exchanges} with {points}")
    if audit.trusted:
        of_them = count(audit.trusted, "point was", "points were")
        say(f"{of_them} compared by fingerprint, and not read: --deep reads all")
    if audit.why_whole:
        say(f"every point was read: {audit.why_whole}")
    say(looked_at(audit.vectors))
    for line in audit.left_out:
        say(f"not looked at: {line}")
    if audit.archived:
        say(
            f"{count(audit.archived, 'memory', 'memories')} archived: the app keeps no rows of them"
        )
    if audit.noted:
        say(f"{count(audit.noted, 'memory', 'memories')} in the ledger")
    if audit.facts:
        said = (f"{number:,} {name}" for name, number in audit.facts.items())
        say(f"facts, no faults: {', '.join(said)}")
    if known:
        say(f"{len(known):,} acknowledged: {numbered(known.counts)}")
    if audit.settling:
        say(f"{count(audit.settling, 'difference')} still settling: too young to judge")


def _print_codes(found: Chosen) -> None:
    rows = []
    for code, kinds in _codes(found).items():
        most = kinds[0]
        number = sum(found.kinds[kind] for kind in kinds)
        people = found.people(code)
        rows.append(
            (
                most.severity,
                code,
                most.name,
                f"{number:,}",
                f"{people:,}" if people else "",
                most.grade,
            )
        )
    head = ("severity", "code", "finding", "count", "personas", "repair")
    print_table(rows, head=head, right=(3, 4))


def numbered(counts: Mapping[str, int]) -> str:
    """Numbers by name in one line, such as `2 orphan-point, 1 missing-point`."""
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _print_commands(audit: Audit, found: Chosen, view: View) -> None:
    commands: dict[str, list[str]] = {}
    outdated = audit.findings.chosen(lambda kind: kind.code == BaselineOutdated.code)
    for code, kinds in (*_codes(found).items(), *_codes(outdated).items()):
        for command in dict.fromkeys(kind.next_command for kind in kinds):
            commands.setdefault(command, []).append(code)
    for command, codes in _plans_in_order(commands).items():
        if len(commands) > 1:
            say(f"for {', '.join(codes)}:")
        whose = f" --persona {view.persona}" if view.persona and command.startswith(_PLAN) else ""
        say(f"next: {command}{whose}")


def _plans_in_order(commands: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The commands in their order, but all plans where the first is; what removes comes last."""
    plans = sorted((c for c in commands if c.startswith(_PLAN)), key=lambda c: "--unsafe" in c)
    others = [each for each in commands if each not in plans]
    at = next((n for n, each in enumerate(commands) if each in plans), 0)
    return {each: commands[each] for each in (*others[:at], *plans, *others[at:])}


def _print_finding(finding: Finding, view: View) -> None:
    say_heading(f"{finding.code} {finding.name}  {finding.store}  {finding.key}")
    if finding.persona_id:
        held = f", held by persona {finding.held_by}" if finding.held_by else ""
        say(f"    persona {finding.persona_id}{held}")
    values = ((name, _shown(value, view)) for name, value in finding.evidence.items())
    say("    " + one_line("; ".join(f"{name}: {value}" for name, value in values)))
    if finding.accept_command:
        say(f"    where it was meant: {finding.accept_command}")
    if finding.acknowledged:
        say(f"    {said_of(finding.acknowledged)}")


def said_of(each: Acknowledgement) -> str:
    """Who acknowledged a finding, when and why, in one line."""
    return one_line(f"acknowledged by {each.who} on {each.at:%Y-%m-%d}: {each.reason}")


def _shown(value: object, view: View) -> str:
    if isinstance(value, Words) and view.show_text:
        return repr(value.text)
    return "none" if value is None else str(value)


def _verdict(audit: Audit, found: Chosen, known: int, *, is_narrow: bool) -> str:
    if not audit.complete:
        return f"INCOMPLETE: {count(len(found), 'finding')} so far, not everything was read"
    if not found:
        if is_narrow:
            return "clean, of what you asked for"
        if known:
            return f"clean: both stores agree, but for {count(known, 'acknowledged finding')}"
        return "clean: both stores agree"
    numbers: Counter[Severity] = Counter()
    for kind, number in found.kinds.items():
        numbers[kind.severity] += number
    parts = [
        count(numbers[severity], severity.value, f"{severity.value}s")
        for severity in Severity
        if numbers[severity]
    ]
    return f"{count(len(found), 'finding')}: {', '.join(parts)}"


def _summary(audit: Audit, view: View) -> dict[str, object]:
    found = view.of_audit(audit)
    return {
        "ok": audit.complete and not found,
        "complete": audit.complete,
        "counts": found.counts,
        "facts": audit.facts,
        "acknowledged": view.of_known(audit).counts,
        "layout": audit.layout,
        "why_layout": audit.why_layout,
        "not_looked_at": len(audit.faults) - len(found),
        "checked": {
            "rows": audit.rows_checked,
            "points": audit.points_checked,
            "by_fingerprint": audit.trusted,
            "why_all_were_read": audit.why_whole,
            "archived": audit.archived,
            "noted": audit.noted,
            "vectors": vectors.fields(audit.vectors),
        },
        "left_out": list(audit.left_out),
        "settling": audit.settling,
        "not_checked": list(audit.not_checked),
    }


def _fields(finding: Finding, view: View) -> dict[str, object]:
    """A finding for a program. Words have their text only where it was asked for."""
    fields = asdict(finding)
    for internal in ("witness", "repair"):
        del fields[internal]
    if not view.show_text:
        for value in fields["evidence"].values():
            if isinstance(value, dict):
                del value["text"]
    return fields


def _codes(found: Chosen) -> dict[str, list[Kind]]:
    """The kinds by code, the most frequent first; the codes in the order of `_in_order`."""
    codes: dict[str, list[Kind]] = {}
    for kind in sorted(found.kinds, key=lambda each: -found.kinds[each]):
        codes.setdefault(kind.code, []).append(kind)
    severities = list(Severity)

    def order(code: str) -> tuple[int, int, str]:
        severity = min(severities.index(kind.severity) for kind in codes[code])
        return severity, -found.people(code), code

    return {code: codes[code] for code in sorted(codes, key=order)}
