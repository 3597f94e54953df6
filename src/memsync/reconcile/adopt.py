"""Writes the memories that stand down in the ledger, and trusts what it sees.

It decides what may be trusted: a memory in which no rule of the audit finds a fault. It changes no
memory and no row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from memsync.errors import GateClosed, IncompleteAudit
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.sequences import batched
from memsync.model.wording import listed
from memsync.reconcile.cases import Case, Role
from memsync.reconcile.copying import is_faulty, pairing_of
from memsync.reconcile.fence import repairing
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.rules import CASE_RULES
from memsync.reconcile.rules.data import ArchivedTampered
from memsync.settings import Settings
from memsync.stores.history.exchanges import history_is_empty, now_ms
from memsync.stores.history.outbox import clock
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import Entry, Ledger
from memsync.stores.ltm.marks import Verdict
from memsync.stores.postgres import Postgres, Session

_BATCH = 1000
_TO_ADOPT = frozenset((Role.MEMORY, Role.ARCHIVED))
_WITHOUT_DIGESTS = tuple(each for each in CASE_RULES if not isinstance(each, ArchivedTampered))


@dataclass(frozen=True, slots=True)
class Adopted:
    """The result: how many memories the ledger has from this run, and how many of them have no row.

    `left_out` are points with a fault, or so young that their rows may still come. `dropped` were
    in the ledger, and are not any more.
    """

    memories: int
    archived: int
    left_out: int
    dropped: int


def adopt(
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
    *,
    anew: bool = False,
) -> Adopted:
    """Write down every memory that stands where it belongs and has no fault.

    With `anew` what the ledger said before does not count: a memory without a row is taken as it
    stands, one that is missing is taken out, and both stores are taken to be of one time.

    Raises: GateClosed, before any write, where the stores are of two times, without `anew`;
    IncompleteAudit at the end, where a collection could not be read: then nothing is taken out.
    StoreBusy when a repair or a relay runs; StoreUnreachable. Effects: the ledger and the mark.
    """
    with repairing(postgres) as session:
        if not anew:
            _require_one_time(session, ltm)
        return adopt_in(session, ltm, settings, tell, anew=anew)


def adopt_in(
    session: Session, ltm: LongTermMemory, settings: Settings, tell: Tell, *, anew: bool
) -> Adopted:
    """As `adopt`, for a caller who keeps repairs and the relay out."""
    ledger = Ledger(session)
    ledger.require()
    if history_is_empty(session) and not anew:
        raise IncompleteAudit(
            f"the history of {session.label} is empty, so that every memory would be adopted as "
            "one without rows. Nothing was changed; see whether the URL is right, or give --anew"
        )
    began = clock(session)
    young_ms = now_ms(session) - settings.settle_s * 1000
    ltm.record_layout(session)
    pairing = pairing_of(session, ltm, settings)
    memories = archived = left_out = 0
    for some in batched(_at_home(pairing, tell), _BATCH):
        settled = [case for case in some if not _may_get_rows(case, young_ms)]
        entries = [entry for case in settled if (entry := _entry(case, anew=anew))]
        ledger.note(entries)
        memories += len(entries)
        archived += sum(each.anchor_id is None for each in entries)
        left_out += len(some) - len(entries)
    if pairing.sources.unread:
        whole = (f"{name}: {why}" for name, why in sorted(pairing.sources.unread.items()))
        raise IncompleteAudit(
            f"not every collection could be read, so these are not adopted: "
            f"{listed(whole, 3, '; ')}. Run this again; what was adopted stays"
        )
    dropped = ledger.drop_before(began) if anew else 0
    ledger.archive()
    if anew:
        ltm.mark.trust(session)
    else:
        ltm.mark.count(session)
        ltm.mark.publish(session)
    return Adopted(memories, archived, left_out, dropped)


def _require_one_time(session: Session, ltm: LongTermMemory) -> None:
    verdict = ltm.mark.read(session).verdict
    if verdict is not Verdict.IN_STEP:
        raise GateClosed(
            f"the stores may be of two times: the mark in {ltm.label} is {verdict}. Nothing was "
            "changed; see `memsync check`. If what stands there is what you want to go on with, "
            "give --anew",
            mark=verdict.value,
        )


def _at_home(pairing: Pairing, tell: Tell) -> Iterator[Case]:
    total = 0
    for case in pairing.cases():
        if case.found is None or not case.found.home:
            continue
        if total % _BATCH == 0:
            tell(Progress(Kind.STEP, "adopting memories", total))
        total += 1
        yield case


def _entry(case: Case, *, anew: bool) -> Entry | None:
    """What is written down of the case's memory; None where it is not to be trusted."""
    found = case.found
    rules = _WITHOUT_DIGESTS if anew else CASE_RULES
    if found is None or case.role not in _TO_ADOPT or is_faulty(case, rules):
        return None
    return Entry.of(found.place, found.reading.memory, case.exchange, found.persona_id)


def _may_get_rows(case: Case, young_ms: float) -> bool:
    """Whether its rows may still come: it has none, and was said after that time."""
    at = case.found.reading.memory.created_at_ms if case.found else None
    return case.exchange is None and at is not None and at > young_ms
