"""The rows of the legacy tables: one named tuple per table, with a field for each column written.

The fields have the names of the columns in `schema.sql`. Timestamps are naive and in UTC, as the
columns are; jsonb is JSON text.
"""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from memsync.model.records import Role


class User(NamedTuple):
    """A row of `users`."""

    id: UUID
    discord_id: str
    username: str
    global_persona_id: UUID | None
    created_at: datetime
    updated_at: datetime


class Persona(NamedTuple):
    """A row of `personas`."""

    id: UUID
    name: str
    description: str | None
    content: str
    preferred_name: str | None
    pronouns: str | None
    owner_id: UUID
    is_global: bool
    created_at: datetime
    updated_at: datetime

    @property
    def called(self) -> str:
        """The name by which a personality calls this persona."""
        return self.preferred_name or self.name


class SystemPrompt(NamedTuple):
    """A row of `system_prompts`."""

    id: UUID
    name: str
    description: str | None
    content: str
    is_default: bool
    created_at: datetime
    updated_at: datetime


class LlmConfig(NamedTuple):
    """A row of `llm_configs`; the columns not named here stay NULL."""

    id: UUID
    name: str
    model: str
    temperature: Decimal
    memory_score_threshold: Decimal
    max_tokens: int
    memory_limit: int
    is_default: bool
    created_at: datetime
    updated_at: datetime


class Personality(NamedTuple):
    """A row of `personalities`; the columns not named here keep their defaults."""

    id: UUID
    name: str
    display_name: str | None
    slug: str
    system_prompt_id: UUID | None
    llm_config_id: UUID | None
    character_info: str
    personality_traits: str
    custom_fields: str | None
    context_window_size: int
    created_at: datetime
    updated_at: datetime

    @property
    def called(self) -> str:
        """The name that stands before this personality's lines."""
        return self.display_name or self.name


class PersonalityOwner(NamedTuple):
    """A row of `personality_owners`."""

    personality_id: UUID
    user_id: UUID
    role: str
    created_at: datetime


class UserPersonalitySettings(NamedTuple):
    """A row of `user_personality_settings`."""

    id: UUID
    user_id: UUID
    personality_id: UUID
    persona_id: UUID | None
    llm_config_id: UUID | None
    created_at: datetime
    updated_at: datetime


class HistoryRow(NamedTuple):
    """A row of `conversation_history`."""

    id: UUID
    channel_id: str
    personality_id: UUID
    user_id: UUID
    role: Role
    content: str
    created_at: datetime


class ActivatedChannel(NamedTuple):
    """A row of `activated_channels`."""

    id: UUID
    channel_id: str
    personality_id: UUID
    auto_respond: bool
    created_by: UUID | None
    created_at: datetime


class PendingMemory(NamedTuple):
    """A row of `pending_memories`."""

    id: UUID
    conversation_history_id: UUID
    persona_id: UUID
    personality_id: UUID
    personality_name: str | None
    text: str
    metadata: str
    created_at: datetime
    attempts: int
    last_attempt_at: datetime | None
    error: str | None
