"""The report of one audit: the one value that every format is made from.

It decides what was found, what was looked at and what was not, the verdict, the exit status and the
order of findings. The formats decide only how that is written. Findings are read from disk one by
one, as often as a format asks for them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from typing import Self

from memsync.cli import vectors
from memsync.cli.output import typed
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.views import EVERYTHING, View
from memsync.model.wording import count
from memsync.reconcile.findings import Audit, Chosen, Finding, Kind, Severity
from memsync.reconcile.recorded import Recorded
from memsync.reconcile.rules import RULES, Rule
from memsync.reconcile.rules.base import StateRule
from memsync.reconcile.rules.schema import BaselineOutdated
from memsync.reconcile.rules.vectors import VectorDrift, VectorRule

_PLAN = "memsync reconcile plan"


@dataclass(frozen=True, slots=True)
class Made:
    """How a report was made: by which command, of which stores, when, and how long it took.

    `postgres` and `vectors` name the stores, without passwords.
    """

    command: str = "memsync check"
    postgres: str = ""
    vectors: str = ""
    begun_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    memsync_version: str = field(default_factory=lambda: version("memsync"))


@dataclass(frozen=True, slots=True)
class Looked:
    """What an audit can say of one code: how many faults, or why none does not mean clean."""

    rule: Rule
    severity: Severity
    found: int
    known: int
    why_not: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether all was looked at, and nothing was found."""
        return not self.found and not self.why_not


@dataclass(frozen=True, slots=True)
class Report:
    """An audit as it was asked for.

    `found` are the faults that count, `known` those that an operator has acknowledged. `past` are
    recorded audits, the newest first.
    """

    audit: Audit
    view: View
    made: Made
    found: Chosen
    known: Chosen
    past: Sequence[Recorded] = ()

    @classmethod
    def of(
        cls,
        audit: Audit,
        view: View = EVERYTHING,
        made: Made | None = None,
        past: Sequence[Recorded] = (),
    ) -> Self:
        """The report of this audit."""
        found, known = view.of_audit(audit), view.of_known(audit)
        return cls(audit, view, made or Made(), found, known, past)

    # ------------------------------------------------------------------ the verdict

    @property
    def ok(self) -> bool:
        """Whether everything was read and nothing was found."""
        return self.audit.complete and not self.found

    @property
    def status(self) -> int:
        """The exit status."""
        if not self.audit.complete:
            return INCOMPLETE
        return FINDINGS if self.found else 0

    @property
    def verdict(self) -> str:
        """How it stands, in one line."""
        if not self.audit.complete:
            findings = count(len(self.found), "finding")
            return f"INCOMPLETE: {findings} so far, not everything was read"
        if self.found:
            numbers: Counter[Severity] = Counter()
            for kind, number in self.found.kinds.items():
                numbers[kind.severity] += number
            parts = [
                count(numbers[severity], severity.value, f"{severity.value}s")
                for severity in Severity
                if numbers[severity]
            ]
            return f"{count(len(self.found), 'finding')}: {', '.join(parts)}"
        if self.audit.took_over:
            return "clean, but for what may have changed since in the parts that were taken over"
        if self.view.is_narrow:
            return "clean, of what you asked for"
        but = []
        if self.known:
            but.append(count(len(self.known), "acknowledged finding"))
        if self.audit.settling:
            but.append(
                count(self.audit.settling, "difference that is", "differences that are")
                + " too young to judge"
            )
        return "clean: both stores agree" + (f", but for {' and '.join(but)}" if but else "")

    # ------------------------------------------------------------------ what was looked at

    @property
    def not_looked_at(self) -> int:
        """Faults that --select and --persona leave out."""
        return len(self.audit.faults) - len(self.found)

    def looked(self) -> Iterator[Looked]:
        """What can be said of every code that can be a fault, in the order of the codes.

        Where something could not be read, or was not asked for, none is no clean result.
        """
        found, known = _by_code(self.found), _by_code(self.known)
        for rule in sorted(RULES, key=lambda each: each.code):
            severity = rule.severity_in(self.audit.layout)
            number = found.get(rule.code, 0)
            if severity is Severity.INFO and not number:
                continue
            why_not = "" if number else self._why_not(rule)
            yield Looked(rule, severity, number, known.get(rule.code, 0), why_not)

    def _why_not(self, rule: Rule) -> str:
        """Why no finding of a rule does not mean that there is none; empty where it does."""
        codes = self.view.codes
        seen = self.audit.vectors
        if codes is not None and rule.code not in codes:
            return "--select leaves it out"
        if self.view.persona is not None and isinstance(rule, StateRule):
            return "it is not about one persona, so --persona leaves it out"
        if isinstance(rule, VectorRule) and seen is None:
            return "vectors were not looked at: --verify-vectors all does it"
        if isinstance(rule, VectorRule) and seen and seen.looked_at < (seen.memories or 0):
            return f"none in what was seen: {vectors.looked_at(seen)}"
        if isinstance(rule, VectorDrift) and seen and seen.looked_at and not seen.compared:
            return "no text was embedded anew: name the embedder in the settings"
        if not self.audit.complete:
            return "none in what was read, and not everything was"
        if rule.code not in self.audit.looked_for:
            return f"{self.made.command} did not look for it here"
        return ""

    @property
    def scope(self) -> Mapping[str, object]:
        """How much was compared, for a program."""
        return {
            "rows": self.audit.rows_checked,
            "points": self.audit.points_checked,
            "archived": self.audit.archived,
            "noted": self.audit.noted,
            "by_fingerprint": self.audit.trusted,
            "why_all_were_read": self.audit.why_whole,
            "why_alone": self.audit.why_alone,
            "vectors": vectors.fields(self.audit.vectors),
        }

    def scope_lines(self, *, seen_only: bool = False) -> Iterator[str]:
        """How much was compared, as sentences; with `seen_only` without what was not looked at."""
        audit = self.audit
        yield f"memories lie in the {audit.layout} layout: {audit.why_layout}"
        exchanges = count(audit.rows_checked, "exchange")
        yield f"compared {exchanges} with {count(audit.points_checked, 'point')}"
        if audit.trusted:
            of_them = count(audit.trusted, "point was", "points were")
            yield f"{of_them} compared by fingerprint, and not read: --deep reads all"
        why_whole = audit.why_whole and f"every point was read: {audit.why_whole}"
        yield from filter(None, (why_whole, audit.why_alone))
        if audit.vectors or not seen_only:
            yield vectors.looked_at(audit.vectors)
        for line in () if seen_only else audit.left_out:
            yield f"not looked at: {line}"
        if audit.archived:
            archived = count(audit.archived, "memory", "memories")
            yield f"{archived} archived: the app keeps no rows of them"
        if audit.noted:
            yield f"{count(audit.noted, 'memory', 'memories')} in the ledger"
        if audit.facts:
            said = (f"{number:,} {name}" for name, number in audit.facts.items())
            yield f"facts, no faults: {', '.join(said)}"
        if self.known:
            yield f"{len(self.known):,} acknowledged: {numbered(self.known.counts)}"
        if audit.settling:
            yield f"{count(audit.settling, 'difference')} still settling: too young to judge"

    # ------------------------------------------------------------------ findings

    def listed(self) -> Iterator[Finding]:
        """The findings to be listed: those that are new, then those that are acknowledged."""
        known = _in_order(self.known) if self.view.acknowledged else ()
        return chain(_in_order(self.found), known)

    @property
    def listed_number(self) -> int:
        """How many `listed` has."""
        return len(self.found) + (len(self.known) if self.view.acknowledged else 0)

    def for_persona(self, command: str) -> str:
        """The command for the persona that was asked for, where it can be narrowed so."""
        persona = self.view.persona
        narrow = persona is not None and command.startswith(_PLAN)
        return f"{command} --persona {persona}" if narrow else command

    def command(self, command: str) -> str:
        """The same as it must be typed, with the settings that were named."""
        return typed(self.for_persona(command))

    def again(self, *more: str) -> str:
        """The command that makes this report again, with more options."""
        select = (word for each in sorted(self.view.select) for word in ("--select", each))
        persona = ("--persona", str(self.view.persona)) if self.view.persona else ()
        return typed(" ".join((self.made.command, *select, *persona, *more)))

    def commands(self) -> dict[str, list[str]]:
        """What to type next, each with the codes that it is for."""
        commands: dict[str, list[str]] = {}
        outdated = self.audit.findings.chosen(lambda kind: kind.code == BaselineOutdated.code)
        for code, kinds in (*codes_of(self.found).items(), *codes_of(outdated).items()):
            for command in dict.fromkeys(kind.next_command for kind in kinds):
                commands.setdefault(command, []).append(code)
        return _plans_in_order(commands)

    def fields_of(self, finding: Finding) -> dict[str, object]:
        """A finding for a program. Words have their text only where it was asked for."""
        fields = asdict(finding)
        for internal in ("witness", "repair"):
            del fields[internal]
        if not self.view.show_text:
            for value in fields["evidence"].values():
                if isinstance(value, dict):
                    del value["text"]
        return fields


def whose(finding: Finding) -> str:
    """The persona that the finding is about, and the one who has the memory, if that is another."""
    if finding.persona_id is None:
        return ""
    held = f", held by persona {finding.held_by}" if finding.held_by else ""
    return f"persona {finding.persona_id}{held}"


def numbered(counts: Mapping[str, int]) -> str:
    """Numbers by name in one line, such as `2 orphan-point, 1 missing-point`."""
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _plans_in_order(commands: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The commands in their order, but all plans where the first is; what removes comes last."""
    plans = sorted((c for c in commands if c.startswith(_PLAN)), key=lambda c: "--unsafe" in c)
    others = [each for each in commands if each not in plans]
    at = next((n for n, each in enumerate(commands) if each in plans), 0)
    return {each: commands[each] for each in (*others[:at], *plans, *others[at:])}


def codes_of(found: Chosen) -> dict[str, list[Kind]]:
    """The kinds by code, the most frequent first.

    The most severe codes come first, then those that concern most people.
    """
    codes: dict[str, list[Kind]] = {}
    for kind in sorted(found.kinds, key=lambda each: -found.kinds[each]):
        codes.setdefault(kind.code, []).append(kind)
    severities = list(Severity)

    def order(code: str) -> tuple[int, int, str]:
        severity = min(severities.index(kind.severity) for kind in codes[code])
        return severity, -found.people(code), code

    return {code: codes[code] for code in sorted(codes, key=order)}


def _in_order(found: Chosen) -> Iterator[Finding]:
    """The findings, in the order of `codes_of`."""
    for code in codes_of(found):
        yield from found.of(code)


def _by_code(found: Chosen) -> Counter[str]:
    numbers: Counter[str] = Counter()
    for kind, number in found.kinds.items():
        numbers[kind.code] += number
    return numbers
