"""Exchanges of the legacy app, and memories that name the persona who spoke in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID, uuid4

from memsync.demo.world import World, load_points
from memsync.model.records import Point

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memsync.stores.vectors.protocol import VectorStore
    from support.app import App

UNHINDERED = ("--quiet-minutes", "0", "--backup-confirmed", "test")
VECTOR = (1.0, 2.0, 3.0, 4.0)

EXCHANGES: LiteralString = """
    SELECT a.id AS anchor, u.id AS message, a.user_id, a.personality_id, u.content, a.content,
           (extract(epoch FROM a.created_at) * 1000)::bigint
    FROM conversation_history a
    CROSS JOIN LATERAL (
        SELECT * FROM conversation_history b
        WHERE b.channel_id = a.channel_id AND b.personality_id = a.personality_id
          AND b.user_id = a.user_id
          AND (b.created_at, b.role <> 'user', b.id) < (a.created_at, true, a.id)
        ORDER BY b.created_at DESC, b.role <> 'user' DESC, b.id DESC LIMIT 1) u
    WHERE a.role = 'assistant' AND u.role = 'user' ORDER BY a.id"""


@dataclass(frozen=True)
class Said:
    """An exchange; `now` is its user's persona by the settings, `other` another of that user."""

    anchor: UUID
    message: UUID
    user: UUID
    personality: UUID
    question: str
    answer: str
    at_ms: int
    now: UUID
    other: UUID

    @property
    def rows(self) -> tuple[UUID, UUID]:
        """Both messages."""
        return self.anchor, self.message

    def payload(self, persona: UUID, **changed: object) -> dict[str, object]:
        """The payload of the app's memory of it; None leaves a key out."""
        whole = {
            "personalityId": str(self.personality),
            "personaId": str(persona),
            "content": f"User (Somebody): {self.question}\nSomething: {self.answer}",
            "createdAt": self.at_ms,
            "canonScope": "personal",
        }
        return {key: value for key, value in {**whole, **changed}.items() if value is not None}


def remember(store: VectorStore, collection: str, payload: Mapping[str, object]) -> UUID:
    """Write one point; return its id."""
    point = uuid4()
    store.create(collection, len(VECTOR), {})
    store.upsert(collection, [Point(point, payload, VECTOR)])
    return point


def remember_as(store: VectorStore, said: Said, persona: UUID, **changed: object) -> UUID:
    """Write the memory of the exchange into this persona's collection, as the app did."""
    return remember(store, f"persona-{persona}", said.payload(persona, **changed))


def load(remembered: World, store: VectorStore) -> None:
    load_points(remembered, store, lambda texts: [VECTOR] * len(texts))


def exchanges(app: App) -> list[Said]:
    """The exchanges whose user has several personas and speaks as the default one."""
    several: dict[UUID, str] = dict(
        app.query(
            "SELECT u.id, min(p.id::text) FROM users u JOIN personas p ON p.owner_id = u.id"
            " AND p.id <> u.global_persona_id GROUP BY u.id"
        )
    )
    found = []
    for anchor, message, user, personality, question, answer, at_ms in app.query(EXCHANGES):
        now = app.world.resolved(user, personality)
        if user in several and now == app.world.cast.defaults[user]:
            other = UUID(several[user])
            found.append(
                Said(anchor, message, user, personality, question, answer, at_ms, now, other)
            )
    return found


def personas(app: App, *rows: UUID) -> list[UUID | None]:
    """The personas of these messages."""
    of = app.personas()
    return [of[row] for row in rows]


def reasons(app: App, *rows: UUID) -> list[Any]:
    """The reason of each message's own decision in the archive; None where it has none."""
    why: dict[UUID, str] = dict(app.query("SELECT history_id, reason FROM memsync.row_archive"))
    return [why.get(row) for row in rows]


def move_on(app: App) -> None:
    """Change the settings: every user with several personas now speaks as another one."""
    app.do(
        "UPDATE users u SET global_persona_id = (SELECT max(p.id::text)::uuid FROM personas p"
        " WHERE p.owner_id = u.id AND p.id <> u.global_persona_id)"
        " WHERE (SELECT count(*) FROM personas p WHERE p.owner_id = u.id) > 1"
    )
    app.do(
        "UPDATE user_personality_settings s SET persona_id = (SELECT min(p.id::text)::uuid"
        " FROM personas p WHERE p.owner_id = s.user_id AND p.id <> s.persona_id)"
        " WHERE persona_id IS NOT NULL"
    )


def first_of(found: list[Said]) -> tuple[UUID, UUID, UUID, UUID]:
    return found[0].user, found[0].personality, found[0].now, found[0].other


def at(second: float) -> int:
    """A time, in milliseconds, that no row of the world has."""
    return 1_000_000_000_000 + int(second * 1000)


def write(app: App, user: UUID, personality: UUID, role: str, text: str, second: float) -> UUID:
    """Insert a message as the legacy app does; return its id."""
    row = uuid4()
    app.do(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, user_id, role, content, created_at)"
        " VALUES (%s, 'talk', %s, %s, %s, %s, to_timestamp(%s / 1000.0) AT TIME ZONE 'UTC')",
        row,
        personality,
        user,
        role,
        text,
        at(second),
    )
    return row


def by_evidence(app: App, remembered: World) -> dict[UUID, UUID]:
    """The persona who spoke each message of which the world has a memory."""
    assert app.world.manifest.messages == remembered.manifest.messages
    return {
        row: persona
        for anchor, message, user, personality, *_ in app.query(EXCHANGES)
        if (persona := app.world.resolved(user, personality))
        for row in (anchor, message)
    }
