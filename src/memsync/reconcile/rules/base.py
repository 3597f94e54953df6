"""The base classes of the rules; each finding code has one rule class.

A CaseRule looks at one exchange and its memory, a StateRule at both stores as a whole. Both return
findings and change nothing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from memsync.reconcile.cases import Case
from memsync.reconcile.findings import Finding, Grade, Repair, Severity, Words
from memsync.reconcile.state import HISTORY, State

Evidence = Mapping[str, object]

_PLAN = "memsync reconcile plan"
_PLAN_UNSAFE = "memsync reconcile plan --unsafe"
_PLAIN = re.compile(r"[0-9A-Fa-f-]{1,64}")
"""An id, a digest or a number. People's words are none of these."""


class Rule:
    """One finding code. The docstring of each rule is what `memsync rules CODE` prints."""

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity] = Severity.ERROR
    grade: ClassVar[Grade] = Grade.SAFE
    repair: ClassVar[Repair] = Repair.MEND
    next_command: ClassVar[str] = ""

    @classmethod
    def command(cls) -> str:
        """The command that the operator should run next."""
        if cls.next_command:
            return cls.next_command
        return _PLAN_UNSAFE if cls.grade is Grade.UNSAFE else _PLAN


class CaseRule(Rule):
    """A rule that judges one case at a time."""

    def look(self, case: Case) -> Evidence | None:
        """The evidence when the case breaks the rule, else None."""
        raise NotImplementedError

    def can_be_repaired(self, case: Case) -> bool:
        """Whether the case can be repaired. Without an exchange no memory can be made."""
        return self.repair is not Repair.MEND or case.exchange is not None

    def judge(self, case: Case) -> Finding | None:
        """The finding when the case breaks the rule, else None."""
        evidence = self.look(case)
        if evidence is None:
            return None
        exchange, found = case.exchange, case.found
        hopeless = not self.can_be_repaired(case)
        return Finding(
            code=self.code,
            name=self.name,
            severity=self.severity,
            grade=Grade.REPORT_ONLY if hopeless else self.grade,
            repair=Repair.NONE if hopeless else self.repair,
            store=f"qdrant:{found.collection}" if found else HISTORY,
            key=str(found.point.id if found else exchange and exchange.anchor_id),
            persona_id=case.persona_id,
            evidence={name: _fact(value) for name, value in evidence.items()},
            next_command=self.command(),
            witness=case.witness,
        )


class StateRule(Rule):
    """A rule about a store as a whole.

    `only_in_check`: `memsync check` uses the rule, `memsync reconcile` does not.
    """

    only_in_check: ClassVar[bool] = True

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
            next_command=self.command(),
        )


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


def differing(row: str, point: str | None) -> Evidence:
    """Two texts as evidence, with the place of the first character in which they differ."""
    pairs = enumerate(zip(row, point or "", strict=False))
    at = next((n for n, (ours, theirs) in pairs if ours != theirs), min(len(row), len(point or "")))
    return {"row": words(row), "point": words(point), "differs_at": at}


def _fact(value: object) -> object:
    """The value as evidence: a number, words, or the text of an id."""
    return value if value is None or isinstance(value, int | float | bool | Words) else str(value)
