"""Makes an audit for a command, and prints its result: a table by code, findings, the verdict.

It decides order, length and what is left out. Nobody's words are printed unless they are asked for.
All counts and the exit status come from the findings that were selected, which are read one by one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Protocol, Self
from uuid import UUID

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
from memsync.cli.rules import no_finding
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.stores import opened_stores
from memsync.cli.vectors import SeedOption, VectorsOption, looked_at, verify_of
from memsync.errors import InvalidInput
from memsync.model import ids
from memsync.model.progress import Tell
from memsync.model.wording import count
from memsync.reconcile import RULES
from memsync.reconcile.findings import Audit, Chosen, Finding, Kind, Severity, Words
from memsync.reconcile.seen_vectors import Verify
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
    """Which findings of an audit are looked at, and how they are printed.

    `verify` says which vectors the audit looks at.
    """

    select: frozenset[str] = frozenset()
    persona: UUID | None = None
    limit: int = LIMIT
    summary: bool = False
    show_text: bool = False
    as_lines: bool = False
    verify: Verify | None = None

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
        verify: Verify | None,
    ) -> Self:
        """The view that the options ask for. Raises: InvalidInput for a code that is none."""
        known = {word.lower(): word for rule in RULES for word in _words_for(rule.code, rule.name)}
        wanted = {each: known.get(each.lower()) for each in select or ()}
        for each, word in wanted.items():
            if word is None:
                raise InvalidInput(no_finding(each))
        whose = None if persona is None else ids.persona_id(persona)
        chosen = frozenset(word for word in wanted.values() if word)
        return cls(chosen, whose, limit, summary, show_text, as_lines, verify)

    def of_audit(self, audit: Audit) -> Chosen:
        """The faults that were asked for."""
        return audit.findings.chosen(self._wants, self.persona)

    def _wants(self, kind: Kind) -> bool:
        words = _words_for(kind.code, kind.name)
        selected = not self.select or not self.select.isdisjoint(words)
        return selected and kind.severity is not Severity.INFO

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
        verify_vectors: VectorsOption = None,
        verify_seed: SeedOption = None,
    ) -> int:
        view = View.of(
            select,
            persona,
            limit,
            summary=summary,
            show_text=show_text,
            as_lines=as_lines,
            verify=verify_of(verify_vectors, verify_seed),
        )
        return run(ctx, view)

    command.__name__, command.__doc__ = run.__name__, run.__doc__
    return command


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
            audit = look(postgres, ltm, settings, tell, verify=view.verify)
        with audit:
            _require_known(postgres, view, audit)
            return print_audit(audit, view, as_json=ctx.obj.as_json)


def _require_known(postgres: Postgres, view: View, audit: Audit) -> None:
    """Refuse a persona that neither Postgres nor a finding names: a slip would read as clean.

    Raises: InvalidInput.
    """
    if view.persona is None or audit.findings.chosen(persona=view.persona):
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
    findings = (_fields(each, view) for each in _in_order(found))
    if view.as_lines:
        for each in findings:
            data(json_line(type="finding", **each))
        data(json_line(type="summary", **_summary(audit, found)))
    elif as_json:
        print_json_list("findings", findings, **_summary(audit, found))
    else:
        _print(audit, found, view)
    if not audit.complete:
        return INCOMPLETE
    return FINDINGS if found else 0


def _in_order(found: Chosen) -> Iterator[Finding]:
    """The most severe findings first, then those of the codes that concern most people."""
    for code in _codes(found):
        yield from found.of(code)


def _print(audit: Audit, found: Chosen, view: View) -> None:
    _print_what_was_read(audit)
    _print_codes(found)
    shown = 0 if view.summary else min(len(found), view.limit or len(found))
    if shown:
        say()
    for each in islice(_in_order(found), shown):
        _print_finding(each, view)
    if not view.summary and shown < len(found):
        more = count(len(found) - shown, "more finding")
        say(f"… {more}: --limit 0 prints all, --json-lines is for programs")
    if shown:
        say()
    for line in audit.not_checked:
        say(f"not checked: {line}", "yellow")
    if view.is_narrow and (left := len(audit.faults) - len(found)):
        say(f"not looked at, as you asked: {count(left, 'other finding')}")
    verdict = _verdict(audit, found, is_narrow=view.is_narrow)
    say(verdict, "green" if audit.complete and not found else "bold red")
    _print_commands(found)


def _print_what_was_read(audit: Audit) -> None:
    say(f"memories lie in the {audit.layout} layout: {audit.why_layout}")
    exchanges, points = count(audit.rows_checked, "exchange"), count(audit.points_checked, "point")
    say(f"compared {exchanges} with {points}")
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


def _print_commands(found: Chosen) -> None:
    commands: dict[str, list[str]] = {}
    for code, kinds in _codes(found).items():
        for command in dict.fromkeys(kind.next_command for kind in kinds):
            commands.setdefault(command, []).append(code)
    for command, codes in commands.items():
        if len(commands) > 1:
            say(f"for {', '.join(codes)}:")
        say(f"next: {command}")


def _print_finding(finding: Finding, view: View) -> None:
    say_heading(f"{finding.code} {finding.name}  {finding.store}  {finding.key}")
    if finding.persona_id:
        say(f"    persona {finding.persona_id}")
    values = ((name, _shown(value, view)) for name, value in finding.evidence.items())
    say("    " + one_line("; ".join(f"{name}: {value}" for name, value in values)))


def _shown(value: object, view: View) -> str:
    if isinstance(value, Words) and view.show_text:
        return repr(value.text)
    return "none" if value is None else str(value)


def _verdict(audit: Audit, found: Chosen, *, is_narrow: bool) -> str:
    if not audit.complete:
        return f"INCOMPLETE: {count(len(found), 'finding')} so far, not everything was read"
    if not found:
        return "nothing of what you asked for" if is_narrow else "clean: both stores agree"
    numbers: Counter[Severity] = Counter()
    for kind, number in found.kinds.items():
        numbers[kind.severity] += number
    parts = [
        count(numbers[severity], severity.value, f"{severity.value}s")
        for severity in Severity
        if numbers[severity]
    ]
    return f"{count(len(found), 'finding')}: {', '.join(parts)}"


def _summary(audit: Audit, found: Chosen) -> dict[str, object]:
    return {
        "ok": audit.complete and not found,
        "complete": audit.complete,
        "counts": found.counts,
        "facts": audit.facts,
        "layout": audit.layout,
        "why_layout": audit.why_layout,
        "not_looked_at": len(audit.faults) - len(found),
        "checked": {
            "rows": audit.rows_checked,
            "points": audit.points_checked,
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


def _words_for(code: str, name: str) -> tuple[str, str, str]:
    """How --select may call a finding: by its code, its name or its family."""
    return code, name, code.rstrip("0123456789")


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
