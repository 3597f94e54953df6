"""A client of the app that reads and writes while something is done to its database."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID, uuid4

import psycopg

if TYPE_CHECKING:
    from support.app import App

PACE_S = 0.002

INSERT_BY_USER: LiteralString = """
    INSERT INTO conversation_history (id, channel_id, personality_id, user_id, role, content)
    VALUES (%s, '1', %s, %s, 'user', 'hello')"""
INSERT_BY_PERSONA: LiteralString = """
    INSERT INTO conversation_history (id, channel_id, personality_id, persona_id, role, content)
    VALUES (%s, '1', %s, %s, 'user', 'hello')"""
READ: LiteralString = """
    SELECT id, content FROM conversation_history WHERE channel_id = '1'
    ORDER BY created_at DESC LIMIT 20"""
READ_BY_PERSONA: LiteralString = """
    SELECT id, content FROM conversation_history WHERE channel_id = '1' AND persona_id = %s
    ORDER BY created_at DESC LIMIT 20"""

Connection = psycopg.Connection[tuple[Any, ...]]


class Background:
    """Work in a thread of its own, until it is told to stop."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def start(self) -> None:
        if not self._thread.ident:
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident:
            self._thread.join()

    def _live(self) -> None:
        raise NotImplementedError


@dataclass
class Client(Background):
    """One version of the app, reading and writing until it is told to stop.

    `written` has for each of its rows the user and the persona that the row must end with; None
    where that persona is yet to be created. `longest_s` is the longest wait for one statement.
    """

    app: App
    seed: str
    by_persona: bool
    written: dict[UUID, tuple[UUID, UUID | None]] = field(default_factory=dict)
    deleted: set[UUID] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    longest: str = ""

    def _live(self) -> None:
        chance = random.Random(self.seed)
        with self.app.connected() as connection:
            while not self._stop.wait(PACE_S):
                try:
                    self._act(connection, chance)
                except psycopg.Error as error:
                    self.errors.append(str(error))

    def _act(self, connection: Connection, chance: random.Random) -> None:
        mine = [*self.written]
        choice = chance.random()
        if choice < 0.2 and mine:
            row = chance.choice(mine)
            self._timed(
                connection, "UPDATE conversation_history SET content = 'new' WHERE id = %s", row
            )
        elif choice < 0.3 and mine:
            row = chance.choice(mine)
            self._timed(connection, "DELETE FROM conversation_history WHERE id = %s", row)
            self.deleted.add(row)
            del self.written[row]
        elif choice < 0.45:
            if self.by_persona and mine:
                self._timed(connection, READ_BY_PERSONA, self.written[mine[-1]][1])
            else:
                self._timed(connection, READ)
        else:
            self._insert(connection, chance)

    def _insert(self, connection: Connection, chance: random.Random) -> None:
        cast = self.app.world.cast
        user, personality = chance.choice(cast.users), chance.choice(cast.personalities)
        persona = self.app.world.resolved(user.id, personality.id)
        if self.by_persona and persona is None:
            return
        row = uuid4()
        self._timed(
            connection,
            INSERT_BY_PERSONA if self.by_persona else INSERT_BY_USER,
            row,
            personality.id,
            persona if self.by_persona else user.id,
        )
        self.written[row] = (user.id, persona)

    def _timed(self, connection: Connection, text: LiteralString, *params: object) -> None:
        started = time.monotonic()
        connection.execute(text, params)
        took_s = time.monotonic() - started
        if took_s > self.longest_s:
            self.longest_s, self.longest = took_s, text


def expected_of(app: App, client: Client) -> dict[UUID, UUID]:
    created: dict[UUID, UUID] = dict(
        app.query("SELECT user_id, persona_id FROM memsync.created_persona")
    )
    return {row: persona or created[user] for row, (user, persona) in client.written.items()}
