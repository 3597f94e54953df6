"""SQL that brings an app into states in which a run may find it: partly migrated by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from support.app import App

ADD_COLUMN = """
    ALTER TABLE conversation_history ADD COLUMN persona_id uuid;
    CREATE INDEX conversation_history_persona_id_idx ON conversation_history (persona_id);
    ALTER TABLE conversation_history ADD CONSTRAINT conversation_history_persona_id_fkey
        FOREIGN KEY (persona_id) REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE;
"""
FILL_RIGHTLY = """
    UPDATE conversation_history h SET persona_id = coalesce(
        (SELECT s.persona_id FROM user_personality_settings s
         WHERE s.user_id = h.user_id AND s.personality_id = h.personality_id),
        (SELECT u.global_persona_id FROM users u WHERE u.id = h.user_id))
"""
FILL_BY_DEFAULT_ONLY = """
    UPDATE conversation_history h SET persona_id = u.global_persona_id
    FROM users u WHERE u.id = h.user_id
"""
HALF = " WHERE ('x' || right(h.id::text, 1))::bit(4)::int < 8"
CREATE_MISSING = """
    WITH made AS (
        INSERT INTO personas (id, name, description, content, owner_id, updated_at)
        SELECT gen_random_uuid(), username || '''s Persona', 'Default persona', '', id, now()
        FROM users WHERE global_persona_id IS NULL RETURNING id, owner_id)
    UPDATE users u SET global_persona_id = made.id FROM made WHERE made.owner_id = u.id;
"""
DROP_USER = """
    ALTER TABLE conversation_history ALTER persona_id SET NOT NULL;
    ALTER TABLE conversation_history DROP COLUMN user_id;
"""

REDESIGN = """
    CREATE TABLE user_default_personas (
        user_id uuid NOT NULL PRIMARY KEY
            REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
        persona_id uuid NOT NULL REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE,
        created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updated_at timestamp(3) NOT NULL);
    INSERT INTO user_default_personas (user_id, persona_id, updated_at)
    SELECT id, global_persona_id, updated_at FROM users WHERE global_persona_id IS NOT NULL;
    ALTER TABLE user_personality_settings RENAME TO user_personality_configs;
    ALTER TABLE users DROP COLUMN global_persona_id;
"""


def script(app: App, *parts: str) -> None:
    with app.connected() as connection:
        connection.execute("".join(parts).encode())


def changed_since(app: App) -> tuple[UUID, UUID, UUID, UUID]:
    """Change a user's default, then write a message; user, personality, personas before and now."""
    user, personality, before = app.query(
        "SELECT h.user_id, h.personality_id, u.global_persona_id FROM conversation_history h"
        " JOIN users u ON u.id = h.user_id WHERE u.global_persona_id IS NOT NULL AND NOT EXISTS"
        " (SELECT FROM user_personality_settings s"
        "  WHERE s.user_id = u.id AND s.personality_id = h.personality_id) ORDER BY h.id LIMIT 1"
    )[0]
    now = uuid4()
    app.do(
        "INSERT INTO personas (id, name, content, owner_id, updated_at)"
        " VALUES (%s, 'new', '', %s, now())",
        now,
        user,
    )
    app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", now, user)
    app.do(
        "INSERT INTO conversation_history"
        " (id, channel_id, personality_id, user_id, role, content, created_at)"
        " VALUES (%s, 'since', %s, %s, 'user', 'x', timezone('UTC', now())::date + 1)",
        UUID(int=1),
        personality,
        user,
    )
    return user, personality, before, now
