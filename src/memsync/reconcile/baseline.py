"""Decides which findings are known: those that an operator acknowledged, in the state seen then.

The state of a finding is a digest of all that it rests on: the exchange, the points and the place
where the memory belongs, as a repair rests on them, and the evidence. Values that change by
themselves, such as an age or a count, are left out. So a finding that changes is a new one.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from memsync.errors import GateClosed, IncompleteAudit, InvalidInput
from memsync.model.digests import json_digest
from memsync.model.ids import PointId, point_id_of
from memsync.model.sequences import batched
from memsync.model.wording import count, listed
from memsync.reconcile.acknowledged import Acknowledgements, Subject, subject_of
from memsync.reconcile.findings import (
    Audit,
    Finding,
    Findings,
    Known,
    Severity,
    Words,
    counted,
    subject_key,
)
from memsync.reconcile.rules import RULES
from memsync.reconcile.spool import Shelf
from memsync.reconcile.state import SHOWN_MAX
from memsync.stores.history.outbox import clock
from memsync.stores.postgres import Session

_BATCH = 500
_REASON_MAX = 500
_RULES = {rule.code: rule for rule in RULES}


def state_of(finding: Finding) -> str:
    """The digest, in hex, of what the finding rests on."""
    seen, rule = finding.witness, _RULES[finding.code]
    evidence = {
        name: value.sha256 if isinstance(value, Words) else value
        for name, value in finding.evidence.items()
        if name not in rule.moving and name != rule.in_all
    }
    row = (seen.anchor_id, seen.row_digest)
    points = (seen.place, seen.state, seen.vector, seen.target, seen.target_state)
    return json_digest([*row, *points, evidence])


def is_in_part(finding: Finding) -> bool:
    """Whether there are more of its code than the audit lists.

    Then the acknowledged ones would hide those that are not listed.
    """
    total = finding.evidence.get(_RULES[finding.code].in_all)
    return isinstance(total, int) and total > SHOWN_MAX


class Baseline:
    """The acknowledgements that belong to the findings of one audit. Writes nothing."""

    def __init__(self, session: Session) -> None:
        self._table = Acknowledgements(session)
        self._unjudged: Shelf[None] = Shelf()
        self._in_part: set[str] = set()
        self._began = clock(session)

    def close(self) -> None:
        """Free the disk."""
        self._unjudged.close()

    def new(self, findings: Iterable[Finding], known: Findings) -> Iterator[Finding]:
        """The findings that are not acknowledged; the others are put to `known`."""
        for some in batched(findings, _BATCH):
            noted = self._table.of(map(subject_of, _faults(some)))
            for each in some:
                if is_in_part(each):
                    self._in_part.add(each.code)
                of_it = noted.get(subject_of(each))
                if of_it is None or is_in_part(each) or of_it.state != state_of(each):
                    yield each
                else:
                    known.add(replace(each, acknowledged=of_it.acknowledgement))

    def points(self) -> set[PointId]:
        """The points, and the anchors of exchanges, that an acknowledged finding is about."""
        ids = set()
        for each in self._table.all(_RULES):
            with contextlib.suppress(ValueError):  # the key of something else
                ids.add(point_id_of(each.key))
        return ids

    def leave_open(self, finding: Finding) -> None:
        """Note that the audit does not judge this one: it is still settling."""
        self._unjudged[subject_key(*subject_of(finding))] = None

    def outdated(self, known: Findings, codes: Collection[str]) -> Iterator[Known]:
        """What no finding matched. `codes` are those that the audit has looked for.

        One that was acknowledged while the audit ran may be of a finding that it saw before.
        """
        for each in self._table.all(set(codes) - set(self._in_part)):
            subject = (each.code, each.store, each.key)
            if each.acknowledgement.at >= self._began:
                continue
            if not known.has(*subject) and subject_key(*subject) not in self._unjudged:
                yield each

    def unseen(self, known: Findings, found: Findings, codes: Collection[str]) -> Iterator[Known]:
        """What the audit cannot tell of: it has not looked for such a finding, or that is settling.

        As in `outdated`; `found` are the findings that are not acknowledged.
        """
        for each in self._table.all(_RULES):
            subject = (each.code, each.store, each.key)
            is_judged = each.code in codes and subject_key(*subject) not in self._unjudged
            if is_judged and each.acknowledgement.at < self._began:
                continue
            if not known.has(*subject) and not found.has(*subject):
                yield each


def _faults(findings: Iterable[Finding]) -> Iterator[Finding]:
    return (each for each in findings if each.severity is not Severity.INFO)


# ---------------------------------------------------------------------- what an operator asks for


@dataclass(frozen=True, slots=True)
class Accepted:
    """How many findings were acknowledged, by name, and how many could not be."""

    findings: Mapping[str, int]
    left: Mapping[str, int]


def acknowledge(
    session: Session,
    audit: Audit,
    reason: str,
    chosen: Iterable[Finding] | None = None,
    *,
    unseen: Sequence[str] = (),
) -> Accepted:
    """Acknowledge the findings of the audit that are faults, or those of them that are `chosen`.

    Of findings of which only a part is listed none is acknowledged. `unseen` says what the audit
    did not look for; it is told where nothing was found.

    Raises, before any write: IncompleteAudit; GateClosed while a finding stands that may be the
    cause of the others; InvalidInput where there is no such finding, or for a reason that is empty
    or cannot be kept; SchemaMismatch where the database has no table for it. Effects: Postgres.
    """
    said = checked_reason(reason)
    if not audit.complete:
        raise IncompleteAudit(
            "the audit is incomplete, so nothing was acknowledged: " + "; ".join(audit.not_checked)
        )
    if causes := sorted({kind.name for kind in audit.faults.kinds if kind.is_cause}):
        raise GateClosed(
            f"nothing was acknowledged: the audit has {listed(causes)}, which may be the cause of "
            "every other finding. Mend that first; see `memsync check`",
            findings=causes,
        )
    table = Acknowledgements(session)
    done: Counter[tuple[str, str]] = Counter()
    left: Counter[tuple[str, str]] = Counter()
    for some in batched(audit.faults if chosen is None else chosen, _BATCH):
        left.update((each.code, each.name) for each in some if is_in_part(each))
        states: dict[Subject, str] = {}
        for each in some:
            if not is_in_part(each) and subject_of(each) not in states:
                states[subject_of(each)] = state_of(each)
                done[each.code, each.name] += 1
        if states:
            table.put(states, said)
    if not done and not left:
        raise InvalidInput(
            "there is no such finding that is not acknowledged already, so nothing was changed. "
            + "".join(f"Not looked for: {each}. " for each in unseen)
            + "`memsync check` prints those that are there"
        )
    return Accepted(*(counted((*of, n) for of, n in each.items()) for each in (done, left)))


def drop_by_id(session: Session, ids: Collection[int]) -> dict[str, int]:
    """Drop the acknowledgements of these ids. Returns how many went, by code.

    Raises: InvalidInput, before any write, for an id that there is not. Effects: Postgres.
    """
    table = Acknowledgements(session)
    found = table.by_id(ids)
    if missing := sorted(set(ids) - {each.id for each in found}):
        raise InvalidInput(
            f"there is no acknowledgement {listed(map(str, missing))}, and none was dropped. "
            "`memsync reconcile baseline list` has their ids"
        )
    return table.drop(found)


def checked_reason(reason: str) -> str:
    """The reason, as it is kept. Raises: InvalidInput for one that is empty or cannot be kept."""
    said = reason.strip()
    if not said:
        raise InvalidInput("the reason is empty; say with --reason why these findings are let be")
    if len(said) > _REASON_MAX:
        raise InvalidInput(
            f"the reason has {count(len(said), 'character')}, and at most {_REASON_MAX} are kept; "
            "say it in fewer"
        )
    if any(each == "\0" or "\ud800" <= each <= "\udfff" for each in said):
        raise InvalidInput(
            "the reason holds a NUL or half a character, which Postgres cannot keep; write it anew"
        )
    return said
