"""An adversary: spoils a memory that was settled, or leaves behind what an app leaves that dies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from memsync.model.ids import MessageId
from memsync.model.records import Place
from memsync.stores.ltm.ledger import Ledger, State
from support.lab import A, B, C
from support.traffic.town import SETTLE_MS, THREADS, Fault, Kind, Told, Town

_WITHOUT_ROWS = "orphan-point newer-than-history"


def plant(town: Town) -> Fault | None:
    """Spoil something, each kind in its turn. None where there is nothing to spoil."""
    if not town.deck:
        town.deck = [*_KINDS, *(_OF_THE_APP if town.kind is Kind.APP else ())]
        town.rng.shuffle(town.deck)
    for planted in [*town.deck]:
        if fault := planted(town):
            town.deck.remove(planted)
            return fault
    return None


def _victim(town: Town) -> Told | None:
    some = [each for each in town.settled() if each.is_alone and each.is_exact]
    return town.rng.choice(some) if len(some) > 2 else None


def _missing(town: Town) -> Fault | None:
    if (told := _victim(town)) is None or told.place is None:
        return None
    town.lab.vectors.delete(told.place.collection, [told.place.point_id])
    return town.wrong("missing", told, "missing-point")


def _foreign(town: Town) -> Fault | None:
    if (told := _victim(town)) is None or told.place is None:
        return None
    other = town.rng.choice([each for each in (A, B, C) if each != told.row.persona_id])
    lab, place = town.lab, told.place
    payload = dict(lab.point(place.point_id, place.collection).payload)
    if town.kind is Kind.SHARED:
        lab.put(place.point_id, {**payload, "persona_id": str(other)})
        return town.wrong("foreign", told, "persona-mismatch")
    moved = Place(f"persona-{other}", town.id())
    key = "personaId" if "personaId" in payload else "persona_id"
    lab.put(moved.point_id, {**payload, key: str(other)}, moved.collection)
    lab.vectors.delete(place.collection, [place.point_id])
    return town.wrong("foreign", told, "persona-mismatch", moved)


def _edited(town: Town) -> Fault | None:
    if (told := _victim(town)) is None:
        return None
    _say_otherwise(town, told)
    return town.wrong("edited", told, "stale-content", needs_deep=town.kind is Kind.SHARED)


def _say_otherwise(town: Town, told: Told) -> None:
    assert told.place is not None
    lab, place = town.lab, told.place
    payload = dict(lab.point(place.point_id, place.collection).payload)
    if "content" in payload:
        payload["content"] = f"User (Al): what {len(town.faults)}\nAda: never"
    else:
        key = "user_text" if "user_text" in payload else "userText"
        payload[key] = f"what {len(town.faults)}"
    lab.put(place.point_id, payload, place.collection)


def _drifted(town: Town) -> Fault | None:
    if (told := _victim(town)) is None or told.place is None:
        return None
    lab, place = town.lab, told.place
    payload = dict(lab.point(place.point_id, place.collection).payload)
    key = "channelId" if "channelId" in payload else "channel_id"
    lab.put(place.point_id, {**payload, key: "another"}, place.collection)
    return town.wrong("drifted", told, "payload-drift", needs_deep=town.kind is Kind.SHARED)


def _doubled(town: Town) -> Fault | None:
    if (told := _victim(town)) is None or told.place is None:
        return None
    lab, place = town.lab, told.place
    double = Place(place.collection, town.id())
    lab.put(double.point_id, lab.point(place.point_id, place.collection).payload, place.collection)
    return town.wrong("doubled", told, "duplicate-point", double)


def _orphaned(town: Town) -> Fault | None:
    if (told := _victim(town)) is None or told.place is None:
        return None
    orphan = Place(told.place.collection, town.id())
    _write_unsaid(town, told, orphan, told.row.created_at_ms + 1)
    return town.wrong("orphaned", told, _WITHOUT_ROWS, orphan)


def _write_unsaid(town: Town, beside: Told, place: Place, at_ms: int) -> None:
    """Write a memory of what was never said, in the thread of this exchange."""
    lab, number = town.lab, len(town.faults)
    said = replace(
        beside.row,
        anchor_id=MessageId(place.point_id),  # type: ignore[arg-type]  # a uuid
        created_at_ms=at_ms,
        user_text=f"unsaid {number}",
        assistant_text=f"unheard {number}",
    )
    if town.kind is Kind.SHARED:
        lab.put(place.point_id, lab.ltm.codec.encode(said, "test/8"))
    else:
        lab.deploy(said, point_id=place.point_id)


def _archived(town: Town) -> Told | None:
    """A memory without rows that the ledger has as archived."""
    some = {
        each.place: each
        for each in town.told
        if each.place and not (each.has_rows or each.is_open or each.is_gone or each.fault)
    }
    with town.lab.postgres.session() as session:
        noted = Ledger(session).at(some)
    known = [
        told
        for place, told in some.items()
        if place in noted and noted[place].state is State.ARCHIVED and not noted[place].has_rows
    ]
    return town.rng.choice(known) if known else None


def _lost(town: Town) -> Fault | None:
    if (told := _archived(town)) is None or told.place is None:
        return None
    town.lab.vectors.delete(told.place.collection, [told.place.point_id])
    return town.wrong("lost", told, "archived-missing", needs_rows=False)


def _tampered(town: Town) -> Fault | None:
    if (told := _archived(town)) is None:
        return None
    _say_otherwise(town, told)
    deep = town.kind is Kind.SHARED
    return town.wrong("tampered", told, "archived-tampered", needs_rows=False, needs_deep=deep)


def _rows_never_came(town: Town) -> Fault | None:
    """The app wrote a memory, and died before its transaction committed."""
    if (told := _victim(town)) is None or told.thread in town.busy:
        return None
    at = max(town.clock.at_ms, town.last_ms[told.thread] + 1)
    town.last_ms[told.thread] = at
    left = Place(f"persona-{told.row.persona_id}", town.id())
    _write_unsaid(town, told, left, at)
    return town.wrong("rows never came", told, _WITHOUT_ROWS, left, due_ms=at + SETTLE_MS)


def _memory_never_came(town: Town) -> Fault | None:
    """The app committed the rows, and died before it wrote the memory."""
    free = [each for each in THREADS if each not in town.busy]
    if not free:
        return None
    told = town.next_of(town.rng.choice(free))
    told.is_open = False
    town.insert(told, "user", "assistant")
    due = told.row.created_at_ms + SETTLE_MS
    return town.wrong("memory never came", told, "missing-point", due_ms=due)


Planted = Callable[[Town], Fault | None]
_KINDS: tuple[Planted, ...] = (
    *(_missing, _foreign, _edited, _drifted, _doubled, _orphaned),
    *(_lost, _tampered),
)
_OF_THE_APP: tuple[Planted, ...] = (_rows_never_came, _memory_never_came)
