"""Tests that the legacy schema applies to an empty database and has the names of the ORM."""

import re
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from memsync.demo.world import legacy_schema

PLAIN = {
    "users": "discord_id username global_persona_id",
    "personas": "name description content preferred_name pronouns owner_id is_global",
    "system_prompts": "name description content is_default",
    "llm_configs": "name description model vision_model temperature top_p frequency_penalty "
    "presence_penalty repetition_penalty memory_score_threshold top_k max_tokens memory_limit "
    "is_default",
    "personalities": "name display_name slug avatar_url system_prompt_id llm_config_id "
    "character_info personality_traits personality_tone personality_age personality_likes "
    "personality_dislikes conversational_goals conversational_examples custom_fields "
    "voice_settings image_settings voice_enabled image_enabled memory_enabled context_window_size",
    "user_personality_settings": "user_id personality_id persona_id llm_config_id",
}
COLUMNS = {name: f"id {columns} created_at updated_at" for name, columns in PLAIN.items()} | {
    "personality_owners": "personality_id user_id role created_at",
    "conversation_history": "id channel_id personality_id user_id role content created_at",
    "activated_channels": "id channel_id personality_id auto_respond created_by created_at",
    "pending_memories": "id conversation_history_id persona_id personality_id personality_name "
    "text metadata created_at attempts last_attempt_at error",
    "_prisma_migrations": "id checksum finished_at migration_name logs rolled_back_at started_at "
    "applied_steps_count",
}
INDEXES = """
users_discord_id_key users_discord_id_idx personas_owner_id_idx idx_personas_global
idx_system_prompts_default idx_llm_configs_default personalities_slug_key personalities_slug_idx
personality_owners_personality_id_idx personality_owners_user_id_idx
user_personality_settings_user_id_idx user_personality_settings_personality_id_idx
user_personality_settings_user_id_personality_id_key
conversation_history_channel_id_personality_id_created_at_idx conversation_history_user_id_idx
activated_channels_channel_id_personality_id_key pending_memories_conversation_history_id_key
pending_memories_persona_id_idx pending_memories_personality_id_idx pending_memories_created_at_idx
"""
FOREIGN_KEYS = """
users.global_persona_id>personas:n personas.owner_id>users:c
personalities.system_prompt_id>system_prompts:n personalities.llm_config_id>llm_configs:n
personality_owners.personality_id>personalities:c personality_owners.user_id>users:c
user_personality_settings.user_id>users:c user_personality_settings.personality_id>personalities:c
user_personality_settings.persona_id>personas:n
user_personality_settings.llm_config_id>llm_configs:n
conversation_history.personality_id>personalities:c conversation_history.user_id>users:c
activated_channels.personality_id>personalities:c activated_channels.created_by>users:n
pending_memories.conversation_history_id>conversation_history:c
"""


def asked(database: str, query: str) -> Any:
    with psycopg.connect(database, row_factory=tuple_row) as connection:
        connection.execute(legacy_schema().encode())
        return [
            [str(value) for value in row] for row in connection.execute(query.encode()).fetchall()
        ]


def test_every_table_has_its_columns_in_order(database: str) -> None:
    found = asked(
        database,
        """SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position)
        FROM information_schema.columns WHERE table_schema = 'public' GROUP BY 1""",
    )
    assert dict(found) == COLUMNS


def test_columns_have_the_types_and_defaults_of_the_orm(database: str) -> None:
    found = asked(
        database,
        """SELECT c.relname || '.' || a.attname,
               format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN '' ELSE '?' END
               || coalesce('=' || pg_get_expr(d.adbin, d.adrelid), '')
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relkind = 'r' AND a.attnum > 0 AND c.relnamespace = 'public'::regnamespace
        AND c.relname <> '_prisma_migrations'""",
    )
    types: dict[str, str] = dict(found)
    stamp = "timestamp(3) without time zone"
    for name, kind in types.items():
        column = name.partition(".")[2]
        if column == "created_at":
            assert f"{stamp}=CURRENT_TIMESTAMP" == kind, name
        elif column == "updated_at":
            assert stamp == kind, name
        elif column.endswith("id") and column not in ("discord_id", "channel_id"):
            assert kind in ("uuid", "uuid?"), name
    expected = {
        "users.discord_id": "character varying(20)",
        "users.global_persona_id": "uuid?",
        "personas.pronouns": "character varying(100)?",
        "personas.owner_id": "uuid?",
        "personas.is_global": "boolean=false",
        "llm_configs.top_p": "numeric(3,2)?",
        "personalities.custom_fields": "jsonb?",
        "personalities.personality_tone": "character varying(500)?",
        "personalities.memory_enabled": "boolean=true",
        "personalities.context_window_size": "integer=20",
        "personality_owners.role": "character varying(50)='owner'::character varying",
        "conversation_history.channel_id": "character varying(20)",
        "conversation_history.user_id": "uuid",
        "conversation_history.role": "character varying(20)",
        "conversation_history.content": "text",
        "pending_memories.last_attempt_at": f"{stamp}?",
        "pending_memories.metadata": "jsonb",
    }
    assert expected == {name: types[name] for name in expected}


def test_keys_and_indexes_have_the_names_of_the_orm(database: str) -> None:
    found = asked(
        database, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )
    keys = [f"{table}_pkey" for table in COLUMNS]
    assert sorted(keys + INDEXES.split()) == sorted(name for name, _ in found)
    definitions: dict[str, str] = dict(found)
    for name in INDEXES.split():
        assert name.endswith("_key") == ("UNIQUE" in definitions[name])
    history = definitions["conversation_history_channel_id_personality_id_created_at_idx"]
    assert history.endswith("(channel_id, personality_id, created_at DESC)")


def test_foreign_keys_have_the_names_and_actions_of_the_orm(database: str) -> None:
    found = asked(
        database,
        """SELECT c.conname, t.relname, a.attname, r.relname, c.confupdtype, c.confdeltype
        FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
        JOIN pg_class r ON r.oid = c.confrelid
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (c.conkey)
        WHERE c.contype = 'f'""",
    )
    keys = {f"{table}.{column}>{to}:{delete}" for _, table, column, to, _, delete in found}
    assert set(FOREIGN_KEYS.split()) == keys
    assert all(name == f"{table}_{column}_fkey" for name, table, column, *_ in found)
    assert {"c"} == {update for *_, update, _ in found}


def test_the_migration_history_is_one_that_the_orm_would_have_written(database: str) -> None:
    found = asked(
        database,
        """SELECT migration_name, checksum FROM _prisma_migrations
        WHERE finished_at > started_at AND rolled_back_at IS NULL ORDER BY started_at""",
    )
    names = [name for name, _ in found]
    assert sorted(set(names)) == names
    assert len(names) > 3
    assert names[-1] < "20251026163739"
    assert all(re.fullmatch(r"[0-9a-f]{64}", checksum) for _, checksum in found)


def test_no_identifier_is_cut_by_the_server() -> None:
    assert max(map(len, re.findall(r'"([^"]+)"', legacy_schema()))) <= 63
