"""A finding is one fault with its evidence; an `Audit` holds all findings of one audit.

This module decides nothing. Plans and reports are made from its values. However many findings there
are, memory does not grow with them: they wait in a spool, and their numbers are kept by kind.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self
from uuid import UUID

from memsync.model.records import Place
from memsync.reconcile.seen_vectors import Verified
from memsync.reconcile.spool import Spool
from memsync.stores.ltm.layouts import Layout


class Severity(StrEnum):
    """ERROR: recall is wrong now. WARNING: it will be. INFO: a fact, no fault."""

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
    `target_state` is the state of the point there, None for none. `vector` is the state of the
    vector of the point at `place`, where the finding is about it.
    """

    anchor_id: UUID | None = None
    row_digest: str | None = None
    place: Place | None = None
    state: str | None = None
    target: Place | None = None
    target_state: str | None = None
    vector: str | None = None


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
class Acknowledgement:
    """Why a finding is let stand, by an operator's own words; who said so, and when."""

    reason: str
    who: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `key` names its subject within the store; `evidence` holds both values.

    `persona_id` is the persona whose memory it should be, and `held_by` another one who has it;
    None where there is none. The values of `evidence` are numbers, names that memsync or a schema
    gives, or `Words`. `accept_command` accepts what this finding alone is about; None where no
    command does. `acknowledged` is None unless an operator knows of exactly this finding.
    `is_cause`: it may be the cause of every other finding.
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
    held_by: UUID | None = None
    accept_command: str | None = None
    acknowledged: Acknowledgement | None = None
    is_cause: bool = False


class Kind(NamedTuple):
    """What the findings of one kind share."""

    code: str
    name: str
    severity: Severity
    grade: Grade
    next_command: str
    is_cause: bool


@dataclass(frozen=True)
class Chosen:
    """Some of the findings of an audit, in the order of code, store and key.

    They are those of `kinds`, with how many there are of each, and of `persona`, None for all. A
    finding concerns the persona whose memory it should be, and the one who has it. One that may be
    the cause of all concerns every persona.
    """

    findings: "Findings"
    kinds: Mapping[Kind, int]
    persona: UUID | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each name, in the order of their codes."""
        return counted((kind.code, kind.name, number) for kind, number in self.kinds.items())

    def of(self, code: str) -> Iterator[Finding]:
        """Those of one code."""
        persona = None if self._is_cause(code) else self.persona
        found = self.findings.of(code, persona)
        return (each for each in found if kind_of(each) in self.kinds)

    def people(self, code: str) -> int:
        """How many personas those of this code are about."""
        if self.persona is None or self._is_cause(code):
            return self.findings.people(code)
        return int(any(kind.code == code for kind in self.kinds))

    def _is_cause(self, code: str) -> bool:
        return any(kind.code == code and kind.is_cause for kind in self.kinds)

    def __iter__(self) -> Iterator[Finding]:
        for code in sorted({kind.code for kind in self.kinds}):
            yield from self.of(code)

    def __len__(self) -> int:
        return sum(self.kinds.values())


class Findings:
    """All findings of one audit, in the order of code, store and key. They are kept on disk.

    One may go through them again and again, from any thread, one at a time. They are gone when they
    are closed, or when nothing uses them any more.
    """

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self._spool: Spool[Finding] = Spool()
        self._kinds: Counter[Kind] = Counter()
        self.add_all(findings)

    def add_all(self, findings: Iterable[Finding]) -> None:
        """Keep these findings."""
        for each in findings:
            self.add(each)

    def add(self, finding: Finding) -> None:
        """Keep a finding."""
        key = subject_key(finding.code, finding.store, finding.key)
        owners = [each.bytes for each in (finding.persona_id, finding.held_by) if each]
        self._spool.add(key, finding, owners)
        self._kinds[kind_of(finding)] += 1

    def has(self, code: str, store: str, key: str) -> bool:
        """Whether there is a finding about this subject."""
        return self._spool.has(subject_key(code, store, key))

    def drop(self, code: str) -> int:
        """Forget the findings of a code. Returns how many there were."""
        self._spool.remove_under(_of_code(code))
        dropped = [kind for kind in self._kinds if kind.code == code]
        return sum(self._kinds.pop(kind) for kind in dropped)

    def close(self) -> None:
        """Forget all of them, and free the disk. Closing twice is no error."""
        self._spool.close()

    def chosen(
        self, wanted: Callable[[Kind], bool] = lambda _: True, persona: UUID | None = None
    ) -> Chosen:
        """The findings of the wanted kinds; with `persona` only those that concern that persona."""
        kinds: Mapping[Kind, int] = self._kinds
        if persona is not None:
            causes = {kind: n for kind, n in kinds.items() if kind.is_cause}
            kinds = {**causes, **Counter(map(kind_of, self.of("", persona)))}
        return Chosen(self, {kind: n for kind, n in kinds.items() if wanted(kind)}, persona)

    def of(self, code: str, persona: UUID | None = None) -> Iterator[Finding]:
        """The findings of one code, or of all for an empty one; of one persona, or of all."""
        return self._spool.under(_of_code(code), _owner(persona))

    def people(self, code: str) -> int:
        """How many personas the findings of this code are about."""
        return self._spool.owners_under(_of_code(code))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._spool)

    def __len__(self) -> int:
        return sum(self._kinds.values())


def kind_of(finding: Finding) -> Kind:
    """The kind of the finding."""
    return Kind(
        finding.code,
        finding.name,
        finding.severity,
        finding.grade,
        finding.next_command,
        finding.is_cause,
    )


def subject_key(code: str, store: str, key: str) -> bytes:
    """The subject of a finding as one key, in the order of code, store and key."""
    return f"{code}\0{store}\0{key}".encode("utf-8", "surrogatepass")


def _owner(persona: UUID | None) -> bytes | None:
    return None if persona is None else persona.bytes


def _of_code(code: str) -> bytes:
    """How the keys of the findings of this code begin."""
    return f"{code}\0".encode() if code else b""


@dataclass(frozen=True, slots=True)
class Known:
    """What the baseline says of one subject. `state` is the digest, in hex, of what was seen."""

    id: int
    code: str
    store: str
    key: str
    state: str
    acknowledgement: Acknowledgement


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit.

    `findings` are those that nobody has acknowledged, `acknowledged` the others; both are on disk
    until the audit is closed, or nothing uses it any more. `outdated` is what the baseline has and
    no finding matches; it is empty where the audit could not tell. `unseen` is what the baseline
    has and the audit has not looked for, or that is settling. `layout` is where
    memories lie, and `why_layout` how that is known. `archived` counts the memories whose rows the
    app no longer keeps, `noted` those that the ledger has. `settling` counts the differences that
    are too young, have an outbox entry, or changed while the audit ran. `not_checked` says which
    parts could not be read, and why. `vectors` says how many vectors were looked at, None: none was
    asked for. `left_out` are other parts that were not looked at, and why, by nobody's fault.
    `trusted` counts the points that were compared by their fingerprints, and not read. `why_whole`
    is why an audit that could have done so has read every point; None where it did not want to.
    `took_over`: a part was read by an earlier run, and `left_out` says which.
    `why_alone` is why one process read all, or kept no state, though the operator asked otherwise.
    `looked_for` are the codes that were checked everywhere: only of these does "no finding" mean
    "no fault". `unjudged` memories without an exchange are of threads with a time that nobody can
    read, so whether each is an orphan is not known.
    """

    findings: Findings
    rows_checked: int
    points_checked: int
    settling: int
    not_checked: tuple[str, ...]
    archived: int = 0
    noted: int = 0
    layout: Layout = Layout.SHARED
    why_layout: str = ""
    vectors: Verified | None = None
    left_out: tuple[str, ...] = ()
    trusted: int = 0
    why_whole: str | None = None
    acknowledged: Findings = field(default_factory=Findings)
    outdated: Sequence[Known] = ()
    unseen: Sequence[Known] = ()
    looked_for: frozenset[str] = frozenset()
    took_over: bool = False
    why_alone: str | None = None
    unjudged: int = 0

    def close(self) -> None:
        """Forget the findings. Closing twice is no error."""
        self.findings.close()
        self.acknowledged.close()
        for each in (self.outdated, self.unseen):
            if isinstance(each, Spool):
                each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def complete(self) -> bool:
        """Whether everything was read."""
        return not self.not_checked

    @property
    def ok(self) -> bool:
        """Whether everything was read and no fault was found but those that are acknowledged.

        A fact of severity info is none.
        """
        return self.complete and not self.faults

    @property
    def faults(self) -> Chosen:
        """The findings that are errors or warnings, and that nobody has acknowledged."""
        return self.findings.chosen(lambda kind: kind.severity is not Severity.INFO)

    @property
    def facts(self) -> dict[str, int]:
        """How many points, or collections, each fact of severity info is about, by name."""
        infos = self.findings.chosen(lambda kind: kind.severity is Severity.INFO)
        return {each.name: int(str(next(iter(each.evidence.values())))) for each in infos}

    @property
    def counts(self) -> dict[str, int]:
        """Faults by name, in the order of their codes."""
        return self.faults.counts


def counted(numbers: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """The sums of these numbers by name, in the order of the codes: code, name and number."""
    sums: Counter[tuple[str, str]] = Counter()
    for code, name, number in numbers:
        sums[code, name] += number
    return {name: number for (_, name), number in sorted(sums.items())}
