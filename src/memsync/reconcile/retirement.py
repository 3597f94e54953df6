"""Moves collections that the shared layout no longer reads to the quarantine.

It decides when a collection may go: each of its points has its copy in the shared collection, and
says what it said when that was seen. A collection is dropped when all of its points, as they are
right before, are committed to the quarantine. So one that stands is whole, and its points are moved
anew after a crash.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from uuid import UUID, uuid4

from memsync.errors import GateClosed, IncompleteAudit, PartlyDone
from memsync.model.digests import point_state
from memsync.model.ids import PointId
from memsync.model.progress import Kind, Progress, Tell, silent
from memsync.model.records import Place, Point
from memsync.model.sequences import batched
from memsync.model.wording import count, listed
from memsync.reconcile.acknowledged import Acknowledgements
from memsync.reconcile.cases import Case, Found
from memsync.reconcile.copying import pairing_of
from memsync.reconcile.fence import repairing
from memsync.reconcile.halfway import HalfDone, begin, end
from memsync.reconcile.quarantine import keep_whole, why_not_kept_whole
from memsync.reconcile.refusals import require_change_ended, require_in_step
from memsync.reconcile.rules.data import ArchivedTampered
from memsync.reconcile.spool import Shelf
from memsync.settings import Settings
from memsync.stores.ltm import COSINE, LongTermMemory
from memsync.stores.ltm.layouts import Layout
from memsync.stores.ltm.record import Decision, record
from memsync.stores.postgres import Postgres, Session, json_value

_BATCH = 256
_IDS_MAX = 10
"""So many ids of acknowledgements does a refusal name."""
_TELL_EVERY = 1000
_TAMPERED = ArchivedTampered()


@dataclass(frozen=True, slots=True)
class Retired:
    """The result of a retirement: what went to the quarantine, under `run_id`.

    `without_copy` of the points contradict themselves, and have no copy in the shared collection.
    """

    run_id: UUID
    collections: int
    points: int
    without_copy: int = 0


@dataclass(slots=True)
class _Compared:
    """The numbers of points by collection, and how many of them have no copy. `left` are the
    collections that stay, with the reason.
    """

    points: dict[str, int]
    without_copy: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def add(self, found: Found, *, has_copy: bool) -> None:
        """Count a point that may go, if the quarantine can keep it."""
        name = found.place.collection
        self.points[name] += 1
        if not has_copy:
            self.without_copy[name] = self.without_copy.get(name, 0) + 1
        if why := why_not_kept_whole(found.point):
            self.left.setdefault(name, f"{found.place}: {why}")

    def going(self) -> dict[str, int]:
        """The collections that may go, each with the number of its points."""
        return {name: number for name, number in self.points.items() if name not in self.left}


def retire(
    postgres: Postgres,
    ltm: LongTermMemory,
    settings: Settings,
    tell: Tell = silent,
    *,
    unsafe: bool = False,
) -> Retired:
    """Move the collections that the shared layout does not read to the quarantine.

    Running it again after a crash finishes the rest, under the same run. With `unsafe` points go,
    too, that have neither an exchange nor a copy and contradict themselves, so that no plan can
    tell where they belong.

    Raises: GateClosed, before any write, in the per-persona layout, while the change to the shared
    one is half done, while another point lacks its copy in the shared collection, and while the
    stores may be of two times; IncompleteAudit when something could not be read; StoreBusy when a
    repair or a relay runs. PartlyDone at the end, when collections stay because the quarantine
    cannot keep one of their points. Effects: both stores.
    """
    if ltm.layout is not Layout.SHARED:
        raise GateClosed(
            f"memories lie in the {ltm.layout} layout ({ltm.why_layout}), which reads these "
            "collections. Change it first: `memsync reconcile layout set shared`"
        )
    with (
        repairing(postgres, ltm, relay_wait_s=0) as session,
        contextlib.closing(Shelf[str]()) as copied,
    ):
        require_in_step(session, ltm, "the old collections would go to a quarantine here")
        require_change_ended(session, HalfDone.COPYING)
        compared = _compared(session, ltm, settings, copied, tell, unsafe=unsafe)
        counted = compared.going()
        forms = {name: _form(ltm, name) for name in counted}
        record(session, Decision(ltm.layout, ltm.why_layout))
        begin(session, HalfDone.RETIRING)
        unfinished = session.row("unfinished_retirement")
        run_id: UUID = unfinished.run_id if unfinished else uuid4()
        collections = points = 0
        for row in session.rows("begun_retirements", run_id=run_id):
            if row.collection not in compared.points:
                # It was dropped, and nothing could note that.
                session.run("end_retirement", run_id=run_id, collection=row.collection)
                collections, points = collections + 1, points + (row.points or 0)
        total = sum(counted.values())
        for name, expected in counted.items():
            _retire_one(session, ltm, run_id, name, forms[name], expected, copied)
            collections, points = collections + 1, points + expected
            tell(Progress(Kind.STEP, "moving points to the quarantine", points, total))
        end(session, HalfDone.RETIRING)
    alone = sum(number for name, number in compared.without_copy.items() if name in counted)
    return _told(Retired(run_id, collections, points, alone), compared.left)


def _told(retired: Retired, left: Mapping[str, str]) -> Retired:
    """The result. Raises: PartlyDone when collections stay."""
    if left:
        raise PartlyDone(
            f"{count(retired.collections, 'collection')} removed, "
            f"{count(retired.points, 'point')} in the quarantine, as {retired.run_id}; "
            f"{count(len(left), 'collection stays', 'collections stay')}: "
            f"{listed(left.values(), 3, '; ')}, then run this again",
            **asdict(retired),
            left=left,
        )
    return retired


def _compared(
    session: Session,
    ltm: LongTermMemory,
    settings: Settings,
    states: Shelf[str],
    tell: Tell,
    *,
    unsafe: bool,
) -> _Compared:
    """Which collections may go; `states` gets their points.

    Raises: GateClosed naming those with a point that lacks its copy, and where an archived memory
    was changed; IncompleteAudit.
    """
    pairing = pairing_of(session, ltm, settings)
    _, names = pairing.sources.collections
    found = _Compared(dict.fromkeys(names, 0))
    changed = disputed = 0
    for number, case in enumerate(pairing.cases()):
        if number % _TELL_EVERY == 0:
            tell(Progress(Kind.COUNT, "comparing with the shared collection", number))
        changed += _TAMPERED.judge(case) is not None
        if case.found is None or case.found.home:
            continue
        has_copy, is_disputed = _has_its_copy(case, ltm), _is_disputed(case)
        disputed += is_disputed and not has_copy
        if has_copy or (is_disputed and unsafe):
            found.add(case.found, has_copy=has_copy)
            states[case.found.place.key] = str(point_state(case.found.point))
    if changed:
        raise GateClosed(
            f"{count(changed, 'archived memory has', 'archived memories have')} changed since they "
            "were written down, and an old collection may hold what they said. Nothing was "
            f"removed; look with `memsync reconcile --select {_TAMPERED.code}`, and restore them, "
            "or take them as they are with `memsync reconcile adopt --anew`",
            changed=changed,
        )
    if pairing.sources.unread:
        raise IncompleteAudit(
            "not every collection could be read, and nothing was changed: "
            + listed((f"{name}: {why}" for name, why in sorted(pairing.sources.unread.items())), 3)
        )
    _require_all(session, ltm, found.points, 0 if unsafe else disputed)
    return found


def _require_all(
    session: Session, ltm: LongTermMemory, points: Mapping[str, int], disputed: int
) -> None:
    """Raises: GateClosed naming the collections that hold more points than may go."""
    lacking = {
        name: held - may_go for name, may_go in points.items() if (held := ltm.count(name)) > may_go
    }
    if not lacking:
        return
    each = (f"{name} ({count(number, 'point')})" for name, number in lacking.items())
    raise GateClosed(
        f"{count(sum(lacking.values()), 'point')} of {count(len(lacking), 'collection')} "
        f"{'has' if sum(lacking.values()) == 1 else 'have'} no copy in {ltm.collection!r}, and "
        f"nothing was removed: {listed(each)}. Something wrote there since the layout was "
        "changed, or the copy was removed. Look at them with `memsync reconcile`, repair them "
        f"with a plan, and retire then{_past_disputed(disputed)}{_way_past(session, lacking)}",
        lacking=lacking,
    )


def _past_disputed(number: int) -> str:
    """What to do about so many points that contradict themselves, which no plan repairs."""
    if not number:
        return ""
    which = count(number, "point contradicts itself", "points contradict themselves")
    return (
        f". {which}, and no plan repairs that: see whose memory it is, or let --retire --unsafe "
        "move it to the quarantine with the others"
    )


def _way_past(session: Session, lacking: Collection[str]) -> str:
    """What to do where findings in these collections are acknowledged; no plan repairs those."""
    stores = {f"qdrant:{name}" for name in lacking}
    ids = [str(each.id) for each in Acknowledgements(session).all() if each.store in stores]
    if not ids:
        return ""
    findings = count(len(ids), "finding there is", "findings there are")
    drop = f"`memsync reconcile baseline drop {' '.join(ids[:_IDS_MAX])}`"
    more = "" if len(ids) <= _IDS_MAX else "; `memsync reconcile baseline list` has the other ids"
    return (
        f". {findings} acknowledged, and plans leave that alone: {drop} ends it{more}. A plan with "
        "--unsafe then moves such a point to the quarantine"
    )


def _is_disputed(case: Case) -> bool:
    """Whether the point contradicts itself and has no exchange: no plan touches it."""
    return case.exchange is None and case.found is not None and case.found.contradicts_itself


def _has_its_copy(case: Case, ltm: LongTermMemory) -> bool:
    return case.is_copy and case.kept is not None and case.kept.collection == ltm.collection


@dataclass(frozen=True, slots=True)
class _Form:
    """The size and the payload indexes of a collection."""

    dims: int
    indexes: Mapping[str, object]


def _form(ltm: LongTermMemory, collection: str) -> _Form:
    """The form of a collection that memsync can make anew.

    Raises: GateClosed for another one.
    """
    info = ltm.describe(collection)
    if info is None or info.distance != COSINE:
        raise GateClosed(
            f"{collection} compares its vectors by {info.distance if info else 'nothing'}, and "
            f"memsync makes collections that compare by {COSINE}, so it could not be restored. "
            "Nothing was removed; drop that collection by hand"
        )
    return _Form(info.dims, {**info.indexes, **info.other_indexes})


def _retire_one(
    session: Session,
    ltm: LongTermMemory,
    run_id: UUID,
    name: str,
    form: _Form,
    expected: int,
    copied: Mapping[bytes, str],
) -> None:
    with session.transaction():
        session.run("forget_moved", run_id=run_id, collection=name)
        session.run(
            "begin_retirement",
            run_id=run_id,
            collection=name,
            dims=form.dims,
            indexes=json_value(dict(form.indexes)),
        )
    moved = 0
    for some in batched(ltm.scan(name, vectors=True), _BATCH):
        as_copied = {each.id: copied.get(Place(name, each.id).key, "") for each in some}
        _require_same(name, some, as_copied)
        keep_whole(session, run_id, name, some, "retired")
        moved += len(some)
    kept = 0
    for some in batched(ltm.scan(name), _BATCH):
        _require_same(name, some, _kept(session, run_id, name, [each.id for each in some]))
        kept += len(some)
    if not kept == moved == expected:
        raise _changed(name, f"{count(expected, 'point')} then, {kept:,} now")
    session.run("count_moved", run_id=run_id, collection=name, points=moved)
    ltm.repairs.drop(name)
    session.run("end_retirement", run_id=run_id, collection=name)


def _require_same(name: str, points: Sequence[Point], states: Mapping[PointId, str]) -> None:
    """Raises: GateClosed for a point that has another state than this one."""
    for each in points:
        if point_state(each) != states.get(each.id):
            raise _changed(name, f"the first is {each.id}")


def _kept(session: Session, run_id: UUID, name: str, ids: Sequence[PointId]) -> dict[PointId, str]:
    """The states in which the way back would restore these points."""
    asked = {str(each): each for each in ids}
    rows = session.rows("retired_states", run_id=run_id, collection=name, point_ids=list(asked))
    return {asked[row.point_id]: row.state for row in rows}


def _changed(name: str, what: str) -> GateClosed:
    return GateClosed(
        f"{name} holds other points than when it was compared with the shared collection ({what}), "
        "so it was not removed: something still writes there. Stop it, then run this again"
    )
