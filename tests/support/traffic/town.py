"""The town that the traffic is about: what was said, where its memories lie, and what is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg

from memsync.model.ids import MessageId, PersonaId, PersonalityId
from memsync.model.records import Exchange, Place
from memsync.stores.ltm.layouts import Layout
from support.lab import ADA, BASIL, A, B, C, Lab

if TYPE_CHECKING:
    from memsync.memory import Remembered
    from memsync.reconcile.findings import Finding

Connection = psycopg.Connection[Any]
Thread = tuple[UUID, UUID, str]
"""Persona, personality and channel."""

START = datetime(2025, 6, 1, 12, tzinfo=UTC)
SETTLE_MS = 60_000
TWINS_APART_MS = 15_000
CLOCK_OFF_MS = 1500
THREADS: tuple[Thread, ...] = tuple(
    (persona, personality, channel)
    for persona in (A, B, C)
    for personality, channel in ((ADA, "1"), (ADA, "2"), (BASIL, "1"))
)
ARCHIVED = frozenset(("archived-missing", "archived-tampered"))
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  a column without a zone


class Kind(StrEnum):
    """Who writes memories, and where."""

    APP = "app"
    """The app itself, into a collection for each persona."""
    HANDED_OVER = "handed over"
    """The library, into the same collections, in which the app has written before."""
    SHARED = "shared"
    """The library, into the shared collection."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of such a town."""
        layout = Layout.SHARED if self is Kind.SHARED else Layout.PER_PERSONA
        return {"layout": layout.value, "writer": "app" if self is Kind.APP else "memsync"}


@dataclass(eq=False)
class Told:
    """An exchange. `place`: where its memory lies, None as long as there is none.

    `is_open`: somebody is still at work on it. `has_rows`: both messages stand. `is_alone`: nobody
    has said the same. `is_exact`: its memory has the time of its row.
    """

    row: Exchange
    said_at_ms: int
    place: Place | None = None
    is_open: bool = True
    has_rows: bool = False
    is_alone: bool = True
    is_exact: bool = True
    is_gone: bool = False
    fault: Fault | None = None

    def __str__(self) -> str:
        row = self.row
        marks = [name for name, value in vars(self).items() if value is True]
        where = f"{str(row.persona_id)[-1]} {str(row.personality_id)[-1]} {row.channel_id}"
        fault = self.fault.name if self.fault else ""
        return (
            f"{where} {row.created_at_ms} {row.user_text!r} {' '.join(marks)} {fault}"
            f" anchor {row.anchor_id} point {self.place and self.place.point_id}"
        )

    @property
    def thread(self) -> Thread:
        """Where it was said."""
        return self.row.persona_id, self.row.personality_id, self.row.channel_id


@dataclass(eq=False)
class Fault:
    """Something that is wrong with `told`, or beside it, and the findings that may tell of it.

    It counts from `due_ms` on. `needs_rows`: while those of `told` stand it must be found; once the
    traffic has removed them it may go by another name, or by none.
    """

    name: str
    told: Told
    codes: frozenset[str]
    keys: frozenset[str]
    due_ms: int = 0
    needs_rows: bool = True
    needs_deep: bool = False
    is_meant: bool = False
    looks: int = 0
    found: bool = False

    @property
    def must_be_found(self) -> bool:
        """Whether nothing has happened since that excuses an audit."""
        return not self.is_meant and (self.told.has_rows or not self.needs_rows)

    def explains(self, finding: Finding, now_ms: int) -> bool:
        """Whether the finding is of this fault, by name and place."""
        seen = finding.witness
        named = {finding.key, str(seen.anchor_id), str(seen.place and seen.place.point_id)}
        if named.isdisjoint(self.keys) or now_ms < self.due_ms:
            return False
        return finding.name in self.codes or not self.must_be_found


@dataclass
class Clock:
    """The time of the town, in ms. It does not pass the `deadlines`: what is done until then is
    done in time. The database's clock is `skew_ms` ahead.
    """

    at_ms: int = round(START.timestamp() * 1000)
    skew_ms: int = 0
    deadlines: dict[int, int] = field(default_factory=dict)

    def pass_by(self, ms: int) -> None:
        """Let time pass."""
        self.at_ms = max(self.at_ms, min([self.at_ms + ms, *self.deadlines.values()]))

    @contextmanager
    def within(self, deadline_ms: int) -> Iterator[None]:
        """What is done here is done before that time."""
        key = max(self.deadlines, default=0) + 1
        self.deadlines[key] = deadline_ms
        try:
            yield
        finally:
            del self.deadlines[key]

    @property
    def earliest_ms(self) -> int:
        """The time by the clock that is behind."""
        return self.at_ms + min(0, self.skew_ms)

    # As the modules `time` and `exchanges` are asked.

    def time(self) -> float:
        """The time of the machine on which an audit runs."""
        return self.at_ms / 1000

    def now_ms(self, _: object) -> int:
        """The time of the database."""
        return self.at_ms + self.skew_ms


@dataclass
class Town:
    """Both stores, and what is known of them. `busy` are threads in which somebody is speaking."""

    lab: Lab
    kind: Kind
    rng: random.Random
    connection: Connection
    clock: Clock = field(default_factory=Clock)
    told: list[Told] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    accepted: list[Fault] = field(default_factory=list)
    deck: list[Callable[[Town], Fault | None]] = field(default_factory=list)
    busy: set[Thread] = field(default_factory=set)
    last_ms: dict[Thread, int] = field(default_factory=dict)
    last_twin_ms: int = 0
    relay_rests_until_ms: int = 0
    is_over: bool = False

    def sql(self, statement: str, *, into: Connection | None = None, **params: object) -> list[Any]:
        """Run a statement as the app does."""
        cursor = (into or self.connection).execute(statement.encode(), params)
        return cursor.fetchall() if cursor.description else []

    def id(self) -> UUID:
        """A random id."""
        return UUID(int=self.rng.getrandbits(128), version=4)

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return self.rng.random() < share

    # ------------------------------------------------------------------ saying

    def next_of(self, thread: Thread) -> Told:
        """What is said next in this thread: now, or right after what was said there last."""
        persona, personality, channel = thread
        at = max(self.clock.at_ms, self.last_ms.get(thread, 0) + self.rng.randint(2000, 5000))
        answered = at + self.rng.randint(0, 3000)
        while answered in self.last_ms.values():
            answered += 1
        self.last_ms[thread] = answered
        # Of what was said twice at about one time, an audit cannot tell whose memory is whose once
        # one of the two is gone.
        is_alone = self.chance(0.7) or answered < self.last_twin_ms + TWINS_APART_MS
        if not is_alone:
            self.last_twin_ms = answered
        number = len(self.told)
        words = (f"question {number}", f"answer {number}") if is_alone else ("hello", "hi")
        row = Exchange(
            *(MessageId(self.id()), PersonaId(persona), PersonalityId(personality), channel),
            *(answered, *words, MessageId(self.id())),
        )
        told = Told(row, at, is_alone=is_alone)
        self.told.append(told)
        return told

    def insert(self, told: Told, *roles: str, into: Connection | None = None) -> None:
        """Write messages of an exchange, as the app does."""
        row = told.row
        of = {
            "user": (row.said_id, row.user_text, told.said_at_ms),
            "assistant": (row.anchor_id, row.assistant_text, row.created_at_ms),
        }
        for role in roles:
            id_, content, at = of[role]
            self.sql(
                "INSERT INTO conversation_history (id, channel_id, personality_id, persona_id,"
                " role, content, created_at) VALUES (%(id)s, %(channel)s, %(personality)s,"
                " %(persona)s, %(role)s, %(content)s, %(at)s)",
                id=id_,
                channel=row.channel_id,
                personality=row.personality_id,
                persona=row.persona_id,
                role=role,
                content=content,
                at=column_time(at),
                into=into,
            )
        if into is None:
            self.look_at_rows(told)

    def look_at_rows(self, told: Told) -> None:
        """See whether both messages stand."""
        ids = [told.row.said_id, told.row.anchor_id]
        rows = self.sql("SELECT 1 FROM conversation_history WHERE id = ANY(%(ids)s)", ids=ids)
        told.has_rows = len(rows) == 2

    def written(self, told: Told, as_told: Remembered) -> None:
        """Take the ids that the library has given to an exchange."""
        said, anchor = as_told.user_message_id, as_told.assistant_message_id
        told.row = replace(told.row, anchor_id=anchor, said_id=said)
        told.has_rows = True

    def write_point(self, told: Told) -> None:
        """Write the memory of an exchange, as the app does; some have the app's own time."""
        skew = self.rng.choice((0, 0, 0, -700, CLOCK_OFF_MS))
        told.is_exact = skew == 0
        point = self.lab.deploy(
            told.row, point_id=self.id(), createdAt=told.row.created_at_ms + skew
        )
        told.place = Place(f"persona-{told.row.persona_id}", point.id)

    # ------------------------------------------------------------------ what may be chosen

    def settled(self) -> list[Told]:
        """Whole exchanges with their memories, at which nobody is at work, and without a fault."""
        old = self.clock.at_ms - 2 * SETTLE_MS
        return [
            each
            for each in self.told
            if each.place and each.has_rows and not each.is_open and each.fault is None
            if not each.is_gone and each.row.created_at_ms < old
        ]

    def removed(self, ids: set[UUID]) -> None:
        """Note that these messages are gone."""
        for each in self.told:
            if not ids.isdisjoint((each.row.anchor_id, each.row.said_id)):
                each.has_rows = False

    def may_be_of_before_an_edit(self, finding: Finding) -> bool:
        """Whether the point, whose rows are gone, may be the older text of another exchange: one of
        the same people, at most the tolerance later, that has a fault of its own and so may lack
        its memory. Then nothing tells it from an archived one; see docs/contract.md.
        """
        away_ms = self.lab.settings.match_tolerance_s * 1000 + CLOCK_OFF_MS
        return finding.name == "orphan-point" and any(
            other.fault
            and other.thread[:2] == each.thread[:2]
            and 0 < other.row.created_at_ms - each.row.created_at_ms <= away_ms
            for each in self.told
            if not each.has_rows and each.place and str(each.place.point_id) == finding.key
            for other in self.told
        )

    def wrong(self, name: str, told: Told, codes: str, *places: Place | None, **more: Any) -> Fault:
        """Note a fault at these places, besides the exchange's own."""
        row = told.row
        points = [place.point_id for place in (told.place, *places) if place]
        keys = frozenset(map(str, (row.anchor_id, row.said_id, *points)))
        told.fault = Fault(name, told, frozenset(codes.split()), keys, **more)
        self.faults.append(told.fault)
        return told.fault


def column_time(at_ms: int) -> datetime:
    """A time as the column has it."""
    return _EPOCH + timedelta(milliseconds=at_ms)
