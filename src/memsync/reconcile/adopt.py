"""Records existing memories in the ledger. It trusts what it sees.

It decides what may be trusted: a memory in which no rule of the audit finds a fault. It may be
asked for a part. It changes no memory and no row.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from memsync.errors import IncompleteAudit, InvalidInput
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Place
from memsync.model.sequences import batched
from memsync.model.wording import listed
from memsync.reconcile.cases import Case, Role
from memsync.reconcile.copying import is_faulty, pairing_of
from memsync.reconcile.fence import repairing
from memsync.reconcile.findings import Severity
from memsync.reconcile.leftovers import noted_at
from memsync.reconcile.losses import losses
from memsync.reconcile.pairing import Pairing
from memsync.reconcile.refusals import require_in_step
from memsync.reconcile.rules import CASE_RULES
from memsync.reconcile.rules.data import ArchivedTampered
from memsync.reconcile.sources import Sources
from memsync.settings import Settings
from memsync.stores.history.catalog import Catalog
from memsync.stores.history.exchanges import history_is_empty, known_personas, now_ms
from memsync.stores.history.outbox import clock
from memsync.stores.ltm import LongTermMemory
from memsync.stores.ltm.ledger import Entry, Ledger
from memsync.stores.postgres import Postgres, Session
from memsync.stores.postgres.locks import LockKey, holders

_BATCH = 1000
_TO_ADOPT = frozenset((Role.MEMORY, Role.ARCHIVED))
_TAMPERED = ArchivedTampered()
_WRITTEN = "written down as it stands"
_CHANGED = "written down as it stands, which is not what was written down before"
_OUT = "taken out of the ledger: it stands nowhere any more"
_STAYS = (
    "left as it was written down: it stands nowhere any more; --anew takes it out of the ledger"
)
_ORPHAN = (
    "taken out of the ledger: its rows are gone, so it is an orphan now, which `memsync reconcile "
    "plan --unsafe` removes"
)
_YOUNG = "left out: it was said so lately that its rows may still come; adopt it later"
_NOT_JUDGED = (
    "not looked at: it went meanwhile, or a message of its thread has a time that cannot be read; "
    "see `memsync check`"
)
_WITHOUT_DIGESTS = tuple(each for each in CASE_RULES if not isinstance(each, ArchivedTampered))


@dataclass(frozen=True, slots=True)
class Adopted:
    """The result: how many memories the ledger has from this run, and how many of them have no row.

    `changed` of them said something else when they were written down before. `left_out` are points
    with a fault, or so young that their rows may still come. `dropped` were in the ledger, and are
    not any more. `points` says of each point that was named what became of it.
    """

    memories: int
    archived: int
    left_out: int
    dropped: int
    changed: int = 0
    points: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """The memories that these personas have or should have, and these points. Empty: all memories.

    A point may be missing by now; its place is that in the ledger.
    """

    personas: frozenset[UUID] = frozenset()
    points: frozenset[Place] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.personas or self.points)

    def has(self, case: Case) -> bool:
        """Whether the case is of this part.

        A memory that the ledger has as another persona's than the one who holds it is of no
        persona's part: it would become the holder's. It must be named itself.
        """
        if not self or case.place in self.points:
            return True
        entry, found = case.entry, case.found
        if entry and found and found.persona_id not in {None, entry.persona_id}:
            return False
        return not self.personas.isdisjoint(case.personas)


WHOLE = Part()


def adopt(
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
    *,
    anew: bool = False,
    part: Part = WHOLE,
) -> Adopted:
    """Write down every memory that stands where it belongs and has no fault, or those of a part.

    With `anew` what the ledger said before does not count: a memory without a row is taken as it
    stands, and one that is missing is taken out. Of the whole, both stores are then taken to be of
    one time. A part is written in one transaction.

    Raises: GateClosed, before any write, where the stores are of two times, unless the whole is
    adopted anew; InvalidInput, before any write, for a part that nobody knows; IncompleteAudit at
    the end, where a collection could not be read: then nothing is taken out, and of a part nothing
    is written; and before any write where the history cannot be read by persona. StoreBusy when a
    repair or a relay runs; StoreUnreachable. Effects: the ledger and the mark.
    """
    with repairing(postgres, ltm) as session:
        if part or not anew:
            require_in_step(session, ltm, "what stands now would be trusted")
        return adopt_in(session, ltm, settings, tell, anew=anew, part=part)


def adopt_in(
    session: Session,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell,
    *,
    anew: bool,
    part: Part = WHOLE,
) -> Adopted:
    """As `adopt`, for a caller who keeps repairs and the relay out."""
    ledger = Ledger(session)
    ledger.require()
    all_anew = anew and not part
    _require_history(session, may_be_empty=all_anew)
    pairing = pairing_of(session, ltm, settings)
    pairing.anew = anew
    _require_known(part, pairing.sources, ledger)
    began = clock(session)
    young_ms = now_ms(session) - settings.settle_s * 1000
    seen = _Seen(young_ms, ltm.collection, part.points, anew=anew)
    ltm.record_layout(session)
    waiting: list[Entry] = []
    for some in batched(filter(part.has, _at_home(pairing, tell)), _BATCH):
        entries = seen.entries(some)
        if part:
            waiting += entries
        else:
            ledger.note(entries)
    if pairing.sources.unread:
        raise _not_read(pairing.sources, part)
    seen.are_lost(filter(part.has, losses(pairing.sources)) if part else ())
    with session.transaction():
        for noted in batched(waiting, _BATCH):
            ledger.note(noted)
        dropped = ledger.drop_before(began) if all_anew else ledger.drop(seen.dropped)
        if not part:
            ledger.archive()
        if not all_anew:
            ltm.mark.count(session)
    if all_anew:
        ltm.mark.trust(session)
    else:
        ltm.mark.publish(session)
    numbers = (seen.memories, seen.archived, seen.left_out, dropped, seen.changed)
    return Adopted(*numbers, {str(each): seen.of_point(each) for each in part.points})


def _require_history(session: Session, *, may_be_empty: bool) -> None:
    """Refuse where every memory would be adopted as one without rows: nothing would heal that.

    Raises: IncompleteAudit.
    """
    catalog = Catalog.read(session)
    if not catalog.knows_personas:
        why = f"is {catalog.stage} and cannot be read by persona"
        then = "`memsync migrate plan` says what is ahead"
    elif holders(session, LockKey.MIGRATE):
        why, then = "may change, because a migration is at work", "run this again when it has ended"
    elif history_is_empty(session) and not may_be_empty:
        why = "is empty"
        then = "see whether the URL is right, or give --anew and nothing else"
    else:
        return
    raise IncompleteAudit(
        f"the history of {session.label} {why}, so that memories would be adopted as ones without "
        f"rows. Nothing was changed; {then}"
    )


def _require_known(part: Part, sources: Sources, ledger: Ledger) -> None:
    """Refuse what nobody knows: a slip of the keyboard would read as done. Raises: InvalidInput."""
    personas = part.personas - known_personas(sources.session, part.personas)
    if unknown := sorted(personas - ledger.personas(personas)):
        raise InvalidInput(
            f"there is no persona {listed(map(str, unknown))} in {sources.session.label}, nor in "
            "the ledger, and nothing was changed; correct --persona"
        )
    if apart := [each for each in part.points if not sources.keeps(each.collection)]:
        raise InvalidInput(
            f"the layout {sources.layout} keeps no memories there, and nothing was changed: "
            f"{listed(sorted(map(str, apart)), 3)}; correct --point"
        )
    noted = ledger.at(part.points)
    if lost := [each for each in part.points if each not in noted and not _stands(each, sources)]:
        raise InvalidInput(
            f"there is no point {listed(sorted(map(str, lost)), 3)}, neither in "
            f"{sources.ltm.label} nor in the ledger, and nothing was changed; correct --point"
        )


def _stands(place: Place, sources: Sources) -> bool:
    return bool(sources.ltm.points(place.collection, [place.point_id]))


def _not_read(sources: Sources, part: Part) -> IncompleteAudit:
    whole = (f"{name}: {why}" for name, why in sorted(sources.unread.items()))
    done = "nothing was adopted" if part else "these are not adopted"
    rest = "" if part else "; what was adopted stays"
    return IncompleteAudit(
        f"not every collection could be read, so {done}: {listed(whole, 3, '; ')}. Run this "
        f"again{rest}"
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


class _Seen:
    """What one run has made of the cases so far. `dropped` are the places to be taken out."""

    def __init__(
        self, young_ms: float, shared: str, named: Collection[Place], *, anew: bool
    ) -> None:
        """A memory without a row that was said after `young_ms` may get its row yet.

        `shared` is the collection of the shared layout. Of the points that are `named` it is kept
        what became of them.
        """
        self._young_ms = young_ms
        self._shared = shared
        self._named = named
        self._anew = anew
        self._told: dict[Place, str] = {}
        self.memories = self.archived = self.changed = self.left_out = 0
        self.dropped: list[Place] = []

    def of_point(self, place: Place) -> str:
        """What became of a point that was named."""
        return self._told.get(place, _NOT_JUDGED)

    def are_lost(self, cases: Iterable[Case]) -> None:
        """Take out memories that are missing, if what was written down before does not count."""
        for case in cases:
            if self._anew and case.place:
                self.dropped.append(case.place)
            self._tell(case, _OUT if self._anew else _STAYS)

    def _tell(self, case: Case, what: str) -> None:
        if case.place and case.place in self._named:
            self._told[case.place] = what

    def entries(self, cases: Iterable[Case]) -> list[Entry]:
        """What is written down of these cases: of each memory that is to be trusted."""
        found = []
        for case in cases:
            is_young = self._may_get_rows(case)
            entry = None if is_young else _entry(case, anew=self._anew)
            if entry is not None:
                found.append(entry)
                is_changed = _TAMPERED.look(case) is not None
                self.archived += entry.anchor_id is None
                self.changed += is_changed
                self._tell(case, _CHANGED if is_changed else _WRITTEN)
                continue
            self.left_out += 1
            if self._anew and case.role is Role.VANISHED and case.found:
                # The note of the other layout would say the same of it.
                self.dropped += noted_at(case.found, self._shared)
                self._tell(case, _ORPHAN)
            else:
                self._tell(case, _YOUNG if is_young else _why_left_out(case, anew=self._anew))
        self.memories += len(found)
        return found

    def _may_get_rows(self, case: Case) -> bool:
        """Whether its rows may still come: it has none, and was said lately."""
        at = case.found.reading.memory.created_at_ms if case.found else None
        return case.exchange is None and at is not None and at > self._young_ms


def _why_left_out(case: Case, *, anew: bool) -> str:
    """Why the memory of a case is not to be trusted: the findings that an audit has of it."""
    judged = [(rule, each) for rule in CASE_RULES if (each := rule.judge(case))]
    faults = [(rule, each) for rule, each in judged if each.severity is not Severity.INFO]
    names = ", ".join(each.name for _, each in faults)
    others = [each for rule, each in faults if anew or not rule.can_be_accepted]
    then = f"see `{others[0].next_command}`" if others else "where that was meant, give --anew"
    return f"left out, because of {names}; {then}" if names else _NOT_JUDGED


def _entry(case: Case, *, anew: bool) -> Entry | None:
    """What is written down of the case's memory; None where it is not to be trusted."""
    found = case.found
    rules = _WITHOUT_DIGESTS if anew else CASE_RULES
    if found is None or case.role not in _TO_ADOPT or is_faulty(case, rules):
        return None
    return Entry.of(found.place, found.reading.memory, case.exchange, found.persona_id)
