"""A finding is one fault with its evidence; an `Audit` holds all findings of one audit.

This module holds values only. Plans and reports are made from them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from uuid import UUID

from memsync.model.records import Place
from memsync.stores.ltm.layouts import Layout


class Severity(StrEnum):
    """ERROR: recall shows or misses a memory wrongly. WARNING: it will. INFO: it will not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Grade(StrEnum):
    """Whether memsync may repair a finding: always, only with `--unsafe`, or never."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    REPORT_ONLY = "report-only"


class Repair(StrEnum):
    """The repair that a plan contains for a finding."""

    MAKE = "make"
    """Write the exchange's memory from Postgres, in place of the point or as a new one."""
    PATCH = "patch"
    """Mend the payload, and leave the vector and the id as they are."""
    COPY = "copy"
    """Copy the point, with its vector, to the collection where it belongs."""
    MOVE = "move"
    """Copy it, and then move the old one to quarantine."""
    REMOVE = "remove"
    """Move the point to quarantine."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Witness:
    """The states of an exchange and of points when they were read. A repair rests on them.

    `anchor_id` and `row_digest` are the exchange's, None without one. `place` is the point that the
    finding is about, None without one, and `state` a digest of its payload. `target` is where the
    memory belongs: where it will be made or copied to, or where the one stands that is kept.
    `target_state` is the state of the point there, None for none.
    """

    anchor_id: UUID | None = None
    row_digest: str | None = None
    place: Place | None = None
    state: str | None = None
    target: Place | None = None
    target_state: str | None = None


_TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class Words:
    """A text that people wrote, as evidence: its beginning, length in characters and SHA-256.

    Reports show the text only to those who ask for it, because logs and mail keep what they get.
    """

    text: str
    characters: int
    sha256: str

    @classmethod
    def of(cls, text: str) -> Self:
        """The evidence of a text, of which no more is kept than a report can show."""
        cut = text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
        # A payload may hold half a surrogate pair.
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(cut, len(text), digest)

    def __str__(self) -> str:
        plural = "" if self.characters == 1 else "s"
        return f"{self.characters:,} character{plural}, sha256 {self.sha256[:12]}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `key` names its subject within the store; `evidence` holds both values.

    The values of `evidence` are numbers, names that memsync or a schema gives, or `Words`.
    """

    code: str
    name: str
    severity: Severity
    grade: Grade
    repair: Repair
    store: str
    key: str
    persona_id: UUID | None
    evidence: Mapping[str, object]
    next_command: str
    witness: Witness = field(default=Witness(), repr=False)


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit.

    `layout` is where memories lie, and `why_layout` how that is known. `archived` counts the
    memories whose rows the app no longer keeps. `settling` counts the differences that are too
    young, have an outbox entry, or changed while the audit ran. `not_checked` says which parts
    could not be read, and why.
    """

    findings: tuple[Finding, ...]
    rows_checked: int
    points_checked: int
    settling: int
    not_checked: tuple[str, ...]
    archived: int = 0
    layout: Layout = Layout.SHARED
    why_layout: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything was read."""
        return not self.not_checked

    @property
    def ok(self) -> bool:
        """Whether everything was read and no fault was found; a fact of severity info is none."""
        return self.complete and not self.faults

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are errors or warnings."""
        return tuple(each for each in self.findings if each.severity is not Severity.INFO)

    @property
    def facts(self) -> dict[str, int]:
        """How many points, or collections, each fact of severity info is about, by name."""
        infos = (each for each in self.findings if each.severity is Severity.INFO)
        return {each.name: int(str(next(iter(each.evidence.values())))) for each in infos}

    @property
    def counts(self) -> dict[str, int]:
        """Faults by name, in the order of their codes."""
        return counted(self.faults)


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings of each name there are, in the order of their codes."""
    by_code = Counter((finding.code, finding.name) for finding in findings)
    return {name: count for (_, name), count in sorted(by_code.items())}
