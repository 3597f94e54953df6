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

from memsync.model.ids import PointId


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

    MEND = "mend"
    """Write the exchange's memory anew from Postgres; remove the point if it lies elsewhere."""
    REMOVE = "remove"
    """Move the point to quarantine."""
    MOVE = "move"
    """Move an archived memory to the home collection."""
    RETIRE = "retire"
    """Remove a deployed collection once it is empty."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Witness:
    """The states of an exchange and a point when they were read.

    `row_digest` is the exchange's digest, None without an exchange; `point_state` is a digest of
    the point's payload, None without a point. `memory_stands`: another point already has the id
    that the exchange's memory must have.
    """

    anchor_id: UUID | None = None
    row_digest: str | None = None
    collection: str | None = None
    point_id: PointId | None = None
    point_state: str | None = None
    memory_stands: bool = False


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

    `settling` counts the differences that are too young, have an outbox entry, or changed while
    the audit ran. `not_checked` says which parts could not be read, and why.
    """

    findings: tuple[Finding, ...]
    rows_checked: int
    points_checked: int
    settling: int
    not_checked: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything was read."""
        return not self.not_checked

    @property
    def ok(self) -> bool:
        """Whether everything was read and nothing was found."""
        return self.complete and not self.findings

    @property
    def counts(self) -> dict[str, int]:
        """Findings by name, in the order of their codes."""
        return counted(self.findings)


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings of each name there are, in the order of their codes."""
    by_code = Counter((finding.code, finding.name) for finding in findings)
    return {name: count for (_, name), count in sorted(by_code.items())}
