"""Makes an audit for a command, and prints its result: a table by code, findings, the verdict.

It decides order, length and what is left out. Nobody's words are printed unless they are asked for.
All counts and the exit status come from the one list of findings that were selected.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Annotated, Self
from uuid import UUID

import typer

from memsync.cli.output import data, json_line, one_line, print_json, print_table, say
from memsync.cli.progress import progress
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.stores import opened_stores
from memsync.errors import InvalidInput
from memsync.model import ids
from memsync.model.progress import Tell
from memsync.model.wording import count
from memsync.reconcile import RULES
from memsync.reconcile.findings import Audit, Finding, Severity, Words, counted
from memsync.settings import Settings
from memsync.stores.history.exchanges import known_personas
from memsync.stores.ltm import LongTermMemory
from memsync.stores.postgres import Postgres

LIMIT = 10

SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CODE",
        help="Look at these findings only, by code, name or family, such as MSC; repeatable.",
    ),
]
PersonaOption = Annotated[
    str | None, typer.Option(metavar="UUID", help="Look at the findings of one persona only.")
]
LimitOption = Annotated[
    int, typer.Option(metavar="N", min=0, help="Print so many findings at most; 0: all.")
]
SummaryOption = Annotated[
    bool, typer.Option("--summary", help="Print the table and the verdict, no single finding.")
]
TextOption = Annotated[
    bool,
    typer.Option("--show-text", help="Print what people wrote, not only its length and digest."),
]
LinesOption = Annotated[
    bool,
    typer.Option(
        "--json-lines", help="Print one JSON object a line: each finding, then the summary."
    ),
]


@dataclass(frozen=True, slots=True)
class View:
    """Which findings of an audit are looked at, and how they are printed."""

    select: frozenset[str] = frozenset()
    persona: UUID | None = None
    limit: int = LIMIT
    summary: bool = False
    show_text: bool = False
    as_lines: bool = False

    @classmethod
    def of(
        cls,
        select: Sequence[str] | None,
        persona: str | None,
        limit: int,
        *,
        summary: bool,
        show_text: bool,
        as_lines: bool,
    ) -> Self:
        """The view that the options ask for. Raises: InvalidInput for a code that is none."""
        known = {word for rule in RULES for word in _words_for(rule.code, rule.name)}
        for each in select or ():
            if each not in known:
                raise InvalidInput(f"there is no finding {each}; `memsync rules` lists them")
        whose = None if persona is None else ids.persona_id(persona)
        return cls(frozenset(select or ()), whose, limit, summary, show_text, as_lines)

    def of_audit(self, audit: Audit) -> list[Finding]:
        """The faults that were asked for: the most severe first, then by people concerned."""
        chosen = [each for each in audit.faults if self._has(each)]
        people = {code: _people(of) for code, of in _by_code(chosen)}
        severities = list(Severity)
        return sorted(
            chosen,
            key=lambda each: (
                severities.index(each.severity),
                -people[each.code],
                each.code,
                each.key,
            ),
        )

    def _has(self, finding: Finding) -> bool:
        if self.persona is not None and finding.persona_id != self.persona:
            return False
        words = _words_for(finding.code, finding.name)
        return not self.select or not self.select.isdisjoint(words)

    @property
    def is_narrow(self) -> bool:
        """Whether findings may be left out of the verdict."""
        return bool(self.select or self.persona)


EVERYTHING = View()


def viewed(run: Callable[[typer.Context, View], int]) -> Callable[..., int]:
    """A command that takes the options of a view, and gives them to `run` as one value."""

    def command(
        ctx: typer.Context,
        *,
        select: SelectOption = None,
        persona: PersonaOption = None,
        limit: LimitOption = LIMIT,
        summary: SummaryOption = False,
        show_text: TextOption = False,
        as_lines: LinesOption = False,
    ) -> int:
        view = View.of(
            select, persona, limit, summary=summary, show_text=show_text, as_lines=as_lines
        )
        return run(ctx, view)

    command.__name__, command.__doc__ = run.__name__, run.__doc__
    return command


def report(
    ctx: typer.Context,
    view: View,
    look: Callable[[Postgres, LongTermMemory, Settings, Tell], Audit],
) -> int:
    """Open both stores, make the audit `look`, and print it. Returns the exit status."""
    with opened_stores(ctx) as (settings, postgres, ltm):
        with progress(ctx.obj) as tell:
            audit = look(postgres, ltm, settings, tell)
        _require_known(postgres, view, audit)
        return print_audit(audit, view, as_json=ctx.obj.as_json)


def _require_known(postgres: Postgres, view: View, audit: Audit) -> None:
    """Refuse a persona that neither Postgres nor a finding names: a slip would read as clean.

    Raises: InvalidInput.
    """
    if view.persona is None or any(each.persona_id == view.persona for each in audit.findings):
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
    if view.as_lines:
        for each in found:
            data(json_line(type="finding", **_fields(each, view)))
        data(json_line(type="summary", **_summary(audit, found)))
    elif as_json:
        findings = [_fields(each, view) for each in found]
        print_json(**_summary(audit, found), findings=findings)
    else:
        _print(audit, found, view)
    if not audit.complete:
        return INCOMPLETE
    return FINDINGS if found else 0


def _print(audit: Audit, found: Sequence[Finding], view: View) -> None:
    _print_what_was_read(audit)
    _print_codes(found)
    shown = [] if view.summary else found[: view.limit or None]
    if shown:
        say()
    for each in shown:
        _print_finding(each, view)
    if not view.summary and len(shown) < len(found):
        more = count(len(found) - len(shown), "more finding")
        say(f"… {more}: --limit 0 prints all, --json-lines is for programs")
    if shown:
        say()
    for line in audit.not_checked:
        say(f"not checked: {line}", "yellow")
    if view.is_narrow and (left := len(audit.faults) - len(found)):
        say(f"not looked at, as you asked: {count(left, 'other finding')}")
    verdict = _verdict(audit, found, is_narrow=view.is_narrow)
    say(verdict, "green" if audit.complete and not found else "bold red")
    commands = dict.fromkeys(each.next_command for each in found)
    for command in commands:
        codes = dict.fromkeys(each.code for each in found if each.next_command == command)
        if len(commands) > 1:
            say(f"for {', '.join(codes)}:")
        say(f"next: {command}")


def _print_what_was_read(audit: Audit) -> None:
    say(f"memories lie in the {audit.layout} layout: {audit.why_layout}")
    exchanges, points = count(audit.rows_checked, "exchange"), count(audit.points_checked, "point")
    say(f"compared {exchanges} with {points}")
    if audit.archived:
        say(
            f"{count(audit.archived, 'memory', 'memories')} archived: the app keeps no rows of them"
        )
    if audit.facts:
        said = (f"{number:,} {name}" for name, number in audit.facts.items())
        say(f"facts, no faults: {', '.join(said)}")
    if audit.settling:
        say(f"{count(audit.settling, 'difference')} still settling: too young to judge")


def _print_codes(found: Sequence[Finding]) -> None:
    rows = []
    for _, of in _by_code(found):
        first = of[0]
        people = f"{_people(of):,}" if first.persona_id else ""
        rows.append((first.severity, first.code, first.name, f"{len(of):,}", people, first.grade))
    head = ("severity", "code", "finding", "count", "personas", "repair")
    print_table(rows, head=head, right=(3, 4))


def _print_finding(finding: Finding, view: View) -> None:
    say(one_line(f"{finding.code} {finding.name}  {finding.store}  {finding.key}"))
    if finding.persona_id:
        say(f"    persona {finding.persona_id}")
    values = ((name, _shown(value, view)) for name, value in finding.evidence.items())
    say("    " + one_line("; ".join(f"{name}: {value}" for name, value in values)))


def _shown(value: object, view: View) -> str:
    if isinstance(value, Words) and view.show_text:
        return repr(value.text)
    return "none" if value is None else str(value)


def _verdict(audit: Audit, found: Sequence[Finding], *, is_narrow: bool) -> str:
    if not audit.complete:
        return f"INCOMPLETE: {count(len(found), 'finding')} so far, not everything was read"
    if not found:
        return "nothing of what you asked for" if is_narrow else "clean: both stores agree"
    parts = [
        count(sum(each.severity is severity for each in found), severity.value, plural)
        for severity, plural in (
            (Severity.ERROR, "errors"),
            (Severity.WARNING, "warnings"),
            (Severity.INFO, "infos"),
        )
        if any(each.severity is severity for each in found)
    ]
    return f"{count(len(found), 'finding')}: {', '.join(parts)}"


def _summary(audit: Audit, found: Sequence[Finding]) -> dict[str, object]:
    return {
        "ok": audit.complete and not found,
        "complete": audit.complete,
        "counts": counted(found),
        "facts": audit.facts,
        "layout": audit.layout,
        "why_layout": audit.why_layout,
        "not_looked_at": len(audit.faults) - len(found),
        "checked": {
            "rows": audit.rows_checked,
            "points": audit.points_checked,
            "archived": audit.archived,
        },
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


def _words_for(code: str, name: str) -> tuple[str, str, str]:
    """How --select may call a finding: by its code, its name or its family."""
    return code, name, code.rstrip("0123456789")


def _by_code(found: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """The findings by code, the codes in the order of their first finding."""
    order = {code: n for n, code in enumerate(dict.fromkeys(each.code for each in found))}
    ordered = sorted(found, key=lambda each: order[each.code])
    return [(code, list(of)) for code, of in groupby(ordered, key=lambda each: each.code)]


def _people(of: Iterable[Finding]) -> int:
    return len({each.persona_id for each in of if each.persona_id})
