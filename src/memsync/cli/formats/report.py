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
from itertools import chain, islice
from typing import Self

from memsync.cli import vectors
from memsync.cli.formats.order import by_code, codes_of, in_order, shares_of
from memsync.cli.output import typed
from memsync.cli.statuses import FINDINGS, INCOMPLETE
from memsync.cli.views import EVERYTHING, View
from memsync.model.wording import count
from memsync.reconcile.findings import Audit, Chosen, Finding, Severity, counted
from memsync.reconcile.recorded import Recorded
from memsync.reconcile.rules import RULES, Rule
from memsync.reconcile.rules.base import StateRule
from memsync.reconcile.rules.coverage import NOT_JUDGED
from memsync.reconcile.rules.schema import BaselineOutdated
from memsync.reconcile.rules.vectors import VectorDrift, VectorRule

_CHECK = "memsync check"
_RECONCILE = "memsync reconcile"
_PLAN = f"{_RECONCILE} plan"
_WRITING = (_RECONCILE, "memsync sync")
"""Commands that rest on a whole audit, or that write memories."""


@dataclass(frozen=True, slots=True)
class Made:
    """How a report was made: by which command, of which stores, when, and how long it took.

    `postgres` and `vectors` name the stores, without passwords.
    """

    command: str = _CHECK
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
    def complete(self) -> bool:
        """Whether everything was read, and something that was asked for was looked for or found."""
        codes = self.view.codes
        asked = (rule for rule in RULES if codes is None or rule.code in codes)
        return self.audit.complete and (bool(self.found) or not all(map(self._not_at_all, asked)))

    @property
    def ok(self) -> bool:
        """Whether everything was read and nothing was found."""
        return self.complete and not self.found

    @property
    def status(self) -> int:
        """The exit status."""
        if not self.complete:
            return INCOMPLETE
        return FINDINGS if self.found else 0

    @property
    def verdict(self) -> str:
        """How it stands, in one line."""
        if not self.audit.complete:
            findings = count(len(self.found), "finding")
            return f"INCOMPLETE: {findings} so far, not everything was read"
        if not self.complete:
            return "INCOMPLETE: nothing that you asked for was looked for"
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
            return "clean; the parts that an earlier run read may have changed since"
        if self.view.is_narrow:
            unseen = ", ".join(self.not_looked_for) if self.view.select else ""
            but_for = f", but for what was not looked for: {unseen}" if unseen else ""
            return f"clean, of what you asked for{but_for}"
        but = []
        if self.known:
            but.append(count(len(self.known), "acknowledged finding"))
        if self.audit.settling:
            but.append(
                count(self.audit.settling, "difference that is", "differences that are")
                + " still settling"
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
        found, known = by_code(self.found), by_code(self.known)
        for rule in sorted(RULES, key=lambda each: each.code):
            severity = rule.severity_in(self.audit.layout)
            number = found.get(rule.code, 0)
            if severity is Severity.INFO and not number:
                continue
            why_not = "" if number else self._why_not(rule)
            yield Looked(rule, severity, number, known.get(rule.code, 0), why_not)

    @property
    def not_looked_for(self) -> dict[str, str]:
        """Why none was looked for, by code, of those that were asked for and not found."""
        if not self.audit.complete:
            return {}
        return {
            each.rule.code: each.why_not
            for each in self.looked()
            if each.why_not and not self._left_out(each.rule)
        }

    def unseen_lines(self) -> list[str]:
        """The same as sentences, of codes that --select names."""
        codes: dict[str, list[str]] = {}
        for code, why in self.not_looked_for.items() if self.view.select else ():
            codes.setdefault(why, []).append(code)
        return [f"{', '.join(each)}: {why}" for why, each in codes.items()]

    @property
    def known_unseen(self) -> dict[str, int]:
        """Acknowledgements, by name, of findings that were asked for and not looked for.

        Of one persona nobody can say how many: an acknowledgement names none.
        """
        if self.view.persona:
            return {}
        asked, looked_for = self.view.codes, self.audit.looked_for
        unseen = Counter(each.code for each in self.audit.unseen if each.code not in looked_for)
        return counted(
            (rule.code, rule.name, unseen[rule.code])
            for rule in RULES
            if rule.code in unseen and (asked is None or rule.code in asked)
        )

    def _left_out(self, rule: Rule) -> str:
        """Why nobody asked for findings of this rule; empty where somebody did."""
        if rule.is_cause:
            return ""
        codes = self.view.codes
        if codes is not None and rule.code not in codes:
            return "--select leaves it out"
        if self.view.persona is not None and isinstance(rule, StateRule):
            return "it is not about one persona, so --persona leaves it out"
        return ""

    def _why_not(self, rule: Rule) -> str:
        """Why a rule without findings proves nothing; empty where it does."""
        seen = self.audit.vectors
        if why := self._not_at_all(rule):
            return why
        if isinstance(rule, VectorRule) and seen and seen.is_sample:
            return f"none in what was seen: {vectors.looked_at(seen)}"
        if rule.code in NOT_JUDGED and self.audit.unjudged:
            number = count(self.audit.unjudged, "memory was", "memories were")
            return f"none in what was judged: {number} not, of a thread with an unreadable time"
        return "" if self.audit.complete else "none in what was read, and not everything was"

    def _not_at_all(self, rule: Rule) -> str:
        """Why nothing was looked at for a rule; empty where at least a part was."""
        seen = self.audit.vectors
        if why := self._left_out(rule):
            return why
        if isinstance(rule, VectorRule) and seen is None:
            return vectors.NOT_LOOKED_AT
        if isinstance(rule, VectorDrift) and seen and seen.looked_at and not seen.compared:
            return "no text was embedded anew: name the embedder in the settings"
        if isinstance(rule, VectorRule) and seen and seen.is_sample:
            return ""
        is_part = rule.code in NOT_JUDGED and self.audit.unjudged
        if is_part or rule.code in self.audit.looked_for or not self.audit.complete:
            return ""
        if isinstance(rule, StateRule) and rule.only_in_check and self.made.command != _CHECK:
            return f"only {_CHECK} looks for it"
        return f"{self.made.command} did not look for it here"

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
        yield from self._known_lines(seen_only=seen_only)
        if audit.settling:
            settling = count(audit.settling, "difference")
            yield f"{settling} still settling: too young to judge, or an outbox will mend it"

    def _known_lines(self, *, seen_only: bool) -> Iterator[str]:
        if self.known:
            yield f"{len(self.known):,} acknowledged: {numbered(self.known.counts)}"
        if (unseen := self.known_unseen) and not seen_only:
            said = f"{sum(unseen.values()):,} acknowledged, and not looked for"
            yield f"{said}: {numbered(unseen)}"

    # ------------------------------------------------------------------ findings

    def listed(self) -> Iterator[Finding]:
        """The findings to be listed: those that are new, then those that are acknowledged."""
        known = in_order(self.known) if self.view.acknowledged else ()
        return chain(in_order(self.found), known)

    def spread(self, most: int) -> Iterator[Finding]:
        """The first findings of each code, `most` in all, in the order of `listed`.

        A code has as many as another one, as far as there are so many. Those that are new come
        before those that are acknowledged.
        """
        for found in (self.found, *([self.known] if self.view.acknowledged else [])):
            for code, share in shares_of(found, most).items():
                most -= share
                yield from islice(found.of(code), share)

    @property
    def listed_number(self) -> int:
        """How many `listed` has."""
        return len(self.found) + (len(self.known) if self.view.acknowledged else 0)

    def as_asked(self, command: str) -> str:
        """The command with the persona that was asked for, and for the vectors that were looked at,
        where it can be narrowed or widened so.
        """
        persona = self.view.persona
        if persona is not None and command.startswith(_PLAN):
            return f"{command} --persona {persona}"
        if command == BaselineOutdated.next_command:
            return f"{command}{vectors.option_of(self.view.verify)}"
        return command

    def command(self, command: str) -> str:
        """The same as it must be typed, with the settings that were named."""
        return typed(self.as_asked(command))

    def again(self, *more: str) -> str:
        """The command that makes this report again, with more options."""
        select = (word for each in sorted(self.view.select) for word in ("--select", each))
        persona = ("--persona", str(self.view.persona)) if self.view.persona else ()
        seen = vectors.option_of(self.view.verify).split()
        return typed(" ".join((self.made.command, *select, *persona, *seen, *more)))

    @property
    def first(self) -> str | None:
        """What comes before the next command; None for nothing."""
        return None if self.audit.complete else "mend what was not checked, as its line says"

    def commands(self) -> dict[str, list[str]]:
        """What to type next, each with the codes that it is for.

        Of what is incomplete nothing is planned, acknowledged or written, so it is made again; but
        what was found may be the cause, asked for or not.
        """
        commands: dict[str, list[str]] = {}
        found = self.found if self.audit.complete else self.audit.faults
        outdated = self.audit.findings.chosen(lambda kind: kind.code == BaselineOutdated.code)
        for code, kinds in (*codes_of(found).items(), *codes_of(outdated).items()):
            for command in dict.fromkeys(kind.next_command for kind in kinds):
                commands.setdefault(command, []).append(code)
        if not self.audit.complete:
            others = {c: codes for c, codes in commands.items() if not c.startswith(_WRITING)}
            return others or {self.again(): []}
        return _plans_in_order(commands)

    def fields_of(self, finding: Finding) -> dict[str, object]:
        """A finding for a program. Words have their text only where it was asked for."""
        fields = asdict(finding)
        for internal in ("witness", "repair", "is_cause"):
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
