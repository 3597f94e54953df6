"""A finding: one fault, its evidence, and the state of both stores that it rests on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from memsync.model.ids import PointId


class Severity(StrEnum):
    """How bad it is: an error shows or hides the wrong memory, a warning will, info will not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Grade(StrEnum):
    """When memsync may repair it: always, only with `--unsafe`, or never."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    REPORT_ONLY = "report-only"


class Repair(StrEnum):
    """The repair that a plan makes of it."""

    MEND = "mend"
    """Write the exchange's memory anew from Postgres; remove the point if it stands elsewhere."""
    REMOVE = "remove"
    """Move the point to quarantine."""
    MOVE = "move"
    """Carry an archived memory over to the collection where memories belong."""
    RETIRE = "retire"
    """Remove a deployed collection once it is empty."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Witness:
    """What was read: an exchange (None: there is none), a point (state None: there is none).

    `row_digest` is the exchange's digest, `point_state` the digest of the point's payload.
    `memory_stands`: beside this point the exchange has its memory, where and as it must be found.
    """

    anchor_id: UUID | None = None
    row_digest: str | None = None
    collection: str | None = None
    point_id: PointId | None = None
    point_state: str | None = None
    memory_stands: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `key` names its subject within the store; `evidence` holds both values."""

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
    """What an audit found. `settling` are differences too young to count, or in the outbox.

    `complete` is False when something could not be read; `not_checked` says what and why.
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
