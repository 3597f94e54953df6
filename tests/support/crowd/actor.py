"""One process of an app at work: `python -m support.crowd.actor ROLE NAME SEED`.

Its threads speak until its standard input ends. The settings come from the environment, as those of
the app do. A store that is gone is waited for, because this app wants to lose nothing. What it must
keep is what `support.traffic.actors` keeps.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import psycopg
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.models import PointStruct

from memsync.errors import StoreUnreachable
from memsync.memory import Memory, NewExchange
from memsync.settings import Settings
from support.lab import ADA, BASIL, A, B, C, embed

THREADS = 5
KEPT_S = 60
"""The age from which on the rows of a crowd go. Those of the past stay. The relay has come to their
entries by then: of an edit that was written and not noted before the rows went nobody knows."""
_LATE_S_MAX = 3.0

_GONE = (
    *(psycopg.OperationalError, psycopg.InterfaceError, StoreUnreachable),
    *(ResponseHandlingException, UnexpectedResponse),
)
_ROW = """
INSERT INTO conversation_history
       (id, channel_id, personality_id, persona_id, role, content, created_at)
VALUES (%(id)s, %(channel)s, %(personality)s, %(persona)s, %(role)s, %(content)s, %(at)s)
ON CONFLICT (id) DO NOTHING"""
_PENDING = """
INSERT INTO pending_memories
       (id, conversation_history_id, persona_id, personality_id, text, metadata, created_at)
VALUES (gen_random_uuid(), %(anchor)s, %(persona)s, %(personality)s, 'text', %(told)s,
        now() AT TIME ZONE 'UTC')
ON CONFLICT (conversation_history_id) DO NOTHING"""
_OWN_PENDING = "SELECT metadata FROM pending_memories WHERE metadata ->> 'channel' LIKE %(channel)s"
_WRITTEN = "DELETE FROM pending_memories WHERE conversation_history_id = %(anchor)s"
_STANDS = "SELECT 1 FROM conversation_history WHERE id = %(anchor)s FOR KEY SHARE"
_EDIT = "UPDATE conversation_history SET content = content || '!' WHERE id = %(anchor)s RETURNING 1"
_ENTRY = "INSERT INTO memsync.outbox (point_id) VALUES (%(anchor)s)"
_OLD = """
DELETE FROM conversation_history
WHERE channel_id LIKE 'crowd-%%' AND created_at < now() AT TIME ZONE 'UTC' - %(age)s"""

T = TypeVar("T")


def insisting(act: Callable[[], T]) -> T:
    """Do it until the stores are there."""
    while True:
        with contextlib.suppress(*_GONE):
            return act()
        time.sleep(0.05)


@dataclass(frozen=True)
class Told:
    """An exchange, and the time of its memory. All are text, as JSON has them."""

    persona: str
    personality: str
    channel: str
    said: str
    anchor: str
    user_text: str
    reply: str
    at_s: float

    @property
    def point(self) -> PointStruct:
        """Its memory, as the app writes it."""
        content = f"User (Al): {self.user_text}\nAda: {self.reply}"
        payload = {
            "personalityId": self.personality,
            "personalityName": "Ada",
            "personaId": self.persona,
            "content": content,
            "createdAt": round(self.at_s * 1000),
            "channelId": self.channel,
            "senders": ["1"],
        }
        # An id of the exchange's own, so that a memory that is written again is not a second one.
        point_id = str(uuid5(NAMESPACE_OID, self.anchor))
        return PointStruct(id=point_id, payload=payload, vector=embed([content])[0])


class Speaker:
    """What all threads of a process have: the stores, and what to do until the process ends."""

    def __init__(self, settings: Settings, name: str, chance: random.Random) -> None:
        self.url = settings.postgres_url or ""
        self.name, self.chance = name, chance
        self.over = threading.Event()

    def live(self) -> None:
        """Speak until the end."""
        while not self.over.wait(self.chance.uniform(0.02, 0.2)):
            self.turn()

    def turn(self) -> None:
        """Say one thing."""
        raise NotImplementedError

    def transact(self, *statements: tuple[str, dict[str, Any]]) -> None:
        """Carry out statements in one transaction."""

        def act() -> None:
            with psycopg.connect(self.url) as connection:
                for text, params in statements:
                    connection.execute(text.encode(), params)

        insisting(act)


class App(Speaker):
    """Writes rows and memories itself, in each of its orders. It must come to its end."""

    def __init__(self, settings: Settings, name: str, chance: random.Random) -> None:
        super().__init__(settings, name, chance)
        self.qdrant = QdrantClient(url=settings.qdrant_url, timeout=10, check_compatibility=False)

    def turn(self) -> None:
        told = self.told()
        order = self.chance.choice((self.memory_first, self.rows_first, self.by_its_outbox))
        order(told)

    def told(self) -> Told:
        """What is said next, in a channel of this thread's own."""
        personality = self.chance.choice((ADA, BASIL))
        number = uuid4().hex
        return Told(
            persona=str(self.chance.choice((A, B, C))),
            personality=str(personality),
            channel=f"crowd-{self.name}-{threading.current_thread().name}",
            said=str(uuid4()),
            anchor=str(uuid4()),
            user_text=f"question {number}",
            reply=f"answer {number}",
            at_s=time.time(),
        )

    def memory_first(self, told: Told) -> None:
        """The memory, before the rows are committed."""
        self.write_point(told)
        self.dawdle()
        self.transact(*_rows(told))

    def rows_first(self, told: Told) -> None:
        """The rows, and the memory a moment later."""
        self.transact(*_rows(told))
        self.dawdle()
        self.write_point(told)

    def by_its_outbox(self, told: Told) -> None:
        """The rows with an entry in the app's own outbox; the memory is late."""
        params = {**asdict(told), "told": json.dumps(asdict(told))}
        self.transact(*_rows(told), (_PENDING, params))
        self.dawdle()
        self.write_late(told)

    def dawdle(self) -> None:
        """Let so much time pass between the two stores that an audit sees one without the other."""
        self.over.wait(self.chance.uniform(0, _LATE_S_MAX))

    def write_point(self, told: Told) -> None:
        """Write the memory."""
        insisting(lambda: self.qdrant.upsert(f"persona-{told.persona}", [told.point]))

    def write_late(self, told: Told) -> None:
        """Write the memory of an entry, unless its rows are gone, and remove the entry."""

        def act() -> None:
            with psycopg.connect(self.url) as connection:
                if connection.execute(_STANDS.encode(), asdict(told)).fetchone():
                    self.write_point(told)
                connection.execute(_WRITTEN.encode(), asdict(told))

        insisting(act)


class Careful(App):
    """Goes by its own outbox always, so that it may be killed at any time."""

    def live(self) -> None:
        def waiting() -> list[Told]:
            with psycopg.connect(self.url) as connection:
                own = {"channel": f"crowd-{self.name}-{threading.current_thread().name}"}
                rows = connection.execute(_OWN_PENDING.encode(), own).fetchall()
            return [Told(**row[0]) for row in rows]

        for told in insisting(waiting):
            self.write_late(told)
        super().live()

    def turn(self) -> None:
        self.by_its_outbox(self.told())


class Library(Speaker):
    """Remembers through the library, and edits what it has said. It may be killed at any time."""

    def __init__(self, settings: Settings, name: str, chance: random.Random) -> None:
        super().__init__(settings, name, chance)
        self.memory = insisting(lambda: Memory.open(settings))
        self.last: UUID | None = None

    def turn(self) -> None:
        if self.last and self.chance.random() < 0.1:
            self.edit(self.last)
            return
        number = uuid4().hex
        told = NewExchange(
            channel_id=f"crowd-{self.name}-{threading.current_thread().name}",
            personality_id=self.chance.choice((ADA, BASIL)),
            persona_id=self.chance.choice((A, B, C)),
            user_text=f"question {number}",
            assistant_text=f"answer {number}",
            key=uuid4(),
        )
        self.last = insisting(lambda: self.memory.remember(told)).assistant_message_id

    def edit(self, anchor: UUID) -> None:
        """Change a reply; its memory follows by the outbox."""

        def act() -> None:
            with psycopg.connect(self.url) as connection:
                if connection.execute(_EDIT.encode(), {"anchor": anchor}).fetchone():
                    connection.execute(_ENTRY.encode(), {"anchor": anchor})

        insisting(act)


class Retention(Speaker):
    """Removes old rows, the oldest of each thread first."""

    def turn(self) -> None:
        self.transact((_OLD, {"age": timedelta(seconds=KEPT_S)}))
        self.over.wait(1)


def _rows(told: Told) -> list[tuple[str, dict[str, Any]]]:
    answered = datetime.fromtimestamp(told.at_s, UTC).replace(tzinfo=None)
    both = (
        ("user", told.said, told.user_text, answered - timedelta(milliseconds=5)),
        ("assistant", told.anchor, told.reply, answered),
    )
    return [
        (_ROW, {**asdict(told), "id": id_, "role": role, "content": content, "at": at})
        for role, id_, content, at in both
    ]


ROLES: dict[str, tuple[type[Speaker], int]] = {
    "app": (App, THREADS),
    "careful": (Careful, THREADS),
    "library": (Library, THREADS),
    "retention": (Retention, 1),
}


def main() -> None:
    """Let the threads live until nobody holds the standard input open any more."""
    role, name, seed = sys.argv[1:]
    settings = Settings.load()
    kind, number = ROLES[role]
    speakers = [kind(settings, name, random.Random(f"{seed} {each}")) for each in range(number)]
    threads = [
        threading.Thread(target=each.live, name=f"{number}") for number, each in enumerate(speakers)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    for each in speakers:
        each.over.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
