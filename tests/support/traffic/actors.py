"""The actors: each does its work in steps, and gives way to others between them.

What an app must keep for its traffic to be without findings is kept here: one reply at a time in a
thread; a memory within the settle window of its reply, or a row in `pending_memories`; old rows
removed before newer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from memsync.memory import NewExchange
from memsync.model.records import Place
from memsync.reconcile.adopt import Part
from support.traffic.town import ARCHIVED, SETTLE_MS, THREADS, Kind, Thread, Told, Town, column_time

if TYPE_CHECKING:
    from support.traffic.running import Traffic

Steps = Generator[None, None, None]
Actor = Callable[["Traffic"], Steps]

# How long a step may take on the way is not known: clocks are off by seconds.
_HURRY_MS = SETTLE_MS - 10_000


# ---------------------------------------------------------------------- speaking


def turn(traffic: Traffic) -> Steps:
    """The app's turn: it answers, and writes rows and memory in one of its orders."""
    town = traffic.town
    if (begun := _begun(town)) is None:
        return
    thread, told = begun
    order = town.rng.choice((_memory_first, _rows_first, _rows_in_two, _by_its_outbox))
    yield from order(town, told)
    told.is_open = False
    town.busy.discard(thread)


def _memory_first(town: Town, told: Told) -> Steps:
    """The memory is written while the transaction of the rows is open, or before it."""
    with town.clock.within(told.row.created_at_ms + _HURRY_MS):
        town.write_point(told)
        yield
        with psycopg.connect(town.lab.url) as apart:
            town.insert(told, "user", "assistant", into=apart)
            yield
            apart.commit()
        town.look_at_rows(told)


def _rows_first(town: Town, told: Told) -> Steps:
    """The rows are committed, and the memory comes a while later."""
    with town.clock.within(told.row.created_at_ms + _HURRY_MS):
        town.insert(told, "user", "assistant")
        yield
        yield
        town.write_point(told)


def _rows_in_two(town: Town, told: Told) -> Steps:
    """The message is committed when it comes, and the reply when it is made."""
    with town.clock.within(told.row.created_at_ms + _HURRY_MS):
        town.insert(told, "user")
        yield
        town.insert(told, "assistant")
        yield
        town.write_point(told)


def _by_its_outbox(town: Town, told: Told) -> Steps:
    """The memory could not be written: the app's own outbox has it, however long it takes."""
    row = told.row
    named = town.rng.choice((row.anchor_id, row.said_id))
    with town.connection.transaction():
        town.insert(told, "user", "assistant")
        town.sql(
            "INSERT INTO pending_memories (id, conversation_history_id, persona_id,"
            " personality_id, text, metadata, created_at) VALUES (%(id)s, %(row)s, %(persona)s,"
            " %(personality)s, 'text', '{}', now() AT TIME ZONE 'UTC')",
            id=town.id(),
            row=named,
            persona=row.persona_id,
            personality=row.personality_id,
        )
    for _ in range(town.rng.randint(2, 12)):
        yield
    if not town.sql(
        "SELECT 1 FROM pending_memories WHERE conversation_history_id = %(id)s", id=named
    ):
        # The rows were removed meanwhile, and the app's entry with them.
        return
    town.write_point(told)
    yield
    town.sql("DELETE FROM pending_memories WHERE conversation_history_id = %(id)s", id=named)


def remembering(traffic: Traffic) -> Steps:
    """The library's turn. Its memory comes by the relay, whenever that is."""
    town = traffic.town
    if (begun := _begun(town)) is None:
        return
    thread, told = begun
    row, key = told.row, town.id()
    said, answered = column_time(told.said_at_ms), column_time(row.created_at_ms)
    for _ in range(1 + town.chance(0.2)):
        written = town.lab.memory.remember(
            NewExchange(
                channel_id=row.channel_id,
                personality_id=row.personality_id,
                persona_id=row.persona_id,
                user_text=row.user_text,
                assistant_text=row.assistant_text,
                said_at=said,
                answered_at=answered,
                key=key,
            )
        )
    town.written(told, written)
    town.busy.discard(thread)
    yield
    while town.sql("SELECT 1 FROM memsync.outbox WHERE point_id = %(id)s", id=told.row.anchor_id):
        yield
    if told.has_rows:
        told.place = Place(town.lab.ltm.home_of(row.persona_id), told.row.anchor_id)
    told.is_open = False


def editing(traffic: Traffic) -> Steps:
    """The app changes a reply; the outbox has its memory from the same transaction on."""
    town = traffic.town
    some = [
        each for each in town.settled() if each.place and each.place.point_id == each.row.anchor_id
    ]
    if not some:
        return
    told = town.rng.choice(some)
    told.is_open = True
    text = f"{told.row.assistant_text} again"
    with town.connection.transaction():
        found = town.sql(
            "UPDATE conversation_history SET content = %(text)s WHERE id = %(id)s RETURNING id",
            text=text,
            id=told.row.anchor_id,
        )
        if found:
            town.sql("INSERT INTO memsync.outbox (point_id) VALUES (%(id)s)", id=told.row.anchor_id)
    if found:
        told.row = replace(told.row, assistant_text=text)
    while town.sql("SELECT 1 FROM memsync.outbox WHERE point_id = %(id)s", id=told.row.anchor_id):
        yield
    told.is_open = False


def relaying(traffic: Traffic) -> Steps:
    """The relay drains the outbox, or is stopped for a while."""
    town = traffic.town
    if town.chance(0.25) and not town.is_over:
        town.relay_rests_until_ms = town.clock.at_ms + 5 * SETTLE_MS
    if town.clock.at_ms >= town.relay_rests_until_ms:
        traffic.drain()
    yield


# ---------------------------------------------------------------------- removing


def retention(traffic: Traffic) -> Steps:
    """Rows go by their time, in two transactions, wherever the time cuts."""
    town = traffic.town
    times = sorted(each.row.created_at_ms for each in town.told if each.has_rows)
    old = [each for each in times if each < town.clock.at_ms - 3 * SETTLE_MS]
    if len(old) < 12:
        return
    cut = old[town.rng.randint(1, 6)] + town.rng.choice((-1, 0, 1, 500))
    yield from _delete_in_order(town, "created_at < %(cut)s", cut=column_time(cut))


def pruning(traffic: Traffic) -> Steps:
    """A thread keeps its newest messages, an odd number too."""
    town = traffic.town
    thread = town.rng.choice(THREADS)
    kept = town.rng.randint(1, 7)
    yield from _delete_in_order(town, _ALL_BUT_THE_NEWEST, kept=kept, **_named(thread))


def resetting(traffic: Traffic) -> Steps:
    """A persona begins anew with a personality: all rows of these go, in one channel or in all."""
    town = traffic.town
    persona, personality, channel = town.rng.choice(THREADS)
    anywhere = town.chance(0.3)
    where = "persona_id = %(persona)s AND personality_id = %(personality)s"
    if not anywhere:
        where = _OF_THREAD
    yield from _delete_in_order(town, where, **_named((persona, personality, channel)))


_OF_THREAD = (
    "persona_id = %(persona)s AND personality_id = %(personality)s AND channel_id = %(channel)s"
)

_ALL_BUT_THE_NEWEST = f"""{_OF_THREAD} AND id NOT IN (
    SELECT id FROM conversation_history WHERE {_OF_THREAD}
    ORDER BY created_at DESC, role, id DESC LIMIT %(kept)s)"""  # noqa: S608  our own text


def _named(thread: Thread) -> dict[str, object]:
    return dict(zip(("persona", "personality", "channel"), thread, strict=True))


def _delete_in_order(town: Town, which: str, **of: Any) -> Steps:
    """Remove rows, the older half first; a few stay, because an empty history is another matter."""
    ids = town.sql(
        f"SELECT id, role FROM conversation_history WHERE {which}"  # noqa: S608  our own text
        " ORDER BY created_at, CASE role WHEN 'user' THEN 1 ELSE 2 END, id",
        **of,
    )
    ((total,),) = town.sql("SELECT count(*) FROM conversation_history")
    if total - len(ids) < 10:
        return
    half = town.rng.randint(0, len(ids))
    for some in (ids[:half], ids[half:]):
        gone = [id_ for id_, _ in some]
        town.removed(set(gone))
        town.sql("DELETE FROM conversation_history WHERE id = ANY(%(ids)s)", ids=gone)
        yield


def deleting(traffic: Traffic) -> Steps:
    """The app removes rows and memory at once; where the ledger has it, an operator accepts."""
    town = traffic.town
    some = town.settled()
    if len(some) < 8:
        return
    told = town.rng.choice(some)
    told.is_gone, told.has_rows = True, False
    place = told.place
    assert place is not None
    fault = town.wrong("meant", told, " ".join(ARCHIVED), is_meant=True, needs_rows=False)
    for act in town.rng.sample((_delete_rows, _delete_point), 2):
        act(town, told)
    yield
    while traffic.is_locked:
        # An adoption that has seen it before writes it down all the same.
        yield
    if town.sql("SELECT 1 FROM memsync.memories WHERE point_id = %(id)s", id=str(place.point_id)):
        while not traffic.adopt(part=Part(points=frozenset([place])), anew=True):
            yield
    town.faults.remove(fault)
    town.accepted.append(fault)
    told.fault = None


def _delete_rows(town: Town, told: Told) -> None:
    ids = [told.row.said_id, told.row.anchor_id]
    town.sql("DELETE FROM conversation_history WHERE id = ANY(%(ids)s)", ids=ids)


def _delete_point(town: Town, told: Told) -> None:
    assert told.place is not None
    town.lab.vectors.delete(told.place.collection, [told.place.point_id])


# ---------------------------------------------------------------------- operating


def adopting(traffic: Traffic) -> Steps:
    """An operator writes the memories that stand down in the ledger."""
    traffic.adopt()
    yield


def restarting(traffic: Traffic) -> Steps:
    """The vector store is closed and opened again, unless somebody reads it at this moment."""
    traffic.reopen()
    yield


def _begun(town: Town) -> tuple[Thread, Told] | None:
    """A thread in which nobody is at work, busy from now on, and what is said next in it."""
    free = [each for each in THREADS if each not in town.busy]
    if not free:
        return None
    thread = town.rng.choice(free)
    told = town.next_of(thread)
    town.busy.add(thread)
    return thread, told


_ANYWHERE: dict[Actor, int] = {
    retention: 2,
    pruning: 2,
    resetting: 1,
    deleting: 1,
    adopting: 2,
    restarting: 1,
}
ACTORS: dict[Kind, dict[Actor, int]] = {
    Kind.APP: {turn: 16, **_ANYWHERE},
    Kind.HANDED_OVER: {remembering: 12, relaying: 6, editing: 2, **_ANYWHERE},
    Kind.SHARED: {remembering: 12, relaying: 6, editing: 2, **_ANYWHERE},
}
"""Who acts in each kind of town, and how often."""
