"""The base classes of the rules; each finding code has one rule class.

A CaseRule looks at one exchange and its memory, a StateRule at both stores as a whole. Both return
findings and change nothing.
"""

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import ClassVar

from memsync.model.records import Place
from memsync.reconcile.cases import Case, Found
from memsync.reconcile.findings import Finding, Grade, Repair, Severity, Words
from memsync.reconcile.state import HISTORY, State
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.texts import is_as_deployed

Evidence = Mapping[str, object]

_NEXT = {
    Grade.SAFE: "memsync reconcile plan",
    # Its own file, because no plan is written over another, and both may be asked for.
    Grade.UNSAFE: "memsync reconcile plan --unsafe --out plan-unsafe.json",
    Grade.REPORT_ONLY: "memsync rules {code}",
}
_ADOPT = "memsync reconcile adopt --anew --point {place}"
_TEXT_KEYS = frozenset(
    ("user_text", "userText", "assistant_text", "assistantText", "content", "text")
)
"""Payload keys of what people wrote."""
_PLAIN = re.compile(r"[0-9A-Fa-f-]{1,64}")
"""An id, a digest or a number. People's words are none of these."""


class Rule:
    """One finding code. The docstring of each rule is what `memsync rules CODE` prints.

    `severity` is that of the shared layout, and of both where `per_persona` is None. An
    acknowledgement rests on the evidence, but for the values `moving`, which change by themselves.
    `is_cause` is true where the fault may be the cause of all others: it counts in every part of
    the findings, and nothing is acknowledged while it stands. `in_all` names the value that says
    how many there are, where only the first become findings. `can_be_accepted`
    is true where an adoption anew takes what stands for what should. `otherwise` has what else may
    be done: when, and the command. `look_with` are the options with which an audit looks for it.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity] = Severity.ERROR
    per_persona: ClassVar[Severity | None] = None
    grade: ClassVar[Grade] = Grade.SAFE
    repair: ClassVar[Repair] = Repair.MAKE
    next_command: ClassVar[str] = ""
    is_cause: ClassVar[bool] = False
    moving: ClassVar[frozenset[str]] = frozenset()
    in_all: ClassVar[str] = ""
    can_be_accepted: ClassVar[bool] = False
    otherwise: ClassVar[tuple[tuple[str, str], ...]] = ()
    look_with: ClassVar[str] = ""

    @classmethod
    def severity_in(cls, layout: Layout) -> Severity:
        """The severity of its findings where memories lie in this layout."""
        if layout is Layout.PER_PERSONA and cls.per_persona is not None:
            return cls.per_persona
        return cls.severity

    @classmethod
    def grade_in(cls, layout: Layout) -> Grade:
        """The usual grade of its findings there. A fact is in no plan, so it is report-only."""
        return Grade.REPORT_ONLY if cls.severity_in(layout) is Severity.INFO else cls.grade

    @classmethod
    def command_in(cls, layout: Layout) -> str:
        """The command that usually comes next where memories lie in this layout."""
        return cls.command(cls.grade_in(layout))

    @classmethod
    def command(cls, grade: Grade) -> str:
        """The command that the operator should run next, for a repair of this grade."""
        return cls.next_command or _NEXT[grade].format(code=cls.code)

    @classmethod
    def ways(cls) -> list[tuple[str, str]]:
        """The alternatives to a repair: when each applies, and its command."""
        found = list(cls.otherwise)
        if cls.can_be_accepted:
            found.append(("where it was meant", _ADOPT.format(place="COLLECTION/ID")))
        is_fault = any(cls.severity_in(layout) is not Severity.INFO for layout in Layout)
        if is_fault and not cls.is_cause:
            select = f"{cls.code}{cls.look_with}"
            baseline = f"memsync reconcile baseline --select {select} --reason TEXT"
            found.append(("to let it be", baseline))
        return found


class CaseRule(Rule):
    """A rule that judges one case at a time."""

    def look(self, case: Case) -> Evidence | None:
        """The evidence when the case breaks the rule, else None."""
        raise NotImplementedError

    def mended_by(self, case: Case) -> tuple[Repair, Grade]:
        """The repair of a case that breaks the rule, and its grade."""
        if self.repair is Repair.MAKE and case.exchange is None:
            return Repair.NONE, Grade.REPORT_ONLY
        return self.repair, self.grade

    def judge(self, case: Case) -> Finding | None:
        """The finding when the case breaks the rule, else None."""
        evidence = self.look(case)
        if evidence is None:
            return None
        exchange, place = case.exchange, case.place
        severity = self.severity_in(case.layout)
        repair, grade = self.mended_by(case)
        if severity is Severity.INFO:
            repair, grade = Repair.NONE, Grade.REPORT_ONLY
        return Finding(
            code=self.code,
            name=self.name,
            severity=severity,
            grade=grade,
            repair=repair,
            store=f"qdrant:{place.collection}" if place else HISTORY,
            key=str(place.point_id if place else exchange and exchange.anchor_id),
            persona_id=case.whose,
            held_by=case.held_by,
            evidence={name: _fact(value) for name, value in evidence.items()},
            next_command=self.command(grade),
            accept_command=self._accept(place),
            witness=case.witness(anew=repair is Repair.MAKE),
        )

    def _accept(self, place: Place | None) -> str | None:
        """The command that accepts a finding about this point alone; None where none does."""
        if place is None or not self.can_be_accepted:
            return None
        return _ADOPT.format(place=shlex.quote(str(place)))


class StateRule(Rule):
    """A rule about a store as a whole.

    `only_in_check`: `memsync check` uses the rule, `memsync reconcile` does not; `is_of` decides.
    """

    only_in_check: ClassVar[bool] = True

    def is_of(self, state: State, *, check: bool) -> bool:  # noqa: ARG002  for others
        """Whether this audit, a whole check or a comparison of memories, uses the rule."""
        return check or not self.only_in_check

    def can_look(self, state: State) -> bool:  # noqa: ARG002  for rules that need more
        """Whether the state is such that the rule can find what it is for."""
        return True

    def look(self, state: State) -> Iterator[Finding]:
        """A finding for each place where the state breaks the rule."""
        raise NotImplementedError

    def finding(self, store: str, key: str, **evidence: object) -> Finding:
        """The finding about `key` in `store`."""
        return Finding(
            code=self.code,
            name=self.name,
            severity=self.severity,
            grade=self.grade,
            repair=self.repair,
            store=store,
            key=key,
            persona_id=None,
            evidence={name: _fact(value) for name, value in evidence.items()},
            next_command=self.command(self.grade),
            is_cause=self.is_cause,
        )


def patched(case: Case, grade: Grade) -> tuple[Repair, Grade]:
    """The repair of a payload; none where no row tells which of its two values is right.

    Where the ledger has the memory, the persona is part of what it has, so that one stays.
    """
    found = case.found if case.exchange is None else None
    if found and (found.contradicts_itself or (found.is_left_out and case.entry)):
        return Repair.NONE, Grade.REPORT_ONLY
    return (Repair.MAKE if case.layout is Layout.SHARED and case.exchange else Repair.PATCH), grade


def words(text: str | None) -> Words | None:
    """A text that people wrote, as evidence."""
    return None if text is None else Words.of(text)


def from_payload(value: object) -> object:
    """A value of a payload, as evidence. Anything may stand there, so it counts as people's words
    unless it is an id, a digest or a number.
    """
    if value is None or isinstance(value, int | float | bool):
        return value
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else Words.of(str(value))


def persona_named(found: Found) -> object:
    """The persona that a payload names, as evidence: what stands there, where it is no id."""
    if found.reading.names_several_personas:
        return None
    named = found.reading.memory.persona_id
    return named or from_payload(found.point.payload.get(found.codec.key("persona_id")))


def from_field(name: str, value: object) -> object:
    """The value of this payload key, as evidence. A text is people's words whatever it is."""
    if name in _TEXT_KEYS and value is not None:
        return Words.of(str(value))
    return from_payload(value)


def differing(row: str, point: str | None) -> Evidence:
    """Two texts as evidence, with the place of the first character in which they differ.

    A text in the app's form has other places than the row's, so none is named then.
    """
    evidence: Evidence = {"row": words(row), "point": words(point)}
    if point is None or is_as_deployed(point):
        return evidence
    pairs = enumerate(zip(row, point, strict=False))
    at = next((n for n, (ours, theirs) in pairs if ours != theirs), min(len(row), len(point)))
    return {**evidence, "differs_at": at}


def _fact(value: object) -> object:
    """The value as evidence: a number, words, or a text, as of an id. JSON has no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, int | bool | Words) else str(value)
