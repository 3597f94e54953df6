"""Reads and changes the settings of an app: defaults, choices, configs and windows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from support.app import App

SETTINGS = (
    "SELECT id, global_persona_id FROM users ORDER BY id",
    "SELECT id, llm_config_id, context_window_size FROM personalities ORDER BY id",
    "SELECT id, is_global FROM personas ORDER BY id",
    "SELECT id, is_default FROM llm_configs ORDER BY id",
    "SELECT id, user_id, personality_id, persona_id, llm_config_id FROM user_personality_settings"
    " ORDER BY id",
)


def new_persona(app: App, owner: UUID | None) -> UUID:
    persona = uuid4()
    app.do(
        "INSERT INTO personas (id, name, content, owner_id, updated_at)"
        " VALUES (%s, 'extra', '', %s, now())",
        persona,
        owner,
    )
    return persona


def resolve_all(app: App) -> None:
    """Give every user a default persona, so that a run creates none."""
    for (user,) in app.query("SELECT id FROM users WHERE global_persona_id IS NULL"):
        persona = new_persona(app, user)
        app.do("UPDATE users SET global_persona_id = %s WHERE id = %s", persona, user)


def in_step(app: App) -> bool:
    """Whether the old and the new tables of settings agree."""
    users = (
        "SELECT FROM users u FULL JOIN user_default_personas d ON d.user_id = u.id"
        " WHERE u.global_persona_id IS DISTINCT FROM d.persona_id"
    )
    personalities = (
        "SELECT FROM personalities p FULL JOIN personality_default_configs d"
        " ON d.personality_id = p.id LEFT JOIN llm_configs c ON c.id = d.llm_config_id"
        " WHERE p.llm_config_id IS DISTINCT FROM d.llm_config_id"
        " OR p.context_window_size <> c.context_window_size"
    )
    return not app.query(users) and not app.query(personalities)


def conflicting(app: App) -> tuple[UUID, list[tuple[UUID, int]]]:
    """Make one config serve every personality, with windows 20, 20, 40, 50 and so on."""
    config = app.query("SELECT id FROM llm_configs ORDER BY id LIMIT 1")[0][0]
    app.do("UPDATE personalities SET llm_config_id = %s, context_window_size = 20", config)
    personalities = app.query("SELECT id FROM personalities ORDER BY id")
    for at, (personality,) in enumerate(personalities[2:]):
        app.do(
            "UPDATE personalities SET context_window_size = %s WHERE id = %s",
            40 + 10 * at,
            personality,
        )
    return config, app.query("SELECT id, context_window_size FROM personalities ORDER BY id")
