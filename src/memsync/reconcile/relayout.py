"""Changes the layout of long-term memory: from a collection for each persona to one, and back.

It decides when the layout may be changed. Memories are copied with their vectors, read back, and
looked for again until nothing new is there; then the record is changed in one transaction. What the
other layout has stays. A change that was cut short is finished by the same command.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from memsync.errors import DimensionMismatch, GateClosed, IncompleteAudit, SchemaMismatch
from memsync.model.progress import Tell, silent
from memsync.model.wording import listed
from memsync.reconcile.adopt import adopt_in
from memsync.reconcile.audit import audit
from memsync.reconcile.bringing import Bringing
from memsync.reconcile.copying import sources_of
from memsync.reconcile.fence import repairing
from memsync.reconcile.findings import Audit
from memsync.reconcile.halfway import HalfDone, begin, end, half_done, noted
from memsync.reconcile.refusals import (
    require_change_ended,
    require_in_step,
    require_no_memory_waits,
)
from memsync.reconcile.restoring import Restored, restore
from memsync.reconcile.returning import Returning
from memsync.reconcile.rules.coverage import ArchivedMissing, RowVanished
from memsync.reconcile.rules.data import ArchivedTampered
from memsync.settings import Settings
from memsync.stores.ltm import COSINE, LongTermMemory
from memsync.stores.ltm.layouts import CollectionKind, Layout
from memsync.stores.ltm.ledger import Ledger
from memsync.stores.ltm.record import Decision, change, record, recorded
from memsync.stores.postgres import Postgres, Session

_PASSES_MAX = 10
_LOST_TO_A_COPY = (ArchivedMissing, ArchivedTampered, RowVanished)


@dataclass(frozen=True, slots=True)
class Away:
    """What a run retired. Of its `points` the quarantine still has `kept`; None: not looked at."""

    collections: int
    points: int
    kept: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where memories lie. `kinds` has the numbers of collections and points by kind.

    `waiting` are the collections that the layout does not read, `retired` the runs whose
    collections were retired and have not come back. `half_done` is a change that was cut short.
    """

    layout: Layout
    why: str
    is_recorded: bool
    kinds: Mapping[CollectionKind, tuple[int, int]]
    waiting: Mapping[str, int]
    retired: Mapping[UUID, Away]
    half_done: HalfDone | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """The result of a change. `copied` memories were written, `replaced` of them over others, and
    `beside` of them beside the points that they were copied from, which say something else by now.

    `audit` is that of the new layout; None where it was the layout before. `left` counts the points
    of the shared collection that were not taken back, because they have neither an exchange nor the
    right to be without one, or because what they would replace has changed meanwhile.
    """

    layout: Layout
    copied: int = 0
    replaced: int = 0
    restored: Restored = field(default_factory=Restored)
    left: int = 0
    beside: int = 0
    audit: Audit | None = None


def look(session: Session, ltm: LongTermMemory, settings: Settings) -> Standing:
    """Where memories lie now. Writes nothing."""
    homes, elsewhere = sources_of(session, ltm, settings).collections
    points = {name: ltm.count(name) for name in (*homes, *elsewhere)}
    kinds: dict[CollectionKind, tuple[int, int]] = {}
    for name, number in points.items():
        collections, before = kinds.get(ltm.kind_of(name), (0, 0))
        kinds[ltm.kind_of(name)] = (collections + 1, before + number)
    return Standing(
        ltm.layout,
        ltm.why_layout,
        recorded(session) is not None,
        kinds,
        {name: points[name] for name in elsewhere},
        _retired(session),
        half_done(session),
    )


def _retired(session: Session) -> dict[UUID, Away]:
    """What was retired, by run. A role that only checks may not look into the quarantine."""
    may_see = session.row("may_see_repairs")
    if not may_see.stand:
        return {}
    kept = None
    if may_see.may:
        kept = {row.run_id: row.points for row in session.rows("kept_in_all")}
    return {
        row.run_id: Away(
            row.collections, row.points, None if kept is None else kept.get(row.run_id, 0)
        )
        for row in session.rows("retired_in_all")
    }


def open_for_change(settings: Settings, session: Session, to: Layout) -> LongTermMemory:
    """Long-term memory in the layout in force, also where the setting names the layout to come.

    Raises: as `LongTermMemory.open` does.
    """
    if recorded(session) is not None or settings.layout == to:
        settings = settings.model_copy(update={"layout": "auto"})
    return LongTermMemory.open(settings, session)


def set_shared(
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
    *,
    app_stopped: bool,
) -> Changed:
    """Copy every memory to the shared collection, and record the shared layout.

    `app_stopped`: the operator confirms that the old app neither reads nor writes collections of
    personas any more.

    Raises, before any write: GateClosed without that, while the way back did not end, where a name
    of the app's is an alias, where the audit has a fault or is incomplete, and while the stores may
    be of two times;
    SchemaMismatch where the embedder is not named or does not fit; StoreBusy when a repair or a
    relay runs. Later: StalePlan and GateClosed where something still writes; StoreUnreachable.
    Effects: both stores.
    """
    with _alone(postgres, ltm) as session:
        if ltm.layout is Layout.SHARED:
            end(session, HalfDone.RETURNING)
            return _stay(postgres, session, ltm, settings, tell, HalfDone.COPYING)
        require_change_ended(session, HalfDone.RETURNING)
        if not app_stopped:
            raise GateClosed(
                "the old app reads and writes the collections of personas, and it would not see "
                "what memsync writes to the shared one. Stop it, or let the version with memsync's "
                "library take its place, then type `memsync reconcile layout set shared "
                "--app-stopped`"
            )
        _require_no_alias(ltm)
        homes, _ = sources_of(session, ltm, settings).collections
        dims = _require_embedder(ltm, settings, [*homes, ltm.collection])
        with audit(postgres, ltm, settings, tell, deep=True) as before:
            _require_clean(before)
        # Two layouts with memories would be unclear to every command until the end.
        record(session, Decision(ltm.layout, ltm.why_layout))
        begin(session, HalfDone.COPYING)
        ltm.ensure(ltm.collection, dims)
        work = Bringing(session, ltm, settings, tell)
        copied = _until_nothing_is_new(work.run_once)
        why = "`memsync reconcile layout set shared` copied the memories"
        change(session, ltm.layout, Layout.SHARED, why)
        shared = ltm.in_layout(Layout.SHARED, why)
        after = _finish(postgres, session, shared, settings, tell, HalfDone.COPYING)
        return Changed(Layout.SHARED, copied, work.replaced, audit=after)


def set_per_persona(
    postgres: Postgres, ltm: LongTermMemory, settings: Settings, tell: Tell = silent
) -> Changed:
    """Bring back what was retired or written since, and record the per-persona layout.

    Raises, before any write: GateClosed while the change to the shared layout did not end, while
    the outbox has entries that nobody would carry out there, where a name of the app's is an alias,
    where an archived memory is other than it was written down, and while the stores may be of two
    times; SchemaMismatch where memories must be
    embedded and the embedder is not named or does not fit; StoreBusy when a repair or a relay runs.
    Later: StalePlan and GateClosed where something still writes; PartlyDone where the embedder
    refuses memories; StoreUnreachable. Effects: both stores.
    """
    with _alone(postgres, ltm) as session:
        if ltm.layout is Layout.PER_PERSONA:
            end(session, HalfDone.COPYING)
            return _stay(postgres, session, ltm, settings, tell, HalfDone.RETURNING)
        require_change_ended(session, HalfDone.COPYING)
        why = "`memsync reconcile layout set per-persona` brought the memories back"
        target = ltm.in_layout(Layout.PER_PERSONA, why)
        require_no_memory_waits(session, target)
        _require_no_alias(ltm)
        work = Returning(session, target, settings, tell)
        if work.must_embed():
            homes, _ = sources_of(session, target, settings).collections
            _require_embedder(target, settings, homes)
        _require_untampered(audit(postgres, ltm, settings, tell, deep=True))
        record(session, Decision(ltm.layout, ltm.why_layout))
        begin(session, HalfDone.RETURNING)
        restored = restore(session, target, settings, tell)
        copied = _until_nothing_is_new(work.run_once)
        require_no_memory_waits(session, target, is_copied=True)
        change(session, ltm.layout, Layout.PER_PERSONA, why)
        after = _finish(postgres, session, target, settings, tell, HalfDone.RETURNING)
        return Changed(
            Layout.PER_PERSONA, copied, work.replaced, restored, work.left, work.beside, after
        )


def _stay(
    postgres: Postgres,
    session: Session,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell,
    led_here: HalfDone,
) -> Changed:
    """Record the layout that stays, and finish the change that led to it."""
    record(session, Decision(ltm.layout, ltm.why_layout))
    is_unfinished = noted(session) is led_here
    after = _finish(postgres, session, ltm, settings, tell, led_here) if is_unfinished else None
    return Changed(ltm.layout, audit=after)


def _finish(
    postgres: Postgres,
    session: Session,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell,
    change: HalfDone,
) -> Audit:
    """Write the memories of the new layout down, where those of the other one were, and audit it.

    The change has ended then.
    """
    # What could not be read, the audit tells; and the change is not finished.
    with contextlib.suppress(IncompleteAudit):
        if any(Ledger(session).standing(each, ltm.collection) for each in Layout):
            adopt_in(session, ltm, settings, tell, anew=False)
        end(session, change)
    return audit(postgres, ltm, settings, tell, deep=True)


@contextlib.contextmanager
def _alone(postgres: Postgres, ltm: LongTermMemory) -> Iterator[Session]:
    """As `repairing`.

    Raises: as that; GateClosed while the stores may be of two times: the words of one would replace
    newer ones of the other.
    """
    with repairing(postgres, ltm, relay_wait_s=0) as session:
        require_in_step(session, ltm, "a change of layout copies what both stores say")
        yield session


def _require_no_alias(ltm: LongTermMemory) -> None:
    """Raises: GateClosed where a name of a collection of memories is an alias of another one."""
    found = {
        alias: collection
        for alias, collection in ltm.aliases().items()
        if ltm.kind_of(alias) is not CollectionKind.OTHER
    }
    if found:
        each = (f"{alias} (of {collection})" for alias, collection in found.items())
        raise GateClosed(
            f"names of collections of memories are aliases in {ltm.label}: {listed(each)}. The app "
            "asks such a collection without a filter, and would get everybody's memories. Nothing "
            "was changed; remove the aliases first",
            aliases=found,
        )


def _require_embedder(ltm: LongTermMemory, settings: Settings, collections: Iterable[str]) -> int:
    """The size of the named embedder's vectors, which is that of these collections.

    Raises: SchemaMismatch where no embedder is named, or a collection is not of its size.
    """
    if "embedder" not in settings.model_fields_set:
        raise SchemaMismatch(
            "no setting names the embedder that made the app's vectors, and recall would compare "
            "them with those of another model. Nothing was changed; name it with MEMSYNC_EMBEDDER"
        )
    dims = ltm.embedder.dims
    for name in collections:
        info = ltm.describe(name)
        if info is not None and info.dims != dims:
            raise DimensionMismatch(
                f"{name} holds vectors of {info.dims} dimensions, and the embedder "
                f"{ltm.embedder.name} makes vectors of {dims}. Nothing was changed; name the "
                "embedder that made them with MEMSYNC_EMBEDDER",
                expected=info.dims,
                actual=dims,
            )
        if info is not None and info.distance != COSINE:
            raise SchemaMismatch(
                f"{name} compares its vectors by {info.distance}, and memsync's own collections "
                f"compare by {COSINE}, which gives other scores. Nothing was changed; make that "
                "collection anew"
            )
    return dims


def _require_clean(found: Audit) -> None:
    """Raises: GateClosed where the audit has faults, acknowledged ones too, or is incomplete."""
    known = found.acknowledged.chosen().counts
    if found.ok and not known:
        return
    what = listed(found.not_checked, 3, "; ")
    if found.complete:
        faults = [f"{number:,} {name}" for name, number in found.counts.items()]
        faults += [f"{number:,} {name} (acknowledged)" for name, number in known.items()]
        what = listed(faults)
    raise GateClosed(
        f"the audit is {'not clean' if found.complete else 'incomplete'}: {what}. Nothing was "
        f"changed; look with `memsync reconcile`, mend it, then change the layout{_let_be(known)}",
        findings=found.counts,
        acknowledged=known,
        not_checked=list(found.not_checked),
    )


def _let_be(known: Collection[str]) -> str:
    """What to do about acknowledged findings of these names, which no plan repairs."""
    if not known:
        return ""
    select = " ".join(f"--select {name}" for name in known)
    return (
        ". No plan repairs what is acknowledged: "
        f"`memsync reconcile baseline drop {select}` ends that"
    )


def _require_untampered(found: Audit) -> None:
    """Refuse to copy a memory that was changed, or that lost its rows, since it was written down:
    nothing could tell that of the copy. An acknowledged finding is one, too.

    Raises: GateClosed.
    """
    with found:
        if not found.complete:
            raise GateClosed(
                f"the audit is incomplete: {listed(found.not_checked, 3, '; ')}. Nothing was "
                "changed; mend it, then change the layout",
                not_checked=list(found.not_checked),
            )
        known = found.acknowledged.chosen().counts
        hidden = {
            rule.name: number
            for rule in _LOST_TO_A_COPY
            if (number := found.counts.get(rule.name, 0) + known.get(rule.name, 0))
        }
        if hidden:
            raise GateClosed(
                f"the audit has {listed(f'{n:,} {name}' for name, n in hidden.items())}, and "
                "copies of these memories would be taken as they are. Nothing was changed; look "
                "with `memsync reconcile --acknowledged`, and restore them, or take everything as "
                "it stands with `memsync reconcile adopt --anew`",
                findings=hidden,
            )


def _until_nothing_is_new(run_once: Callable[[], int]) -> int:
    """Copy until a pass finds nothing to do. Returns how many points were written.

    Raises: GateClosed when each pass finds something.
    """
    copied = 0
    for _ in range(_PASSES_MAX):
        written = run_once()
        copied += written
        if not written:
            return copied
    raise GateClosed(
        f"after {_PASSES_MAX} passes there is still something new: the memories are written to all "
        "the time, so the layout was not changed. Stop what writes them, then run this again; what "
        "was copied stays"
    )
